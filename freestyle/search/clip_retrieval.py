"""Embeddings on disk as clip-retrieval writes them, and as anybody else may.

    FOLDER/img_emb/img_emb_0.npy             (N, E) float16 or float32
    FOLDER/metadata/metadata_0.parquet       image_path, caption and further columns, in that order
    FOLDER/text_emb/text_emb_0.npy           texts' embeddings: not read

or ``.npy`` files, each beside a list of names with its stem (``.txt``, ``.jsonl``, ``.csv``,
``.parquet``), or all of them beside one list. The layout is that of clip-retrieval's writer
(https://github.com/rom1504/clip-retrieval). An export of an index adds ``freestyle.json`` (its
settings) and ``atoms/atoms_0.npy`` (its sets), by which it is imported as it was.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from freestyle.errors import UserError
from freestyle.files import write_json
from freestyle.search.lists import LISTS, read_list
from freestyle.search.records import IndexSettings, PhotoRecord, Scalar

if TYPE_CHECKING:
    from freestyle.search.index import Index

PART = 100_000  # photos per file
BATCH = 1000
INFO = "freestyle.json"
IMAGES, METADATA, ATOMS = "img_emb", "metadata", "atoms"
TEXTS = ("id", "source", "path", "origin", "digest", "date", "caption")
NUMBERS = ("offset", "size", "width", "height")


@dataclass(frozen=True)
class Rows:
    """Some embeddings and what is said of each.

    Attributes:
        vectors: ``(N, E)``, of the file's type, not normalised.
        rows: N rows of a list.
        atoms: ``(N, M, E)`` float16; None where there are no sets.
    """

    vectors: np.ndarray
    rows: list[dict[str, Scalar]]
    atoms: np.ndarray | None = None


@dataclass(frozen=True)
class Embeddings:
    """A folder of embeddings, looked at but not read.

    Attributes:
        folder: Where they lie.
        parts: Per array its file, that of its list, and that of its sets, if there are any.
        width: E.
        count: Number of embeddings.
        settings: Of the index that was exported; None where there was none.
    """

    folder: Path
    parts: tuple[tuple[Path, Path, Path | None], ...]
    width: int
    count: int
    settings: IndexSettings | None = None

    def batches(self, size: int = BATCH) -> Iterator[Rows]:
        """All embeddings, some at a time.

        Raises:
            UserError: If an array and its list are of different lengths.
        """
        rows: Iterator[dict[str, Scalar]] = iter(())
        listed: Path | None = None
        for file, names, sets in self.parts:
            if names != listed:
                _refuse_rest(rows, listed)
                rows, listed = read_list(names), names
            vectors = open_array(file)
            atoms = open_array(sets, dimensions=3) if sets else None
            for start in range(0, len(vectors), size):
                stop = min(start + size, len(vectors))
                found = list(islice(rows, stop - start))
                if len(found) < stop - start:
                    raise UserError(f"{names} has fewer entries than {file} has rows: mend one")
                part = None if atoms is None else np.asarray(atoms[start:stop])
                yield Rows(np.asarray(vectors[start:stop]), found, part)
        _refuse_rest(rows, listed)


def open_embeddings(folder: Path) -> Embeddings:
    """Look at a folder of embeddings: which arrays and lists there are, and whether they fit.

    Raises:
        UserError: If there are none, or an array cannot be read or lacks its list.
    """
    if not folder.is_dir():
        raise UserError(f"--import {folder} is no folder: give one with img_emb/, or .npy files")
    named = (folder / IMAGES).is_dir()
    files = sorted((folder / IMAGES if named else folder).glob("*.npy"), key=_number)
    if not files:
        raise UserError(f"{folder} holds no .npy file: give a folder with img_emb/, or .npy files")
    parts = []
    for file in files:
        end = file.stem.rpartition("_")[2]
        sets = folder / ATOMS / f"{ATOMS}_{end}.npy"
        names = folder / METADATA / f"{METADATA}_{end}.parquet" if named else _list_beside(file)
        if names is None or not names.is_file():
            beside = names or f"{file.with_suffix('.txt')}"
            raise UserError(f"{file} has no list of names: put it into {beside}")
        parts.append((file, names, sets if named and sets.is_file() else None))
    arrays = [open_array(file) for file in files]
    width = arrays[0].shape[1]
    for file, array in zip(files, arrays, strict=True):
        if array.shape[1] != width:
            raise UserError(
                f"{file} is {array.shape[1]} wide, {files[0]} is {width}: import them apart"
            )
    return Embeddings(folder, tuple(parts), width, sum(map(len, arrays)), _settings(folder))


def _number(path: Path) -> tuple[int, str]:
    """Parts in the order of their numbers."""
    end = path.stem.rpartition("_")[2]
    return int(end) if end.isdigit() else -1, path.name


def _list_beside(file: Path) -> Path | None:
    own = [file.with_suffix(ending) for ending in LISTS if file.with_suffix(ending).is_file()]
    every = sorted(path for path in file.parent.iterdir() if path.suffix.lower() in LISTS)
    return own[0] if own else every[0] if len(every) == 1 else None


def _settings(folder: Path) -> IndexSettings | None:
    path = folder / INFO
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: export the index again") from error
    return IndexSettings.from_dict(values, str(path))


def open_array(path: Path, dimensions: int = 2) -> np.ndarray:
    """A memory-mapped array of floating-point numbers.

    Raises:
        UserError: If it is none.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no array that can be read ({reason}): replace it") from error
    kind = getattr(array, "dtype", None)
    if kind is None or array.ndim != dimensions or kind.kind != "f" or not array.shape[-1]:
        raise UserError(f"{path} holds no embeddings: give floating-point rows of one width")
    return array


def _refuse_rest(rows: Iterator[dict[str, Scalar]], names: Path | None) -> None:
    if next(rows, None) is not None:
        raise UserError(f"{names} has more entries than there are embeddings: mend it")


def export_vectors(
    index: Index, folder: Path, *, half: bool = False, quiet: bool = False, part: int = PART
) -> int:
    """Write an index as clip-retrieval does, whole or not at all.

    Args:
        index: What is exported.
        folder: New or empty.
        half: Write vectors as float16, half as large and rounded to about 3 digits.
        quiet: Show no progress.
        part: Photos per file.

    Returns:
        Number of photos.

    Raises:
        UserError: If the folder is taken, or cannot be written to, or the index is changed
            meanwhile.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--export {folder} exists already: choose a new folder")
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        count = _write_parts(index, temporary, half, quiet, part)
        write_json(temporary / INFO, index.settings.to_dict())
        temporary.chmod(0o755)
        os.replace(temporary, folder)
    except OSError as error:
        raise UserError(
            f"cannot write {folder} ({error.strerror or error}): choose another place, or make room"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return count


def _write_parts(index: Index, root: Path, half: bool, quiet: bool, size: int) -> int:
    total = len(index)
    parts = max(1, math.ceil(total / size))
    digits = int(math.log10(parts)) + 1
    kinds = {name: kind for name, kind in index.columns().items() if name != "source"}
    records = (record for batch in index.records(BATCH) for record in batch)
    with tqdm(total=total, unit="photo", disable=quiet, delay=1) as bar:
        for number in range(parts):
            count = min(size, total - number * size)
            _write_part(
                index, root, str(number).zfill(digits), islice(records, count), count, half, kinds
            )
            bar.update(count)
    if next(records, None) is not None:
        raise UserError(f"{index.uri} was changed while it was exported: export it again")
    return total


def _write_part(
    index: Index,
    root: Path,
    number: str,
    records: Iterator[PhotoRecord],
    count: int,
    half: bool,
    kinds: dict[str, type],
) -> None:
    """One array, its metadata and its sets."""
    from pyarrow import parquet

    own = index.settings
    for name in (IMAGES, METADATA, *([ATOMS] if own.atoms else [])):
        (root / name).mkdir(exist_ok=True)
    opened = np.lib.format.open_memmap
    shape, kind = (count, own.width), np.float16 if half else np.float32
    vectors = opened(root / IMAGES / f"{IMAGES}_{number}.npy", "w+", kind, shape)
    atoms = None
    if own.atoms:
        path = root / ATOMS / f"{ATOMS}_{number}.npy"
        atoms = opened(path, "w+", np.float16, (count, own.atoms, own.width))
    schema = _schema(kinds)
    row = 0
    with parquet.ParquetWriter(root / METADATA / f"{METADATA}_{number}.parquet", schema) as writer:
        while batch := list(islice(records, BATCH)):
            vectors[row : row + len(batch)] = np.stack([record.vector for record in batch])
            if atoms is not None:
                atoms[row : row + len(batch)] = np.stack([record.atoms for record in batch])
            writer.write_table(_table(batch, schema))
            row += len(batch)
    if row != count:
        raise UserError(f"{index.uri} was changed while it was exported: export it again")
    vectors.flush()
    if atoms is not None:
        atoms.flush()


def _schema(kinds: dict[str, type]) -> Any:
    import pyarrow as pa

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    fixed = {"image_path": pa.string(), **{name: pa.string() for name in TEXTS}}
    fixed |= {name: pa.int64() for name in NUMBERS} | {"modified": pa.float64()}
    extra = {name: types[kind] for name, kind in kinds.items() if name not in (*fixed, *_DERIVED)}
    return pa.schema([*fixed.items(), *extra.items()])


_DERIVED = ("folder", "name")


def _table(records: list[PhotoRecord], schema: Any) -> Any:
    import pyarrow as pa

    rows = []
    for record in records:
        own = {name: getattr(record, name) for name in (*TEXTS, *NUMBERS) if name != "source"}
        image = record.origin if record.origin and record.offset < 0 else record.path
        rows.append({**record.extra, **own, "modified": record.modified, "image_path": image})
    return pa.Table.from_pylist(rows, schema=schema)
