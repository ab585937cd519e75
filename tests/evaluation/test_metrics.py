import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freestyle.evaluation.metrics import (
    average_precision_at,
    bootstrap_interval,
    hits_at,
    mean_average_precision_at,
    mean_reciprocal_rank,
    median_rank,
    paired_bootstrap_difference,
    recall_at,
)
from freestyle.evaluation.ranks import Ranks


def test_by_hand():
    ranks = Ranks(np.array([1, 2, 5, 10, 11]), 20)
    assert [recall_at(ranks, k) for k in (1, 2, 4, 5, 10, 20)] == [0.2, 0.4, 0.4, 0.6, 0.8, 1.0]
    assert mean_reciprocal_rank(ranks) == pytest.approx((1 + 1 / 2 + 1 / 5 + 1 / 10 + 1 / 11) / 5)
    assert median_rank(ranks) == 5
    assert median_rank([1, 4]) == 2.5
    assert hits_at(ranks, 5).tolist() == [1, 1, 1, 0, 0]


def test_average_precision_by_hand():
    # 3 relevant photos, K = 2: the best list holds 2 of them.
    assert average_precision_at([[1, 1], [0, 1], [0, 0]], [3, 3, 3], 2).tolist() == [1, 0.25, 0]
    # 1 relevant photo at rank 3.
    assert mean_average_precision_at([[0, 0, 1, 0]], [1], 4) == pytest.approx(1 / 3)
    # A gallery of 2 photos, K = 5.
    assert average_precision_at([[0, 1]], [1], 5).tolist() == [0.5]


@given(
    st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5),
    st.integers(1, 8),
    st.integers(0, 4),
)
def test_average_precision_equals_the_loop(reference, lists, k, more):
    counts = [max(1, sum(x)) + more for x in lists]
    expected = [reference.average_precision(x, n, k) for x, n in zip(lists, counts, strict=True)]
    np.testing.assert_allclose(average_precision_at(lists, counts, k), expected)


def test_bad_input():
    for ranks in ([], [[1]], [0, 1]):
        with pytest.raises(ValueError, match="rank"):
            recall_at(ranks, 1)
    with pytest.raises(ValueError, match="k must"):
        recall_at([1], 0)
    with pytest.raises(ValueError, match="at least one relevant"):
        average_precision_at([[1]], [0], 1)
    with pytest.raises(ValueError, match="expected"):
        average_precision_at([[1]], [1, 1], 1)
    for values in ([], [1.0, float("nan")], [[1.0]]):
        with pytest.raises(ValueError, match="finite values"):
            bootstrap_interval(values)
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval([1.0], level=1.0)
    with pytest.raises(ValueError, match="same non-empty shape"):
        paired_bootstrap_difference([1.0], [1.0, 2.0])


def test_interval_against_scipy_free_theory():
    """For hits the resampled mean is binomial: its 2.5 and 97.5 percentiles are known."""
    hits = np.r_[np.ones(40), np.zeros(60)]
    low, high = bootstrap_interval(hits)
    assert low == pytest.approx(0.31, abs=0.0101)  # binom(100, 0.4).ppf(0.025) = 31
    assert high == pytest.approx(0.50, abs=0.0101)  # ppf(0.975) = 50


def test_interval_against_plain_resampling():
    values = np.random.default_rng(1).exponential(size=200)
    rng = np.random.default_rng(2)
    means = [values[rng.integers(0, 200, 200)].mean() for _ in range(4000)]
    np.testing.assert_allclose(
        bootstrap_interval(values), np.percentile(means, [2.5, 97.5]), atol=0.015
    )


def test_interval_is_seeded_and_degenerate_where_it_must_be():
    values = np.arange(30) % 2
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
    assert bootstrap_interval(np.ones(7)) == (1.0, 1.0)
    assert bootstrap_interval([0.25]) == (0.25, 0.25)
    narrow, wide = bootstrap_interval(values, level=0.5), bootstrap_interval(values)
    assert wide[0] < narrow[0] <= narrow[1] < wide[1]


def test_paired_difference():
    rng = np.random.default_rng(0)
    b = (rng.random(400) < 0.5).astype(float)
    a = b.copy()
    a[np.flatnonzero(b == 0)[:20]] = 1  # a hits 20 queries more, and loses none
    mean, low, high = paired_bootstrap_difference(a, b)
    assert mean == pytest.approx(0.05)
    assert 0.02 < low < 0.05 < high < 0.08
    assert paired_bootstrap_difference(a, b).excludes_zero
    # The methods' own intervals overlap: the pairing is what makes it visible.
    assert bootstrap_interval(a)[0] < bootstrap_interval(b)[1]
    assert paired_bootstrap_difference(b, a).mean == pytest.approx(-0.05)
    assert not paired_bootstrap_difference(a, a).excludes_zero


def test_paired_difference_of_a_mean_over_styles():
    a = np.array([[1, 0, 1, 1], [1, 1, 0, 0], [1, 0, 0, 1]])
    b = np.array([[0, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
    difference = paired_bootstrap_difference(a, b)
    assert difference.mean == pytest.approx((a.mean(axis=1) - b.mean(axis=1)).mean())
    per_query = (a - b).mean(axis=0)
    assert difference[1:] == pytest.approx(bootstrap_interval(per_query))
    assert paired_bootstrap_difference(a[None], b[None]) == difference
