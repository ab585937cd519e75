"""Random views of a batch of pictures: geometry, colour, blur and low resolution; seeded."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = (0.299, 0.587, 0.114)


def affine(pixels: Tensor, random: torch.Generator) -> Tensor:
    """Flip, scale 0.6-1.2, rotate up to 15 degrees, shift; what lies outside is white."""
    b = len(pixels)

    def draw() -> Tensor:
        return torch.rand(b, generator=random)

    zoom = torch.exp(torch.empty(b).uniform_(math.log(0.6), math.log(1.2), generator=random))
    angle = (draw() - 0.5) * math.radians(30)
    flip = torch.where(draw() < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shift = [(draw() - 0.5) * 0.3 for _ in range(2)]
    rows = torch.stack([cos * flip, -sin, shift[0], sin * flip, cos, shift[1]], dim=1)
    grid = F.affine_grid(rows.view(b, 2, 3), list(pixels.shape), align_corners=False)
    return 1 - F.grid_sample(1 - pixels, grid, align_corners=False)


def colour(pixels: Tensor, random: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation and a tint; one picture in eight turns grey."""
    b = len(pixels)

    def draw(low: float, high: float) -> Tensor:
        return torch.empty(b, 1, 1, 1).uniform_(low, high, generator=random)

    grey = (pixels * pixels.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
    saturation = draw(0.4, 1.6)
    saturation[torch.rand(b, generator=random) < 0.125] = 0.0
    pixels = grey + (pixels - grey) * saturation
    mean = pixels.mean((1, 2, 3), keepdim=True)
    pixels = mean + (pixels - mean) * draw(0.7, 1.3)
    tint = torch.empty(b, 3, 1, 1).uniform_(0.9, 1.1, generator=random)
    return (pixels * draw(0.8, 1.15) * tint).clamp(0, 1)


def resolution(pixels: Tensor, random: torch.Generator) -> Tensor:
    """Three pictures in ten are shrunk to 14-80 pixels and enlarged again."""
    side = pixels.shape[-1]
    pixels = pixels.clone()
    for i in torch.nonzero(torch.rand(len(pixels), generator=random) < 0.3).flatten().tolist():
        small = int(torch.randint(14, 80, (1,), generator=random))
        one = F.interpolate(pixels[i : i + 1], size=small, mode="area")
        pixels[i] = F.interpolate(one, size=side, mode="bilinear", align_corners=False)[0]
    return pixels


def augment(pixels: Tensor, random: torch.Generator) -> Tensor:
    """One random view of each picture: ``(B, 3, S, S)`` in [0, 1], the same shape back."""
    return resolution(colour(affine(pixels, random), random), random)
