"""Synthetic styles: training queries drawn from the photos themselves.

A photo in grey, recoloured, in flat colours, as a line drawing, as a comic, bent a little: nobody
has to draw them, and a query encoder that has seen many styles depends less on the few it was
given. Inspired by style randomisation (Geirhos et al., ICLR 2019; AdaIN, arXiv 1703.06868), with
plain filters in place of a style-transfer network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from freestyle.frozen import Pictures

VERSION = 1  # of the drawings; part of the keys of caches
PREFIX = "synthetic"  # of the style's name in a training split
_TO_LUMA = torch.tensor(  # RGB to YIQ
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
)


class SyntheticPictures(Pictures):
    """Photos, each drawn in a style of its own.

    Args:
        *args: Of :class:`~freestyle.frozen.Pictures`.
        seed: Of the drawings; picture i is drawn by (seed, i) alone.
    """

    def __init__(self, *args: object, seed: int) -> None:
        super().__init__(*args)
        self.seed = seed
        self.tag = f" drawn {VERSION}.{seed}"

    def pixels(self, index: int) -> tuple[Tensor, bool]:
        """Pixels ``(3, S, S)`` in [0, 1] and whether the file could be read."""
        pixels, readable = super().pixels(index)
        return draw(pixels, self.seed * 1_000_003 + index), readable


def style_name(number: int) -> str:
    """Name of the n-th set of drawings, counted from 0."""
    return f"{PREFIX} {number + 1}"


def draw(pixels: Tensor, seed: int) -> Tensor:
    """One picture in a random synthetic style.

    Args:
        pixels: ``(3, S, S)`` in [0, 1].
        seed: Equal seeds give equal drawings.

    Returns:
        ``(3, S, S)`` in [0, 1].
    """
    generator = torch.Generator().manual_seed(seed)
    kind = int(torch.randint(6, (), generator=generator))
    bent = bool(torch.rand((), generator=generator) < 0.5)
    picture = pixels[None].float()
    if kind == 0:
        picture = recolour(picture, torch.zeros(()), torch.zeros(()))  # grey
    elif kind == 1:
        angle = (torch.rand((), generator=generator) * 2 - 1) * torch.pi
        picture = recolour(picture, angle, torch.ones(()))
    elif kind == 2:
        picture = flat(picture)
    elif kind == 3:
        picture = lines(picture)
    elif kind == 4:
        picture = flat(picture) * lines(picture)
    if bent or kind == 5:
        picture = bend(picture, generator)
    return picture[0].clamp(0, 1)


def recolour(pixels: Tensor, angle: Tensor, saturation: Tensor) -> Tensor:
    """Turn every hue by ``angle`` (radians) and scale its saturation: ``(B, 3, S, S)``."""
    cos, sin = angle.cos() * saturation, angle.sin() * saturation
    zero, one = torch.zeros(()), torch.ones(())
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos]).view(3, 3)
    matrix = torch.linalg.inv(_TO_LUMA) @ turn @ _TO_LUMA
    return torch.einsum("ij,bjhw->bihw", matrix, pixels).clamp(0, 1)


def lines(pixels: Tensor) -> Tensor:
    """Dark lines on white where brightness or colour changes: ``(B, 3, S, S)``."""
    smooth = _blur(pixels, pixels.shape[-1] / 130)
    dx = F.pad(smooth[..., 2:] - smooth[..., :-2], (1, 1))
    dy = F.pad(smooth[..., 2:, :] - smooth[..., :-2, :], (0, 0, 1, 1))
    strength = (dx.square() + dy.square()).sqrt().amax(dim=1, keepdim=True)  # (B, 1, S, S)
    return (1 - (strength * pixels.shape[-1] / 26 - 0.4).clamp(0, 1)).expand_as(pixels)


def flat(pixels: Tensor, levels: int = 4) -> Tensor:
    """Few colours in clean areas, as of a printed drawing: ``(B, 3, S, S)``."""
    smooth = _blur(pixels, pixels.shape[-1] / 80)
    opened = F.max_pool2d(-F.max_pool2d(-smooth, 3, 1, 1), 3, 1, 1)
    return (opened * levels).round() / levels


def bend(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Another hand: turned, scaled, shifted and bent a little; white comes in from outside."""
    batch, _, height, width = pixels.shape
    draws = torch.rand(batch, 4, generator=generator) - 0.5
    angle, size = draws[:, 0] * 0.3, 1 + draws[:, 1] * 0.2
    cos, sin = angle.cos() * size, angle.sin() * size
    matrix = torch.stack([cos, -sin, draws[:, 2] * 0.12, sin, cos, draws[:, 3] * 0.12], dim=1)
    grid = F.affine_grid(matrix.view(batch, 2, 3), list(pixels.shape), align_corners=False)
    field = (torch.rand(batch, 2, 4, 4, generator=generator) - 0.5) * 0.18
    field = F.interpolate(field, size=(height, width), mode="bicubic", align_corners=True)
    grid = grid + field.permute(0, 2, 3, 1)  # (B, S, S, 2)
    return 1 - F.grid_sample(1 - pixels, grid, align_corners=False)


def _blur(pixels: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, separable, borders repeated."""
    radius = max(1, round(2 * sigma))
    steps = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-steps.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1).contiguous()
    padded = F.pad(pixels, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel, groups=3)
    return F.conv2d(rows, kernel.transpose(2, 3).contiguous(), groups=3)
