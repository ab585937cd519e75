"""Figures of a run: the training curve, and the case-study grid of :mod:`cases`."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from freestyle.errors import UserError
from freestyle.evaluation.cases import Case, case_grid
from freestyle.evaluation.drawing import HAIRLINE, INK, MUTED, PALETTE, new_figure, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Case", "case_grid", "read_curves", "training_curve"]

Curve = tuple[np.ndarray, np.ndarray]


def training_curve(
    metrics_csv: str | Path,
    path: str | Path,
    *,
    unseen: Collection[str] = (),
    title: str = "",
) -> Path:
    """Training loss, and validation Recall@1 of each style, over the epochs.

    Args:
        metrics_csv: The table of Lightning's CSVLogger: ``epoch``, ``step``, ``train/loss`` (or
            ``train/loss_step`` and ``train/loss_epoch``) and ``val/R@1/<style>``.
        path: The PNG to write, atomically.
        unseen: Styles that training never saw, drawn dashed.
        title: Headline.

    Returns:
        The path.

    Raises:
        UserError: The table cannot be read or holds no training, or the place cannot be written to.
    """
    loss, recall = read_curves(metrics_csv)
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(9.6, 3.9)
    left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.24})
    last = max([x[-1] for x, _ in [loss, *recall.values()] if len(x)], default=1)
    _plot_loss(left, *loss)
    for colour, (style, (x, y)) in zip(_cycle(len(recall)), recall.items(), strict=True):
        dashes = (0, (4, 2)) if style in unseen else "-"
        right.plot(x, 100 * y, color=colour, lw=2, ls=dashes, marker="o", ms=3.5, mec="white")
    _label_ends(right, recall, unseen)
    right.set_ylim(0, None)
    for axes, head in ((left, "training loss"), (right, "validation R@1, %")):
        axes.set_xlim(0, last * 1.02)
        axes.set_title(head, loc="left", fontsize=11, color=INK, pad=10)
        axes.set_xlabel("epoch", color=MUTED)
        axes.grid(axis="y", color=HAIRLINE, lw=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(colors=MUTED, length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(HAIRLINE)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if title:
        figure.suptitle(title, x=0.06, y=0.965, ha="left", fontsize=13, weight="bold", color=INK)
    figure.subplots_adjust(left=0.06, right=0.84, top=0.8 if title else 0.88, bottom=0.14)
    return save_png(figure, path)


def read_curves(metrics_csv: str | Path) -> tuple[Curve, dict[str, Curve]]:
    """The training loss and each style's validation Recall@1 from Lightning's table.

    Returns:
        Loss over fractional epochs, and by style, Recall@1 (a fraction) over the epochs done.

    Raises:
        UserError: The table cannot be read or holds neither.
    """
    try:
        with open(metrics_csv, newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        points: dict[str, list[tuple[float, float, float]]] = {}
        for line in lines:
            for name, value in line.items():
                if name not in ("epoch", "step") and value:
                    at = float(line["epoch"]), float(line["step"]), float(value)
                    points.setdefault(name, []).append(at)
    except OSError as error:
        raise UserError(f"cannot read the metrics {metrics_csv}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{metrics_csv} is not a metrics.csv of a training run") from error
    steps = [(epoch, step) for values in points.values() for epoch, step, _ in values]
    per_epoch = max(((step + 1) / (epoch + 1) for epoch, step in steps), default=1)
    loss = next((points[n] for n in ("train/loss_step", "train/loss") if n in points), None)
    if loss is None:
        loss = points.get("train/loss_epoch", [])
    recall = {}
    for name, values in points.items():
        match = re.fullmatch(r"val/R@1/(.+)", name)
        if match:
            recall[match[1]] = (
                np.array([epoch + 1 for epoch, _, _ in values]),
                np.array([value for *_, value in values]),
            )
    if not loss and not recall:
        raise UserError(f"{metrics_csv} holds neither train/loss nor val/R@1: train first")
    x = np.array([(step + 1) / per_epoch for _, step, _ in loss])
    return (x, np.array([value for *_, value in loss])), recall


def _plot_loss(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Each logged step faintly, and their mean per epoch."""
    if not len(x):
        return
    epoch = np.ceil(x - 1e-9).astype(int)
    ends = np.unique(epoch)
    if len(x) > len(ends):
        axes.plot(x, y, color=PALETTE[0], lw=0.9, alpha=0.35)
    means = [y[epoch == end].mean() for end in ends]
    middles = [x[epoch == end].mean() for end in ends]
    axes.plot(middles, means, color=PALETTE[0], lw=2, marker="o", ms=3.5, mec="white")
    axes.set_ylim(0 if y.min() >= 0 else None, None)


def _label_ends(axes: Axes, curves: Mapping[str, Curve], unseen: Collection[str]) -> None:
    """Name each line at its end, names kept apart."""
    if not curves:
        return
    ends = {style: 100 * float(y[-1]) for style, (_, y) in curves.items()}
    colours = dict(zip(curves, _cycle(len(curves)), strict=True))
    low_to_high = sorted(ends, key=ends.__getitem__)
    high = max(100 * float(y.max()) for _, y in curves.values())
    apart, previous = 0.065 * max(high, 1e-6), -np.inf
    for style in low_to_high:
        previous = max(ends[style], previous + apart)
        name = f"{style} (unseen)" if style in unseen else style
        axes.annotate(
            f"{name} {ends[style]:.1f}",
            (1.02, previous),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9.5,
            color=colours[style],
            annotation_clip=False,
            parse_math=False,
        )


def _cycle(count: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(count)]
