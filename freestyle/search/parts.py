"""Parts of an exact index: immutable files of rows, and the commit that names the live ones.

    commit.json               version, the parts in order, and which of their rows are gone
    parts/NAME.vectors.npy    (N, E) float32
    parts/NAME.atoms.npy      (N, M, E) float16, where sets are kept
    parts/NAME.rows.arrow     everything else, as in rows.py

A commit is replaced by renaming after its parts are on the disk, so a reader finds the old or the
new one. Files that a reader has open stay readable to it after they are removed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freestyle.errors import UserError
from freestyle.files import write_atomically, write_text
from freestyle.search.records import IndexSettings
from freestyle.search.rows import given_text

if TYPE_CHECKING:
    import pyarrow as pa

COMMIT = "commit.json"
PARTS = "parts"


@dataclass
class Part:
    """An open part; arrays and table are memory-mapped.

    Attributes:
        name: Of its files.
        vectors: ``(N, E)`` float32.
        atoms: ``(N, M, E)`` float16, or None.
        table: N rows.
        ids: N ids.
    """

    name: str
    vectors: np.ndarray
    atoms: np.ndarray | None
    table: pa.Table
    ids: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        names = [given_text(name) for name in self.table["id"].to_pylist()]
        self.ids = np.array(names, dtype=object)

    def __len__(self) -> int:
        return len(self.vectors)


def open_part(folder: Path, name: str, rows: int, settings: IndexSettings) -> Part:
    """Open a part.

    Raises:
        FileNotFoundError: If it has been merged since its commit was read.
        UserError: If one of its files is damaged.
    """
    import pyarrow as pa

    width, size = settings.width, settings.atoms
    vectors = open_array(folder / f"{name}.vectors.npy", (rows, width), np.float32)
    atoms = None
    if size:
        atoms = open_array(folder / f"{name}.atoms.npy", (rows, size, width), np.float16)
    path = folder / f"{name}.rows.arrow"
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise damaged(path) from error
    if table.num_rows != rows or "id" not in table.column_names:
        raise damaged(path)
    return Part(name, vectors, atoms, table)


def open_array(path: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """A memory-mapped array of known shape, which holds no file open: there may be many parts.

    Raises:
        FileNotFoundError: If there is none.
        UserError: If it is not of that shape.
    """
    import pyarrow as pa

    try:
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)
            found, _, kind = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
        if found != shape or kind != dtype:
            raise damaged(path)
        with pa.memory_map(str(path)) as source:  # the mapping outlives the file
            buffer = source.read_buffer()
        return np.frombuffer(buffer, dtype, math.prod(shape), start).reshape(shape)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError, pa.ArrowException) as error:
        raise damaged(path) from error


def damaged(path: Path) -> UserError:
    """What a user reads of a damaged file."""
    return UserError(f"{path} is damaged: make the index again with freestyle index")


def write_part(
    folder: Path,
    name: str,
    vectors: np.ndarray | Iterable[np.ndarray],
    atoms: np.ndarray | Iterable[np.ndarray] | None,
    batches: Iterable[pa.RecordBatch],
    fields: pa.Schema,
    rows: int,
    settings: IndexSettings,
) -> None:
    """Write a part's files, block by block where arrays are given so.

    Raises:
        UserError: If the place cannot be written to.
    """
    import pyarrow as pa

    def write_rows(path: Path) -> None:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, fields) as writer:
            for batch in batches:
                writer.write_batch(batch)

    shape = (rows, settings.width)
    write_array(folder / f"{name}.vectors.npy", vectors, shape, np.float32)
    if atoms is not None:
        shape = (rows, settings.atoms, settings.width)
        write_array(folder / f"{name}.atoms.npy", atoms, shape, np.float16)
    write_atomically(folder / f"{name}.rows.arrow", write_rows)


def write_array(
    path: Path, blocks: np.ndarray | Iterable[np.ndarray], shape: tuple[int, ...], dtype: type
) -> None:
    """Write an ``.npy`` file of blocks along the first axis."""
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for block in [blocks] if isinstance(blocks, np.ndarray) else blocks:
                file.write(np.ascontiguousarray(block, dtype=dtype).data)

    write_atomically(path, write)


@dataclass(frozen=True)
class Commit:
    """The live parts.

    Attributes:
        version: Counts commits.
        parts: Name and number of rows of each, in order.
        gone: By part, the rows that were replaced or deleted.
        types: Names of the kinds of the further columns.
    """

    version: int = 0
    parts: tuple[tuple[str, int], ...] = ()
    gone: dict[str, list[int]] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)

    def write(self, root: Path) -> None:
        """Replace the commit of an index."""
        values = {
            "version": self.version,
            "parts": [{"name": name, "rows": rows} for name, rows in self.parts],
            "gone": self.gone,
            "types": self.types,
        }
        write_text(root / COMMIT, json.dumps(values, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, root: Path) -> Commit:
        """Read the commit of an index.

        Raises:
            UserError: If it is missing or damaged.
        """
        path = root / COMMIT
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            parts = tuple((str(p["name"]), int(p["rows"])) for p in values["parts"])
            if any("/" in name or name.startswith(".") for name, _ in parts):
                raise ValueError("a part outside the folder")
            gone = {str(n): [int(r) for r in rows] for n, rows in values["gone"].items()}
            return cls(int(values["version"]), parts, gone, dict(values["types"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(path) from error
