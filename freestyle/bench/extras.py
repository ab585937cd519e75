"""Further tables of a matrix: fusion rules, protocols, changed pictures, gallery sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from freestyle.bench.cell import OWN
from freestyle.bench.ledger import Ledger
from freestyle.bench.matrix import Matrix
from freestyle.evaluation.metrics import recall_at_gallery_size

SIZES = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 100000, 1000000)


def extra_tables(matrix: Matrix, ledger: Ledger) -> list[str]:
    """Markdown of whatever the matrix measured beside the main table, with headings."""
    rows = ledger.rows()
    cells = [(cell, rows[cell.id]) for cell in matrix.cells if cell.id in rows]
    found: dict[str, list[dict[str, Any]]] = {}
    for cell, row in cells:
        found.setdefault(cell.name, []).extend(r for r in row["results"] if r["variant"] == OWN)
    whole = [r for own in found.values() for r in own]
    parts = []
    if any(r.get("fusion") not in (None, "zscore") for r in whole):
        parts.append(
            "## Joint queries: R@1 in % by fusion rule\n\n"
            + _table(found, lambda r: (r["style"], r["fusion"]), lambda r: bool(r.get("fusion")))
        )
        weights = _weights(found)
        if weights:
            parts.append("Weights chosen on validation (mean over seeds):\n\n" + weights)
    if len({r["protocol"] for r in whole}) > 1:
        parts.append(
            "## Protocols: R@1 in %\n\n"
            + _table(found, lambda r: (r["style"], r["protocol"]), _plain)
        )
    if any(r.get("change") for r in whole):
        parts.append(
            "## Changed query pictures: R@1 in %\n\n"
            + _table(
                found,
                lambda r: (r.get("change", "as they are"), r["style"]),
                lambda r: _plain(r) and r["style"] != "text" and r["protocol"] == "gallery",
                changes=True,
            )
        )
    sizes = gallery_sizes(matrix, ledger)
    if sizes:
        parts.append("## Expected R@1 in % in random smaller galleries\n\n" + sizes)
    return parts


def gallery_sizes(matrix: Matrix, ledger: Ledger) -> str:
    """Markdown: recall by gallery size, exactly, from the ranks in the whole gallery.

    Only where each query has one relevant photo.
    """
    rows = ledger.rows()
    values: dict[tuple[str, str], dict[int, list[float]]] = {}
    for cell in matrix.cells:
        row = rows.get(cell.id)
        if row is None or any(key.startswith("mAP") for r in row["results"] for key in r):
            continue
        total = row["gallery_size"]
        for style, ranks in ledger.ranks(cell.id)[OWN].items():
            if "+" in style:
                continue
            own = values.setdefault((cell.name, style), {})
            for size in (*(s for s in SIZES if s < total), total):
                hits = recall_at_gallery_size(ranks, total, size).mean()
                own.setdefault(size, []).append(float(hits))
    if not values:
        return ""
    sizes = sorted({size for by_size in values.values() for size in by_size})
    lines = [_line(["method", "style", *(f"{s:,}" for s in sizes)])]
    lines.append(_line(["---", "---"] + ["---:"] * len(sizes)))
    for (name, style), by_size in values.items():
        cells = [f"{100 * np.mean(by_size[s]):.1f}" if s in by_size else "" for s in sizes]
        lines.append(_line([name, style, *cells]))
    return "\n".join(lines)


def _plain(row: dict[str, Any]) -> bool:
    return row.get("fusion") in (None, "zscore") and not row.get("change")


def _table(
    found: dict[str, list[dict[str, Any]]],
    key: Callable[[dict[str, Any]], tuple[str, str]],
    wanted: Callable[[dict[str, Any]], bool],
    *,
    changes: bool = False,
) -> str:
    """R@1 by (row, column) keys, one block of rows per cell name: mean over seeds."""
    columns: list[str] = []
    lines: list[list[str]] = []
    blocks: list[tuple[str, dict[str, dict[str, list[float]]]]] = []
    for name, results in found.items():
        block: dict[str, dict[str, list[float]]] = {}
        for row in results:
            if not (wanted(row) or (changes and row.get("change"))):
                continue
            first, second = key(row)
            if second not in columns:
                columns.append(second)
            block.setdefault(first, {}).setdefault(second, []).append(row["R@1"])
        blocks.append((name, block))
    for name, block in blocks:
        for first, by_column in block.items():
            cells = [
                f"{100 * np.mean(by_column[c]):.1f}" if c in by_column else "" for c in columns
            ]
            lines.append([name, first, *cells])
    head = [_line(["method", "", *columns]), _line(["---", "---"] + ["---:"] * len(columns))]
    return "\n".join([*head, *(_line(cells) for cells in lines)])


def _weights(found: dict[str, list[dict[str, Any]]]) -> str:
    lines = []
    for name, results in found.items():
        by_style: dict[str, list[Sequence[float]]] = {}
        for row in results:
            if "weights" in row and row["protocol"] == "gallery":
                by_style.setdefault(row["style"], []).append(row["weights"])
        for style, weights in by_style.items():
            means = np.mean(weights, axis=0)
            terms = zip(style.split("+"), means, strict=True)
            lines.append(f"- {name}, {style}: " + ", ".join(f"{s} {w:.2f}" for s, w in terms))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
