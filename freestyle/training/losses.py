"""Losses that draw a query to its photo.

All take unit-norm embeddings and integer groups; photos of the query's group are relevant, so that
the same code serves instance-level and class-level data.

| name | source |
|---|---|
| ``gallery`` | cross-entropy over every photo of the (frozen) training gallery |
| ``in-batch`` | symmetric InfoNCE with label smoothing (CLIP; SketchScape, BMVC 2025) |
| ``triplet`` | max(0, d(q, p) - d(q, n) + margin), d = 1 - cos (FreestyleRet, arXiv 2312.02428) |
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from freestyle.config import LossConfig


def retrieval_loss(
    config: LossConfig,
    queries: Tensor,
    query_groups: Tensor,
    gallery: Tensor,
    gallery_groups: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The configured loss of a batch.

    Args:
        config: Name, temperature, smoothing, margin.
        queries: ``(B, E)`` unit norm.
        query_groups: ``(B,)`` int64.
        gallery: ``(G, E)`` unit norm: every training photo.
        gallery_groups: ``(G,)`` int64.
        generator: Draws the triplet's negatives and the in-batch positives; seeded by the caller.

    Returns:
        Scalar.
    """
    if config.name == "gallery":
        return gallery_cross_entropy(
            queries,
            query_groups,
            gallery,
            gallery_groups,
            config.temperature,
            config.label_smoothing,
        )
    positives = _draw_positives(query_groups, gallery_groups, generator)  # (B,)
    if config.name == "in-batch":
        return in_batch_info_nce(
            queries,
            gallery[positives],
            query_groups,
            config.temperature,
            config.label_smoothing,
        )
    negatives = _draw_negatives(query_groups, gallery_groups, generator)  # (B,)
    return triplet(queries, gallery[positives], gallery[negatives], config.margin)


def gallery_cross_entropy(
    queries: Tensor,
    query_groups: Tensor,
    gallery: Tensor,
    gallery_groups: Tensor,
    temperature: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of each query over the whole gallery.

    With several relevant photos the target is uniform over them.

    Args:
        queries: ``(B, E)`` unit norm.
        query_groups: ``(B,)``.
        gallery: ``(G, E)`` unit norm.
        gallery_groups: ``(G,)``.
        temperature: Divides the cosines.
        label_smoothing: Share of the target spread over all photos, in [0, 1).

    Returns:
        Mean over the batch, a scalar.
    """
    logits = (queries @ gallery.T).float() / temperature  # (B, G)
    relevant = query_groups[:, None] == gallery_groups[None]  # (B, G)
    target = relevant.float() / relevant.sum(dim=1, keepdim=True)
    target = target * (1 - label_smoothing) + label_smoothing / gallery.shape[0]
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def in_batch_info_nce(
    queries: Tensor,
    photos: Tensor,
    groups: Tensor,
    temperature: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Symmetric InfoNCE between a batch's queries and their photos, both ``(B, E)`` unit norm.

    Queries of the same group (the same photo asked for in two styles) are positives of each
    other's photo, not negatives. ``groups`` is ``(B,)``.
    """
    logits = (queries @ photos.T).float() / temperature  # (B, B)
    same = (groups[:, None] == groups[None]).float()
    target = same / same.sum(dim=1, keepdim=True)
    target = target * (1 - label_smoothing) + label_smoothing / len(groups)
    forward = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
    backward = -(target * logits.T.log_softmax(dim=1)).sum(dim=1).mean()
    return (forward + backward) / 2


def triplet(queries: Tensor, positives: Tensor, negatives: Tensor, margin: float) -> Tensor:
    """Hinge on cosine distances of ``(B, E)`` unit-norm rows; scalar mean."""
    near = 1 - (queries * positives).sum(dim=1)  # (B,)
    far = 1 - (queries * negatives).sum(dim=1)
    return F.relu(near - far + margin).float().mean()


def _draw_positives(
    query_groups: Tensor, gallery_groups: Tensor, generator: torch.Generator | None
) -> Tensor:
    """One relevant photo per query, ``(B,)``."""
    relevant = (query_groups.cpu()[:, None] == gallery_groups.cpu()[None]).float()
    return torch.multinomial(relevant, 1, generator=generator)[:, 0].to(query_groups.device)


def _draw_negatives(
    query_groups: Tensor, gallery_groups: Tensor, generator: torch.Generator | None
) -> Tensor:
    """One irrelevant photo per query, ``(B,)``; a gallery of one group has none to offer."""
    irrelevant = (query_groups.cpu()[:, None] != gallery_groups.cpu()[None]).float()
    if (irrelevant.sum(dim=1) == 0).any():
        raise ValueError("the triplet loss needs a photo of another group as negative")
    return torch.multinomial(irrelevant, 1, generator=generator)[:, 0].to(query_groups.device)
