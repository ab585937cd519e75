"""Art without a network: classical non-photorealistic rendering, in a tenth of a second a picture.

Edge-preserving smoothing, palettes by k-means and ink lines by OpenCV and scikit-image. The oil
look is the Kuwahara filter (Computer Processing of Electron Microscope Images, 1976).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image
from skimage.segmentation import slic

from freestyle.errors import UserError
from freestyle.generation.engine import Item, Made
from freestyle.generation.sketch import xdog

_REFERENCE = 512  # longer side in pixels that brush sizes are meant for
_PALETTE_SIDE = 96  # palettes are found on pictures of this longer side


@dataclass(frozen=True)
class NprSettings:
    """How a photo is painted.

    Attributes:
        looks: One look, or several of which the picture's seed chooses.
        colours: Colours of a palette, for the looks that have one.
        brush: Factor on the size of smoothing, strokes, dots and tiles.
        ink: Factor on how dark the ink lines are, 0 for none.
    """

    looks: tuple[str, ...] = ("cartoon", "watercolour", "oil")
    colours: int = 12
    brush: float = 1.0
    ink: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "looks", tuple(self.looks))
        for look in self.looks:
            if look not in LOOKS:
                raise UserError(f"unknown look '{look}' of art: use {', '.join(LOOKS)}")
        if not self.looks:
            raise UserError(f"art needs one or more looks: use {', '.join(LOOKS)}")
        if not 2 <= self.colours <= 64:
            raise UserError(f"colours of art is {self.colours}: use 2 to 64")
        if self.brush <= 0 or self.ink < 0:
            raise UserError("brush of art must be above 0, ink 0 or more: leave them out")


def palette(pixels: np.ndarray, colours: int) -> np.ndarray:
    """The main colours of a picture: k-means in Lab, started from evenly spaced brightnesses.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB.
        colours: How many.

    Returns:
        ``(colours, 3)`` float32 in OpenCV's 8-bit Lab, the same for the same picture.
    """
    height, width = pixels.shape[:2]
    factor = _PALETTE_SIDE / max(height, width, _PALETTE_SIDE)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    samples = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)
    samples = samples[np.lexsort(samples.T[::-1])]
    start = np.arange(len(samples)) * colours // len(samples)
    if len(samples) < colours:
        return samples[np.linspace(0, len(samples) - 1, colours).round().astype(int)]
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    labels = start.astype(np.int32).reshape(-1, 1)
    cv2.setRNGSeed(0)  # empty clusters are filled at random
    flags = cv2.KMEANS_USE_INITIAL_LABELS
    return cv2.kmeans(samples, colours, labels, criteria, 1, flags)[2]


def quantise(pixels: np.ndarray, colours: int, saturation: float = 1.0) -> np.ndarray:
    """Paint a picture in its main colours only: ``(H, W, 3)`` uint8 to the same."""
    centres = palette(pixels, colours)
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    flat = lab.reshape(-1, 3)
    levels, inverse = np.unique(flat // 4, axis=0, return_inverse=True)
    nearest = np.argmin(
        ((levels[:, None].astype(np.float32) * 4 + 2 - centres[None]) ** 2).sum(axis=2), axis=1
    )
    bright = centres.copy()
    bright[:, 1:] = 128 + saturation * (bright[:, 1:] - 128)
    painted = np.rint(bright).clip(0, 255).astype(np.uint8)[nearest[inverse.reshape(-1)]]
    return cv2.cvtColor(painted.reshape(lab.shape), cv2.COLOR_LAB2RGB)


def calm(pixels: np.ndarray, unit: float, rounds: int) -> np.ndarray:
    """Smooth areas, keep edges: repeated bilateral filters."""
    radius = max(3, round(7 * unit)) | 1
    for _ in range(rounds):
        pixels = cv2.bilateralFilter(pixels, min(radius, 11), 35, 7 * unit)
    return pixels


def inked(
    pixels: np.ndarray, source: np.ndarray, unit: float, ink: float, threshold: float = 0.35
) -> np.ndarray:
    """Lay ink lines of ``source`` over a painting."""
    paper = xdog(
        source, max(0.5, 1.1 * unit), sharpness=22, threshold=threshold, slope=10, evenness=0.8
    )
    paper = 1 - np.minimum(1.0, ink * (1 - paper))
    return np.rint(pixels * paper[..., None]).astype(np.uint8)


def cartoon(pixels: np.ndarray, settings: NprSettings, unit: float, seed: int) -> np.ndarray:
    """Flat bright colours and ink lines."""
    flat = calm(pixels, unit, 3)
    painted = cv2.medianBlur(quantise(flat, settings.colours, 1.35), max(3, round(5 * unit)) | 1)
    return inked(painted, flat, unit, settings.ink)


def poster(pixels: np.ndarray, settings: NprSettings, unit: float, seed: int) -> np.ndarray:
    """Few flat colours in large shapes, as of a screen print."""
    flat = cv2.medianBlur(calm(pixels, 1.5 * unit, 2), max(3, round(9 * unit)) | 1)
    painted = quantise(flat, max(2, settings.colours // 2), 1.6)
    return cv2.medianBlur(painted, max(3, round(7 * unit)) | 1)


def watercolour(pixels: np.ndarray, settings: NprSettings, unit: float, seed: int) -> np.ndarray:
    """Pale washes of few colours with dark rims, running and granulating on warm paper."""
    random = np.random.default_rng(seed)
    height, width = pixels.shape[:2]
    wash = cv2.pyrMeanShiftFiltering(calm(pixels, unit, 1), 6 + 8 * min(unit, 1.5), 32, None, 1)
    wash = _bleed(wash, 1.8 * unit, random).astype(np.float32) / 255
    grey = cv2.GaussianBlur(cv2.cvtColor(wash, cv2.COLOR_RGB2GRAY), (0, 0), max(0.7, 1.4 * unit))
    rim = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    pools = _clouds(random, (height, width), 30 * unit) * 0.16
    grain = cv2.GaussianBlur(random.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 0.9)
    density = 0.6 + pools + 0.12 * grain + 1.6 * settings.ink * rim.clip(0, 0.5)
    paper = np.array([0.985, 0.975, 0.945], dtype=np.float32)
    painted = paper * np.power(wash.clip(0.02, 1), density.clip(0.2, 2.0)[..., None])
    return _saturated(np.rint(255 * painted.clip(0, 1)).astype(np.uint8), 1.35)


def oil(pixels: np.ndarray, settings: NprSettings, unit: float, seed: int) -> np.ndarray:
    """Thick strokes: two rounds of the Kuwahara filter, then relief by the light from above."""
    radius = max(3, round(8 * unit))
    painted = _saturated(kuwahara(kuwahara(pixels, radius), max(2, radius // 2)), 1.3)
    random = np.random.default_rng(seed)
    grey = cv2.cvtColor(painted, cv2.COLOR_RGB2GRAY).astype(np.float32)
    bristles = random.normal(0, 1, grey.shape).astype(np.float32)
    bristles = cv2.GaussianBlur(bristles, (0, 0), max(1.6, 3 * unit), sigmaY=max(0.7, unit)) * 90
    relief = cv2.Sobel(grey + bristles, cv2.CV_32F, 1, 1, ksize=3)
    return np.rint(painted + relief.clip(-60, 60)[..., None] * 0.5).clip(0, 255).astype(np.uint8)


def _saturated(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Stronger colours: ``(H, W, 3)`` uint8."""
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 1] = (factor * hsv[..., 1]).clip(0, 255)
    return cv2.cvtColor(np.rint(hsv).astype(np.uint8), cv2.COLOR_HSV2RGB)


def kuwahara(pixels: np.ndarray, radius: int) -> np.ndarray:
    """The mean of the calmest of the four quadrants around each pixel: ``(H, W, 3)`` uint8."""
    side = radius + 1
    values = pixels.astype(np.float32)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    best = result = None
    for right in (0, 1):
        for below in (0, 1):
            anchor = (side - 1 if not right else 0, side - 1 if not below else 0)
            mean = cv2.blur(values, (side, side), anchor=anchor)
            first = cv2.blur(grey, (side, side), anchor=anchor)
            spread = cv2.blur(grey * grey, (side, side), anchor=anchor) - first * first
            if best is None or result is None:
                best, result = spread, mean
                continue
            calmer = spread < best
            best = np.where(calmer, spread, best)
            result = np.where(calmer[..., None], mean, result)
    return np.rint(result).clip(0, 255).astype(np.uint8)


def pencil(pixels: np.ndarray, settings: NprSettings, unit: float, seed: int) -> np.ndarray:
    """Coloured pencil: colour dodge shading, hatched, on white."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    blurred = cv2.GaussianBlur(255 - grey, (0, 0), max(1.0, 9 * unit))
    dodge = (grey * 255 / np.maximum(255 - blurred, 1)).clip(0, 255) / 255
    random = np.random.default_rng(seed)
    noise = random.normal(0, 1, grey.shape).astype(np.float32)
    length = max(5, round(17 * unit)) | 1
    kernel = np.eye(length, dtype=np.float32)[::-1] / length
    hatch = cv2.filter2D(noise, -1, kernel) * np.sqrt(length)
    shade = 1 - (1 - grey / 255) * (0.45 + 0.3 * np.tanh(hatch))
    pale = 255 - (255 - calm(pixels, unit, 1).astype(np.float32)) * 0.75
    painted = (
        pale
        * np.minimum(dodge, 1)[..., None] ** (1.5 * settings.ink)
        * (0.35 + 0.65 * shade[..., None])
    )
    return np.rint(painted.clip(0, 255)).astype(np.uint8)


def halftone(pixels: np.ndarray, settings: NprSettings, unit: float, seed: int) -> np.ndarray:
    """Printed comic: cyan, magenta, yellow and black dots on rotated grids."""
    height, width = pixels.shape[:2]
    pitch = max(3.0, 6.0 * unit * settings.brush)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    cmy = 1 - cv2.GaussianBlur(pixels, (0, 0), pitch / 3).astype(np.float32) / 255
    black = cmy.min(axis=2, keepdims=True)
    inks = np.concatenate([(cmy - black) / np.maximum(1 - black, 1e-3), black], axis=2)
    page = np.ones((height, width, 3), dtype=np.float32)
    colours = ((0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 0))
    for channel, (degrees, colour) in enumerate(zip((15, 75, 0, 45), colours, strict=True)):
        angle = np.deg2rad(degrees)
        u = (columns * np.cos(angle) + rows * np.sin(angle)) * (2 * np.pi / pitch)
        v = (-columns * np.sin(angle) + rows * np.cos(angle)) * (2 * np.pi / pitch)
        screen = 0.5 + 0.25 * (np.cos(u) + np.cos(v))  # 1 at the centre of a dot
        covered = ((inks[..., channel] - (1 - screen)) * pitch).clip(0, 1)[..., None]
        page *= 1 - covered * (1 - np.array(colour, dtype=np.float32) * 0.9 - 0.1)
    return np.rint(255 * page).astype(np.uint8)


def tiles(pixels: np.ndarray, settings: NprSettings, unit: float, seed: int) -> np.ndarray:
    """Mosaic of stones: superpixels (SLIC) in their mean colour with light joints."""
    height, width = pixels.shape[:2]
    size = max(5.0, 13.0 * unit * settings.brush)
    count = max(4, round(height * width / size**2))
    labels = slic(pixels, count, compactness=12, max_num_iter=4, start_label=0)
    sums = np.stack([np.bincount(labels.ravel(), pixels[..., c].ravel()) for c in range(3)], axis=1)
    means = sums / np.maximum(np.bincount(labels.ravel()), 1)[:, None]
    random = np.random.default_rng(seed)
    means = means * random.uniform(0.9, 1.1, (len(means), 1))
    painted = means[labels].clip(0, 255)
    joint = np.zeros(labels.shape, dtype=bool)
    joint[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    joint[1:] |= labels[1:] != labels[:-1]
    painted[joint] = 0.45 * painted[joint] + 0.55 * 215
    return np.rint(painted).astype(np.uint8)


def _bleed(pixels: np.ndarray, amount: float, random: np.random.Generator) -> np.ndarray:
    """Shift every pixel by a smooth random field, so that rims run like wet paint."""
    height, width = pixels.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    dx, dy = (_clouds(random, (height, width), 10 * amount) * amount for _ in range(2))
    return cv2.remap(
        pixels, columns + dx, rows + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )


def _clouds(random: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Smooth noise ``(H, W)`` of unit deviation, features about ``scale`` pixels wide."""
    height, width = shape
    grid = random.normal(0, 1, (max(2, int(height / scale) + 2), max(2, int(width / scale) + 2)))
    return cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)


Look = Callable[[np.ndarray, NprSettings, float, int], np.ndarray]
LOOKS: dict[str, Look] = {
    "cartoon": cartoon,
    "watercolour": watercolour,
    "oil": oil,
    "poster": poster,
    "pencil": pencil,
    "halftone": halftone,
    "tiles": tiles,
}


def paint(pixels: np.ndarray, settings: NprSettings, seed: int = 0) -> tuple[np.ndarray, str]:
    """Paint a photo.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB.
        settings: How.
        seed: Of the look, where there are several, and of grain and bristles.

    Returns:
        ``(H, W, 3)`` uint8 and the name of the look.
    """
    look = settings.looks[seed % len(settings.looks)]
    unit = settings.brush * max(pixels.shape[:2]) / _REFERENCE
    return LOOKS[look](np.ascontiguousarray(pixels), settings, unit, seed), look


class Npr:
    """Engine ``npr``."""

    name, batch_size, needs_caption, light = "npr", 1, False, True

    def __init__(self, settings: NprSettings) -> None:
        self.settings = settings

    def describe(self) -> dict[str, Any]:
        """The settings."""
        settings = {**asdict(self.settings), "looks": list(self.settings.looks)}
        return {"engine": self.name, "settings": settings}

    def __call__(self, items: Sequence[Item]) -> list[Made]:
        """Paint each photo."""
        made = []
        for item in items:
            pixels, look = paint(np.asarray(item.picture), self.settings, item.seed)
            made.append(Made(Image.fromarray(pixels), details={"look": look}))
        return made
