"""Scores of a query's parts against photos, in plain NumPy: the second stage of a search.

A photo is a vector and a set of views, a part of a query a row and a set (a picture's row; a text's
row and those of its phrases; a stored photo's own views). Their score is

    (1 - share) * <row, completed vector>  +  share * (1 - conditional transport of the sets)

Both terms lie on the scale of cosines. The completed vector carries a calibration's columns; views
have none. The transport is that of :mod:`freestyle.transport.distance` (Zheng and Zhou, NeurIPS
2021, arXiv 2012.14100; STiTch, arXiv 2605.21261, equations 5 to 7), without torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freestyle.errors import UserError

TEMPERATURE = 0.05
MIX = 0.5
SHARE = 0.1
"""Chosen on DSR-Emoji's validation split by ``benchmarks/rerank.py``: a picture of one thing gains
nothing from sets, and this much of them takes nothing away."""


@dataclass(frozen=True)
class SetScoring:
    """How much sets count, and how they are compared.

    Attributes:
        share: Of the set score beside the pooled one, in [0, 1]; 0 reads no sets.
        temperature: Of the transport, above 0.
        mix: Share of the direction from query to photo, in [0, 1].

    Raises:
        UserError: If a setting cannot be used.
    """

    share: float = SHARE
    temperature: float = TEMPERATURE
    mix: float = MIX

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UserError(f"the share of set scores is {self.share}: use a number in [0, 1]")
        if not self.temperature > 0:
            raise UserError(f"temperature is {self.temperature}: use a number above 0")
        if not 0 <= self.mix <= 1:
            raise UserError(f"mix is {self.mix}: use a number in [0, 1]")


@dataclass(frozen=True, eq=False)
class Asked:
    """One embedded part of a query.

    Attributes:
        row: ``(E + C,)`` float32; its inner product with a completed vector is the pooled score.
        elements: The part's set ``(K, E)`` float32, unit norm, the whole first.
    """

    row: np.ndarray
    elements: np.ndarray


@dataclass(frozen=True, eq=False)
class Photos:
    """N photos, ready to be scored.

    Attributes:
        vectors: ``(N, E + C)`` float32, completed.
        atoms: ``(N, M, E)``, any float type; None where no sets are kept.
    """

    vectors: np.ndarray
    atoms: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: np.ndarray) -> Photos:
        """The photos at these positions."""
        return Photos(self.vectors[rows], None if self.atoms is None else self.atoms[rows])


def score_parts(parts: list[Asked], photos: Photos, scoring: SetScoring) -> np.ndarray:
    """Scores ``(P, N)`` float32 of P parts against N photos, higher is better."""
    rows = np.stack([part.row for part in parts])  # (P, E + C)
    pooled = rows @ photos.vectors.T  # (P, N)
    if photos.atoms is None or scoring.share == 0 or not len(photos):
        return pooled
    n, m, width = photos.atoms.shape
    flat = photos.atoms.astype(np.float32, copy=False).reshape(n * m, width)
    elements = np.concatenate([part.elements for part in parts])  # (sum of K, E)
    cosines = (elements @ flat.T).reshape(len(elements), n, m)
    scores, start = np.empty_like(pooled), 0
    for number, part in enumerate(parts):
        stop = start + len(part.elements)
        # photos side by side in memory: sums over the few elements of a set are then fast
        own = np.ascontiguousarray(cosines[start:stop].transpose(0, 2, 1))  # (K, M, N)
        own = own.transpose(2, 0, 1)  # (N, K, M)
        cost = conditional_transport(own, temperature=scoring.temperature, mix=scoring.mix)
        scores[number] = (1 - scoring.share) * pooled[number] + scoring.share * (1 + cost)
        start = stop
    return scores


def conditional_transport(
    similarity: np.ndarray,
    query_weights: np.ndarray | None = None,
    candidate_weights: np.ndarray | None = None,
    temperature: float = TEMPERATURE,
    mix: float = MIX,
) -> np.ndarray:
    """Bidirectional conditional transport; :func:`freestyle.transport.distance` has the formulas.

    Args:
        similarity: Cosines in [-1, 1], ``(..., K, M)``, computed in at least float32.
        query_weights: At least 0, broadcastable to ``(..., K)``; scaled to sum 1, 0 is padding.
            None weighs all alike.
        candidate_weights: Likewise, ``(..., M)``.
        temperature: Above 0.
        mix: Share of the direction from query to candidate, in [0, 1].

    Returns:
        Scores ``(...)`` in [-2, 0], higher is better.

    Raises:
        ValueError: Shapes that do not fit, or a set in which no element has weight.

    Example:
        >>> cosines = np.array([[1.0, 0.0], [0.0, 0.5]])
        >>> round(float(conditional_transport(cosines, temperature=1e-3)), 4)
        -0.25
    """
    if similarity.ndim < 2 or 0 in similarity.shape[-2:]:
        raise ValueError(f"expected cosines (..., K, M), got shape {similarity.shape}")
    similarity = np.asarray(similarity, dtype=np.result_type(similarity.dtype, np.float32))
    p = _scaled(query_weights, similarity.shape[-2], similarity.dtype)
    q = _scaled(candidate_weights, similarity.shape[-1], similarity.dtype)
    forth = _average(_met(similarity, q, -1, temperature), p)
    back = _average(_met(similarity, p, -2, temperature), q)
    return mix * forth + (1 - mix) * back - 1


def _met(
    similarity: np.ndarray, weights: np.ndarray | None, axis: int, temperature: float
) -> np.ndarray:
    """Mean cosine of each element with those of the other set (along ``axis``) that it meets."""
    if similarity.shape[axis] == 1:
        return similarity.squeeze(axis)
    masked = similarity
    if weights is not None:
        weights = weights[..., None, :] if axis == -1 else weights[..., :, None]
        masked = np.where(weights > 0, similarity, -np.inf)
    top = masked.max(axis=axis, keepdims=True)
    masses = np.exp((masked - top) / similarity.dtype.type(temperature))
    if weights is not None:
        masses = masses * weights
    return (masses * similarity).sum(axis=axis) / masses.sum(axis=axis)


def _scaled(weights: np.ndarray | None, size: int, dtype: np.dtype) -> np.ndarray | None:
    if weights is None:
        return None
    weights = np.asarray(weights, dtype=dtype)
    if weights.shape[-1] != size:
        raise ValueError(f"weights {weights.shape} do not fit {size} elements")
    total = weights.sum(axis=-1, keepdims=True)
    if not (total > 0).all() or (weights < 0).any():
        raise ValueError("weights must be at least 0, with one above 0 in every set")
    return weights / total


def _average(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Weighted mean over the last axis; values of weight 0 may be anything."""
    if weights is None:
        return values.mean(axis=-1)
    return np.where(weights > 0, values * weights, 0).sum(axis=-1)
