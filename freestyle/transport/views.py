"""Views of a picture: the whole, crops by rule or by seed, and what each of them weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from freestyle.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

KINDS = ("whole", "grid", "pyramid", "random", "patches")
GREYS = 16  # levels of the histogram behind content weights
NO_CONTENT = 1e-3  # bits of entropy below which a view is blank


@dataclass(frozen=True)
class Box:
    """A view of a picture, in fractions of its sides.

    Attributes:
        left: In [0, 1).
        top: In [0, 1).
        right: In (left, 1].
        bottom: In (top, 1].
        flip: Whether the view is mirrored.
    """

    left: float
    top: float
    right: float
    bottom: float
    flip: bool = False

    def cut(self, image: Image.Image) -> Image.Image:
        """The view of a picture, at least one pixel wide and high."""
        from PIL import ImageOps

        width, height = image.size
        x, y = min(int(self.left * width), width - 1), min(int(self.top * height), height - 1)
        corner = max(x + 1, round(self.right * width)), max(y + 1, round(self.bottom * height))
        view = image if (x, y, *corner) == (0, 0, width, height) else image.crop((x, y, *corner))
        return ImageOps.mirror(view) if self.flip else view


WHOLE = Box(0, 0, 1, 1)


@dataclass(frozen=True)
class Views:
    """How a picture becomes a set.

    Attributes:
        kind: ``whole``; ``grid``: the whole and windows in rows and columns; ``pyramid``: the
            whole, five windows of three quarters, five of half its sides; ``random``: the whole and
            seeded crops of half to all of its sides, half of them mirrored (STiTch, section 3.3);
            ``patches``: the whole and the encoder's projected patch tokens.
        count: M: elements of ``random``; the first so many of ``pyramid`` (11, or 6 without the
            half-size windows); at most so many of ``patches``, pooled over areas; of ``grid`` the
            whole and the largest square number of windows that fits.
        seed: Of the random crops.
        weights: ``uniform``, or ``content``: the entropy of a view's greys, so that a blank crop
            of a sketch weighs nothing.
        whole: Share of the weight that the whole picture has, in (0, 1]; its part by ``weights``
            where None.

    Raises:
        UserError: If a setting cannot be used.
    """

    kind: str = "random"
    count: int = 11
    seed: int = 0
    weights: str = "uniform"
    whole: float | None = None

    def __post_init__(self) -> None:
        if self.whole is not None and not 0 < self.whole <= 1:
            raise UserError(f"views.whole is {self.whole}: use a share in (0, 1]")
        if self.kind not in KINDS:
            raise UserError(f"unknown views '{self.kind}': use {', '.join(KINDS)}")
        if self.weights not in ("uniform", "content"):
            raise UserError(f"views.weights is '{self.weights}': use uniform or content")
        if self.count < 1:
            raise UserError(f"views.count is {self.count}: use 1 or more")
        if self.kind == "patches" and self.weights == "content":
            raise UserError("views of kind patches weigh all alike: set views.weights to uniform")

    @property
    def key(self) -> str:
        """Names what is embedded, for caches."""
        seed = f"-{self.seed}" if self.kind == "random" else ""
        return f"{self.kind}-{self.count}{seed}-{self.weights}"

    @property
    def tag(self) -> str:
        """Names the views in reports."""
        return self.key if self.whole is None else f"{self.key}, whole {self.whole:g}"

    def boxes(self) -> list[Box]:
        """The same for every picture, so that the order of pictures changes nothing."""
        if self.kind == "grid":
            side = int((self.count - 1) ** 0.5)
            steps = [i / side for i in range(side)]
            size = 1 / side if side else 1
            return [WHOLE, *(Box(x, y, x + size, y + size) for y in steps for x in steps)]
        if self.kind == "pyramid":
            return [WHOLE, *_five(0.75), *_five(0.5)][: max(1, self.count)]
        if self.kind == "random":
            return [WHOLE, *_random_boxes(self.count - 1, self.seed)]
        return [WHOLE]


def element_boxes(views: Views, count: int) -> list[Box]:
    """Where each of a set's elements lies in its picture, also those of patches."""
    if views.kind != "patches":
        return views.boxes()
    side = int((count - 1) ** 0.5)
    steps = [i / side for i in range(side)] if side else []
    windows = [Box(x, y, x + 1 / side, y + 1 / side) for y in steps for x in steps]
    return [WHOLE, *windows]


def _five(size: float) -> list[Box]:
    """Windows at the corners and in the middle."""
    far, mid = 1 - size, (1 - size) / 2
    corners = [(0.0, 0.0), (far, 0.0), (0.0, far), (far, far), (mid, mid)]
    return [Box(x, y, x + size, y + size) for x, y in corners]


def _random_boxes(count: int, seed: int) -> list[Box]:
    random = np.random.default_rng(seed)
    boxes = []
    for _ in range(count):
        width, height = random.uniform(0.5, 1, 2)
        x, y = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
        boxes.append(Box(x, y, x + width, y + height, bool(random.random() < 0.5)))
    return boxes


def content(view: Image.Image) -> float:
    """Entropy of a view's greys in bits, in [0, 4]; 0 where it is blank."""
    counts = np.asarray(view.convert("L").histogram()).reshape(GREYS, -1).sum(axis=1)
    shares = counts[counts > 0] / counts.sum()
    entropy = float(-(shares * np.log2(shares)).sum())
    return entropy if entropy > NO_CONTENT else 0.0


def view_weights(image: Image.Image, boxes: Sequence[Box], kind: str) -> np.ndarray:
    """Weights of a picture's views, sum 1: ``uniform`` or by ``content``."""
    if kind == "content":
        found = np.array([content(box.cut(image)) for box in boxes])
        if found.sum() > 0:
            return found / found.sum()
    return np.full(len(boxes), 1 / len(boxes))
