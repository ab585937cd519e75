"""Figures of a matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from freestyle.bench.compare import Result
from freestyle.evaluation.drawing import HAIRLINE, INK, MUTED, PALETTE, new_figure, save_png
from freestyle.evaluation.metrics import bootstrap_interval


def recall_chart(
    found: dict[str, Result], path: str | Path, *, title: str, reference: str | None = None
) -> Path:
    """R@1 of every row, one panel per style: mean over seeds, 95 % interval over queries.

    Args:
        found: Results by label.
        path: PNG to write.
        title: Over the figure.
        reference: Label whose mean is drawn as a line through each panel.

    Returns:
        ``path``.
    """
    labels = list(found)
    styles = list(dict.fromkeys(style for r in found.values() for style in r.reported))
    height = 1.3 + 0.27 * len(labels)
    figure = new_figure(2.6 + 1.9 * len(styles), height)
    figure.suptitle(title, x=0.015, y=1 - 0.18 / height, ha="left", va="top", color=INK, size=13)
    panels = figure.subplots(1, len(styles), sharey=True, squeeze=False)[0]
    for axes, style, colour in zip(panels, styles, PALETTE * len(styles), strict=False):
        for y, result in enumerate(found.values()):
            if style not in result.hits:
                continue
            hits = 100 * result.hits[style].mean(axis=0)  # (Q,)
            low, high = bootstrap_interval(hits)
            hollow = style != "text" and "+" not in style and style not in result.styles
            axes.plot([low, high], [y, y], color=colour, linewidth=1.6, alpha=0.45)
            axes.plot(
                hits.mean(),
                y,
                "o",
                color=colour,
                markersize=5,
                markerfacecolor="white" if hollow else colour,
            )
        if reference in found and style in found[reference].hits:
            mean = 100 * found[reference].hits[style].mean()
            axes.axvline(mean, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
        unseen = all(style not in r.styles for r in found.values())
        axes.set_title(f"{style} (unseen)" if unseen and style != "text" else style, size=10)
        axes.tick_params(colors=MUTED, labelsize=8, length=0)
        axes.grid(axis="x", color=HAIRLINE, linewidth=0.6)
        axes.set_axisbelow(True)
        for side in axes.spines.values():
            side.set_visible(False)
    panels[0].set_yticks(np.arange(len(labels)), labels, color=INK, size=9)
    panels[0].set_ylim(len(labels) - 0.4, -0.6)
    figure.text(
        0.015,
        0.12 / height,
        "R@1 in %, whole gallery; dots: mean over seeds (hollow: style not trained on); "
        "lines: 95 % interval over queries" + (f"; dashed: {reference}" if reference else ""),
        color=MUTED,
        size=8,
    )
    figure.tight_layout(rect=(0, 0.35 / height, 1, 1 - 0.3 / height), w_pad=1.2)
    return save_png(figure, path)
