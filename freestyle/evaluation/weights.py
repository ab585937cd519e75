"""Weights of a joint query's terms, chosen on validation queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from freestyle.evaluation.fusion import Weighted
from freestyle.evaluation.metrics import mean_reciprocal_rank
from freestyle.evaluation.ranks import first_relevant_ranks

STEPS = 10  # weights are tenths
MOST = 1000  # queries they are chosen on


def fit_weights(
    terms: Sequence[Tensor],
    gallery: Tensor,
    query_groups: np.ndarray,
    gallery_groups: np.ndarray,
    *,
    seed: int = 0,
) -> tuple[float, ...]:
    """The weights, in tenths with sum 1, with the best mean reciprocal rank.

    Args:
        terms: T embeddings ``(Q, E)`` of validation queries, paired by position.
        gallery: Photos of the same split ``(G, E)``.
        query_groups: ``(Q,)``.
        gallery_groups: ``(G,)``.
        seed: Of the draw, where there are more than 1,000 queries.

    Returns:
        T weights. Of equally good ones, those nearest to equal weights.

    Raises:
        UserError: Nothing to rank.
    """
    rows = np.arange(len(query_groups))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MOST])
    picked = [term[torch.from_numpy(rows)] for term in terms]
    best: tuple[float, float] | None = None
    chosen: tuple[float, ...] = ()
    for weights in simplex(len(terms)):
        ranks = first_relevant_ranks(
            picked, gallery, query_groups[rows], gallery_groups, fusion=Weighted(weights)
        )
        spread = -sum((w - 1 / len(terms)) ** 2 for w in weights)
        value = (round(mean_reciprocal_rank(ranks), 6), spread)
        if best is None or value > best:
            best, chosen = value, weights
    return chosen


def simplex(terms: int) -> Iterator[tuple[float, ...]]:
    """All weights in tenths with sum 1 and no zero."""
    for parts in product(range(1, STEPS), repeat=terms - 1):
        rest = STEPS - sum(parts)
        if rest >= 1:
            yield (*(p / STEPS for p in parts), rest / STEPS)
