"""Exact ranks and nearest photos, without ever holding a Q x G matrix.

Relevance is equality of integer groups. Ties count against the query: a constant embedding gets the
worst recall, not a perfect one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from freestyle.errors import UserError
from freestyle.evaluation.chunks import DEFAULT_MEMORY, Block, Scorer
from freestyle.evaluation.fusion import DEFAULT_FUSION, Fusion

Groups = np.ndarray | Tensor | Sequence[int]


@dataclass(frozen=True)
class Ranks:
    """The rank of each query's first relevant photo.

    ``numpy.asarray(ranks)`` gives the ranks, so every metric takes this object or a plain array.

    Attributes:
        values: Ranks ``(Q,)`` int64, each in ``[1, candidates]``; 1 is best.
        candidates: How many photos each query was ranked among.

    Raises:
        ValueError: No ranks, or ranks outside the range.
    """

    values: np.ndarray
    candidates: int

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.ndim != 1 or not values.size or not np.issubdtype(values.dtype, np.integer):
            raise ValueError(
                f"ranks must be a non-empty 1-D integer array, got {values.dtype} {values.shape}"
            )
        if values.min() < 1 or values.max() > self.candidates:
            raise ValueError(
                f"ranks must lie in [1, {self.candidates}], got [{values.min()}, {values.max()}]"
            )
        object.__setattr__(self, "values", values.astype(np.int64))

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype) if copy else np.asarray(self.values, dtype=dtype)


def first_relevant_ranks(
    queries: Tensor | Sequence[Tensor],
    gallery: Tensor,
    query_groups: Groups,
    gallery_groups: Groups,
    *,
    fusion: str | Fusion = DEFAULT_FUSION,
    query_ids: Sequence[str] | None = None,
    memory: int = DEFAULT_MEMORY,
    device: torch.device | str | None = None,
) -> Ranks:
    """Rank of the first relevant photo of each query, among all photos.

    The rank is 1 + the number of non-relevant photos that score at least as high as the query's
    best relevant photo.

    Args:
        queries: Unit-norm embeddings ``(Q, E)``, any float type, or one such tensor per term of a
            joint query.
        gallery: Unit-norm embeddings ``(G, E)``.
        query_groups: Group of each query ``(Q,)``.
        gallery_groups: Group of each photo ``(G,)``; a photo is relevant to the queries of its
            group.
        fusion: The rule that joins the terms; irrelevant with one term.
        query_ids: Names for the error message.
        memory: Bytes the computation may take beside its inputs.
        device: Where to compute; the gallery's device where ``None``.

    Returns:
        Ranks ``(Q,)`` in ``[1, G]``.

    Raises:
        UserError: A query has no relevant photo, or there is nothing to rank.
        ValueError: Shapes that do not fit, or embeddings that are not finite.

    Example:
        >>> import torch
        >>> gallery = torch.eye(3)
        >>> query = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
        >>> first_relevant_ranks(query, gallery, [0, 2], [0, 1, 2]).values
        array([2, 1])
    """
    scorer = Scorer(queries, gallery, fusion=fusion, memory=memory, device=device)
    asked, offered = _check_groups(scorer, query_groups, gallery_groups, query_ids)
    columns = torch.from_numpy(offered).to(scorer.device)  # (G,)
    ranks = np.empty(scorer.n_queries, dtype=np.int64)
    for block in scorer.blocks():
        rows = torch.from_numpy(asked[block.queries]).to(scorer.device)[:, None]  # (q, 1)
        best = _best_relevant(scorer, block, rows, asked[block.queries], offered, columns)
        ahead = torch.zeros_like(rows[:, 0])
        for part in scorer.column_slices():
            better = block.scores(part) >= best  # (q, g)
            ahead += better.logical_and_(rows != columns[part]).sum(dim=1)
        ranks[block.queries] = 1 + ahead.cpu().numpy()
    return Ranks(ranks, scorer.n_gallery)


def _best_relevant(
    scorer: Scorer,
    block: Block,
    rows: Tensor,
    asked: np.ndarray,
    offered: np.ndarray,
    columns: Tensor,
) -> Tensor:
    """Score ``(q, 1)`` of each query's best relevant photo; reads only photos relevant to one."""
    best = torch.full((len(rows), 1), -torch.inf, device=scorer.device)
    relevant = torch.from_numpy(np.flatnonzero(np.isin(offered, asked)))
    for start in range(0, len(relevant), scorer.columns):
        part = relevant[start : start + scorer.columns]
        scores = block.scores(part.to(scorer.gallery.device))  # (q, g)
        scores.masked_fill_(rows != columns[part.to(scorer.device)], -torch.inf)
        best = torch.maximum(best, scores.amax(dim=1, keepdim=True))
    return best


def top_k(
    queries: Tensor | Sequence[Tensor],
    gallery: Tensor,
    k: int,
    *,
    query_groups: Groups | None = None,
    gallery_groups: Groups | None = None,
    fusion: str | Fusion = DEFAULT_FUSION,
    memory: int = DEFAULT_MEMORY,
    device: torch.device | str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best photos of each query, best first.

    Among equal scores the earlier photo of the gallery comes first. Where groups are given, equal
    scores count against the query: photos that are not relevant come before those that are.

    Args:
        queries: Unit-norm embeddings ``(Q, E)``, or one such tensor per term of a joint query.
        gallery: Unit-norm embeddings ``(G, E)``.
        k: How many; all of them if the gallery holds fewer.
        query_groups: Group of each query ``(Q,)``, together with ``gallery_groups``.
        gallery_groups: Group of each photo ``(G,)``.
        fusion: The rule that joins the terms; irrelevant with one term.
        memory: Bytes the computation may take beside its inputs and its result.
        device: Where to compute; the gallery's device where ``None``.

    Returns:
        Positions in the gallery ``(Q, min(k, G))`` int64, and their scores, float32: cosines in
        ``[-1, 1]`` for one term, the rule's own scale for several.

    Raises:
        UserError: There is nothing to rank.
        ValueError: ``k < 1``, shapes that do not fit, or embeddings that are not finite.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if (query_groups is None) != (gallery_groups is None):
        raise ValueError("give query_groups and gallery_groups together, or neither")
    scorer = Scorer(queries, gallery, fusion=fusion, memory=memory, device=device)
    asked = offered = None
    if query_groups is not None and gallery_groups is not None:
        asked = torch.from_numpy(_as_groups("query_groups", query_groups, scorer.n_queries))
        offered = torch.from_numpy(_as_groups("gallery_groups", gallery_groups, scorer.n_gallery))
        asked, offered = asked.to(scorer.device), offered.to(scorer.device)
    k = min(k, scorer.n_gallery)
    kept = []
    for block in scorer.blocks():
        best = torch.empty(0, dtype=torch.int64, device=scorer.device)
        for part in scorer.column_slices():
            positions = torch.arange(part.start, part.stop, device=scorer.device)
            last = None
            if asked is not None and offered is not None:
                last = asked[block.queries][:, None] == offered[part]  # (q, g)
            keys = _sort_keys(block.scores(part), positions, last)
            keys = torch.cat([best, keys], dim=1) if best.numel() else keys
            best = keys.topk(min(k, keys.shape[1]), dim=1).values
        kept.append(best.cpu())
    keys = torch.cat(kept)  # (Q, k)
    indices = _LOWEST - (keys & _LOWEST)
    return indices.numpy(), _from_order(keys >> 32).numpy()


_LOWEST = 2**31 - 1


def _sort_keys(scores: Tensor, positions: Tensor, last: Tensor | None) -> Tensor:
    """Distinct int64 keys ``(q, g)`` whose descending order is the ranking.

    From the highest bit: the float32 score as an ordered integer, 1 for photos that win ties, and
    the position counted downwards.
    """
    bits = scores.view(torch.int32).long()
    ordered = torch.where(bits < 0, bits ^ _LOWEST, bits)
    keys = (ordered << 32) | (_LOWEST - positions)
    return keys if last is None else keys | ((~last).long() << 31)


def _from_order(ordered: Tensor) -> Tensor:
    """The float32 scores of ordered integers."""
    return torch.where(ordered < 0, ordered ^ _LOWEST, ordered).int().view(torch.float32)


def top_relevance(
    queries: Tensor | Sequence[Tensor],
    gallery: Tensor,
    query_groups: Groups,
    gallery_groups: Groups,
    k: int,
    *,
    fusion: str | Fusion = DEFAULT_FUSION,
    memory: int = DEFAULT_MEMORY,
    device: torch.device | str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Which of the first k results are relevant, for mAP@K; ties count against the query.

    Args:
        queries: Unit-norm embeddings ``(Q, E)``, or one such tensor per term of a joint query.
        gallery: Unit-norm embeddings ``(G, E)``.
        query_groups: Group of each query ``(Q,)``.
        gallery_groups: Group of each photo ``(G,)``.
        k: Length of the list.
        fusion: The rule that joins the terms; irrelevant with one term.
        memory: Bytes the computation may take beside its inputs and its result.
        device: Where to compute; the gallery's device where ``None``.

    Returns:
        Relevance ``(Q, min(k, G))`` bool, and the number of relevant photos in the whole gallery
        ``(Q,)`` int64.

    Raises:
        UserError: A query has no relevant photo, or there is nothing to rank.
        ValueError: ``k < 1``, shapes that do not fit, or embeddings that are not finite.
    """
    indices, _ = top_k(
        queries,
        gallery,
        k,
        query_groups=query_groups,
        gallery_groups=gallery_groups,
        fusion=fusion,
        memory=memory,
        device=device,
    )
    asked = _as_groups("query_groups", query_groups, len(indices))
    offered = _as_groups("gallery_groups", gallery_groups, len(gallery))
    _check_answerable(asked, offered, None)
    groups, sizes = np.unique(offered, return_counts=True)
    return offered[indices] == asked[:, None], sizes[np.searchsorted(groups, asked)]


def _check_groups(
    scorer: Scorer, query_groups: Groups, gallery_groups: Groups, ids: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    asked = _as_groups("query_groups", query_groups, scorer.n_queries)
    offered = _as_groups("gallery_groups", gallery_groups, scorer.n_gallery)
    _check_answerable(asked, offered, ids)
    return asked, offered


def _as_groups(name: str, groups: Groups, length: int) -> np.ndarray:
    values = groups.cpu().numpy() if isinstance(groups, Tensor) else np.asarray(groups)
    if values.shape != (length,) or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{name}: expected {length} integers, got {values.dtype} {values.shape}")
    return np.ascontiguousarray(values, dtype=np.int64)


def _check_answerable(asked: np.ndarray, offered: np.ndarray, ids: Sequence[str] | None) -> None:
    lost = np.flatnonzero(~np.isin(asked, offered))
    if lost.size:
        first = int(lost[0])
        name = f"{ids[first]!r}" if ids is not None else f"number {first}"
        raise UserError(
            f"query {name} (group {asked[first]}) has no relevant photo in the gallery "
            f"({lost.size} such in all): remove it from the list or add its photo"
        )
