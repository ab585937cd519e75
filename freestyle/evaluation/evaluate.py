"""One call from embeddings to ranks under a protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from freestyle.evaluation.chunks import DEFAULT_MEMORY
from freestyle.evaluation.fusion import DEFAULT_FUSION, Fusion
from freestyle.evaluation.metrics import average_precision_at
from freestyle.evaluation.protocols import Protocol
from freestyle.evaluation.ranks import Ranks, first_relevant_ranks, top_relevance


@dataclass(frozen=True)
class Outcome:
    """What one method did on the queries of one style.

    Attributes:
        ranks: Rank of each query's first relevant photo, in the order of the queries.
        average_precision: AP@K of each query ``(Q,)`` in [0, 1], by K.
    """

    ranks: Ranks
    average_precision: dict[int, np.ndarray] = field(default_factory=dict)


def evaluate_queries(
    queries: Tensor | Sequence[Tensor],
    gallery: Tensor,
    query_groups: np.ndarray,
    gallery_groups: np.ndarray,
    *,
    protocol: Protocol | None = None,
    fusion: str | Fusion = DEFAULT_FUSION,
    map_at: Sequence[int] = (),
    seed: int = 0,
    query_ids: Sequence[str] | None = None,
    memory: int = DEFAULT_MEMORY,
    device: torch.device | str | None = None,
) -> Outcome:
    """Rank every query once under a protocol.

    Args:
        queries: Unit-norm embeddings ``(Q, E)``, or one such tensor per term of a joint query.
        gallery: Unit-norm embeddings ``(G, E)``.
        query_groups: Group of each query ``(Q,)``.
        gallery_groups: Group of each photo ``(G,)``; equal groups are relevant.
        protocol: The candidates of a query; the whole gallery where ``None``.
        fusion: The rule that joins the terms; its statistics are over the candidates.
        map_at: The values of K for AP@K (class-level relevance).
        seed: Seed of the batches.
        query_ids: Names for the error message.
        memory: Bytes the computation may take beside its inputs.
        device: Where to compute; the gallery's device where ``None``.

    Returns:
        Ranks in ``[1, candidates]`` and the average precisions.

    Raises:
        UserError: A query without relevant photo, nothing to rank, or a gallery smaller than the
            batch.
        ValueError: Shapes that do not fit, or embeddings that are not finite.
    """
    protocol = protocol or Protocol()
    terms = [queries] if isinstance(queries, Tensor) else list(queries)
    options = {"fusion": fusion, "memory": memory, "device": device}
    if protocol.batch_size is None:
        ranks = first_relevant_ranks(
            terms, gallery, query_groups, gallery_groups, query_ids=query_ids, **options
        )
        precision = _precisions(terms, gallery, query_groups, gallery_groups, map_at, options)
        return Outcome(ranks, precision)

    asked, offered = np.asarray(query_groups), np.asarray(gallery_groups)
    values = np.zeros(len(asked), dtype=np.int64)
    precision = {k: np.empty(len(asked)) for k in map_at}
    for rows, columns in protocol.batches(asked, offered, seed):
        picked = [term[torch.from_numpy(rows).to(term.device)] for term in terms]
        photos = gallery[torch.from_numpy(columns).to(gallery.device)]
        groups = asked[rows], offered[columns]
        values[rows] = first_relevant_ranks(picked, photos, *groups, **options).values
        for k, part in _precisions(picked, photos, *groups, map_at, options).items():
            precision[k][rows] = part
    return Outcome(Ranks(values, protocol.gallery_size(len(offered))), precision)


def _precisions(
    terms: list[Tensor],
    gallery: Tensor,
    query_groups: np.ndarray,
    gallery_groups: np.ndarray,
    map_at: Sequence[int],
    options: dict,
) -> dict[int, np.ndarray]:
    if not map_at:
        return {}
    relevant, counts = top_relevance(
        terms, gallery, query_groups, gallery_groups, max(map_at), **options
    )
    return {k: average_precision_at(relevant, counts, k) for k in map_at}
