import doctest
import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freestyle.errors import UserError
from freestyle.evaluation import chunks
from freestyle.evaluation.ranks import Ranks, first_relevant_ranks, top_k, top_relevance


@st.composite
def problems(draw):
    """Coarse embeddings, so that many scores tie, and groups with several photos each."""
    n_q, n_g, width = draw(st.integers(1, 9)), draw(st.integers(1, 14)), draw(st.integers(1, 4))
    numbers = st.integers(-2, 2)
    queries = [[draw(numbers) / 2 for _ in range(width)] for _ in range(n_q)]
    gallery = [[draw(numbers) / 2 for _ in range(width)] for _ in range(n_g)]
    offered = [draw(st.integers(0, 5)) for _ in range(n_g)]
    asked = [draw(st.sampled_from(offered)) for _ in range(n_q)]
    return torch.tensor(queries), torch.tensor(gallery), np.array(asked), np.array(offered)


SMALL = 3_000  # bytes: tiles of a few scores


def test_by_hand():
    gallery = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    query = torch.tensor([[1.0, 0.0]] * 3)  # scores 1.0, 0.6, 0.0
    ranks = first_relevant_ranks(query, gallery, [0, 1, 2], [0, 1, 2])
    assert ranks.values.tolist() == [1, 2, 3]
    assert ranks.candidates == 3
    # Groups 7, 8, 8: the better of the two photos of group 8 stands second.
    assert first_relevant_ranks(query[:1], gallery, [8], [7, 8, 8]).values.tolist() == [2]


def test_a_constant_embedding_gets_the_worst_rank(unit):
    same = unit(1, 16).expand(50, 16)
    ranks = first_relevant_ranks(same, same, np.arange(50), np.arange(50))
    assert (ranks.values == 50).all()


def test_several_relevant_photos_do_not_count_against_each_other():
    gallery = torch.ones(4, 2)
    assert first_relevant_ranks(gallery[:1], gallery, [1], [1, 1, 1, 0]).values.tolist() == [2]
    assert first_relevant_ranks(gallery[:1], gallery, [1], [1, 1, 1, 1]).values.tolist() == [1]


@settings(deadline=None, max_examples=150)
@given(problems(), st.sampled_from([SMALL, 10_000, 2**28]))
def test_equals_the_slow_reference(reference, problem, memory):
    queries, gallery, asked, offered = problem
    scores = reference.score_matrix(queries, gallery)
    fast = first_relevant_ranks(queries, gallery, asked, offered, memory=memory)
    np.testing.assert_array_equal(fast.values, reference.rank_of_first(scores, asked, offered))


@settings(deadline=None, max_examples=60)
@given(problems(), st.randoms(use_true_random=False))
def test_order_of_the_gallery_does_not_matter(problem, random):
    queries, gallery, asked, offered = problem
    order = list(range(len(gallery)))
    random.shuffle(order)
    one = first_relevant_ranks(queries, gallery, asked, offered)
    two = first_relevant_ranks(queries, gallery[order], asked, offered[order], memory=SMALL)
    np.testing.assert_array_equal(one.values, two.values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("memory", [60_000, 400_000, 2**28])
def test_low_precision_and_duplicates(reference, unit, dtype, memory):
    """Every photo is there three times: copies in other chunks must tie to the last bit."""
    gallery = unit(40, 96, dtype=dtype).repeat(3, 1)
    queries = unit(40, 96, seed=1, dtype=dtype) + gallery[:40]
    asked, offered = np.arange(40), np.arange(120)
    scores = reference.score_matrix(queries.double().numpy(), gallery.double().numpy())
    fast = first_relevant_ranks(queries, gallery, asked, offered, memory=memory)
    np.testing.assert_array_equal(fast.values, reference.rank_of_first(scores, asked, offered))
    assert (fast.values % 3 == 0).all()


def test_half_precision_is_not_summed_in_half_precision():
    """The second photo is better by 2**-13, which a float16 sum loses."""
    gallery = torch.tensor([[1.0, 0.0], [1.0, 2**-13]], dtype=torch.float16)
    queries = torch.tensor([[1.0, 1.0]], dtype=torch.float16)
    assert first_relevant_ranks(queries, gallery, [1], [0, 1]).values.tolist() == [1]


def test_tiles_stay_within_the_memory(unit, monkeypatch):
    seen = []
    original = chunks.Block._term_scores

    def spy(self, columns):
        scores = original(self, columns)
        seen.append(tuple(scores[0].shape))
        return scores

    monkeypatch.setattr(chunks.Block, "_term_scores", spy)
    queries, gallery = unit(70, 32), unit(3_000, 32, seed=1)
    groups = np.arange(70), np.arange(3_000) % 100
    whole = first_relevant_ranks(queries, gallery, *groups)
    seen.clear()
    memory = 200_000
    parts = first_relevant_ranks(queries, gallery, *groups, memory=memory)
    np.testing.assert_array_equal(whole.values, parts.values)
    assert len(seen) > 10
    assert max(q * g for q, g in seen) * 8 + max(g for _, g in seen) * 32 * 8 < memory


@pytest.mark.parametrize("fusion", ["zscore", "max-softmax", "sum", "reciprocal-rank"])
def test_allocations_stay_within_the_memory(unit, fusion):
    """What torch really allocates, measured; a full matrix would take 2.4 MB per float32 copy."""
    queries, gallery = [unit(200, 32), unit(200, 32, seed=2)], unit(3_000, 32, seed=1)
    memory = 1_000_000
    with torch.profiler.profile(profile_memory=True) as profile:
        first_relevant_ranks(
            queries, gallery, np.arange(200), np.arange(3_000), fusion=fusion, memory=memory
        )
    changes = [
        (event.start_ns(), event.nbytes())
        for event in profile.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    assert changes
    held = np.cumsum([n for _, n in sorted(changes)])
    assert held.max() <= memory


@settings(deadline=None, max_examples=100)
@given(problems(), st.integers(1, 16), st.sampled_from([SMALL, 2**28]))
def test_top_k_equals_a_stable_sort(reference, problem, k, memory):
    queries, gallery, asked, offered = problem
    scores = reference.score_matrix(queries, gallery)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    indices, values = top_k(queries, gallery, k, memory=memory)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, expected, axis=1))
    assert values.dtype == np.float32

    relevant, counts = top_relevance(queries, gallery, asked, offered, k, memory=memory)
    for q, group in enumerate(asked):
        order = sorted(
            range(len(gallery)), key=lambda j: (-float(scores[q, j]), offered[j] == group)
        )
        assert relevant[q].tolist() == [offered[j] == group for j in order[:k]]
        assert counts[q] == (offered == group).sum()


def test_top_k_of_negative_scores_and_both_zeros():
    gallery = torch.tensor([[-1.0], [-0.5], [-0.0], [0.0], [0.25]])
    indices, values = top_k(torch.tensor([[1.0]]), gallery, 9)
    assert indices.tolist() == [[4, 2, 3, 1, 0]]
    assert values.tolist() == [[0.25, 0.0, 0.0, -0.5, -1.0]]


def test_top_1_agrees_with_the_ranks(unit):
    queries, gallery = unit(60, 8), unit(300, 8, seed=1)
    ranks = first_relevant_ranks(queries, gallery, np.arange(60), np.arange(300)).values
    indices, _ = top_k(queries, gallery, 5)
    np.testing.assert_array_equal((indices == np.arange(60)[:, None]).any(axis=1), ranks <= 5)


def test_a_query_without_photo_is_an_error_that_names_it(unit):
    with pytest.raises(UserError, match=r"'1f600' \(group 9\) has no relevant photo"):
        first_relevant_ranks(unit(2, 4), unit(3, 4), [0, 9], [0, 1, 2], query_ids=["263a", "1f600"])
    with pytest.raises(UserError, match="query number 1"):
        top_relevance(unit(2, 4), unit(3, 4), [0, 9], [0, 1, 2], 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_embeddings_that_are_not_finite_are_refused(unit, value):
    good, bad = unit(3, 4), unit(3, 4)
    bad[1, 2] = value
    with pytest.raises(ValueError, match="query term 0: embedding 1"):
        first_relevant_ranks(bad, good, [0, 1, 2], [0, 1, 2])
    with pytest.raises(ValueError, match="gallery: embedding 1"):
        first_relevant_ranks(good, bad, [0, 1, 2], [0, 1, 2])


def test_bad_input(unit):
    x = unit(3, 4)
    with pytest.raises(UserError, match="no queries"):
        first_relevant_ranks(x[:0], x, [], [0, 1, 2])
    with pytest.raises(UserError, match="gallery is empty"):
        first_relevant_ranks(x, x[:0], [0, 1, 2], [])
    with pytest.raises(ValueError, match=r"expected \(Q, E\)"):
        first_relevant_ranks(x, unit(3, 5), [0, 1, 2], [0, 1, 2])
    with pytest.raises(ValueError, match="pair by position"):
        first_relevant_ranks([x, x[:2]], x, [0, 1, 2], [0, 1, 2])
    with pytest.raises(ValueError, match="query_groups: expected 3 integers"):
        first_relevant_ranks(x, x, [0.0, 1.0, 2.0], [0, 1, 2])
    with pytest.raises(UserError, match="memory=10 bytes cannot hold"):
        first_relevant_ranks(x, x, [0, 1, 2], [0, 1, 2], memory=10)
    with pytest.raises(ValueError, match="k must be at least 1"):
        top_k(x, x, 0)
    with pytest.raises(ValueError, match="together"):
        top_k(x, x, 1, query_groups=[0, 1, 2])
    with pytest.raises(ValueError, match="expected a float type"):
        top_k(x.int(), x, 1)


def test_ranks_check_themselves():
    assert np.asarray(Ranks(np.array([1, 3]), 3)).tolist() == [1, 3]
    for values, candidates in (([0, 1], 3), ([1, 4], 3), ([], 3), ([1.0], 3), ([[1]], 3)):
        with pytest.raises(ValueError, match="ranks must"):
            Ranks(np.array(values), candidates)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("fusion", ["zscore", "max-softmax", "sum", "reciprocal-rank"])
def test_the_gpu_ranks_like_the_cpu_even_with_tf32_on(unit, monkeypatch, fusion):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    gallery = unit(500, 256).repeat(2, 1)
    terms = [unit(100, 256, seed=s) + gallery[:100] for s in (1, 2)]
    groups, options = (np.arange(100), np.arange(1000)), {"fusion": fusion, "memory": 2_000_000}
    cpu = first_relevant_ranks(terms, gallery, *groups, **options)
    gpu = first_relevant_ranks(terms, gallery, *groups, **options, device="cuda")
    np.testing.assert_array_equal(cpu.values, gpu.values)
    best = [top_k(terms, g, 9, fusion=fusion)[0] for g in (gallery, gallery.cuda())]
    np.testing.assert_array_equal(*best)


@pytest.mark.parametrize("module", ["ranks", "metrics", "protocols"])
def test_docstring_examples(module):
    result = doctest.testmod(importlib.import_module(f"freestyle.evaluation.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
