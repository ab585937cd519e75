"""The training curve, ``metrics.csv``: one file per run, kept whole over interruptions."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning.fabric.loggers.csv_logs import _ExperimentWriter
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger

from freestyle.errors import UserError


class CurveLogger(CSVLogger):
    """Lightning's CSV logger, except that a resumed run keeps the rows it goes on from.

    Args:
        folder: Of ``metrics.csv``.

    Attributes:
        done_steps: Optimiser steps that the resumed checkpoint had done; rows of these stay, later
            ones are made again. None, as at first, begins the file anew.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(save_dir=folder, name="", version="")
        self.done_steps: int | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> _ExperimentWriter:
        """The writer; made at its first use, on the first process alone."""
        if self._experiment is not None:
            return self._experiment
        path = Path(self.log_dir) / _ExperimentWriter.NAME_METRICS_FILE
        rows = [] if self.done_steps is None else rows_before(path, self.done_steps)
        writer = super().experiment  # removes an older file
        if rows:
            writer.metrics = rows
            writer.save()
        return writer


def rows_before(path: Path, steps: int) -> list[dict[str, float]]:
    """Rows of a ``metrics.csv`` that were logged before ``steps`` steps were done.

    Raises:
        UserError: If the file is no such table.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
        return [row | {"step": int(row["step"])} for row in rows if row["step"] < steps]
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is no table of training metrics: move it away to resume without it"
        ) from error
