"""What is finished: parts under ``.parts/`` while a set grows, one sidecar per style afterwards.

A part is a file of JSON lines, written under a temporary name and renamed after all the pictures it
names are in place. A picture counts as finished only if a line names it and its file has the size
that the line says.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from freestyle import locks
from freestyle.errors import UserError
from freestyle.files import write_atomically, write_text

PHOTOS = "images"  # the "style" of the photos' own rows
ERRORS = "errors.jsonl"
Row = dict[str, Any]


def to_line(row: Row) -> str:
    """One line of JSON, the same for equal rows."""
    return json.dumps(row, ensure_ascii=False, sort_keys=True)


class Journal:
    """The finished rows of one output folder.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.parts = root / ".parts"

    def sidecar(self, style: str) -> Path:
        """The file of a style's rows, sorted by id."""
        return self.root / "sidecar" / f"{style}.jsonl"

    def part_files(self) -> list[Path]:
        """Finished parts, in order."""
        return sorted(p for p in self.parts.glob("*.jsonl") if not p.name.startswith("."))

    def rows(self, style: str | None = None) -> Iterator[Row]:
        """Rows of finished pictures and of errors in parts; later ones replace earlier ones."""
        folder = self.root / "sidecar"
        files = [self.sidecar(style)] if style else sorted(folder.glob("[!.]*.jsonl"))
        for path in [*files, *self.part_files()]:
            for row in read_rows(path):
                if style is None or row.get("style") == style:
                    yield row

    def finished(self, *, hashes: bool = False) -> tuple[dict[str, set[str]], dict[str, str]]:
        """What need not be made again.

        Args:
            hashes: Also read every file and compare its SHA-256.

        Returns:
            Ids by style, and reasons by id of the photos that a part found broken.
        """
        done: dict[str, set[str]] = {}
        broken: dict[str, str] = {}
        for row in self.rows():
            if "error" in row:
                broken[row["id"]] = row["error"]
            elif intact(self.root, row, hashes=hashes):
                done.setdefault(row["style"], set()).add(row["id"])
            else:
                done.get(row["style"], set()).discard(row["id"])
        return done, broken

    def write_part(self, number: int, digest: str, rows: Iterable[Row]) -> None:
        """Record a part whose files are all in place."""
        lines = "".join(to_line(row) + "\n" for row in rows)
        write_text(self.parts / f"{number:06d}-{digest}.jsonl", lines)

    def write_sidecar(self, style: str, ids: set[str]) -> int:
        """Merge all rows of a style that belong to ``ids`` into its sidecar; return how many."""
        lines = {row["id"]: to_line(row) for row in self.rows(style) if row["id"] in ids}
        write_lines(self.sidecar(style), (lines[name] for name in sorted(lines)))
        return len(lines)

    def next_number(self) -> int:
        """A number above those of all parts."""
        return 1 + max((int(path.name[:6]) for path in self.part_files()), default=-1)

    def clean(self, shard: str) -> None:
        """Remove what killed runs of a shard left half-written."""
        for folder in self.parts.glob(f"tmp-{shard}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, paths: Iterable[Path]) -> None:
        """Remove the temporary files of atomic writes to these paths that a kill cut short."""
        for path in paths:
            for left in path.parent.glob(f".{glob.escape(path.stem)}-????????{path.suffix}"):
                left.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the parts, after everything is merged."""
        shutil.rmtree(self.parts, ignore_errors=True)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines of text atomically, without holding them."""

    def fill(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)

    write_atomically(path, fill)


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a file; none where it is missing (another process may have merged it).

    Raises:
        UserError: If a line is no JSON object.
    """
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    row = None
                if not isinstance(row, dict) or "id" not in row:
                    raise UserError(
                        f"{path}, line {number} is damaged: remove the file and run with --resume."
                    )
                yield row
    except FileNotFoundError:
        return
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: remove the file and run with --resume.") from error


def intact(root: Path, row: Row, *, hashes: bool = False) -> bool:
    """Whether the file of a row is there and whole."""
    path = root / str(row.get("file"))
    try:
        if os.stat(path).st_size != row.get("bytes"):
            return False
        return not hashes or sha256(path.read_bytes()) == row.get("sha256")
    except OSError:
        return False


def sha256(data: bytes) -> str:
    """Hexadecimal digest."""
    return hashlib.sha256(data).hexdigest()


def locked(path: Path, *, wait: bool) -> AbstractContextManager[IO[str]]:
    """Hold a lock of the output folder that ``path`` is a part of.

    Raises:
        UserError: If another process holds it and ``wait`` is False, or it cannot be made.
    """
    return locks.locked(
        path,
        wait=wait,
        place=path.parent.parent,
        busy="wait for it, or give each its own --shard",
        elsewhere="choose another --out",
    )
