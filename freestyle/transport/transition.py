"""Moves of embeddings: towards a modification, along a difference of captions, out of a medium.

All functions take and return unit-norm vectors ``(..., E)``; a vector that a move cancels out is
returned as it was.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MEDIA = {
    "sketch": ("a sketch", "a line drawing"),
    "art": ("a cartoon", "a painting"),
    "colour": ("a drawing",),
    "mosaic": ("a blurry picture",),
}


def towards(target: Tensor, modification: Tensor, alpha: float) -> Tensor:
    """``normalise((1 - alpha) t + alpha f(m))``: STiTch, equation 3.

    Args:
        target: Target captions t, ``(..., E)``.
        modification: f(m), broadcastable to ``target``.
        alpha: In [0, 1]; 0 keeps the captions.
    """
    return _unit((1 - alpha) * target + alpha * modification, target)


def along_difference(start: Tensor, composed: Tensor, caption: Tensor, scale: float) -> Tensor:
    """``normalise(v + scale (f(composed) - f(reference caption)))``: PDV's prompt vector.

    With the reference caption's embedding as ``start`` it moves a text, with the reference
    picture's it moves a picture.

    Args:
        start: v, ``(..., E)``.
        composed: f(composed caption), broadcastable to ``start``.
        caption: f(reference caption), likewise.
        scale: 1 moves a caption exactly onto the composed one.
    """
    return _unit(start + scale * (composed - caption), start)


def out_of_medium(rows: Tensor, photo: Tensor, medium: Tensor, scale: float = 1.0) -> Tensor:
    """``normalise(v + scale (f("a photo of c") - f("a sketch of c")))``: what is drawn, as a photo.

    Args:
        rows: Embeddings of a drawing, or of a caption that names the medium, ``(..., E)``.
        photo: f("a photo of c"), broadcastable to ``rows``.
        medium: f("a sketch of c"), likewise.
        scale: How far.
    """
    return _unit(rows + scale * (photo - medium), rows)


def medium_prompts(caption: str, style: str) -> tuple[str, list[str]]:
    """The texts behind :func:`out_of_medium`: as a photo, and in each name of the style's medium.

    >>> medium_prompts("a cat", "sketch")
    ('a photo of a cat', ['a sketch of a cat', 'a line drawing of a cat'])
    """
    return f"a photo of {caption}", [f"{name} of {caption}" for name in MEDIA.get(style, ())]


def _unit(moved: Tensor, before: Tensor) -> Tensor:
    before = before.expand_as(moved)
    lost = moved.norm(dim=-1, keepdim=True) < 1e-6
    return F.normalize(torch.where(lost, before, moved), dim=-1)
