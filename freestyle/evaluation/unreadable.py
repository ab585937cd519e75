"""An evaluation without the files that could not be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from freestyle.datasets.records import RetrievalSplit
from freestyle.errors import UserError
from freestyle.evaluation.variants import Embeddings
from freestyle.frozen import FrozenRows


def without_unreadable(
    split: RetrievalSplit,
    photos: FrozenRows,
    found: dict[str, dict[str, Tensor]],
    prompted: dict[str, Tensor],
    readable: dict[str, Tensor],
    skipped: list[Path],
) -> Embeddings:
    """Leave out unreadable files; an instance-level record goes as a whole.

    Args:
        split: What was embedded.
        photos: Frozen ``embedding`` ``(G, E)`` of the photos, and which could be read.
        found: Per variant and style the queries ``(Q, E)``.
        prompted: Per variant with a prompted gallery the photos ``(G, E)``.
        readable: Per style which queries could be read ``(Q,)``.
        skipped: All files that could not.

    Raises:
        UserError: If nothing is left.
    """
    keep = photos.readable.clone()
    if split.relevance == "instance":
        for mask in readable.values():
            keep &= mask
    kept = keep.nonzero().flatten()
    _some_left(split, len(kept))
    embeddings = photos["embedding"][kept]
    smaller = {id(rows): rows[kept] for rows in prompted.values()}  # variants share tensors
    prompted = {name: smaller[id(rows)] for name, rows in prompted.items()}
    if split.relevance == "instance":
        queries = {n: {s: q[kept] for s, q in by.items()} for n, by in found.items()}
        rest = split.subset(kept.numpy())
        return Embeddings(rest, embeddings, queries, skipped, prompted=prompted)
    kept = kept.numpy()
    groups = split.gallery_groups[kept]
    sets = {}
    for style, mask in readable.items():
        own = split.queries[style]
        rows = np.flatnonzero(mask.numpy() & np.isin(own.groups, groups))
        _some_left(split, len(rows))
        sets[style] = own.subset(rows)
        for by_style in found.values():
            by_style[style] = by_style[style][torch.from_numpy(rows)]
    rest = RetrievalSplit(
        split.dataset,
        split.split,
        split.root,
        [split.gallery[i] for i in kept],
        [split.gallery_ids[i] for i in kept],
        groups,
        sets,
        split.relevance,
    )
    return Embeddings(rest, embeddings, found, skipped, prompted=prompted)


def _some_left(split: RetrievalSplit, count: int) -> None:
    if not count:
        raise UserError(
            f"{split.root}, split {split.split}: nothing readable is left to evaluate; "
            "mend the files that were skipped"
        )
