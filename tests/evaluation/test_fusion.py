import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freestyle.errors import UserError
from freestyle.evaluation.fusion import DEFAULT_FUSION, FUSIONS, Fusion, fuse, get_fusion
from freestyle.evaluation.ranks import first_relevant_ranks, top_k

RULES = ["zscore", "max-softmax", "sum", "reciprocal-rank"]


def test_the_rules():
    assert set(FUSIONS) == set(RULES)
    assert DEFAULT_FUSION == "zscore"
    with pytest.raises(UserError, match="unknown fusion rule 'mean': use one of zscore"):
        get_fusion("mean")


def test_by_hand():
    a, b = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[2.0, 4.0, 6.0]])
    assert fuse([a, b], "sum").tolist() == [[3.0, 4.0, 5.0]]
    # Both have sd = spread * sqrt(2/3), so their standardised scores cancel.
    torch.testing.assert_close(fuse([a, b], "zscore"), torch.zeros(1, 3, dtype=torch.double))
    # Ranks 1, 2, 3 and 3, 2, 1.
    expected = [1 / 61 + 1 / 63, 2 / 62, 1 / 63 + 1 / 61]
    np.testing.assert_allclose(fuse([a, b], "reciprocal-rank")[0], expected)
    # Softmax of b: 0.0159, 0.117, 0.867; of a: 0.665, 0.245, 0.090: the largest are 3rd, 1st, 2nd.
    assert fuse([a, b], "max-softmax").argsort(descending=True).tolist() == [[2, 0, 1]]


def test_zscore_ignores_a_term_that_says_nothing():
    a, flat = torch.tensor([[0.1, 0.2, 0.4]]), torch.full((1, 3), 0.3)
    torch.testing.assert_close(fuse([a, flat], "zscore"), fuse([a], "zscore"))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("memory", [60_000, 2**28])
def test_ranks_equal_the_slow_reference(reference, unit, rule, memory):
    gallery = unit(120, 16)
    terms = [unit(30, 16, seed=s) + 0.7 * s * gallery[:30] for s in (1, 2)]
    asked, offered = np.arange(30) % 25, np.arange(120) % 25
    matrices = [reference.score_matrix(term, gallery) for term in terms]
    joined = reference.joined(matrices, rule)
    if rule == "reciprocal-rank":  # equal sums of reciprocals, added in another order
        joined = joined.round(12)
    expected = reference.rank_of_first(joined, asked, offered)
    fast = first_relevant_ranks(terms, gallery, asked, offered, fusion=rule, memory=memory)
    np.testing.assert_array_equal(fast.values, expected)
    torch.testing.assert_close(
        fuse([torch.from_numpy(m) for m in matrices], rule).argsort(dim=1, descending=True)[:, 0],
        torch.from_numpy(joined).argsort(dim=1, descending=True)[:, 0],
    )


@settings(deadline=None, max_examples=60)
@given(
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 10_000),
    n_terms=st.integers(2, 4),
    memory=st.sampled_from([30_000, 45_000, 80_000, 200_000]),
)
def test_chunks_do_not_change_anything(unit, rule, seed, n_terms, memory):
    gallery = unit(60, 8, seed=seed).half().repeat(2, 1)  # each photo twice
    terms = [unit(20, 8, seed=seed + 1 + t).half() for t in range(n_terms)]
    groups = np.arange(20), np.arange(120) % 40
    one = first_relevant_ranks(terms, gallery, *groups, fusion=rule)
    two = first_relevant_ranks(terms, gallery, *groups, fusion=rule, memory=memory)
    np.testing.assert_array_equal(one.values, two.values)
    best = [top_k(terms, gallery, 7, fusion=rule, memory=m) for m in (2**28, memory)]
    np.testing.assert_array_equal(best[0][0], best[1][0])
    np.testing.assert_allclose(best[0][1], best[1][1], rtol=1e-6, atol=1e-6)


def test_one_term_ranks_by_cosine_under_every_rule(unit):
    queries, gallery = unit(20, 8), unit(50, 8, seed=1)
    groups = np.arange(20), np.arange(50)
    plain = first_relevant_ranks(queries, gallery, *groups).values
    for rule in RULES:
        ranks = first_relevant_ranks([queries], gallery, *groups, fusion=rule)
        np.testing.assert_array_equal(ranks.values, plain)


def test_a_rule_of_ones_own_and_nan(unit):
    class Broken(Fusion):
        name = "broken"

        def combine(self, scores, state):
            return scores[0] * float("nan")

    x = unit(3, 4)
    with pytest.raises(ValueError, match="'broken' gave scores that are NaN"):
        first_relevant_ranks([x, x], x, [0, 1, 2], [0, 1, 2], fusion=Broken())
