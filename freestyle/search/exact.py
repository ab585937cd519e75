"""The exact back end, ``exact:my.index``: every photo is compared, from memory-mapped matrices.

It is the reference that other back ends are measured against, and good to about a million photos.
Its parts are plain ``.npy`` and Arrow files; see :mod:`freestyle.search.parts`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freestyle.errors import UserError
from freestyle.search.columns import OWN, checked, checked_queries
from freestyle.search.folder import IndexFolder
from freestyle.search.parts import COMMIT, PARTS, Commit, Part, damaged, open_part, write_part
from freestyle.search.ranking import merged, nearest, sampled
from freestyle.search.records import Fingerprint, Hits, IndexSettings, PhotoRecord
from freestyle.search.rows import (
    FINGERPRINT,
    gathered,
    matching,
    schema,
    to_batch,
    to_fingerprints,
    to_metadata,
    to_record,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from freestyle.search.filters import Filter

NAME = "exact"
ROWS = 16384  # compared, or copied, at a time
RETRIES = 20  # of a commit whose parts are merged away while they are opened
KINDS = {kind.__name__: kind for kind in (str, int, float, bool)}


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One whole commit, open.

    Attributes:
        stamp: What tells whether the commit's file has been replaced.
        commit: As read.
        parts: Open parts.
        alive: Per part which rows are live, ``(N,)`` bool.
        places: Part and row by id.
    """

    stamp: tuple[int, int, int]
    commit: Commit
    parts: list[Part]
    alive: list[np.ndarray]
    places: dict[str, tuple[int, int]]

    @property
    def types(self) -> dict[str, type]:
        """Types of the further columns."""
        return {name: KINDS[kind] for name, kind in self.commit.types.items()}


class ExactIndex:
    """An index of memory-mapped matrices; see :class:`freestyle.search.index.Index`.

    Any number of threads may search one object; one of them may write.
    """

    def __init__(self, uri: str, path: Path) -> None:
        self.uri = uri
        self._folder = IndexFolder(path)
        _, self.settings = self._folder.read()
        self._root = path
        self._snapshot: Snapshot | None = None
        self._fresh()

    @classmethod
    def create(cls, uri: str, path: Path, settings: IndexSettings) -> ExactIndex:
        """Make an empty index.

        Raises:
            UserError: If the folder is taken, or cannot be written to.
        """
        folder = IndexFolder(path)
        folder.refuse_taken({COMMIT, PARTS})
        with folder.writing(wait=True):
            folder.refuse_taken({COMMIT, PARTS})
            Commit().write(path)
            folder.create(NAME, settings, {COMMIT, PARTS})
        return cls(uri, path)

    def __len__(self) -> int:
        return len(self._fresh().places)

    @contextlib.contextmanager
    def writing(self, *, wait: bool = False) -> Iterator[None]:
        """Hold the right to write; it goes back by itself when the process dies."""
        with self._folder.writing(wait=wait):
            self._sweep()
            yield

    def upsert(self, photos: Sequence[PhotoRecord]) -> None:
        """Add photos as one part, replacing those of equal id."""
        self._folder.require_writing()
        now = self._fresh()
        photos, extras, types = checked(photos, self.settings, now.types)
        if not photos:
            return
        name = self._new_name(now)
        vectors = np.stack([photo.vector for photo in photos])
        atoms = np.stack([photo.atoms for photo in photos]) if self.settings.atoms else None
        batch = to_batch(photos, extras, types)
        write_part(
            self._root / PARTS, name, vectors, atoms, [batch], batch.schema, len(photos),
            self.settings,
        )  # fmt: skip
        gone = self._gone(now, [photo.id for photo in photos])
        kinds = {column: kind.__name__ for column, kind in types.items()}
        parts = (*now.commit.parts, (name, len(photos)))
        Commit(now.commit.version + 1, parts, gone, kinds).write(self._root)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove photos; unknown ids are passed over."""
        self._folder.require_writing()
        now = self._fresh()
        known = {name for name in ids if name in now.places}
        if known:
            commit = now.commit
            gone = self._gone(now, known)
            Commit(commit.version + 1, commit.parts, gone, commit.types).write(self._root)
        return len(known)

    def optimise(self) -> None:
        """Merge all parts into one, ordered by id, without replaced and deleted rows."""
        self._folder.require_writing()
        now = self._fresh()
        if len(now.parts) > 1 or any(now.commit.gone.values()):
            order = [now.places[name] for name in sorted(now.places)]
            parts: tuple[tuple[str, int], ...] = ()
            if order:
                name = self._new_name(now)
                self._merge(now, name, order)
                parts = ((name, len(order)),)
            Commit(now.commit.version + 1, parts, {}, now.commit.types).write(self._root)
        self._sweep()

    def fingerprints(self) -> dict[str, Fingerprint]:
        """By id, what tells whether photos have changed."""
        now, found = self._fresh(), {}
        for part, alive in zip(now.parts, now.alive, strict=True):
            found |= to_fingerprints(part.table.select(FINGERPRINT).filter(alive))
        return found

    def search(self, queries: np.ndarray, k: int, where: Filter | None = None) -> list[Hits]:
        """The k photos of the largest inner product with each query, of all that match."""
        queries = checked_queries(queries, k, self.settings.width, self.uri)
        now = self._fresh()
        best: list[list[Hits]] = [[] for _ in queries]
        for part, alive in zip(now.parts, now.alive, strict=True):
            rows = np.flatnonzero(alive if where is None else alive & matching(part.table, where))
            for start in range(0, len(rows), ROWS):
                block = rows[start : start + ROWS]
                whole = block[-1] - block[0] + 1 == len(block)
                vectors = part.vectors[slice(block[0], block[-1] + 1) if whole else block]
                for query, hits in zip(queries, best, strict=True):
                    hits.append(nearest(part.ids[block], vectors, query, k))
        return [merged(hits, k) for hits in best]

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        """Pooled embeddings ``(N, E)`` float32."""
        now = self._fresh()
        out = np.empty((len(ids), self.settings.width), dtype=np.float32)
        for row, (part, at) in enumerate(self._places(now, ids)):
            out[row] = now.parts[part].vectors[at]
        return out

    def atoms(self, ids: Sequence[str]) -> np.ndarray:
        """Sets ``(N, M, E)`` float16."""
        now = self._fresh()
        out = np.empty((len(ids), self.settings.atoms, self.settings.width), dtype=np.float16)
        for row, (part, at) in enumerate(self._places(now, ids)):
            if self.settings.atoms:
                out[row] = now.parts[part].atoms[at]
        return out

    def metadata(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """What is known of each photo but its arrays and pictures."""
        now = self._fresh()
        hidden = ["thumbnail"]
        return [
            to_metadata(now.parts[part].table.slice(at, 1).drop_columns(hidden).to_pylist()[0])
            for part, at in self._places(now, ids)
        ]

    def thumbnail(self, id: str) -> bytes:
        """WebP bytes; empty where there is none."""
        return self.thumbnails([id])[0]

    def thumbnails(self, ids: Sequence[str]) -> list[bytes]:
        """Those of several photos."""
        now = self._fresh()
        places = self._places(now, ids)
        return [now.parts[part].table["thumbnail"][at].as_py() for part, at in places]

    def sample(self, count: int, seed: int = 0) -> list[str]:
        """Up to ``count`` different ids, the same for the same content and seed."""
        return sampled(self._fresh().places, count, seed)

    def records(self, batch_size: int = 1000) -> Iterator[list[PhotoRecord]]:
        """All photos of the commit of the first call, ordered by id."""
        now = self._fresh()
        order = sorted(now.places)
        for start in range(0, len(order), batch_size):
            batch = []
            for part, at in (now.places[name] for name in order[start : start + batch_size]):
                source = now.parts[part]
                atoms = None if source.atoms is None else np.array(source.atoms[at])
                row = source.table.slice(at, 1).to_pylist()[0]
                batch.append(to_record(row, np.array(source.vectors[at]), atoms))
            yield batch

    def columns(self) -> dict[str, type]:
        """Names and Python types of the columns that filters may read."""
        return {**self._fresh().types, **OWN}

    def close(self) -> None:
        """Let go of the open parts."""
        self._snapshot = None

    def _fresh(self) -> Snapshot:
        """The newest commit, open; what was open stays so while it is in use."""
        for _ in range(RETRIES):
            before = self._snapshot
            stamp = self._stamp()
            if before is not None and before.stamp == stamp:
                return before
            commit = Commit.read(self._root)
            try:
                after = self._open(commit, stamp, before)
            except FileNotFoundError as error:
                missing = Path(error.filename or self._root / PARTS)
                continue
            self._snapshot = after
            return after
        raise damaged(missing)

    def _stamp(self) -> tuple[int, int, int]:
        try:
            status = os.stat(self._root / COMMIT)
        except OSError as error:
            raise damaged(self._root / COMMIT) from error
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _open(self, commit: Commit, stamp: tuple[int, int, int], old: Snapshot | None) -> Snapshot:
        """Open a commit, with the parts that are open already."""
        known = {part.name: part for part in old.parts} if old else {}
        folder = self._root / PARTS
        parts, alive = [], []
        for name, rows in commit.parts:
            part = known.get(name) or open_part(folder, name, rows, self.settings)
            mask = np.ones(rows, dtype=bool)
            gone = commit.gone.get(name, [])
            if gone and not 0 <= min(gone) <= max(gone) < rows:
                raise damaged(self._root / COMMIT)
            mask[gone] = False
            parts.append(part)
            alive.append(mask)
        return Snapshot(stamp, commit, parts, alive, find_places(commit, parts, alive, old))

    def _places(self, now: Snapshot, ids: Sequence[str]) -> list[tuple[int, int]]:
        return [now.places[name] for name in ids]

    def _gone(self, now: Snapshot, ids: Sequence[str] | set[str]) -> dict[str, list[int]]:
        """The commit's rows that are gone, and those of ``ids``."""
        gone = {name: list(rows) for name, rows in now.commit.gone.items()}
        for name in ids:
            if name in now.places:
                part, row = now.places[name]
                gone.setdefault(now.parts[part].name, []).append(row)
        return gone

    def _new_name(self, now: Snapshot) -> str:
        return f"{now.commit.version + 1:08d}-{secrets.token_hex(4)}"

    def _merge(self, now: Snapshot, name: str, order: list[tuple[int, int]]) -> None:
        """Write rows in this order as one part, block by block."""
        fields = schema(now.types)
        blocks = [order[start : start + ROWS] for start in range(0, len(order), ROWS)]

        def arrays(kind: str) -> Iterator[np.ndarray]:
            for block in blocks:
                yield np.stack([getattr(now.parts[part], kind)[row] for part, row in block])

        def batches() -> Iterator[pa.RecordBatch]:
            for block in blocks:
                yield from gathered([p.table for p in now.parts], block, fields).to_batches()

        atoms = arrays("atoms") if self.settings.atoms else None
        write_part(
            self._root / PARTS, name, arrays("vectors"), atoms, batches(), fields, len(order),
            self.settings,
        )  # fmt: skip

    def _sweep(self) -> None:
        """Remove files of parts that no commit names: merged ones, and those of killed writers."""
        live = {name for name, _ in Commit.read(self._root).parts}
        folder = self._root / PARTS
        try:
            for file in folder.iterdir() if folder.exists() else ():
                if file.name.startswith(".") or file.name.split(".")[0] not in live:
                    file.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write to {folder} ({error.strerror or error}): give yourself the right to"
            ) from error


def find_places(
    commit: Commit, parts: list[Part], alive: list[np.ndarray], old: Snapshot | None
) -> dict[str, tuple[int, int]]:
    """Part and row of each live id, from those of the commit before where it was only added to."""
    start, places = 0, {}
    if old and commit.parts[: len(old.parts)] == old.commit.parts:
        start, places = len(old.parts), dict(old.places)
        for part, before, now in zip(old.parts, old.alive, alive, strict=False):
            for name in part.ids[before & ~now]:
                del places[name]
    for at in range(start, len(parts)):
        rows = np.flatnonzero(alive[at])
        names = parts[at].ids[rows]
        places.update(zip(names, ((at, row) for row in rows.tolist()), strict=True))
    return places
