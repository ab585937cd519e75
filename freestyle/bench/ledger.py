"""The bench's memory: one JSON line per finished cell, and the ranks of its queries."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from freestyle.errors import UserError
from freestyle.files import write_json

LINES, RANKS = "cells.jsonl", "ranks.json"


@dataclass(frozen=True)
class Ledger:
    """Results under one folder: ``cells.jsonl``, and ``cells/<id>/`` for each cell.

    A line is appended, and synced, only once everything else of its cell is on disk; a line that
    was cut short by a crash counts as not there.

    Attributes:
        folder: Where.
    """

    folder: Path

    def cell_folder(self, cell_id: str) -> Path:
        """Where a cell's run, model and ranks lie."""
        return self.folder / "cells" / cell_id

    def rows(self) -> dict[str, dict[str, Any]]:
        """Finished cells by id, the latest line of each."""
        return {row["id"]: row for row in self._lines()}

    def finish(self, row: dict[str, Any], ranks: dict[str, dict[str, list[int]]]) -> None:
        """Write a cell's ranks, then append its line.

        Args:
            row: The result; ``id`` names the cell.
            ranks: Per variant and style the 1-based ranks of all queries, in order.

        Raises:
            UserError: If the folder cannot be written to.
        """
        write_json(self.cell_folder(row["id"]) / RANKS, ranks)
        path = self.folder / LINES
        try:
            with path.open("ab+") as file:
                file.seek(0, os.SEEK_END)
                if file.tell():  # a line cut short must not swallow this one
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write {path} ({error.strerror}): choose another --out, or make room"
            ) from error

    def ranks(self, cell_id: str) -> dict[str, dict[str, np.ndarray]]:
        """The ranks that :meth:`finish` wrote.

        Raises:
            UserError: If the file is missing or broken.
        """
        path = self.cell_folder(cell_id) / RANKS
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return {
                variant: {style: np.asarray(r, dtype=np.int64) for style, r in by_style.items()}
                for variant, by_style in values.items()
            }
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path} cannot be read: remove the cell's line from {LINES} to run it again"
            ) from error

    def _lines(self) -> Iterator[dict[str, Any]]:
        path = self.folder / LINES
        if not path.is_file():
            return
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                cell_id = row["id"]
            except (ValueError, KeyError, TypeError):
                continue  # cut short: the cell is run again
            if (self.cell_folder(cell_id) / RANKS).is_file():
                yield row
