"""Finished cells of a matrix as tables: mean and deviation over seeds, paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from freestyle.bench.cell import OWN
from freestyle.bench.ledger import Ledger
from freestyle.bench.matrix import Matrix
from freestyle.evaluation.metrics import Difference, hits_at, paired_bootstrap_difference


@dataclass
class Result:
    """All finished seeds of one cell name, or of one of its variants.

    Attributes:
        label: Name, with the variant in brackets where it is not the method itself.
        styles: Styles it was trained on.
        reported: Styles it was measured on, in order.
        hits: Per style R@1 of each seed and query, ``(S, Q)``.
        recalls: Per style and K the recall of each seed.
        precisions: Per style and K mAP@K of each seed; empty unless relevance is by class.
        parameters: Trained numbers.
        seconds: Mean time of a cell.
    """

    label: str
    styles: list[str]
    reported: list[str]
    hits: dict[str, np.ndarray] = field(default_factory=dict)
    recalls: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    precisions: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    parameters: int = 0
    seconds: float = 0.0

    def mean_over(self, styles: Sequence[str]) -> tuple[float, float]:
        """Mean R@1 over styles, as mean and deviation over seeds."""
        per_seed = np.mean([self.hits[style].mean(axis=1) for style in styles], axis=0)  # (S,)
        return float(per_seed.mean()), deviation(per_seed)

    def per_query(self, styles: Sequence[str]) -> np.ndarray:
        """R@1 of each query, averaged over seeds and styles ``(Q,)``; see :meth:`pairs`."""
        return np.mean([self.hits[style].mean(axis=0) for style in styles], axis=0)

    def pairs(self, styles: Sequence[str]) -> bool:
        """Whether the styles have equally many queries; by class each may have its own list."""
        return len({self.hits[style].shape[1] for style in styles}) == 1


def deviation(values: np.ndarray) -> float:
    """Standard deviation over seeds (n - 1); NaN for one seed."""
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def collect(matrix: Matrix, ledger: Ledger) -> dict[str, Result]:
    """Results by label, in the matrix's order; names without a finished cell are left out."""
    rows = ledger.rows()
    ranks: dict[str, list[dict[str, np.ndarray]]] = {}
    found: dict[str, Result] = {}
    seconds: dict[str, list[float]] = {}
    precisions: dict[str, dict[tuple[str, int], list[float]]] = {}
    for cell in matrix.cells:
        row = rows.get(cell.id)
        if row is None:
            continue
        for variant, by_style in ledger.ranks(cell.id).items():
            label = cell.name if variant == OWN else f"{cell.name} ({variant})"
            ranks.setdefault(label, []).append(by_style)
            seconds.setdefault(label, []).append(row["seconds"])
            for key, value in _precisions(row, variant).items():
                precisions.setdefault(label, {}).setdefault(key, []).append(value)
            if label not in found:
                found[label] = Result(
                    label, row["styles"], list(by_style), parameters=row["trained_parameters"]
                )
    for label, result in found.items():
        result.seconds = float(np.mean(seconds[label]))
        for style in result.reported:
            values = np.stack([by_style[style] for by_style in ranks[label]])  # (S, Q)
            result.hits[style] = np.stack([hits_at(v, 1) for v in values])
            for k in (1, 5, 10):
                result.recalls[style, k] = np.array([hits_at(v, k).mean() for v in values])
        own = precisions.get(label, {})
        result.precisions = {key: np.array(values) for key, values in own.items()}
    return found


def _precisions(row: dict[str, Any], variant: str) -> dict[tuple[str, int], float]:
    """mAP@K over the whole gallery by style and K, of one line of the ledger."""
    return {
        (result["style"], int(key.removeprefix("mAP@"))): value
        for result in row["results"]
        if result["variant"] == variant and result["protocol"] == "gallery"
        if not result.get("change")
        for key, value in result.items()
        if key.startswith("mAP@")
    }


def difference(a: Result, b: Result, styles: Sequence[str]) -> Difference | None:
    """R@1 of a minus b over some styles, paired by query; None where that cannot be done.

    It cannot where one of them lacks a style, or where numbers of queries differ.
    """
    if any(style not in b.hits or style not in a.hits for style in styles):
        return None
    if not (a.pairs(styles) and b.pairs(styles)):
        return None
    if a.hits[styles[0]].shape[1] != b.hits[styles[0]].shape[1]:
        return None
    return paired_bootstrap_difference(a.per_query(styles), b.per_query(styles))


def scopes(result: Result) -> dict[str, list[str]]:
    """What is compared: the mean over the trained styles, and every other style alone.

    Trained styles with lists of different lengths cannot be paired: each stands alone then.
    """
    trained = [style for style in result.reported if style in result.styles]
    others = [style for style in result.reported if style not in result.styles]
    named = {}
    if trained and result.pairs(trained):
        named["mean of " + ", ".join(trained)] = trained
    else:
        named.update({style: [style] for style in trained})
    return named | {
        style if style == "text" or "+" in style else f"{style} (unseen)": [style]
        for style in others
    }


def main_table(found: dict[str, Result]) -> str:
    """Markdown: R@1 with its deviation over seeds / R@5 / R@10 in %, per style, and the mean."""
    first = next(iter(found.values()))
    styles = list(dict.fromkeys(style for r in found.values() for style in r.reported))
    means = [style for style in first.reported if style in first.styles]
    head = ["R@1 / R@5 / R@10, %", *styles, "mean R@1: " + ", ".join(means), "seeds", "parameters"]
    lines = [_line(head), _line(["---"] + ["---:"] * (len(head) - 1))]
    for label, result in found.items():
        cells = [label]
        for style in styles:
            if style not in result.hits:
                cells.append("")
                continue
            r1, r5, r10 = (100 * result.recalls[style, k].mean() for k in (1, 5, 10))
            spread = deviation(100 * result.recalls[style, 1])
            mark = "*" if style not in result.styles and style in means else ""
            cells.append(f"{r1:.1f}{mark}{_plus(spread)} / {r5:.1f} / {r10:.1f}")
        mean, spread = result.mean_over(means)
        seeds = len(next(iter(result.hits.values())))
        cells += [
            f"{100 * mean:.1f}{_plus(100 * spread)}",
            str(seeds),
            f"{result.parameters:,}",
        ]
        lines.append(_line(cells))
    if any(set(means) - set(r.styles) for r in found.values()):
        lines += ["", "\\* a style that this row was not trained on"]
    if any(result.precisions for result in found.values()):
        lines += ["", _precision_table(found, styles)]
    return "\n".join(lines)


def _precision_table(found: dict[str, Result], styles: Sequence[str]) -> str:
    """Markdown: mAP@K in %, mean over seeds, where relevance is by class."""
    at = sorted({k for result in found.values() for _, k in result.precisions})
    head = [" / ".join(f"mAP@{k}" for k in at) + ", %", *styles]
    lines = [_line(head), _line(["---"] + ["---:"] * len(styles))]
    for label, result in found.items():
        cells = [
            " / ".join(f"{100 * result.precisions[style, k].mean():.1f}" for k in at)
            if (style, at[0]) in result.precisions
            else ""
            for style in styles
        ]
        lines.append(_line([label, *cells]))
    return "\n".join(lines)


def difference_table(found: dict[str, Result], reference: str) -> str:
    """Markdown: the reference minus every other row, in points of R@1, with 95 % intervals."""
    ours = found[reference]
    groups = scopes(ours)
    lines = [
        _line([f"{reference} minus", *groups]),
        _line(["---"] + ["---:"] * len(groups)),
    ]
    for label, other in found.items():
        if label == reference:
            continue
        cells = [label]
        for styles in groups.values():
            gap = difference(ours, other, styles)
            cells.append("" if gap is None else in_points(gap))
        lines.append(_line(cells))
    return "\n".join(lines)


def summary(found: dict[str, Result], reference: str | None) -> dict[str, Any]:
    """Everything of both tables, for programs; rates are fractions."""
    rows = []
    for label, result in found.items():
        rows.append(
            {
                "name": label,
                "seeds": len(next(iter(result.hits.values()))),
                "trained_parameters": result.parameters,
                "seconds": result.seconds,
                "R@1": {s: float(result.recalls[s, 1].mean()) for s in result.reported},
                "R@5": {s: float(result.recalls[s, 5].mean()) for s in result.reported},
                "R@10": {s: float(result.recalls[s, 10].mean()) for s in result.reported},
                "R@1_deviation": {
                    s: _known(deviation(result.recalls[s, 1])) for s in result.reported
                },
            }
        )
        for (style, k), values in result.precisions.items():
            rows[-1].setdefault(f"mAP@{k}", {})[style] = float(values.mean())
    gaps = []
    if reference in found:
        for label, other in found.items():
            for scope, styles in scopes(found[reference]).items():
                gap = difference(found[reference], other, styles) if label != reference else None
                if gap is not None:
                    gaps.append(
                        {
                            "reference": reference,
                            "control": label,
                            "scope": scope,
                            "difference": gap.mean,
                            "interval": [gap.low, gap.high],
                            "excludes_zero": gap.excludes_zero,
                        }
                    )
    return {"rows": rows, "differences": gaps}


def in_points(gap: Difference) -> str:
    """A difference in points of R@1 with its interval."""
    return f"{100 * gap.mean:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"


def _known(value: float) -> float | None:
    """None for what one seed does not tell: JSON has no NaN."""
    return None if np.isnan(value) else value


def _plus(spread: float) -> str:
    return "" if np.isnan(spread) else f" ±{spread:.1f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
