"""Tables of a report, for the terminal and for Markdown. Rates are shown in percent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Literal

from freestyle.evaluation.protocols import parse_protocol
from freestyle.evaluation.report import Report, Row

Format = Literal["terminal", "markdown"]


def wide_table(
    rows: Iterable[Row],
    *,
    unseen: Sequence[str] = (),
    mean_over: Sequence[str] = (),
    output: Format = "terminal",
) -> str:
    """One line per method, one column per style: R@1 / R@5 / R@10 in percent.

    Rows of the same method with several seeds become one cell: their mean, with the sample
    standard deviation of R@1 over the seeds (``45.1 ±0.8 / 70.2 / 80.3``).

    Args:
        rows: Rows of one protocol; methods and styles appear in the order of the rows.
        unseen: Styles to mark as ``(unseen)``, because training never saw them.
        mean_over: Styles whose mean R@1 becomes a last column; none if empty.
        output: ``"terminal"`` or ``"markdown"``.

    Returns:
        The table, without a final newline.
    """
    rows = list(rows)
    rules = {row.style: {r.fusion for r in rows if r.style == row.style} for row in rows}
    cells: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        column = row.style if len(rules[row.style]) == 1 else f"{row.style} ({row.fusion})"
        cells.setdefault((row.method, column), []).append(row)
    methods = list(dict.fromkeys(method for method, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))
    marked = [
        f"{c} (unseen)" if set(c.split(" ")[0].split("+")) & {*unseen} else c for c in columns
    ]
    lines = []
    for method in methods:
        line = [method, *(_recalls(cells.get((method, column), ())) for column in columns)]
        if mean_over:
            line.append(_mean_r1([row for row in rows if row.method == method], mean_over))
        lines.append(line)
    head = ["R@1 / R@5 / R@10, %", *marked]
    if mean_over:
        head.append("mean R@1: " + ", ".join(mean_over))
    return _layout(head, lines, output)


def detail_table(rows: Iterable[Row], *, output: Format = "terminal") -> str:
    """One line per row with every number: recalls and interval in percent, MRR, median rank.

    Args:
        rows: Rows of one protocol.
        output: ``"terminal"`` or ``"markdown"``.

    Returns:
        The table, without a final newline.
    """
    rows = list(rows)
    levels = sorted({k for row in rows for k in row.map_at})
    joint, seeded = any(row.fusion for row in rows), any(row.seed is not None for row in rows)
    head = ["method", "style", *(["fusion"] if joint else []), *(["seed"] if seeded else []), "n"]
    head += ["R@1", "95 % interval", "R@5", "R@10", "MRR", "median", *(f"mAP@{k}" for k in levels)]
    lines = []
    for row in rows:
        line = [row.method, row.style, *([row.fusion or ""] if joint else [])]
        line += ["" if row.seed is None else str(row.seed)] if seeded else []
        low, high = row.interval
        line += [str(row.n), _percent(row.r1), f"{_percent(low)} - {_percent(high)}"]
        line += [_percent(row.r5), _percent(row.r10), f"{row.mrr:.3f}", f"{row.median_rank:g}"]
        line += [_percent(row.map_at[k]) if k in row.map_at else "" for k in levels]
        lines.append(line)
    return _layout(head, lines, output, left=3 if joint else 2)


def seed_summary(rows: Iterable[Row]) -> dict[tuple[str, str, str | None], tuple[float, float]]:
    """Mean and sample standard deviation of R@1 over seeds.

    Args:
        rows: Rows of one protocol.

    Returns:
        ``(mean, sd)`` as fractions by (method, style, fusion); the deviation of one row is 0.
    """
    groups: dict[tuple[str, str, str | None], list[float]] = {}
    for row in rows:
        groups.setdefault((row.method, row.style, row.fusion), []).append(row.r1)
    return {key: (fmean(v), stdev(v) if len(v) > 1 else 0.0) for key, v in groups.items()}


def markdown_report(
    report: Report, *, unseen: Sequence[str] = (), mean_over: Sequence[str] = ()
) -> str:
    """The whole of ``report.md``: setting, both tables, definitions, command.

    Args:
        report: The report.
        unseen: Styles to mark as ``(unseen)``.
        mean_over: Styles whose mean R@1 becomes a last column of the first table.
    """
    size = report.gallery_size
    if parse_protocol(report.protocol).batch_size is None:
        scope = f"every query ranks among all {size:,} photos of the gallery"
    else:
        scope = (
            f"every query ranks among {size:,} photos of a batch, not among the whole gallery: "
            "the recall is far higher than, and not comparable with, that of `gallery`"
        )
    return f"""# {report.dataset}, {report.split} split

- Protocol `{report.protocol}`: {scope}.
- Encoder `{report.encoder}`, weights `{report.weights}`.

{wide_table(report.rows, unseen=unseen, mean_over=mean_over, output="markdown")}

## All numbers

{detail_table(report.rows, output="markdown")}

R@k: share of queries whose photo is among the first k, in %, ties counted against the query.
Interval: percentile bootstrap over queries, of R@1. MRR: mean reciprocal rank. Median: median rank,
1 at best.

Made by

```
{report.command}
```
"""


def _recalls(rows: Sequence[Row]) -> str:
    if not rows:
        return "-"
    first = _percent(fmean(row.r1 for row in rows))
    if len(rows) > 1:
        first += f" ±{_percent(stdev(row.r1 for row in rows))}"
    rest = (_percent(fmean(row.r5 for row in rows)), _percent(fmean(row.r10 for row in rows)))
    return " / ".join((first, *rest))


def _mean_r1(rows: Sequence[Row], styles: Sequence[str]) -> str:
    """Mean over styles, then mean and deviation over the seeds that have all of them."""
    by_seed: dict[int | None, dict[str, float]] = {}
    for row in rows:
        if row.style in styles:
            by_seed.setdefault(row.seed, {}).setdefault(row.style, row.r1)
    means = [fmean(found.values()) for found in by_seed.values() if len(found) == len(set(styles))]
    if not means:
        return "-"
    return _percent(fmean(means)) + (f" ±{_percent(stdev(means))}" if len(means) > 1 else "")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _layout(head: list[str], lines: list[list[str]], output: Format, left: int = 1) -> str:
    """Columns of equal width: the first ``left`` ones to the left, the others to the right."""
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]

    def join(line: list[str], gap: str) -> str:
        cells = zip(line, widths, strict=True)
        return gap.join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(cells))

    if output == "terminal":
        rule = ["─" * width for width in widths]
        return "\n".join(join(line, "  ").rstrip() for line in [head, rule, *lines])
    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join(f"| {join(line, ' | ')} |" for line in [head, rule, *lines])
