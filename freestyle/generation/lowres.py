"""Low resolution: the paper's mosaic, and what real thumbnails do to a picture.

The mosaic of FreestyleRet (arXiv 2312.02428) is a bilinear shrink by 16 without antialiasing, then
nearest-neighbour back to the photo's size.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from freestyle.errors import UserError
from freestyle.generation.engine import Item, Made

KERNELS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}


@dataclass(frozen=True)
class LowResSettings:
    """How detail is taken away.

    Attributes:
        factor: Width and height are divided by it, rounded down.
        shrink: Kernel of the shrinking; only ``area`` averages over all pixels.
        enlarge: Kernel of the way back.
        keep_size: Enlarge to the photo's size again; False leaves a real thumbnail.
        noise: Standard deviation of Gaussian noise on the small picture, in grey levels.
        jpeg: JPEG quality, 1 to 95, that the small picture goes through; None for none.
    """

    factor: int = 16
    shrink: str = "bilinear"
    enlarge: str = "nearest"
    keep_size: bool = True
    noise: float = 0.0
    jpeg: int | None = None

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise UserError(f"factor of a low resolution is {self.factor}: use 1 or more")
        for kernel in (self.shrink, self.enlarge):
            if kernel not in KERNELS:
                raise UserError(f"unknown kernel '{kernel}': use {', '.join(KERNELS)}")
        if self.noise < 0:
            raise UserError(f"noise of a low resolution is {self.noise}: use 0 or more")
        if self.jpeg is not None and not 1 <= self.jpeg <= 95:
            raise UserError(f"jpeg quality is {self.jpeg}: use 1 to 95")


def lower(pixels: np.ndarray, settings: LowResSettings, seed: int = 0) -> np.ndarray:
    """Take detail away.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB.
        settings: How.
        seed: Of the noise.

    Returns:
        ``(H, W, 3)`` uint8, or ``(H // factor, W // factor, 3)`` without ``keep_size``; a picture
        smaller than the factor becomes one pixel.
    """
    height, width = pixels.shape[:2]
    small = (max(1, width // settings.factor), max(1, height // settings.factor))
    low = cv2.resize(pixels, small, interpolation=KERNELS[settings.shrink])
    if settings.noise:
        random = np.random.default_rng(seed)
        noisy = low + random.normal(0, settings.noise, low.shape)
        low = np.rint(noisy).clip(0, 255).astype(np.uint8)
    if settings.jpeg is not None:
        buffer = io.BytesIO()
        Image.fromarray(low).save(buffer, "JPEG", quality=settings.jpeg)
        low = np.asarray(Image.open(buffer).convert("RGB"))
    if not settings.keep_size:
        return low
    return cv2.resize(low, (width, height), interpolation=KERNELS[settings.enlarge])


class LowRes:
    """Engine ``lowres``."""

    name, batch_size, needs_caption, light = "lowres", 1, False, True

    def __init__(self, settings: LowResSettings) -> None:
        self.settings = settings

    def describe(self) -> dict[str, Any]:
        """The settings."""
        return {"engine": self.name, "settings": asdict(self.settings)}

    def __call__(self, items: Sequence[Item]) -> list[Made]:
        """Lower each photo."""
        return [
            Made(Image.fromarray(lower(np.asarray(item.picture), self.settings, item.seed)))
            for item in items
        ]
