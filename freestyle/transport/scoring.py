"""Scores of sets of embeddings against a gallery of sets, in bounded memory.

Cosines are laid out with the candidates innermost, whatever the order of the dimensions says: sets
have a handful of elements, and a reduction over five numbers is fast only where many stand side by
side. Chunks are small enough to stay in the processor's cache between the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from freestyle.errors import UserError
from freestyle.transport.distance import (
    MIX,
    TEMPERATURE,
    conditional_transport,
    max_mean,
    mean,
    sinkhorn,
)

DISTANCES = ("transport", "sinkhorn", "max-mean", "mean", "single")
CHUNK_BYTES = 2 * 2**20  # of cosines at a time, on a CPU: what its cache holds
DEFAULT_MEMORY = 256 * 2**20
COPIES = 6  # tensors as large as the cosines that a distance holds at once


@dataclass(frozen=True)
class SetDistance:
    """How two sets are compared.

    Attributes:
        name: ``transport``, ``sinkhorn``, ``max-mean``, ``mean``, or ``single``: the cosine of the
            first elements (less 1), which are the whole picture and the whole text.
        temperature: Of transport and Sinkhorn, above 0.
        mix: Share of the direction from query to candidate, in [0, 1], of transport and max-mean;
            1 compares one way.

    Raises:
        UserError: If a setting cannot be used.
    """

    name: str = "transport"
    temperature: float = TEMPERATURE
    mix: float = MIX

    def __post_init__(self) -> None:
        if self.name not in DISTANCES:
            raise UserError(f"unknown set distance '{self.name}': use {', '.join(DISTANCES)}")
        if not self.temperature > 0:
            raise UserError(f"temperature is {self.temperature}: use a number above 0")
        if not 0 <= self.mix <= 1:
            raise UserError(f"mix is {self.mix}: use a number in [0, 1]")

    def __call__(
        self,
        similarity: Tensor,
        query_weights: Tensor | None = None,
        candidate_weights: Tensor | None = None,
    ) -> Tensor:
        """Cosines ``(..., K, M)`` to scores ``(...)`` in [-2, 0], higher is better."""
        weights = query_weights, candidate_weights
        if self.name == "transport":
            return conditional_transport(similarity, *weights, self.temperature, self.mix)
        if self.name == "sinkhorn":
            return sinkhorn(similarity, *weights, self.temperature)
        if self.name == "max-mean":
            return max_mean(similarity, *weights, self.mix)
        if self.name == "mean":
            return mean(similarity, *weights)
        return similarity[..., 0, 0].float() - 1


def score_sets(
    queries: Tensor,
    candidates: Tensor,
    distance: Callable[..., Tensor] | None = None,
    *,
    query_weights: Tensor | None = None,
    candidate_weights: Tensor | None = None,
    memory: int = DEFAULT_MEMORY,
) -> Tensor:
    """Every query set against every candidate set.

    Args:
        queries: Unit-norm elements ``(Q, K, E)``.
        candidates: Unit-norm elements ``(G, M, E)``, any float type.
        distance: A :class:`SetDistance`, or any function like one; conditional transport by
            default.
        query_weights: ``(Q, K)``, 0 for padding; None weighs all alike.
        candidate_weights: ``(G, M)``.
        memory: Bytes that may be taken beside inputs and result.

    Returns:
        Scores ``(Q, G)`` float32, higher is better; with gradients where the inputs carry them.

    Raises:
        ValueError: Shapes that do not fit.
        UserError: ``memory`` too small for one candidate.
    """
    distance = distance or SetDistance()
    _check(queries, candidates)
    n_queries, k = queries.shape[:2]
    if not n_queries or not len(candidates):
        return queries.new_zeros(n_queries, len(candidates), dtype=torch.float32)
    parts = []
    rows = queries.reshape(n_queries * k, -1)
    rows = rows.float() if rows.dtype != torch.float64 else rows
    weights = None if query_weights is None else query_weights[:, None]  # (Q, 1, K)
    for part in _chunks(queries, candidates, memory):
        chunk = candidates[part].to(rows)  # (g, M, E)
        similarity = _cosines(rows, chunk).view(-1, n_queries, k, len(chunk))  # (M, Q, K, g)
        own = None if candidate_weights is None else candidate_weights[None, part]  # (1, g, M)
        parts.append(distance(similarity.permute(1, 3, 2, 0), weights, own))  # (Q, g)
    return torch.cat(parts, dim=1)


@torch.no_grad()
def score_candidates(
    queries: Tensor,
    gallery: Tensor,
    positions: Tensor,
    distance: Callable[..., Tensor] | None = None,
    *,
    query_weights: Tensor | None = None,
    gallery_weights: Tensor | None = None,
    memory: int = DEFAULT_MEMORY,
) -> Tensor:
    """Every query set against its own candidates: the second stage of a search.

    Args:
        queries: Unit-norm elements ``(Q, K, E)``.
        gallery: Unit-norm elements ``(G, M, E)``, any float type; may be memory-mapped.
        positions: Of each query's candidates in the gallery, ``(Q, C)`` int64.
        distance: As for :func:`score_sets`.
        query_weights: ``(Q, K)``.
        gallery_weights: ``(G, M)``.
        memory: Bytes that may be taken beside inputs and result.

    Returns:
        Scores ``(Q, C)`` float32, in the candidates' order.

    Raises:
        ValueError: Shapes that do not fit, or positions outside the gallery.
    """
    _check(queries, gallery)
    if positions.ndim != 2 or len(positions) != len(queries):
        raise ValueError(f"expected {len(queries)} rows of positions, got {positions.shape}")
    if positions.numel() and not 0 <= int(positions.min()) <= int(positions.max()) < len(gallery):
        raise ValueError(f"positions must lie in [0, {len(gallery) - 1}]")
    element = gallery.shape[1] * gallery.shape[2]
    size = max(1, memory // 2 // (element * (4 + gallery.element_size())))
    scores = torch.empty(positions.shape, dtype=torch.float32, device=queries.device)
    # The same two buffers for all: freed and taken anew they would break the heap into pieces.
    shape = (min(size, positions.shape[1]), *gallery.shape[1:])
    stored, ready = gallery.new_empty(shape), queries.new_empty(shape, dtype=torch.float32)
    for query, chosen in enumerate(positions):
        own = None if query_weights is None else query_weights[query : query + 1]
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size].to(gallery.device)
            torch.index_select(gallery, 0, part, out=stored[: len(part)])
            scores[query : query + 1, start : start + size] = score_sets(
                queries[query : query + 1],
                ready[: len(part)].copy_(stored[: len(part)]),
                distance,
                query_weights=own,
                candidate_weights=None if gallery_weights is None else gallery_weights[part],
                memory=memory // 2,
            )
    return scores


def _cosines(rows: Tensor, chunk: Tensor) -> Tensor:
    """``(R, E)`` and ``(g, M, E)`` to ``(M, R, g)``."""
    g, m = chunk.shape[:2]
    if torch.is_grad_enabled() and (rows.requires_grad or chunk.requires_grad):
        return torch.stack([rows @ chunk[:, i].T for i in range(m)])
    found = rows.new_empty(m, len(rows), g)
    for i in range(m):
        torch.mm(rows, chunk[:, i].T, out=found[i])
    return found


def _chunks(queries: Tensor, candidates: Tensor, memory: int) -> Iterator[slice]:
    """Slices of the candidates that fit the memory and, on a CPU, its cache."""
    n_queries, k = queries.shape[:2]
    m, width = candidates.shape[1:]
    each = 4 * n_queries * k * m  # bytes of one candidate's cosines
    need = COPIES * each + 8 * m * width
    most = memory // need
    if most < 1:
        raise UserError(f"memory={memory} bytes cannot hold one candidate: allow {need}")
    if candidates.device.type == "cpu":
        most = min(most, max(32, CHUNK_BYTES // each))
    for start in range(0, len(candidates), most):
        yield slice(start, min(start + most, len(candidates)))


def _check(queries: Tensor, candidates: Tensor) -> None:
    if queries.ndim != 3 or candidates.ndim != 3 or queries.shape[2] != candidates.shape[2]:
        raise ValueError(
            f"expected sets (Q, K, E) and (G, M, E), got {tuple(queries.shape)} and "
            f"{tuple(candidates.shape)}"
        )
