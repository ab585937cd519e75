"""``freestyle bench``: run matrices of experiments, cell by cell, and write their tables."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from freestyle.bench.compare import collect, difference_table, main_table, summary
from freestyle.bench.extras import extra_tables
from freestyle.bench.ledger import Ledger
from freestyle.bench.matrix import Cell, Matrix, read_matrix, weights_tag
from freestyle.errors import UserError
from freestyle.evaluation.command import OneSentenceParser, listed
from freestyle.files import write_json, write_text


def parser() -> argparse.ArgumentParser:
    """All options of ``freestyle bench``."""
    p = OneSentenceParser(
        prog="freestyle bench", description="Run a matrix of experiments; finished cells are kept."
    )
    p.add_argument("matrix", nargs="+", help="matrix files, such as configs/bench/methods.yaml")
    p.add_argument("--out", default="runs/bench", help="folder of all results")
    p.add_argument("--quick", action="store_true", help="the matrices' short lists, one seed each")
    p.add_argument("--seeds", help="only these, comma-separated")
    p.add_argument("--only", help="only the cells with these names, comma-separated")
    p.add_argument("--plan", action="store_true", help="list the cells and their time, run nothing")
    return p


def main(args: Sequence[str]) -> None:
    """Run what is not finished, then write ``report.md``, ``summary.json`` and figures.

    Raises:
        UserError: At bad input.
    """
    options = parser().parse_args(args)
    seeds = _whole_numbers(options.seeds)
    whole = [read_matrix(path) for path in options.matrix]
    names = listed(options.only)
    for name in names:
        if not any(name in matrix.names for matrix in whole):
            raise UserError(f"--only {name}: no matrix has a cell of this name")
    matrices = [m.only(quick=options.quick, seeds=seeds, names=names) for m in whole]
    matrices, absent = available(matrices)
    ledger = Ledger(Path(options.out))
    cells = list({cell.id: cell for matrix in matrices for cell in matrix.cells}.values())
    done = ledger.rows()
    left = [cell for cell in cells if cell.id not in done]
    _say(
        f"{len(cells)} cells, {len(cells) - len(left)} finished before; "
        f"about {_duration(60 * expected(left, done))} for the others"
    )
    if options.plan:
        for cell in cells:
            state = "finished" if cell.id in done else f"about {cell.minutes:g} min"
            _say(f"  {cell.id}  {_title(cell)}: {state}")
        for matrix, why in absent:
            _say(f"\n{matrix.path} cannot run here: {why}")
            for cell in matrix.cells:
                _say(f"  {'':12}  {_title(cell)}: about {cell.minutes:g} min")
        return
    run_all(left, ledger)
    complete = {matrix.path: matrix for matrix in whole}
    for matrix in matrices:
        shortened = options.quick or names
        publish(matrix if shortened else complete[matrix.path], ledger)
    if absent:
        reasons = "; ".join(f"{matrix.path}: {why}" for matrix, why in absent)
        raise UserError(f"{len(absent)} of {len(whole)} matrices cannot run here. {reasons}")


def available(matrices: Sequence[Matrix]) -> tuple[list[Matrix], list[tuple[Matrix, str]]]:
    """The matrices whose encoders and data are here, and the others with what they lack."""
    found: list[Matrix] = []
    absent: list[tuple[Matrix, str]] = []
    for matrix in matrices:
        why = lack(matrix)
        if why is None:
            found.append(matrix)
        else:
            absent.append((matrix, why))
    return found, absent


def lack(matrix: Matrix) -> str | None:
    """What data or weights a matrix needs that are not here; None where it can run."""
    for cell in matrix.cells:
        root = cell.root
        if not Path(root).is_dir():
            return f"there is no folder {root}: its config says which data belong there"
        try:
            weights_tag(*cell.encoder)
        except UserError as error:
            return str(error)
    return None


def expected(cells: Sequence[Cell], done: dict[str, dict[str, Any]]) -> float:
    """Minutes that cells will take: as measured for the same name, else as the matrix says."""
    measured = {(row["matrix"], row["name"]): row["seconds"] / 60 for row in done.values()}
    return sum(measured.get((cell.matrix, cell.name), cell.minutes) for cell in cells)


def run_all(cells: Sequence[Cell], ledger: Ledger) -> None:
    """Run cells one after the other; what is frozen is computed once for all of them."""
    from freestyle.bench.cell import run_cell
    from freestyle.frozen import shared_memory

    start = time.monotonic()
    with shared_memory():
        for number, cell in enumerate(cells):
            rest = expected(cells[number:], ledger.rows())
            _say(
                f"\n[{number + 1}/{len(cells)}] {_title(cell)}  ({cell.id}; "
                f"{_duration(time.monotonic() - start)} so far, about {_duration(60 * rest)} left)"
            )
            row = run_cell(cell, ledger)
            recall: dict[str, float] = {}
            for result in row["results"]:  # other rules, protocols and changes come after the first
                if result["variant"] == "own":
                    recall.setdefault(result["style"], result["R@1"])
            found = ", ".join(f"{style} {100 * value:.1f}" for style, value in recall.items())
            _say(f"R@1 in %: {found}  ({_duration(row['seconds'])})")


def publish(matrix: Matrix, ledger: Ledger) -> None:
    """Tables and figure of one matrix, as far as its cells are finished."""
    from freestyle.bench.figures import recall_chart

    found = collect(matrix, ledger)
    if not found:
        return
    folder = ledger.folder / matrix.path.stem
    parts = [f"# {matrix.title}", main_table(found)]
    if matrix.reference in found and len(found) > 1:
        parts.append(difference_table(found, matrix.reference))
    parts += extra_tables(matrix, ledger)
    text = "\n\n".join(parts) + "\n"
    write_text(folder / "report.md", text)
    write_json(folder / "summary.json", summary(found, matrix.reference))
    recall_chart(found, folder / "recall.png", title=matrix.title, reference=matrix.reference)
    _say(f"\n{text}\nReport, summary and figure: {folder}/")


def _title(cell: Cell) -> str:
    return f"{cell.matrix} / {cell.name}" + ("" if cell.seed is None else f", seed {cell.seed}")


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60) if seconds > 90 else 0
    if not minutes:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _whole_numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in listed(text)]
    except ValueError as error:
        raise UserError(f"--seeds {text}: give whole numbers, such as 0,1,2") from error


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
