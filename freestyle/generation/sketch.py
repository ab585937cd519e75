"""Sketches: XDoG, Canny and vector-like line drawings, also partial and clumsy ones.

XDoG is the extended difference of Gaussians of Winnemoeller, Kyprianidis and Olsen (Computers &
Graphics 36, 2012), equations 5 to 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from freestyle.errors import UserError
from freestyle.generation import strokes
from freestyle.generation.engine import Item, Made

KINDS = ("lines", "canny", "xdog")
_REFERENCE = 512  # longer side in pixels that lengths in the settings are meant for


@dataclass(frozen=True)
class SketchSettings:
    """How a photo is drawn.

    Lengths are in pixels of a picture whose longer side is 512, and grow with the picture.

    Attributes:
        kind: ``xdog`` (soft ink with filled darks), ``canny`` (thin edges as they are found) or
            ``lines`` (edges as smooth strokes of a pen).
        detail: Blur before edges are looked for; larger keeps only what matters.
        thickness: Of the pen.
        shortest: Shorter strokes are left out.
        simplify: Tolerance of the strokes' simplification; 0 keeps every point.
        drop: Share of the strokes' length that is not drawn, in [0, 1): a partial sketch.
        jitter: Typical displacement of a stroke: a clumsy sketch.
        pressure: Whether long strokes are darker than short ones.
    """

    kind: str = "lines"
    detail: float = 1.6
    thickness: float = 1.6
    shortest: float = 14.0
    simplify: float = 1.2
    drop: float = 0.0
    jitter: float = 0.0
    pressure: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"unknown kind of sketch '{self.kind}': use {', '.join(KINDS)}")
        if not 0 <= self.drop < 1:
            raise UserError(f"drop of a sketch is {self.drop}: use 0 up to, not including, 1")
        if self.detail <= 0 or self.thickness <= 0:
            raise UserError(
                "detail or thickness of a sketch is not above 0: raise it, or leave it out"
            )
        if min(self.shortest, self.simplify, self.jitter) < 0:
            raise UserError("shortest, simplify or jitter of a sketch is negative: use 0 or more")


def xdog(
    pixels: np.ndarray,
    sigma: float,
    *,
    k: float = 1.6,
    sharpness: float = 18.0,
    threshold: float = 0.72,
    slope: float = 12.0,
    evenness: float = 1.0,
) -> np.ndarray:
    """Ink of the extended difference of Gaussians.

    Brightness is first divided by that of the surroundings, or else all that lies in the dark
    would be filled with ink.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB.
        sigma: Of the finer Gaussian, in pixels.
        k: Coarser sigma over finer.
        sharpness: p of ``(1 + p) G_sigma - p G_k_sigma``.
        threshold: Brightness in [0, 1] above which there is paper.
        slope: phi of the soft step ``1 + tanh(phi (u - threshold))`` below it.
        evenness: How far that division goes, 0 (not at all) to 1.

    Returns:
        ``(H, W)`` float32 in [0, 1]; 1 is paper.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    size = tuple(max(1, side // 8) for side in grey.shape[::-1])
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), max(1.0, 2 * sigma))
    around = cv2.resize(small, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)
    grey = grey / (around + 0.04) ** evenness * 0.94
    grey = grey.clip(0, 1)
    fine = cv2.GaussianBlur(grey, (0, 0), sigma)
    coarse = cv2.GaussianBlur(grey, (0, 0), k * sigma)
    u = (1 + sharpness) * fine - sharpness * coarse
    return np.where(u >= threshold, 1.0, 1 + np.tanh(slope * (u - threshold))).clip(0, 1)


def edge_map(pixels: np.ndarray, blur: float, share: float = 0.3) -> np.ndarray:
    """Canny edges of the strongest of the Lab channels, thresholds set by the picture itself.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB.
        blur: Sigma of the blur after an edge-preserving smoothing.
        share: Part of the picture's strongest gradients (their 99th percentile) from which on an
            edge begins; it goes on down to 0.4 of that.

    Returns:
        ``(H, W)`` bool.
    """
    calm = cv2.bilateralFilter(pixels, 7, 45, 5)
    lab = cv2.cvtColor(calm, cv2.COLOR_RGB2LAB).astype(np.float32)
    lab = cv2.GaussianBlur(lab * np.float32((1, 2, 2)), (0, 0), blur)  # colour spans fewer levels
    dx, dy = cv2.Sobel(lab, cv2.CV_32F, 1, 0), cv2.Sobel(lab, cv2.CV_32F, 0, 1)  # (H, W, 3)
    channel = np.argmax(np.abs(dx) + np.abs(dy), axis=2)[..., None]
    dx, dy = (np.take_along_axis(d, channel, axis=2)[..., 0] for d in (dx, dy))
    high = max(24.0, share * float(np.quantile(np.abs(dx) + np.abs(dy), 0.99)))
    limit = np.iinfo(np.int16).max
    dx, dy = (np.rint(d).clip(-limit, limit).astype(np.int16) for d in (dx, dy))
    return cv2.Canny(dx, dy, 0.4 * high, high) > 0


def draw(pixels: np.ndarray, settings: SketchSettings, seed: int = 0) -> np.ndarray:
    """Draw a photo in lines.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB.
        settings: How.
        seed: Of what is dropped and how the hand shakes.

    Returns:
        ``(H, W)`` uint8, dark lines on white.
    """
    height, width = pixels.shape[:2]
    unit = max(height, width) / _REFERENCE
    if settings.kind == "xdog":
        ink = xdog(pixels, max(0.4, 0.6 * settings.detail * unit))
        ink = _without_specks(ink, (settings.shortest * unit) ** 2 / 8)
        if not (settings.drop or settings.jitter):
            return np.rint(255 * ink).astype(np.uint8)
        edges = ink < 0.5
    else:
        edges = edge_map(pixels, max(0.4, settings.detail * unit))
    lines = strokes.trace(edges, settings.shortest * unit)
    random = np.random.default_rng(seed)
    lines = keep_some(lines, settings.drop, random)
    longest = max((len(line) for line in lines), default=1)
    darkness = None
    if settings.pressure and settings.kind == "lines":
        darkness = [0.55 + 0.45 * (len(line) / longest) ** 0.4 for line in lines]
    drawn = []
    for line in lines:
        if settings.kind != "canny":
            line = strokes.simplify(line, settings.simplify * unit)
        line = strokes.wobble(line, settings.jitter * unit, random)
        drawn.append(line if settings.kind == "canny" else strokes.smooth(line))
    return strokes.render(drawn, (height, width), settings.thickness * unit, darkness)


def keep_some(
    lines: list[np.ndarray], drop: float, random: np.random.Generator
) -> list[np.ndarray]:
    """Leave out random strokes until ``drop`` of the whole length is gone; order is kept."""
    if not drop or not lines:
        return lines
    order = random.permutation(len(lines))
    lengths = np.array([len(lines[i]) for i in order])
    gone = np.cumsum(lengths) - lengths < drop * lengths.sum()
    kept = sorted(order[~gone].tolist()) or [int(order[-1])]
    return [lines[i] for i in kept]


def _without_specks(ink: np.ndarray, smallest: float) -> np.ndarray:
    """Erase blots of fewer than ``smallest`` pixels."""
    dark = (ink < 0.6).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dark, None, None, 8)
    small = np.zeros(count, dtype=bool)
    small[1:] = stats[1:, cv2.CC_STAT_AREA] < smallest
    around = cv2.dilate(small[labels].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return np.where(around & ((dark == 0) | small[labels]), 1.0, ink)


class Sketch:
    """Engine ``sketch``."""

    name, batch_size, needs_caption, light = "sketch", 1, False, True

    def __init__(self, settings: SketchSettings) -> None:
        self.settings = settings

    def describe(self) -> dict[str, Any]:
        """The settings."""
        return {"engine": self.name, "settings": asdict(self.settings)}

    def __call__(self, items: Sequence[Item]) -> list[Made]:
        """Draw each photo."""
        return [
            Made(Image.fromarray(draw(np.asarray(item.picture), self.settings, item.seed)))
            for item in items
        ]
