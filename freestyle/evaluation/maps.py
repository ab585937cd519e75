"""What a trained model does to styles, drawn from plain arrays: maps, heat maps and curves.

Every function that draws returns the Matplotlib figure; :func:`drawing.save_png` writes it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from freestyle.evaluation.drawing import CARD, HAIRLINE, INK, MUTED, PALETTE, new_figure
from freestyle.evaluation.metrics import bootstrap_interval, recall_at_gallery_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PHOTO, OTHER = "photo", "other"  # labels drawn in grey
MARKERS = "o^sDvP*X"
INTERVAL = "bands: 95 % interval over queries"


def draw_embedding_map(
    places: Mapping[str, np.ndarray],
    kinds: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    unseen: Collection[str] = (),
    notes: Mapping[str, Sequence[str]] | None = None,
    title: str = "",
) -> Figure:
    """Maps side by side, coloured by style and, in a second row, by group.

    Args:
        places: By the panel's name ``(N, 2)``, as t-SNE gives them.
        kinds: Style of each point ``(N,)``, or ``photo``.
        groups: Group of each point ``(N,)``, or None to leave the second row out. Of more than
            eight, the largest seven keep their names.
        unseen: Styles that training never saw, drawn hollow.
        notes: A line below each panel's name, for each row.
        title: Headline.
    """
    rows = [("style", kinds)] + ([("group", _largest(groups))] if groups is not None else [])
    figure = new_figure(4.6 * len(places) + 1.9, 4.9 * len(rows) + 0.5)
    panels = figure.subplots(len(rows), len(places), squeeze=False)
    for row, ((what, labels), line) in enumerate(zip(rows, panels, strict=True)):
        hollow, order = (unseen, labels) if what == "style" else ((), sorted(labels))
        look = looks([str(label) for label in dict.fromkeys(order)])
        for axes, (name, xy) in zip(line, places.items(), strict=True):
            for label in look:
                _scatter(axes, xy[labels == label], label, look[label], hollow, size=10)
            _head(axes, name, notes[name][row] if notes else "")
            axes.set_facecolor(CARD)
            axes.set(xticks=[], yticks=[], xmargin=0.03, ymargin=0.03)
            axes.spines[:].set_color(HAIRLINE)
        _legend(line[-1], f"by {what}")
    width, height = figure.get_size_inches()
    figure.subplots_adjust(0.015, 0.1 / height, 1 - 1.75 / width, 1 - 1.05 / height, 0.04, 0.14)
    return _titled(figure, title)


def draw_style_space(
    places: Mapping[str, np.ndarray],
    bases: np.ndarray,
    weights: np.ndarray,
    shares: Sequence[float],
    *,
    unseen: Collection[str] = (),
    title: str = "",
) -> Figure:
    """Style codes in the plane with the bases, and beside them each style's mean base weights.

    Args:
        places: Codes by style ``(N, 2)`` on the first two principal axes.
        bases: ``(K, 2)`` on the same axes.
        weights: Mean weight of each base per style ``(S, K)``.
        shares: How much of the codes' variance lies along either axis.
        unseen: Styles that training never saw, drawn hollow.
        title: Headline.
    """
    figure = new_figure(6.9 + 0.75 * len(bases), 5.4)
    left, right = figure.subplots(1, 2, width_ratios=(5.2, 0.75 * len(bases)))
    look = looks(list(places))
    for label, xy in places.items():
        _scatter(left, xy, label, look[label], unseen, size=16)
    left.scatter(*bases.T, s=230, c="white", edgecolor=INK, lw=1.4, zorder=5, label="base")
    for number, (x, y) in enumerate(bases, start=1):
        left.text(x, y, str(number), size=9, weight="bold", ha="center", va="center", zorder=6)
    left.set_xlabel(f"first principal axis · {shares[0]:.0%} of variance", color=MUTED, size=9)
    left.set_ylabel(f"second principal axis · {shares[1]:.0%} of variance", color=MUTED, size=9)
    _plain(left, "both")
    _head(left, "style codes", "")
    left.legend(frameon=False, fontsize=9, labelcolor=INK, handletextpad=0.2)
    names = [_named(style, unseen) for style in places]
    _heat_map(right, weights, names, range(1, len(bases) + 1), low=0.0)
    _head(right, "mean weight of each base", "")
    right.set_xlabel("base", color=MUTED, size=9)
    figure.tight_layout(rect=(0, 0, 1, 0.93 if title else 1), w_pad=1.5)
    return _titled(figure, title)


def draw_similarity(
    tables: Mapping[str, np.ndarray],
    styles: Sequence[str],
    *,
    unseen: Collection[str] = (),
    title: str = "",
) -> Figure:
    """One annotated heat map ``(S, S)`` of cosines per thing styles make."""
    side = 1.7 + 0.85 * len(styles)
    figure = new_figure(max(side * len(tables), 6.2), side + 0.5)
    names = [_named(style, unseen) for style in styles]
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for axes, (what, values) in zip(panels, tables.items(), strict=True):
        _heat_map(axes, values, names, [name.replace(" (", "\n(") for name in names], low=-1.0)
        _head(axes, what, "")
    note = "cosine of two styles' means; diagonal: mean cosine of two queries of one style"
    figure.text(0.02, 0.015, note, size=8.5, color=MUTED)
    figure.tight_layout(rect=(0, 0.04, 1, 0.92 if title else 1), w_pad=2)
    return _titled(figure, title)


def draw_recall_curves(
    ranks: Mapping[str, Mapping[str, np.ndarray]],
    gallery_size: int,
    *,
    unseen: Collection[str] = (),
    title: str = "",
) -> Figure:
    """Recall@K against K up to 50, one panel per style.

    Args:
        ranks: By method, control first, and by style: 1-based ranks ``(Q,)``.
        gallery_size: G; no K is larger.
        unseen: Styles that training never saw.
        title: Headline.
    """
    ks = np.arange(1, min(50, gallery_size) + 1)
    curves = _by_style(ranks, ks, lambda values, k: (values <= k).astype(float))
    return _curves(
        curves, unseen, title, xlabel="K", ylabel="R@K, %", told_at=0,
        told="R@1:", ticks=[k for k in (1, 2, 5, 10, 20, 50) if k <= ks[-1]],
    )  # fmt: skip


def draw_gallery_sizes(
    ranks: Mapping[str, Mapping[str, np.ndarray]],
    gallery_size: int,
    *,
    unseen: Collection[str] = (),
    title: str = "",
) -> Figure:
    """Expected Recall@1 in random smaller galleries against their size, one panel per style.

    Args:
        ranks: As for :func:`draw_recall_curves`, with one relevant photo per query.
        gallery_size: G, the largest size.
        unseen: Styles that training never saw.
        title: Headline.
    """
    sizes = gallery_sizes(gallery_size)
    curves = _by_style(ranks, sizes, lambda v, n: recall_at_gallery_size(v, gallery_size, int(n)))
    return _curves(
        curves, unseen, title, xlabel="photos in the gallery", ylabel="expected R@1, %",
        told_at=-1, told=f"all {gallery_size:,}:",
        ticks=[n for n in sizes.tolist() if n <= 0.7 * gallery_size or n == gallery_size],
    )  # fmt: skip


def gallery_sizes(gallery_size: int) -> np.ndarray:
    """50, 100, 200, ... and the whole gallery; a smaller one is begun at a quarter of it."""
    start = 50 if gallery_size > 50 else max(1, gallery_size // 4)
    sizes = start * 2 ** np.arange(32)
    return np.append(sizes[sizes < gallery_size], gallery_size)


def looks(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every label; photos and what has no group are grey."""
    grey = {PHOTO: ("#9aa4ae", "s"), OTHER: ("#9aa4ae", ".")}
    rest = [label for label in labels if label not in grey]
    grey |= {label: (PALETTE[i % 8], MARKERS[i % 8]) for i, label in enumerate(rest)}
    return {label: grey[label] for label in labels}


def _scatter(axes: Axes, xy: np.ndarray, label: str, look, unseen, *, size: float) -> None:
    """One label's points, hollow where the style is unseen so that those below show."""
    colour, marker = look
    fill = {"facecolor": colour, "linewidth": 0, "alpha": 0.6}
    if label in unseen:
        fill = {"facecolor": "none", "edgecolor": colour, "linewidth": 0.7, "alpha": 0.9}
    axes.scatter(*xy.T, s=size, marker=marker, label=_named(label, unseen), **fill)


def _largest(groups: np.ndarray) -> np.ndarray:
    """At most eight groups: of more, all but the largest seven are joined."""
    names, counts = np.unique(groups, return_counts=True)
    kept = names[np.argsort(-counts, kind="stable")[: 7 if len(names) > 8 else 8]]
    return np.where(np.isin(groups, kept), groups, OTHER)


def _by_style(ranks, xs: np.ndarray, found) -> dict[str, dict[str, tuple]]:
    """By style and method: x, mean over queries in %, and both ends of its 95 % interval."""
    curves: dict[str, dict[str, tuple]] = {}
    for method, by_style in ranks.items():
        for style, values in by_style.items():
            hits = [100 * found(np.asarray(values), x) for x in xs]
            low, high = np.array([bootstrap_interval(h, resamples=1000) for h in hits]).T
            curves.setdefault(style, {})[method] = xs, np.mean(hits, axis=1), low, high
    return curves


def _curves(curves, unseen, title, *, xlabel, ylabel, told_at, told, ticks) -> Figure:
    """Panels on a shared scale; the first method dashed, the last in the style's colour."""
    across, down = min(len(curves), 5), -(-len(curves) // 5)
    figure = new_figure(max(2.45 * across, 5) + 0.5, 3.0 * down + 1.2)
    panels = figure.subplots(down, across, sharey=True, squeeze=False).flat
    for spare in list(panels)[len(curves) :]:
        spare.remove()
    look = looks(list(curves))
    for axes, (style, methods) in zip(figure.axes, curves.items(), strict=True):
        first, last = next(iter(methods)), list(methods)[-1]
        for method, (x, mean, low, high) in methods.items():
            colour, dashes = (look[style][0], "-") if method == last else (MUTED, (0, (3, 2)))
            axes.plot(x, mean, color=colour, ls=dashes, lw=2 if method == last else 1.5)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
        old, new = (methods[method][1][told_at] for method in (first, last))
        _head(axes, _named(style, unseen), f"{told} {old:.1f} → {new:.1f} %")
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xticks([], minor=True)
        _plain(axes, "y")
        axes.set_xlabel(xlabel, color=MUTED, size=9)
    top = max(high.max() for methods in curves.values() for *_, high in methods.values())
    figure.axes[0].set_ylim(0, min(1.04 * top, 102))  # shared
    figure.axes[0].set_ylabel(ylabel, color=MUTED, size=9)
    height = figure.get_figheight()
    keys = figure.legend(
        figure.axes[0].lines, [first, f"{last} (in the style's colour)"],
        loc="lower left", bbox_to_anchor=(0.005, 0), ncols=2, fontsize=9, frameon=False,
        labelcolor=INK,
    )  # fmt: skip
    keys.legend_handles[-1].set_color(INK)
    figure.text(0.99, 0.13 / height, INTERVAL, size=9, color=MUTED, ha="right")
    figure.tight_layout(rect=(0, 0.33 / height, 1, 1 - 0.35 / height if title else 1), w_pad=1.2)
    return _titled(figure, title)


def _heat_map(axes: Axes, values: np.ndarray, rows, columns, low: float) -> None:
    """Numbers in coloured cells: white at 0, blue at 1, and orange at -1."""
    from matplotlib.colors import LinearSegmentedColormap

    ends = ["white", PALETTE[0]] if low == 0 else [PALETTE[1], "white", PALETTE[0]]
    colours = LinearSegmentedColormap.from_list("cosine", ends)
    axes.imshow(values, cmap=colours, vmin=low, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        style = {"ha": "center", "va": "center", "color": "white" if abs(value) > 0.75 else INK}
        axes.text(j, i, f"{value:.2f}".replace("-", "\N{MINUS SIGN}"), size=10, **style)
    axes.set_xticks(range(len(columns)), columns, color=INK, size=9.5)
    axes.set_yticks(range(len(rows)), rows, color=INK, size=9.5)
    axes.tick_params(length=0)
    axes.spines[:].set_color(HAIRLINE)


def _legend(axes: Axes, title: str) -> None:
    """To the right of the panel, with markers large enough to tell apart."""
    legend = axes.legend(
        title=title, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9,
        labelcolor=INK, handletextpad=0.2, markerscale=2, alignment="left", borderaxespad=0,
    )  # fmt: skip
    for handle in legend.legend_handles:
        handle.set_alpha(1)


def _head(axes: Axes, name: str, note: str) -> None:
    """A panel's name, and below it a number worth reading."""
    axes.set_title(name, loc="left", size=11, color=INK, pad=22 if note else 6, parse_math=False)
    if note:
        place = {"xytext": (0, 7), "xycoords": "axes fraction", "textcoords": "offset points"}
        axes.annotate(note, (0, 1), size=9, color=MUTED, **place)


def _plain(axes: Axes, grid: str) -> None:
    axes.grid(axis=grid, color=HAIRLINE, lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, length=0, labelsize=8.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(HAIRLINE)


def _titled(figure: Figure, title: str) -> Figure:
    place = {"x": 0.012, "y": 1 - 0.14 / figure.get_figheight(), "ha": "left", "va": "top"}
    figure.suptitle(title, size=13, weight="bold", color=INK, parse_math=False, **place)
    return figure


def _named(style: str, unseen: Collection[str]) -> str:
    return f"{style} (unseen)" if style in unseen else style
