"""Losses that draw a query to its photo.

All take unit-norm embeddings and integer groups; photos of the query's group are relevant, so that
the same code serves instance-level and class-level data.

| name | source |
|---|---|
| ``gallery`` | cross-entropy over every photo of the training gallery |
| ``in-batch`` | symmetric InfoNCE with label smoothing (CLIP; SketchScape, BMVC 2025) |
| ``triplet`` | max(0, d(q, p) - d(q, n) + margin), d = 1 - cos (FreestyleRet, arXiv 2312.02428) |
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from freestyle.config import LossConfig


class StepPhotos:
    """Photos of one training step, embedded through a trained path.

    Args:
        embed: Rows of the gallery ``(U,)`` to unit-norm embeddings ``(U, E)``, with gradients.

    Attributes:
        moved: Rows and embeddings of the last call, each photo once; None before the first.
    """

    def __init__(self, embed: Callable[[Tensor], Tensor]) -> None:
        self._embed = embed
        self.moved: tuple[Tensor, Tensor] | None = None

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Embeddings ``(B, E)`` of rows ``(B,)``; a photo that comes twice is embedded once."""
        once, place = rows.unique(return_inverse=True)
        self.moved = once, self._embed(once)
        return self.moved[1][place]


def retrieval_loss(
    config: LossConfig,
    queries: Tensor,
    query_groups: Tensor,
    gallery: Tensor,
    gallery_groups: Tensor,
    generator: torch.Generator | None = None,
    photos: StepPhotos | None = None,
) -> Tensor:
    """The configured loss of a batch.

    Args:
        config: Name, temperature, smoothing, margin.
        queries: ``(B, E)`` unit norm.
        query_groups: ``(B,)`` int64.
        gallery: ``(G, E)`` unit norm: every training photo, where photos move as they were last
            embedded.
        gallery_groups: ``(G,)`` int64.
        generator: Draws the triplet's negatives and the in-batch positives; seeded by the caller.
        photos: Embeds the photos that this batch draws, where they move: one relevant photo per
            query, the triplet's negatives too. The loss ``gallery`` puts them in place of their
            rows, so that all others come without a gradient; other losses read no other photo.

    Returns:
        Scalar.
    """
    if config.name == "gallery":
        moved = None
        if photos is not None:
            _ = photos[_draw_positives(query_groups, gallery_groups, generator)]
            moved = photos.moved
        return gallery_cross_entropy(
            queries,
            query_groups,
            gallery,
            gallery_groups,
            config.temperature,
            config.label_smoothing,
            moved,
        )
    source = gallery if photos is None else photos
    positives = _draw_positives(query_groups, gallery_groups, generator)  # (B,)
    if config.name == "in-batch":
        return in_batch_info_nce(
            queries,
            source[positives],
            query_groups,
            config.temperature,
            config.label_smoothing,
        )
    negatives = _draw_negatives(query_groups, gallery_groups, generator)  # (B,)
    near, far = source[torch.cat([positives, negatives])].chunk(2)  # (B, E) each
    return triplet(queries, near, far, config.margin)


def gallery_cross_entropy(
    queries: Tensor,
    query_groups: Tensor,
    gallery: Tensor,
    gallery_groups: Tensor,
    temperature: float,
    label_smoothing: float = 0.0,
    moved: tuple[Tensor, Tensor] | None = None,
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
        moved: Different rows ``(U,)`` of the gallery and embeddings ``(U, E)`` to put there, which
            may have gradients.

    Returns:
        Mean over the batch, a scalar.
    """
    scores = queries @ gallery.T  # (B, G)
    if moved is not None:
        rows, photos = moved
        scores = scores.index_copy(1, rows, (queries @ photos.T).to(scores.dtype))
    logits = scores.float() / temperature
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
