"""Lines as strokes: an edge map becomes polylines, which can be bent, dropped and drawn."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from skimage.morphology import skeletonize

_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
_SHIFT = 4  # sub-pixel bits of cv2.polylines


def trace(edges: np.ndarray, shortest: float) -> list[np.ndarray]:
    """Follow the lines of an edge map.

    Lines are thinned to one pixel and cut where they branch, so that a stroke never forks.

    Args:
        edges: ``(H, W)`` bool.
        shortest: Connected lines of fewer pixels are left out, and so are branches of less than
            a third of it.

    Returns:
        Polylines ``(N, 2)`` float32 of (x, y), one point per pixel, longest first.
    """
    thin = skeletonize(edges).astype(np.uint8)
    labels, areas = _components(thin)
    thin[areas[labels] < shortest] = 0
    cut = thin.copy()
    cut[_branches(thin)] = 0
    strokes = [
        np.array(path, dtype=np.float32)[:, ::-1].copy()
        for rows, columns in _pixels(cut)
        for path in _walk(list(zip(rows.tolist(), columns.tolist(), strict=True)))
        if len(path) >= max(2.0, shortest / 3)
    ]
    return sorted(strokes, key=lambda s: (-len(s), s[0, 1], s[0, 0]))


def _components(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels ``(H, W)`` of connected lines, 0 outside, and the pixels of each, 0 for outside."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(lines, None, None, 8)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    return labels, areas


def _pixels(lines: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of each connected line, in reading order."""
    labels, _ = _components(lines)
    rows, columns = np.nonzero(labels)
    found = labels[rows, columns]
    order = np.argsort(found, kind="stable")
    edges = np.flatnonzero(np.diff(found[order])) + 1
    pieces = np.split(order, edges) if len(order) else []
    return [(rows[piece], columns[piece]) for piece in pieces]


def _branches(thin: np.ndarray) -> np.ndarray:
    """Pixels ``(H, W)`` bool from which three or more lines leave: three runs of neighbours."""
    padded = np.pad(thin, 1)
    height, width = thin.shape
    ring = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    around = [padded[r : r + height, c : c + width].astype(np.int8) for r, c in ring]
    starts = sum((around[i] == 0) & (around[(i + 1) % 8] == 1) for i in range(8))
    return (thin > 0) & (starts >= 3)


def _walk(pixels: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Order the pixels of a line from end to end; what a path passes by begins another."""
    left = dict.fromkeys(pixels)  # a set that keeps its order

    def onwards(path: list[tuple[int, int]]) -> list[tuple[int, int]]:
        while True:
            row, column = path[-1]
            ways = ((row + a, column + b) for a, b in _STEPS)
            way = next((pixel for pixel in ways if pixel in left), None)
            if way is None:
                return path
            del left[way]
            path.append(way)

    paths = []
    while left:
        start = next(iter(left))
        del left[start]
        forth = onwards([start])
        back = onwards([start])
        paths.append(back[:0:-1] + forth)
    return paths


def simplify(stroke: np.ndarray, tolerance: float) -> np.ndarray:
    """Leave out points that lie within ``tolerance`` pixels of the line: ``(N, 2)`` to ``(M, 2)``.

    Douglas-Peucker, by OpenCV.
    """
    if tolerance <= 0 or len(stroke) < 3:
        return stroke
    return cv2.approxPolyDP(stroke.reshape(-1, 1, 2), tolerance, False).reshape(-1, 2)


def smooth(stroke: np.ndarray, rounds: int = 2) -> np.ndarray:
    """Round the corners: Chaikin's cuts at a quarter and three quarters of each piece."""
    for _ in range(rounds):
        if len(stroke) < 3:
            return stroke
        before, after = stroke[:-1], stroke[1:]
        cuts = np.stack([0.75 * before + 0.25 * after, 0.25 * before + 0.75 * after], axis=1)
        stroke = np.concatenate([stroke[:1], cuts.reshape(-1, 2), stroke[-1:]])
    return stroke


def wobble(stroke: np.ndarray, amount: float, random: np.random.Generator) -> np.ndarray:
    """An unsure hand: shift a stroke, turn and scale it about its centre, bend it slowly.

    Args:
        stroke: ``(N, 2)``.
        amount: Typical displacement in pixels.
        random: Source of the numbers.
    """
    if amount <= 0:
        return stroke
    centre = stroke.mean(axis=0)
    angle, size = random.normal(0, 0.012 * amount), 1 + random.normal(0, 0.01 * amount)
    cos, sin = size * np.cos(angle), size * np.sin(angle)
    moved = (stroke - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre
    knots = max(2, len(stroke) // 6)
    bends = random.normal(0, 0.6 * amount, (knots, 2))
    at = np.linspace(0, knots - 1, len(stroke))
    bend = np.stack([np.interp(at, np.arange(knots), bends[:, axis]) for axis in (0, 1)], axis=1)
    return (moved + bend + random.normal(0, 0.5 * amount, 2)).astype(np.float32)


def render(
    strokes: Sequence[np.ndarray],
    shape: tuple[int, int],
    thickness: float,
    darkness: Sequence[float] | None = None,
) -> np.ndarray:
    """Draw strokes in black on white, antialiased.

    Args:
        strokes: Polylines ``(N, 2)`` of (x, y).
        shape: (H, W).
        thickness: Of the pen, in pixels.
        darkness: Ink of each stroke in [0, 1]; None draws all black.

    Returns:
        ``(H, W)`` uint8, 255 where nothing is drawn.
    """
    scale = 2 if thickness < 2.5 else 1  # thin pens need half pixels
    height, width = shape
    canvas = np.full((height * scale, width * scale), 255, dtype=np.uint8)
    pen = max(1, round(thickness * scale))
    for number, stroke in enumerate(strokes):
        ink = 1.0 if darkness is None else float(darkness[number])
        points = np.rint((stroke + 0.5) * scale * (1 << _SHIFT)).astype(np.int32)
        cv2.polylines(
            canvas,
            [points.reshape(-1, 1, 2)],
            False,
            round(255 * (1 - ink)),
            pen,
            cv2.LINE_AA,
            _SHIFT,
        )
    if scale == 1:
        return canvas
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
