"""Drawn transport plans: which view of a result met which caption, or which view of the reference.

One picture per query. The rows are the first results; in each, the result with its views, and for
every block of the preset a table whose cells hold the share of mass between two elements.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from freestyle.datasets.composed import load_picture
from freestyle.errors import UserError
from freestyle.evaluation.composed import ComposedOutcome, Prepared
from freestyle.evaluation.drawing import HAIRLINE, INK, MUTED, RIGHT, new_figure, save_png
from freestyle.transport.distance import Transport, conditional_transport, sinkhorn
from freestyle.transport.presets import Preset
from freestyle.transport.scoring import SetDistance
from freestyle.transport.views import element_boxes

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec
    from PIL import Image

DRAWN = ("target", "reference")
SHOWN = 6  # of the reference's views


def plan_of(prepared: Prepared, preset: Preset, block: str, query: int, photo: int) -> Transport:
    """The plan between one query's block and one picture: score ``()`` and plan ``(K, M)``.

    Raises:
        UserError: If the preset compares sets by something that has no plan.
    """
    distance: SetDistance = preset.distance_of(block)
    if distance.name not in ("transport", "sinkhorn"):
        raise UserError(
            f"preset {preset.name} compares by '{distance.name}', which has no plan: explain one "
            "that compares by transport or sinkhorn, such as stitch"
        )
    rows = torch.tensor([query])
    own = prepared.scorer(preset).sets_of(block, prepared.queries.take(rows))
    other = prepared.gallery.take(torch.tensor([photo]))
    similarity = own.atoms[0].float() @ other.atoms[0].float().T  # (K, M)
    weights = [None if s.weights is None else s.weights[0] for s in (own, other)]
    if distance.name == "sinkhorn":
        return sinkhorn(similarity, *weights, distance.temperature, return_plan=True)
    settings = distance.temperature, distance.mix
    return conditional_transport(similarity, *weights, *settings, return_plan=True)


def explain_queries(
    prepared: Prepared,
    preset: Preset,
    outcome: ComposedOutcome,
    folder: str | Path,
    *,
    count: int = 3,
    results: int = 3,
    seed: int = 0,
) -> list[Path]:
    """Draw some queries, chosen by seed; one PNG each.

    Args:
        prepared: The embedded split.
        preset: Compares by transport or Sinkhorn.
        outcome: Of that preset.
        folder: Where the pictures go.
        count: Queries.
        results: Results per query.
        seed: Of the choice.

    Returns:
        The files.

    Raises:
        UserError: If the preset has no plan, or the folder cannot be written to.
    """
    chosen = np.random.default_rng(seed).permutation(len(prepared.split.queries))[:count]
    paths = []
    for query in chosen.tolist():
        name = re.sub(r"[^\w.-]+", "_", prepared.split.queries[query].id)
        figure = explain(prepared, preset, query, outcome.top[query][:results])
        paths.append(save_png(figure, Path(folder) / f"{name}.png"))
    return paths


def explain(prepared: Prepared, preset: Preset, query: int, photos: Sequence[int]) -> Figure:
    """The figure of one query and some results."""
    blocks = [b for b in DRAWN if b in preset.read_blocks]
    if not blocks:
        raise UserError(
            f"preset {preset.name} reads neither captions nor reference: nothing to draw"
        )
    asked = prepared.split.queries[query]
    names = prepared.split.gallery_ids
    figure = new_figure(3.2 + 5.6 * len(blocks), 1.6 + 2.9 * len(photos))
    grid = figure.add_gridspec(
        len(photos) + 1,
        len(blocks) + 1,
        width_ratios=[1.5, *[4] * len(blocks)],
        height_ratios=[0.55, *[1] * len(photos)],
        left=0.02,
        right=0.985,
        top=0.985,
        bottom=0.02,
        hspace=0.16,
        wspace=0.1,
    )
    reference = load_picture(asked.reference)
    _show(figure.add_subplot(grid[0, 0]), reference)
    head = figure.add_subplot(grid[0, 1:])
    head.set_axis_off()
    title = f"this picture ({asked.style}), but: {asked.text}"
    head.text(0, 0.75, title, fontsize=14, color=INK, weight="bold", parse_math=False)
    text = (
        f"{preset.name}; share of mass between two elements, in %; of the reference the first "
        f"{SHOWN} views"
    )
    head.text(0, 0.4, text, fontsize=9.5, color=MUTED, parse_math=False)
    for row, photo in enumerate(photos, 1):
        image = load_picture(prepared.split.gallery[photo])
        axes = figure.add_subplot(grid[row, 0])
        right = names[photo] in asked.targets
        _show(axes, image, RIGHT if right else HAIRLINE)
        label = f"{row}. {names[photo]}" + (" (a target)" if right else "")
        axes.set_title(label, fontsize=8.5, color=RIGHT if right else INK, parse_math=False)
        for column, block in enumerate(blocks, 1):
            plan = plan_of(prepared, preset, block, query, photo).plan.numpy()
            _table(figure, grid[row, column], plan, image, prepared, query, block, reference)
    return figure


def _show(axes, image: Image.Image, frame: str = HAIRLINE) -> None:
    axes.imshow(image.convert("RGB"))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(frame)
        spine.set_linewidth(2.5 if frame == RIGHT else 0.8)


def _table(
    figure: Figure,
    place: SubplotSpec,
    plan: np.ndarray,
    image: Image.Image,
    prepared: Prepared,
    query: int,
    block: str,
    reference: Image.Image,
) -> None:
    """One plan: the result's views above, captions or the reference's views to the left."""
    rows = np.flatnonzero(plan.sum(axis=1) > 0)
    rows = rows if block == "target" else rows[:SHOWN]
    boxes = element_boxes(prepared.encoder.views, plan.shape[1])
    wide = len(boxes)
    left = 3.8 if block == "target" else 1.0
    inner = place.subgridspec(
        len(rows) + 1,
        wide + 1,
        width_ratios=[left, *[1] * wide],
        height_ratios=[1.25, *[1] * len(rows)],
        hspace=0.06,
        wspace=0.06,
    )
    for column, box in enumerate(boxes):
        _show(figure.add_subplot(inner[0, column + 1]), box.cut(image))
    own = prepared.compositions[prepared.split.queries[query].id].captions
    mine = element_boxes(prepared.encoder.query_views, prepared.queries.reference.atoms.shape[1])
    cells = figure.add_subplot(inner[1:, 1:])
    cells.imshow(plan[rows], cmap="Greens", vmin=0, vmax=plan.max(), aspect="auto")
    cells.set_xticks([])
    cells.set_yticks([])
    for y, row in enumerate(rows):
        label = figure.add_subplot(inner[y + 1, 0])
        if block == "target":
            label.set_axis_off()
            text = textwrap.shorten(own[row], 30, placeholder="...")
            label.text(0.97, 0.5, text, fontsize=7.5, ha="right", va="center", parse_math=False)
        else:
            _show(label, mine[row].cut(reference))
        for x in range(wide):
            share = 100 * plan[row, x]
            if share >= 0.5:
                dark = plan[row, x] > 0.6 * plan.max()
                colour = "white" if dark else INK
                cells.text(x, y, f"{share:.0f}", fontsize=7, ha="center", va="center", color=colour)
