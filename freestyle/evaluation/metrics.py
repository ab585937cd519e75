"""Retrieval metrics from ranks, and bootstrap intervals over queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from freestyle.evaluation.ranks import Ranks

RESAMPLES = 10_000
_CELLS = 4_000_000  # most resampled numbers held at once
_FEW = 64  # up to so many distinct values, drawing their counts is faster


def hits_at(ranks: Ranks | ArrayLike, k: int) -> np.ndarray:
    """Whether each query's first relevant photo is among the first k.

    Args:
        ranks: 1-based ranks ``(Q,)``.
        k: Length of the list, at least 1.

    Returns:
        ``(Q,)`` float64, 1.0 for a hit and 0.0 for a miss.

    Raises:
        ValueError: No ranks, ranks below 1, or ``k < 1``.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return (_check(ranks) <= k).astype(np.float64)


def recall_at(ranks: Ranks | ArrayLike, k: int) -> float:
    """Recall@k: the share of queries with a relevant photo among the first k, in [0, 1].

    Args:
        ranks: 1-based ranks ``(Q,)``.
        k: Length of the list, at least 1.

    Raises:
        ValueError: No ranks, ranks below 1, or ``k < 1``.

    Example:
        >>> recall_at([1, 2, 3, 8], 2)
        0.5
    """
    return float(hits_at(ranks, k).mean())


def mean_reciprocal_rank(ranks: Ranks | ArrayLike) -> float:
    """Mean of 1 / rank of the first relevant photo, in (0, 1].

    Args:
        ranks: 1-based ranks ``(Q,)``.

    Raises:
        ValueError: No ranks, or ranks below 1.

    Example:
        >>> mean_reciprocal_rank([1, 2, 4, 4])
        0.5
    """
    return float((1.0 / _check(ranks)).mean())


def median_rank(ranks: Ranks | ArrayLike) -> float:
    """Median rank, 1 at best; the mean of the middle two for an even number of queries.

    Args:
        ranks: 1-based ranks ``(Q,)``.

    Raises:
        ValueError: No ranks, or ranks below 1.

    Example:
        >>> median_rank([1, 2, 5, 9])
        3.5
    """
    return float(np.median(_check(ranks)))


def average_precision_at(relevant: ArrayLike, n_relevant: ArrayLike, k: int) -> np.ndarray:
    """AP@K of each query: ``sum_{i<=K} P(i) rel(i) / min(n_relevant, K)``.

    ``P(i)`` is the precision among the first i results, ``rel(i)`` is 1 where result i is relevant.
    The denominator is the best that K results can hold, so a perfect list scores 1 (CIRCO's
    definition).

    Args:
        relevant: Relevance of the first results, best first, ``(Q, L)``; results beyond L count as
            not relevant, those beyond K are ignored.
        n_relevant: Number of relevant photos in the whole gallery, ``(Q,)``, at least 1.
        k: K.

    Returns:
        ``(Q,)`` float64 in [0, 1].

    Raises:
        ValueError: ``k < 1``, no queries, shapes that do not fit, or a query without relevant
            photo.

    Example:
        >>> average_precision_at([[True, False, True]], [2], 3)  # (1/1 + 2/3) / 2
        array([0.83333333])
    """
    hits = np.asarray(relevant, dtype=bool)
    counts = np.asarray(n_relevant)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if hits.ndim != 2 or not len(hits) or counts.shape != hits.shape[:1]:
        raise ValueError(f"expected (Q, L) and (Q,), got {hits.shape} and {counts.shape}")
    if (counts < 1).any():
        raise ValueError("every query needs at least one relevant photo")
    hits = hits[:, :k].astype(np.float64)  # (Q, K)
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return (precision * hits).sum(axis=1) / np.minimum(counts, k)


def mean_average_precision_at(relevant: ArrayLike, n_relevant: ArrayLike, k: int) -> float:
    """mAP@K: the mean of :func:`average_precision_at` over the queries, in [0, 1].

    Args:
        relevant: Relevance of the first results, best first, ``(Q, L)``.
        n_relevant: Number of relevant photos in the whole gallery, ``(Q,)``, at least 1.
        k: K.

    Raises:
        ValueError: As for :func:`average_precision_at`.
    """
    return float(average_precision_at(relevant, n_relevant, k).mean())


def recall_at_gallery_size(
    ranks: Ranks | ArrayLike, gallery_size: int, size: int, k: int = 1
) -> np.ndarray:
    """Recall@K of each query in random smaller galleries that hold its photo, exactly.

    A query at rank r has r - 1 better photos among the other G - 1. Of n - 1 others drawn without
    replacement, the number of better ones is hypergeometric; the query is found when at most K - 1
    of them are. No gallery is drawn, so there is no noise from drawing.

    Args:
        ranks: 1-based ranks ``(Q,)`` in the whole gallery, one relevant photo each.
        gallery_size: G.
        size: n, in [1, G].
        k: K.

    Returns:
        ``(Q,)`` expected hits in [0, 1].

    Raises:
        ValueError: Sizes out of range.

    Example:
        >>> recall_at_gallery_size([1, 2], 3, 2).tolist()  # the better of two others comes or not
        [1.0, 0.5]
    """
    from scipy.stats import hypergeom

    values = _check(ranks)
    if not 1 <= size <= gallery_size or values.max() > gallery_size or k < 1:
        raise ValueError(f"size {size} and ranks must lie in [1, {gallery_size}], k in [1, ...)")
    better = values - 1
    return np.asarray(hypergeom.cdf(k - 1, gallery_size - 1, better, size - 1), dtype=np.float64)


def bootstrap_interval(
    values: ArrayLike, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over queries.

    Args:
        values: One number per query ``(Q,)``: hits for recall, reciprocal ranks for MRR, ...
        level: Coverage in (0, 1).
        resamples: How many times Q queries are drawn with replacement.
        seed: Seed of the draws.

    Returns:
        Lower and upper end, in the unit of the values.

    Raises:
        ValueError: No values, values that are not finite, or settings out of range.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not sample.size or not np.isfinite(sample).all():
        raise ValueError(f"expected finite values (Q,), got shape {sample.shape}")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level must be in (0, 1) and resamples >= 1: {level}, {resamples}")
    rng = np.random.default_rng(seed)
    distinct, counts = np.unique(sample, return_counts=True)
    few = len(distinct) <= _FEW
    chunk = max(1, _CELLS // (len(distinct) if few else len(sample)))
    means = []
    for done in range(0, resamples, chunk):
        size = min(chunk, resamples - done)
        if few:  # Q draws among Q queries are Q draws among the distinct values by frequency
            drawn = rng.multinomial(len(sample), counts / len(sample), size=size)
            means.append(drawn @ distinct / len(sample))
        else:
            means.append(sample[rng.integers(0, len(sample), (size, len(sample)))].mean(axis=1))
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return float(low), float(high)


class Difference(NamedTuple):
    """A mean difference with its interval.

    Attributes:
        mean: Mean of a - b.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def paired_bootstrap_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """How much better a is than b on the same queries, with a percentile bootstrap interval.

    Queries are resampled, and both methods keep their values on each, so what makes a query hard
    cancels. Leading axes are averaged before: ``(styles, Q)`` gives the difference of the mean over
    styles ("mean R@1"), paired by query across them; ``(seeds, styles, Q)`` averages over both.

    Args:
        a: Values of the first method, for instance :func:`hits_at`, ``(..., Q)``.
        b: Values of the second method on the same queries; the same shape.
        level: Coverage in (0, 1).
        resamples: How many times Q queries are drawn with replacement.
        seed: Seed of the draws.

    Returns:
        Mean of a - b, lower and upper end.

    Raises:
        ValueError: Shapes that differ, no values, or values that are not finite.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or not first.ndim or not first.size:
        raise ValueError(
            f"paired values need the same non-empty shape, got {first.shape} and {second.shape}"
        )
    # One number per query; rounding joins values that are equal but for the order of a sum.
    difference = (first - second).reshape(-1, first.shape[-1]).mean(axis=0).round(12)
    low, high = bootstrap_interval(difference, level=level, resamples=resamples, seed=seed)
    return Difference(float(difference.mean()), low, high)


def _check(ranks: Ranks | ArrayLike) -> np.ndarray:
    values = np.asarray(ranks)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"expected at least one rank, got shape {values.shape}")
    if values.min() < 1:
        raise ValueError(f"ranks are 1-based, got {values.min()}")
    return values
