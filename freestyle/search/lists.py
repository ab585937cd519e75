"""Lists of photos with further columns: text, JSON lines, CSV and Parquet, one row at a time.

A column has one type in the whole list, so that every back end can filter by it: a first pass finds
the type that fits all of its values, a second one converts them.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from freestyle.errors import UserError
from freestyle.search.records import COLUMNS, Scalar

LISTS = (".txt", ".jsonl", ".csv", ".parquet")
PATH_COLUMNS = ("image", "image_path", "path", "file", "filename")
CAPTION_COLUMNS = ("caption", "text")
RESERVED = {*COLUMNS, "id", "origin", "offset", "source", "digest", "vector", "atoms", "thumbnail"}
_WIDER = {(bool, bool): bool, (int, int): int, (float, float): float, (int, float): float}
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
_LONGEST = 100_000  # characters of a value


def read_list(path: Path) -> Iterator[dict[str, Scalar]]:
    """Rows of a list; values that are missing are left out of their row.

    Args:
        path: ``.txt`` (one path a line, column ``image``), ``.jsonl``, ``.csv`` or ``.parquet``.

    Raises:
        UserError: If it cannot be read, naming the line where there is one.
    """
    kinds: dict[str, type] = {}
    for row in _rows(path):
        for name, value in row.items():
            kinds[name] = _wider(kinds.get(name), type(value))
    for row in _rows(path):
        yield {name: _cast(value, kinds[name]) for name, value in row.items()}


def column_name(name: str) -> str:
    """A column's name in letters, digits and underscores, as filters write it.

    >>> column_name("Taken by")
    'Taken_by'
    """
    name = re.sub(r"\W", "_", name.strip())
    return f"_{name}" if name[:1].isdigit() else name


def further_columns(row: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Columns of a row that are the user's own, by :func:`column_name`."""
    known = {*RESERVED, *PATH_COLUMNS, *CAPTION_COLUMNS, ""}
    named = {column_name(name): value for name, value in row.items()}
    return {name: value for name, value in named.items() if name not in known}


def first_text(row: Mapping[str, Scalar], names: tuple[str, ...]) -> str:
    """The first of these columns that says something, or nothing."""
    found = (str(row[name]) for name in names if row.get(name) not in (None, ""))
    return whole_text(next(found, ""))


def whole_text(text: str) -> str:
    """Text that can be stored: halves of characters, as JSON may hold them, become ``?``."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _wider(before: type | None, kind: type) -> type:
    if before is None:
        return kind
    return _WIDER.get((before, kind)) or _WIDER.get((kind, before)) or str


def _cast(value: Scalar, kind: type) -> Scalar:
    if kind is str and not isinstance(value, str):
        return json.dumps(value)
    return kind(value)


def _rows(path: Path) -> Iterator[dict[str, Scalar]]:
    ending = path.suffix.lower()
    if ending not in LISTS:
        raise UserError(f"{path} is no list of photos: give {', '.join(LISTS)}")
    read = {".txt": _text, ".jsonl": _json_lines, ".csv": _table, ".parquet": _parquet}[ending]
    try:
        for row in read(path):
            plain = ((whole_text(str(name)), _plain(value)) for name, value in row.items() if name)
            yield {name: value for name, value in plain if value is not None}
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"{path} cannot be read ({reason}): check the list") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: save the list as UTF-8") from error


def _plain(value: Any) -> Scalar | None:
    """A value as a scalar; None where there is none."""
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, bool | int | float):
        if abs(value) < 2**63:
            return value
        return float(value) if abs(value) < 1e308 else None
    if isinstance(value, str):
        return whole_text(value[:_LONGEST])
    if isinstance(value, list | dict | tuple):
        return whole_text(json.dumps(value, default=str, ensure_ascii=False)[:_LONGEST])
    return str(value)[:_LONGEST]


def _text(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig") as file:
        for line in file:
            if line.strip():
                yield {"image": line.strip()}


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise UserError(
                    f'{path}, line {number} is no JSON object: write {{"image": "a.jpg"}}'
                )
            yield row


def _table(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            for row in csv.DictReader(file):
                yield {name: _guessed(value) for name, value in row.items() if name is not None}
        except csv.Error as error:
            raise UserError(f"{path} is no CSV that can be read ({error}): mend it") from error


def _guessed(text: Any) -> Any:
    """What a cell of a CSV says: a number, true or false, or its text."""
    if not isinstance(text, str):
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text) if re.fullmatch(r"-?\d+\.\d*(e-?\d+)?", text, re.I) else text
    except ValueError:
        return text


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=4096):
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no Parquet that can be read ({reason}): replace it") from error
