"""The report of an evaluation: rows that check themselves, JSON and Markdown."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freestyle.errors import UserError
from freestyle.evaluation.metrics import (
    bootstrap_interval,
    hits_at,
    mean_reciprocal_rank,
    median_rank,
    recall_at,
)
from freestyle.evaluation.protocols import parse_protocol
from freestyle.files import write_text

if TYPE_CHECKING:
    from freestyle.evaluation.evaluate import Outcome

_ROW_KEYS = {
    "method": "method",
    "style": "style",
    "seed": "seed",
    "n": "n",
    "R@1": "r1",
    "R@5": "r5",
    "R@10": "r10",
    "MRR": "mrr",
    "median_rank": "median_rank",
    "R@1_interval": "interval",
    "fusion": "fusion",
}
_REPORT_KEYS = (
    "dataset",
    "split",
    "protocol",
    "gallery_size",
    "encoder",
    "weights",
    "command",
)


@dataclass(frozen=True)
class Row:
    """One method on the queries of one style. Rates are fractions in [0, 1].

    Attributes:
        method: Name of the method.
        style: Style, or a joint style as typed (``sketch+text``).
        n: Number of queries.
        r1: Recall@1.
        r5: Recall@5.
        r10: Recall@10.
        mrr: Mean reciprocal rank.
        median_rank: Median rank, 1-based.
        interval: Bootstrap 95 % interval of Recall@1.
        seed: Training seed; ``None`` where nothing was trained.
        fusion: Rule that joined the terms; ``None`` for a single style.
        map_at: mAP@K by K, with class-level relevance.

    Raises:
        ValueError: Numbers that cannot be right.
    """

    method: str
    style: str
    n: int
    r1: float
    r5: float
    r10: float
    mrr: float
    median_rank: float
    interval: tuple[float, float]
    seed: int | None = None
    fusion: str | None = None
    map_at: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"row {self.method!r} on {self.style!r}"
        if not self.method or not self.style:
            raise ValueError(f"{where}: method and style need a name")
        if self.n < 1:
            raise ValueError(f"{where}: n is {self.n}, expected at least one query")
        rates = {"R@1": self.r1, "R@5": self.r5, "R@10": self.r10, "MRR": self.mrr}
        rates |= {f"mAP@{k}": value for k, value in self.map_at.items()}
        rates |= {"interval low": self.interval[0], "interval high": self.interval[1]}
        for name, value in rates.items():
            if not 0 <= value <= 1:  # false for NaN too
                raise ValueError(f"{where}: {name} is {value}, expected a fraction in [0, 1]")
        if not self.r1 <= self.r5 <= self.r10 or self.interval[0] > self.interval[1]:
            raise ValueError(f"{where}: R@1 <= R@5 <= R@10 and low <= high must hold")
        if not (math.isfinite(self.median_rank) and self.median_rank >= 1):
            raise ValueError(f"{where}: median rank is {self.median_rank}, expected at least 1")
        if (self.fusion is not None) != ("+" in self.style):
            raise ValueError(f"{where}: a joint style, and no other, states its fusion rule")

    @classmethod
    def from_outcome(
        cls,
        outcome: Outcome,
        *,
        method: str,
        style: str,
        seed: int | None = None,
        fusion: str | None = None,
    ) -> Row:
        """Compute all metrics of an outcome; ``fusion`` is kept for joint styles only."""
        ranks = outcome.ranks
        return cls(
            method=method,
            style=style,
            n=len(ranks),
            r1=recall_at(ranks, 1),
            r5=recall_at(ranks, 5),
            r10=recall_at(ranks, 10),
            mrr=mean_reciprocal_rank(ranks),
            median_rank=median_rank(ranks),
            interval=bootstrap_interval(hits_at(ranks, 1)),
            seed=seed,
            fusion=fusion if "+" in style else None,
            map_at={k: float(values.mean()) for k, values in outcome.average_precision.items()},
        )

    def to_json(self) -> dict[str, Any]:
        """The row as it stands in ``report.json``."""
        row = {key: getattr(self, name) for key, name in _ROW_KEYS.items()}
        row["R@1_interval"] = list(self.interval)
        return row | {f"mAP@{k}": value for k, value in sorted(self.map_at.items())}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Row:
        """The inverse of :meth:`to_json`; ``fusion`` may be absent.

        Raises:
            ValueError: Missing or unknown keys, or numbers that cannot be right.
        """
        map_at = {int(m[1]): row[m[0]] for m in map(re.compile(r"mAP@(\d+)").fullmatch, row) if m}
        known = set(_ROW_KEYS) | {f"mAP@{k}" for k in map_at}
        missing, unknown = set(_ROW_KEYS) - {"fusion"} - set(row), set(row) - known
        if missing or unknown:
            raise ValueError(f"missing keys {sorted(missing)}, unknown keys {sorted(unknown)}")
        values = {name: row.get(key) for key, name in _ROW_KEYS.items()}
        values["interval"] = tuple(row["R@1_interval"])
        return cls(**values, map_at=map_at)


@dataclass(frozen=True)
class Report:
    """All rows of one evaluation, and what makes them comparable.

    Attributes:
        dataset: Name of the data set.
        split: Name of the split.
        protocol: ``gallery`` or ``batch:24``.
        gallery_size: How many photos each query was ranked among.
        encoder: Name of the encoder.
        weights: Tag of its weights: source and revision or hash.
        command: The command that made this report.
        rows: One row per method, style, seed and fusion rule.

    Raises:
        ValueError: Rows that repeat or contradict the protocol.
    """

    dataset: str
    split: str
    protocol: str
    gallery_size: int
    encoder: str
    weights: str
    command: str
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))
        size = parse_protocol(self.protocol).batch_size
        if self.gallery_size < 1 or (size is not None and size != self.gallery_size):
            raise ValueError(f"gallery_size {self.gallery_size} contradicts {self.protocol!r}")
        seen = set()
        for row in self.rows:
            key = (row.method, row.style, row.seed, row.fusion)
            if key in seen:
                raise ValueError(f"two rows for method, style, seed, fusion = {key}")
            seen.add(key)
            if row.median_rank > self.gallery_size:
                raise ValueError(f"row {key}: median rank beyond {self.gallery_size} photos")

    def to_json(self) -> dict[str, Any]:
        """The content of ``report.json``."""
        head = {key: getattr(self, key) for key in _REPORT_KEYS}
        return head | {"rows": [row.to_json() for row in self.rows]}


def write_report(report: Report, path: str | Path) -> Path:
    """Write ``report.json``, atomically."""
    text = json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def read_report(path: str | Path) -> Report:
    """Read a ``report.json`` back.

    Raises:
        UserError: There is no such file, or it is not a report.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = tuple(Row.from_json(row) for row in content["rows"])
        return Report(**{key: content[key] for key in _REPORT_KEYS}, rows=rows)
    except OSError as error:
        raise UserError(f"cannot read the report {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a report ({error}): make it again with eval.py --json"
        ) from error


def write_markdown(report: Report, path: str | Path, **options: Any) -> Path:
    """Write ``report.md``, atomically; the options are those of :func:`tables.markdown_report`."""
    from freestyle.evaluation.tables import markdown_report

    return write_text(path, markdown_report(report, **options))
