"""The case-study grid: queries, and what each method finds for them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freestyle.evaluation.drawing import (
    CARD,
    HAIRLINE,
    INK,
    MUTED,
    RIGHT,
    WRONG,
    new_figure,
    save_png,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image

    Picture = Path | Image.Image

_THUMBNAIL = 256  # pixels


@dataclass(frozen=True)
class Case:
    """One query of the case-study grid.

    Attributes:
        query: A picture (path or PIL image), a text (``str``), or several of them for a joint
            query.
        style: Its style, as on the command line.
        results: The first photos of each method, best first.
        right: For each method, which of these photos are relevant.
        ranks: For each method, the 1-based rank of the first relevant photo.

    Raises:
        ValueError: The three mappings do not fit together.
    """

    query: Picture | str | Sequence[Picture | str]
    style: str
    results: Mapping[str, Sequence[Picture]]
    right: Mapping[str, Sequence[bool]]
    ranks: Mapping[str, int]

    def __post_init__(self) -> None:
        if not self.results or not set(self.results) == set(self.right) == set(self.ranks):
            raise ValueError("results, right and ranks need the same methods, at least one")
        for method, photos in self.results.items():
            if len(photos) != len(self.right[method]):
                raise ValueError(f"{method}: {len(photos)} photos, {len(self.right[method])} marks")

    @classmethod
    def from_top_k(
        cls,
        query: Picture | str | Sequence[Picture | str],
        style: str,
        top: Mapping[str, Sequence[int] | np.ndarray],
        ranks: Mapping[str, int],
        gallery: Sequence[Picture],
        group: int,
        gallery_groups: np.ndarray,
    ) -> Case:
        """A case from positions in the gallery, as :func:`ranks.top_k` gives them per query."""
        return cls(
            query=query,
            style=style,
            results={m: [gallery[int(i)] for i in places] for m, places in top.items()},
            right={m: [bool(gallery_groups[i] == group) for i in p] for m, p in top.items()},
            ranks={m: int(rank) for m, rank in ranks.items()},
        )


def case_grid(
    cases: Sequence[Case],
    path: str | Path,
    *,
    title: str = "",
    gallery_size: int | None = None,
    names: Mapping[str, str] | None = None,
) -> Path:
    """One line per query: the query, then each method's first results, the right ones framed.

    Args:
        cases: The queries; all with the methods of the first.
        path: The PNG to write, atomically.
        title: Headline.
        gallery_size: How many photos were ranked, for the line below the headline.
        names: Methods' names in the figure, where they differ.

    Returns:
        The path.

    Raises:
        ValueError: No cases, or cases with other methods.
        UserError: A picture cannot be read, or the place cannot be written to.
    """
    if not cases or any(set(case.results) != set(cases[0].results) for case in cases):
        raise ValueError("a grid needs at least one case, and the same methods in each")
    methods = list(cases[0].results)
    shown = {m: max(len(case.results[m]) for case in cases) for m in methods}
    # In inches, a picture being 1 wide: a query, a gap, and each method's strip.
    step, line, gap, top = 1.08, 1.42, 0.56, 0.42 + 0.42 * bool(title)
    lefts, x = {}, 1 + gap
    for method in methods:
        lefts[method], x = x, x + shown[method] * step + gap
    width = x - gap - (step - 1)
    figure, axes = _canvas(width, top + line * len(cases), margin=0.28)
    if title:
        _write(axes, 0, 0.2, title, size=15, weight="bold")
    count = f"among {gallery_size:,} photos · " if gallery_size else ""
    note = f"{count}the right photo is framed and ticked"
    for method, left in lefts.items():
        name = (names or {}).get(method, method)
        _write(axes, left, top - 0.2, name, size=12, weight="bold")
    _write(axes, 0, top - 0.2, "query", size=12, weight="bold")
    _write(axes, width, 0.2, note, size=9.5, color=MUTED, ha="right")
    for number, case in enumerate(cases):
        y = top + line * number
        _draw_query(axes, case.query, y)
        _write(axes, 0, y + 1.16, case.style, size=10, color=MUTED)
        for method, left in lefts.items():
            rank = case.ranks[method]
            told = "right photo first" if rank == 1 else f"right photo at rank {rank:,}"
            colour = RIGHT if rank <= len(case.results[method]) else WRONG
            _write(axes, left, y + 1.16, told, size=10, color=colour)
            for i, photo in enumerate(case.results[method]):
                _place(axes, photo, left + i * step, y, right=case.right[method][i])
    return save_png(figure, path)


def _draw_query(axes: Axes, query: Any, y: float) -> None:
    """One picture, one text, or several side by side in the space of one."""
    parts = [query] if isinstance(query, str) or not isinstance(query, Sequence) else list(query)
    pictures = [part for part in parts if not isinstance(part, str)]
    text = "\n".join(part for part in parts if isinstance(part, str))
    if not pictures:
        _card(axes, 0, y, 1, 1)
        _fit_text(axes, text, 0.5, y + 0.5, width=0.9, lines=5)
        return
    space = 0.72 if text else 1.0
    across = 1 if len(pictures) == 1 else 2
    size = space / across
    left = (1 - space) / 2
    down = -(-len(pictures) // across)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, across)
        pad = 0.02 if across > 1 else 0
        offset = (space - down * size) / 2
        at = left + column * size + pad, y + offset + row * size + pad
        _place(axes, picture, *at, size=size - 2 * pad)
    if text:
        _fit_text(axes, text, 0.5, y + 0.87, width=1.3, lines=2)


def _fit_text(axes: Axes, text: str, x: float, y: float, *, width: float, lines: int) -> None:
    """Centred text, as large as fits into so many lines; what is too long ends in an ellipsis."""
    quoted = f"“{text}”"
    for points in (11.5, 10, 9, 8, 7):
        letters = int(width * 72 / (0.6 * points))  # DejaVu Sans: about 0.6 em a letter
        wrapped = textwrap.wrap(quoted, letters, max_lines=lines, placeholder=" …")
        if wrapped[-1].endswith("”") and max(map(len, quoted.split())) <= letters:
            break
    _write(axes, x, y, "\n".join(wrapped), size=points, ha="center", style="italic")


def _place(
    axes: Axes, picture: Any, x: float, y: float, *, size: float = 1.0, right: bool = False
) -> None:
    """A picture in a square, uncut, with a thin frame, or a thick one and a tick if right."""
    from matplotlib.patches import Circle

    box = (x, x + size, y + size, y)
    axes.imshow(_thumbnail(picture), extent=box, interpolation="antialiased", zorder=2)
    _card(axes, x, y, size, size, edge=RIGHT if right else HAIRLINE, width=3.2 if right else 0.8)
    if right:
        centre = x + size - 0.06, y + 0.06
        axes.add_patch(Circle(centre, 0.12, color=RIGHT, zorder=5, lw=0))
        dx, dy = np.array([-0.055, -0.015, 0.058]), np.array([0.003, 0.045, -0.042])
        axes.plot(
            centre[0] + dx, centre[1] + dy, color="white", lw=2, zorder=6, solid_capstyle="round"
        )


def _card(
    axes: Axes, x: float, y: float, w: float, h: float, edge: str = HAIRLINE, width: float = 0.8
) -> None:
    from matplotlib.patches import Rectangle

    face = "none" if edge == RIGHT or width != 0.8 else CARD
    axes.add_patch(Rectangle((x, y), w, h, fc=face, ec="none", zorder=1))
    axes.add_patch(
        Rectangle((x, y), w, h, fc="none", ec=edge, lw=width, zorder=4, joinstyle="round")
    )


def _write(axes: Axes, x: float, y: float, text: str, *, size: float, **style: Any) -> None:
    style = {"color": INK, "ha": "left", "va": "center"} | style
    axes.text(x, y, text, fontsize=size, parse_math=False, zorder=7, **style)


def _thumbnail(picture: Any) -> np.ndarray:
    """The picture on a white square, ``(256, 256, 3)`` uint8."""
    from PIL import ImageOps

    from freestyle.datasets.images import load_image

    return np.asarray(ImageOps.pad(load_image(picture), (_THUMBNAIL,) * 2, color="white"))


def _canvas(width: float, height: float, margin: float) -> tuple[Figure, Axes]:
    """A figure whose units are inches, with y pointing down."""
    figure = new_figure(width + 2 * margin, height + 2 * margin)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.autoscale(False)
    axes.set_xlim(-margin, width + margin)
    axes.set_ylim(height + margin, -margin)
    return figure, axes
