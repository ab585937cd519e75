"""Weights of joint queries, chosen on validation; recall in smaller galleries."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from freestyle.evaluation.fusion import Weighted, fuse
from freestyle.evaluation.metrics import recall_at, recall_at_gallery_size
from freestyle.evaluation.ranks import first_relevant_ranks
from freestyle.evaluation.weights import fit_weights, simplex


def test_the_simplex_holds_all_tenths_that_sum_to_one():
    assert len(list(simplex(2))) == 9 and len(list(simplex(3))) == 36
    assert all(sum(w) == pytest.approx(1) and min(w) > 0 for w in simplex(3))


def test_equal_weights_order_as_the_zscored_sum_does():
    scores = [torch.randn(4, 9, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    assert torch.equal(
        fuse(scores, Weighted((0.5, 0.5))).argsort(1), fuse(scores, "zscore").argsort(1)
    )
    with pytest.raises(ValueError, match="3 terms"):
        fuse([*scores, scores[0]], Weighted((0.5, 0.5)))


def test_the_better_term_gets_the_greater_weight():
    draws = torch.Generator().manual_seed(0)
    gallery = F.normalize(torch.randn(60, 8, generator=draws), dim=1)
    noise = [torch.randn(60, 8, generator=draws) for _ in range(2)]
    good, bad = (
        F.normalize(gallery + s * n, dim=1) for s, n in zip((0.3, 1.2), noise, strict=True)
    )
    groups = np.arange(60)
    weights = fit_weights([good, bad], gallery, groups, groups)
    assert weights[0] > 0.5
    mine, equal = (
        first_relevant_ranks([good, bad], gallery, groups, groups, fusion=Weighted(w))
        for w in (weights, (0.5, 0.5))
    )
    assert recall_at(mine, 1) >= recall_at(equal, 1)


def test_recall_in_smaller_galleries_equals_the_mean_over_all_of_them():
    from itertools import combinations

    ranks, total, size = [1, 2, 4, 6], 6, 3
    for k in (1, 2):
        for rank, value in zip(ranks, recall_at_gallery_size(ranks, total, size, k), strict=True):
            others = [r for r in range(1, total + 1) if r != rank]
            hits = [sum(o < rank for o in c) < k for c in combinations(others, size - 1)]
            assert value == pytest.approx(np.mean(hits))


def test_the_whole_gallery_gives_recall_itself():
    ranks = [1, 1, 3, 7]
    assert recall_at_gallery_size(ranks, 10, 10).mean() == recall_at(ranks, 1)
    assert recall_at_gallery_size(ranks, 10, 1).tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="size 11"):
        recall_at_gallery_size(ranks, 10, 11)
