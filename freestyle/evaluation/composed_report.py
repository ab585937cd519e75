"""The report of a composed evaluation: rows by style or category, paired intervals, submissions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from freestyle.datasets.composed import ComposedSplit
from freestyle.evaluation.composed import ComposedOutcome, metric_names
from freestyle.evaluation.metrics import bootstrap_interval, paired_bootstrap_difference
from freestyle.files import write_json, write_text

MEAN = "mean"


@dataclass(frozen=True)
class ComposedRow:
    """One preset on one style or category.

    Attributes:
        preset: Its name.
        part: Style or category; ``mean`` for the mean over them, ``all`` where there is one.
        n: Number of queries.
        metrics: Rates in [0, 1] by name.
        intervals: Bootstrap 95 % intervals over pairs, by name.
    """

    preset: str
    part: str
    n: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class ComposedDifference:
    """One preset less another, paired by query.

    Attributes:
        preset: The first.
        other: The second.
        metric: Name.
        mean: Mean difference, in [-1, 1].
        low: Lower end of its 95 % interval.
        high: Upper end.
    """

    preset: str
    other: str
    metric: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ComposedReport:
    """Setting and numbers of a composed evaluation.

    Attributes:
        dataset: Name.
        split: Name.
        gallery_size: G.
        weights: The encoder's weights tag.
        model: What embedded the references.
        composer: What wrote the captions.
        views: How pictures became sets.
        command: What made it.
        note: Of the split.
        rows: All rows.
        differences: Of one preset to the others.
        tuned: Settings that validation chose, if it did.
    """

    dataset: str
    split: str
    gallery_size: int
    weights: str
    model: str
    composer: str
    views: str
    command: str
    note: str = ""
    rows: tuple[ComposedRow, ...] = ()
    differences: tuple[ComposedDifference, ...] = ()
    tuned: dict[str, object] = field(default_factory=dict)


def parts_of(split: ComposedSplit) -> dict[str, np.ndarray]:
    """Queries by style, or else by category, or else all; equally long parts pair by position."""
    queries = split.queries
    for names in ([q.style for q in queries], [q.group for q in queries]):
        different = list(dict.fromkeys(names))
        if len(different) > 1:
            column = np.array(names)
            return {name: np.flatnonzero(column == name) for name in different}
    return {"all": np.arange(len(queries))}


def paired(values: np.ndarray, split: ComposedSplit, parts: dict[str, np.ndarray]) -> np.ndarray:
    """Values whose mean is the mean over parts.

    ``(styles, pairs)`` where every style asks the same pairs; else ``(Q,)``, each part weighing the
    same however many queries it has (FashionIQ's categories).
    """
    rows = [[split.queries[i].pair for i in part] for part in parts.values()]
    if len(rows) > 1 and rows[0][0] and all(row == rows[0] for row in rows):
        return np.stack([values[part] for part in parts.values()])
    even = values.astype(np.float64)
    for part in parts.values():
        even[part] *= len(values) / (len(parts) * len(part))
    return even


def rows_of(name: str, outcome: ComposedOutcome, split: ComposedSplit) -> list[ComposedRow]:
    """The rows of one preset: every part, and the mean over parts."""
    parts, names = parts_of(split), metric_names(split)
    values = {metric: outcome.metric(metric) for metric in names}
    rows = []
    for part, places in parts.items():
        own = {metric: values[metric][places] for metric in names}
        rows.append(
            ComposedRow(
                name,
                part,
                len(places),
                {metric: float(v.mean()) for metric, v in own.items()},
                {metric: bootstrap_interval(v) for metric, v in own.items()},
            )
        )
    if len(parts) > 1:
        means = {m: float(np.mean([row.metrics[m] for row in rows])) for m in names}
        intervals = {}
        for metric in names:
            shaped = paired(values[metric], split, parts)
            flat = shaped.mean(axis=0) if shaped.ndim == 2 else shaped
            intervals[metric] = bootstrap_interval(flat)
        rows.append(ComposedRow(name, MEAN, len(split.queries), means, intervals))
    return rows


def differences_of(
    name: str, outcomes: dict[str, ComposedOutcome], split: ComposedSplit, metrics: Sequence[str]
) -> list[ComposedDifference]:
    """One preset less each of the others; queries that share a pair are resampled together."""
    parts = parts_of(split)
    found = []
    for other, outcome in outcomes.items():
        if other == name:
            continue
        for metric in metrics:
            a, b = (paired(o.metric(metric), split, parts) for o in (outcomes[name], outcome))
            difference = paired_bootstrap_difference(a, b)
            found.append(ComposedDifference(name, other, metric, *difference))
    return found


def table(report: ComposedReport, metrics: Sequence[str]) -> str:
    """Markdown: presets by part, in %, the metrics joined by a stroke."""
    parts = list(dict.fromkeys(row.part for row in report.rows))
    cells = {(row.preset, row.part): row for row in report.rows}
    presets = list(dict.fromkeys(row.preset for row in report.rows))
    head = f"| {' / '.join(metrics)}, % | {' | '.join(parts)} |"
    lines = [head, "| --- |" + " ---: |" * len(parts)]
    for preset in presets:
        own = []
        for part in parts:
            row = cells[preset, part]
            text = " / ".join(f"{100 * row.metrics[m]:.1f}" for m in metrics)
            if part in (MEAN, "all"):
                low, high = (100 * v for v in row.intervals[metrics[0]])
                text += f" [{low:.1f}, {high:.1f}]"
            own.append(text)
        lines.append(f"| {preset} | {' | '.join(own)} |")
    return "\n".join(lines)


def difference_table(report: ComposedReport) -> str:
    """Markdown: what one preset has more than the others, in points."""
    metrics = list(dict.fromkeys(d.metric for d in report.differences))
    found = {(d.other, d.metric): d for d in report.differences}
    first = report.differences[0].preset
    lines = [f"| {first} minus | {' | '.join(metrics)} |", "| --- |" + " ---: |" * len(metrics)]
    for other in dict.fromkeys(d.other for d in report.differences):
        own = []
        for metric in metrics:
            d = found[other, metric]
            own.append(f"{100 * d.mean:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]")
        lines.append(f"| {other} | {' | '.join(own)} |")
    return "\n".join(lines)


def markdown(report: ComposedReport, metrics: Sequence[str]) -> str:
    """The whole report as Markdown."""
    lines = [
        f"# {report.dataset}, {report.split}",
        "",
        f"`{report.command}`",
        "",
        f"{report.gallery_size:,} pictures in the gallery; weights {report.weights}; model "
        f"{report.model}; captions by {report.composer}; views {report.views}.",
        *([report.note] if report.note else []),
        "",
        "In brackets the bootstrap 95 % interval of the first metric.",
        "",
        table(report, metrics),
    ]
    if report.tuned:
        lines += ["", f"Chosen on validation: {report.tuned}"]
    if report.differences:
        lines += ["", "Differences in points, paired, 95 % interval:", "", difference_table(report)]
    return "\n".join(lines) + "\n"


def write_report(report: ComposedReport, path: str | Path) -> Path:
    """Write the report as JSON."""
    return write_json(path, asdict(report))


def write_markdown(report: ComposedReport, path: str | Path, metrics: Sequence[str]) -> Path:
    """Write the report as Markdown."""
    return write_text(path, markdown(report, metrics))
