"""Changes of query pictures, for robustness: ``rotate:15``, ``shift:10``, ``thicker:1``, ...

| change | its number |
|---|---|
| ``rotate`` | degrees, counter-clockwise; white comes in |
| ``shift`` | per cent of the side, to the right and down; white comes in |
| ``thicker`` | pixels of a 160-pixel side by which dark strokes grow |
| ``thinner`` | pixels of a 160-pixel side by which dark strokes shrink |
| ``jpeg`` | JPEG quality, 1 to 95 |
| ``low-res`` | factor by which each side shrinks before it is enlarged again |
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from freestyle.encoders.base import Preprocessing
from freestyle.errors import UserError
from freestyle.frozen import Pictures

Change = Callable[[Tensor], Tensor]


class ChangedPictures(Pictures):
    """Query pictures to which one change is done.

    Args:
        paths: Files.
        preprocessing: The encoder's resize and crop.
        on_broken: As for :class:`~freestyle.frozen.Pictures`.
        change: Name, such as ``rotate:15``.
    """

    def __init__(
        self, paths: Sequence[Path], preprocessing: Preprocessing, on_broken: str, change: str
    ) -> None:
        super().__init__(paths, preprocessing, on_broken)
        self.change, self.tag = parse_change(change), f" changed {change}"

    def pixels(self, index: int) -> tuple[Tensor, bool]:
        """Pixels ``(3, S, S)`` in [0, 1] and whether the file could be read."""
        pixels, readable = super().pixels(index)
        return self.change(pixels), readable


def parse_change(name: str) -> Change:
    """The function behind a name; it maps pixels ``(3, S, S)`` in [0, 1] to the same.

    Raises:
        UserError: An unknown change, or a number out of range.
    """
    match = re.fullmatch(r"([a-z-]+):([0-9]+(?:\.[0-9]+)?)", name)
    if match is None or match[1] not in CHANGES:
        known = ", ".join(f"{key}:{example}" for key, (_, example, _) in CHANGES.items())
        raise UserError(f"unknown change '{name}': use one of {known}, with your own number")
    function, _, most = CHANGES[match[1]]
    value = float(match[2])
    if not 0 < value <= most:
        raise UserError(f"change '{name}': use a number above 0, at most {most}")
    return lambda pixels: function(pixels, value)


def rotate(pixels: Tensor, degrees: float) -> Tensor:
    """Turned about the centre."""
    angle = torch.tensor(degrees).deg2rad()
    cos, sin = angle.cos(), angle.sin()
    zero = torch.zeros(())
    return _move(pixels, torch.stack([cos, -sin, zero, sin, cos, zero]).view(2, 3))


def shift(pixels: Tensor, percent: float) -> Tensor:
    """Moved to the right and down."""
    by = -2 * percent / 100  # the window moves the other way, over a side of length 2
    return _move(pixels, torch.tensor([[1.0, 0.0, by], [0.0, 1.0, by]]))


def thicker(pixels: Tensor, width: float) -> Tensor:
    """The darkest pixel around each place."""
    size = _window(pixels, width)
    return -F.max_pool2d(-pixels[None], size, 1, size // 2)[0]


def thinner(pixels: Tensor, width: float) -> Tensor:
    """The lightest pixel around each place."""
    size = _window(pixels, width)
    return F.max_pool2d(pixels[None], size, 1, size // 2)[0]


def jpeg(pixels: Tensor, quality: float) -> Tensor:
    """Written and read as JPEG."""
    import numpy as np
    from PIL import Image

    values = (pixels.permute(1, 2, 0) * 255).round().byte().numpy()  # (S, S, 3)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "JPEG", quality=round(quality))
    with Image.open(file) as picture:
        read = np.asarray(picture.convert("RGB"))
    return torch.from_numpy(read.copy()).permute(2, 0, 1).float() / 255


def low_res(pixels: Tensor, factor: float) -> Tensor:
    """Averaged down, enlarged bilinearly."""
    side = pixels.shape[-1]
    small = max(1, round(side / factor))
    shrunk = F.interpolate(pixels[None], size=(small, small), mode="area")
    return F.interpolate(shrunk, size=(side, side), mode="bilinear", align_corners=False)[0]


def _move(pixels: Tensor, matrix: Tensor) -> Tensor:
    grid = F.affine_grid(matrix[None], [1, *pixels.shape], align_corners=False)
    return 1 - F.grid_sample(1 - pixels[None], grid, align_corners=False)[0].clamp(0, 1)


def _window(pixels: Tensor, width: float) -> int:
    return 2 * max(1, round(width * pixels.shape[-1] / 160)) + 1


CHANGES: dict[str, tuple[Callable[[Tensor, float], Tensor], str, float]] = {
    "rotate": (rotate, "15", 180),
    "shift": (shift, "10", 90),
    "thicker": (thicker, "1", 20),
    "thinner": (thinner, "1", 20),
    "jpeg": (jpeg, "10", 95),
    "low-res": (low_res, "8", 64),
}
