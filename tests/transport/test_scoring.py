"""Sets against galleries: chunks, memory and padding change no score."""

import pytest
import torch
import torch.nn.functional as F

from freestyle.errors import UserError
from freestyle.transport.scoring import DISTANCES, SetDistance, score_candidates, score_sets


def sets(seed, count, size, width=16):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, size, width, generator=generator), dim=-1)


def uneven(seed, count, size):
    values = torch.rand(count, size, generator=torch.Generator().manual_seed(seed))
    values[:, -1] *= (torch.arange(count) % 2).float()  # every other set has one element less
    return values


@pytest.mark.parametrize("name", DISTANCES)
def test_equals_the_distance_on_the_full_tensor(name):
    queries, candidates = sets(0, 5, 3), sets(1, 300, 4)
    p, q = uneven(2, 5, 3), uneven(3, 300, 4)
    distance = SetDistance(name, 0.1)
    expected = distance(torch.einsum("qke,gme->qgkm", queries, candidates), p[:, None], q[None])
    small = score_sets(
        queries, candidates, distance, query_weights=p, candidate_weights=q, memory=20_000
    )
    near = 1e-3 if name == "sinkhorn" else 1e-5  # stops when all of a batch are near enough
    assert small.shape == (5, 300)
    assert torch.allclose(small, expected, atol=near)
    whole = score_sets(queries, candidates, distance, query_weights=p, candidate_weights=q)
    assert torch.allclose(whole, expected, atol=near)


def test_single_is_the_cosine_of_the_first_elements():
    queries, candidates = sets(0, 2, 3), sets(1, 5, 4)
    found = score_sets(queries, candidates, SetDistance("single"))
    assert torch.allclose(found, queries[:, 0] @ candidates[:, 0].T - 1, atol=1e-6)


def test_own_candidates_score_as_in_the_whole_gallery():
    queries, gallery = sets(0, 4, 3), sets(1, 50, 5)
    p, q = uneven(2, 4, 3), uneven(3, 50, 5)
    positions = torch.stack([torch.randperm(50)[:20] for _ in range(4)])
    every = score_sets(queries, gallery, query_weights=p, candidate_weights=q)
    found = score_candidates(
        queries, gallery, positions, query_weights=p, gallery_weights=q, memory=40_000
    )
    assert torch.allclose(found, every.gather(1, positions), atol=1e-6)
    half = score_candidates(queries, gallery.half(), positions, query_weights=p, gallery_weights=q)
    assert torch.allclose(half, found, atol=5e-3)


def test_gradients_reach_queries_and_candidates():
    queries, candidates = sets(0, 2, 3).requires_grad_(), sets(1, 6, 4).requires_grad_()
    score_sets(queries, candidates).sum().backward()
    assert queries.grad.abs().sum() > 0 and candidates.grad.abs().sum() > 0


def test_nothing_to_score_is_an_empty_matrix():
    assert score_sets(sets(0, 0, 3), sets(1, 5, 4)).shape == (0, 5)
    assert score_sets(sets(0, 2, 3), sets(1, 0, 4)).shape == (2, 0)
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert score_candidates(sets(0, 2, 3), sets(1, 5, 4), none).shape == (2, 0)


def test_refusals(refusal):
    assert "hausdorff" in refusal(SetDistance, "hausdorff")
    assert "temperature" in refusal(SetDistance, temperature=0.0)
    assert "mix" in refusal(SetDistance, mix=2.0)
    with pytest.raises(UserError, match="memory"):
        score_sets(sets(0, 2, 3), sets(1, 5, 4), memory=10)
    with pytest.raises(ValueError, match="expected sets"):
        score_sets(sets(0, 2, 3)[0], sets(1, 5, 4))
    with pytest.raises(ValueError, match="positions"):
        score_candidates(sets(0, 2, 3), sets(1, 5, 4), torch.tensor([[5], [0]]))
