"""The default back end, ``my.index`` or ``lance:my.index``: a folder of LanceDB.

One table, whose every version is whole: an upsert is one version, and killed writers leave none.
Many photos are found through an index of their vectors (:mod:`freestyle.search.lance_vectors`).
Fewer photos' vectors are held in memory and all compared, their sets too where they fit; others'
sets are fetched by id for a second stage. LanceDB's own multi-vector search is not used, since its
index misses too much.

LanceDB runs threads of its own: a process that has an index open must not fork (spawn instead).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freestyle.errors import UserError
from freestyle.search.columns import OWN, checked, checked_queries, stored_key
from freestyle.search.folder import IndexFolder
from freestyle.search.held import Held, fits
from freestyle.search.lance_table import brief, changing, connect
from freestyle.search.lance_vectors import is_used, nearest_indexed, train
from freestyle.search.ranking import nearest, sampled
from freestyle.search.records import Fingerprint, Hits, IndexSettings, PhotoRecord
from freestyle.search.rows import (
    FINGERPRINT,
    fixed_lists,
    further_types,
    given_text,
    matrix,
    schema,
    table_schema,
    to_batch,
    to_fingerprints,
    to_metadata,
    to_record,
)
from freestyle.search.sql import ids_sql, where_sql

if TYPE_CHECKING:
    import pyarrow as pa

    from freestyle.search.filters import Filter

NAME = "lance"
TABLE = "photos"
KEYED = 1_000  # photos from which ids are looked up in an index
KEPT = timedelta(minutes=10)  # how long old versions stay, for readers in the middle of them
AT_ONCE = timedelta(milliseconds=1)
LOOKED_UP = 500  # ids in one query


class LanceIndex:
    """An index in a LanceDB folder; see :class:`freestyle.search.index.Index`.

    Any number of threads may search one object; one of them may write.
    """

    def __init__(self, uri: str, path: Path) -> None:
        self.uri = uri
        self._folder = IndexFolder(path)
        _, self.settings = self._folder.read()
        self._path = path
        self._process = os.getpid()
        self._memory: Held | None = None
        with self._reading():
            self._opened = connect(path).open_table(TABLE)
            self._check_schema()

    @classmethod
    def create(cls, uri: str, path: Path, settings: IndexSettings) -> LanceIndex:
        """Make an empty index.

        Raises:
            UserError: If the folder is taken, or cannot be written to.
        """
        left = {f"{TABLE}.lance"}
        folder = IndexFolder(path)
        folder.refuse_taken(left)
        with folder.writing(wait=True):
            folder.refuse_taken(left)
            with changing(path):
                fields = table_schema({}, settings)
                shutil.rmtree(path / f"{TABLE}.lance", ignore_errors=True)
                connect(path).create_table(TABLE, schema=fields)
            folder.create(NAME, settings, left)
        return cls(uri, path)

    def __len__(self) -> int:
        with self._reading() as table:
            return table.count_rows()

    @contextlib.contextmanager
    def writing(self, *, wait: bool = False) -> Iterator[None]:
        """Hold the right to write; it goes back by itself when the process dies."""
        with self._folder.writing(wait=wait):
            yield

    def upsert(self, photos: Sequence[PhotoRecord]) -> None:
        """Add photos in one version, replacing those of equal id."""
        import pyarrow as pa

        self._folder.require_writing()
        known = self._types()
        photos, extras, types = checked(photos, self.settings, known)
        if not photos:
            return
        batch = to_batch(photos, extras, types)
        columns = [*batch.columns, fixed_lists([p.vector for p in photos], np.float32)]
        if self.settings.atoms:
            columns.append(fixed_lists([np.ravel(p.atoms) for p in photos], np.float16))
        fields = table_schema(types, self.settings)
        with self._changing() as table:
            new = {name: kind for name, kind in types.items() if name not in known}
            if new:
                names = set(schema(new).names) - set(schema({}).names)
                table.add_columns(pa.schema([f for f in fields if f.name in names]))
            merge = table.merge_insert("id").when_matched_update_all()
            merge.when_not_matched_insert_all().execute(pa.table(columns, schema=fields))

    def delete(self, ids: Sequence[str]) -> int:
        """Remove photos in one version; unknown ids are passed over."""
        self._folder.require_writing()
        if not ids:
            return 0
        with self._changing() as table:
            return table.delete(ids_sql(sorted(set(ids)))).num_deleted_rows

    def optimise(self) -> None:
        """Merge small files, index what is not, and remove old versions.

        Where somebody reads all the time, versions younger than :data:`KEPT` stay.
        """
        from lancedb.index import BTree

        self._folder.require_writing()
        with self._changing() as table:
            # nobody else writes, so what no version names is a killed writer's
            table.optimize(cleanup_older_than=KEPT, delete_unverified=True)
            rows = table.count_rows()
            if rows >= KEYED and "id" not in [i.columns[0] for i in table.list_indices()]:
                table.create_index("id", config=BTree())
            if is_used(rows):
                train(table, rows)
            with self._folder.undisturbed() as nobody_reads:
                if nobody_reads:
                    table.optimize(cleanup_older_than=AT_ONCE, delete_unverified=True)

    def fingerprints(self) -> dict[str, Fingerprint]:
        """By id, what tells whether photos have changed."""
        return to_fingerprints(self._scan(FINGERPRINT))

    def search(self, queries: np.ndarray, k: int, where: Filter | None = None) -> list[Hits]:
        """The k photos of the largest inner product with each query, as far as the index finds.

        As long as vectors are held in memory these are all; of equal scores at the last place the
        smallest ids are found, of very many some of them.
        """
        queries = checked_queries(queries, k, self.settings.width, self.uri)
        sql = where_sql(where) if where else None
        with self._reading() as table:
            asked = {stored_key(c.column) for c in where.conditions} if where else set()
            if not asked <= set(table.schema.names):  # a column that no photo has
                return [Hits([], np.empty(0, dtype=np.float32)) for _ in queries]
            held = self._held(table)
            if held is not None:
                ids, vectors = held.ids, held.vectors
                if sql is not None:
                    found = table.search().where(sql).select(["id"]).limit(None).to_arrow()
                    names = (given_text(name) for name in found["id"].to_pylist())
                    rows = [held.places[name] for name in names if name in held.places]
                    ids, vectors = ids[rows], vectors[rows]
                return [nearest(ids, vectors, query, k) for query in queries]
            width = self.settings.width
            return [nearest_indexed(table, query, k, sql, width) for query in queries]

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        """Pooled embeddings ``(N, E)`` float32."""
        with self._reading() as table:
            held = self._held(table)
        if held is not None:
            return held.vectors[held.rows(ids)]
        table, rows = self._look_up(ids, ["vector"])
        return matrix(table["vector"], self.settings.width)[rows]

    def atoms(self, ids: Sequence[str]) -> np.ndarray:
        """Sets ``(N, M, E)`` float16."""
        width, size = self.settings.width, self.settings.atoms
        if not size:
            self._look_up(ids, [])
            return np.empty((len(ids), 0, width), dtype=np.float16)
        with self._reading() as table:
            held = self._held(table)
            if held is not None and held.atoms is None and fits(len(held.ids), width * size):
                found = table.search().select(["id", "atoms"]).limit(None).to_arrow()
                names = [given_text(name) for name in found["id"].to_pylist()]
                sets = matrix(found["atoms"], size * width).reshape(-1, size, width)
                held.take_atoms(names, sets)
        if held is not None and held.atoms is not None:
            return held.atoms[held.rows(ids)]
        table, rows = self._look_up(ids, ["atoms"])
        return matrix(table["atoms"], size * width)[rows].reshape(-1, size, width)

    def metadata(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """What is known of each photo but its arrays and pictures."""
        with self._reading() as table:
            held = self._held(table)
            if held is not None and held.metadata is None:
                found = table.search().select(["id", *self._told()]).limit(None).to_arrow()
                held.take_metadata([to_metadata(row) for row in found.to_pylist()])
        if held is not None and held.metadata is not None:
            return [dict(held.metadata[row]) for row in held.rows(ids)]
        found, rows = self._look_up(ids, self._told())
        told = [to_metadata(row) for row in found.to_pylist()]
        return [dict(told[row]) for row in rows]

    def _told(self) -> list[str]:
        """The columns of :meth:`metadata`."""
        return [n for n in schema(self._types()).names if n not in ("id", "thumbnail")]

    def thumbnail(self, id: str) -> bytes:
        """WebP bytes; empty where there is none."""
        return self.thumbnails([id])[0]

    def thumbnails(self, ids: Sequence[str]) -> list[bytes]:
        """Those of several photos."""
        table, rows = self._look_up(ids, ["thumbnail"])
        return [table["thumbnail"][int(row)].as_py() for row in rows]

    def sample(self, count: int, seed: int = 0) -> list[str]:
        """Up to ``count`` different ids, the same for the same content and seed."""
        return sampled(self._ids(), count, seed)

    def records(self, batch_size: int = 1000) -> Iterator[list[PhotoRecord]]:
        """All photos, ordered by id; those that go meanwhile are left out."""
        order = sorted(self._ids())
        for start in range(0, len(order), batch_size):
            names = order[start : start + batch_size]
            table, rows = self._look_up(names, None, missing=False)
            if not len(rows):
                continue
            width, size = self.settings.width, self.settings.atoms
            vectors, sets = matrix(table["vector"], width)[rows], None
            if size:
                sets = matrix(table["atoms"], size * width)[rows].reshape(-1, size, width)
            kept = [n for n in table.column_names if n not in ("vector", "atoms")]
            plain = table.select(kept).to_pylist()
            yield [
                to_record(plain[row], vectors[at].copy(), None if sets is None else sets[at].copy())
                for at, row in enumerate(rows)
            ]

    def columns(self) -> dict[str, type]:
        """Names and Python types of the columns that filters may read."""
        return {**self._types(), **OWN}

    def close(self) -> None:
        """Let go of the table."""
        self._opened = self._memory = None

    def _held(self, table: Any) -> Held | None:
        """The newest version's vectors, where they are few enough to be held."""
        if is_used(table.count_rows()):
            self._memory = None
            return None
        version = table.version
        held = self._memory
        if held is None or held.version != version:
            found = table.search().select(["id", "vector"]).limit(None).to_arrow()
            names = [given_text(name) for name in found["id"].to_pylist()]
            vectors = matrix(found["vector"], self.settings.width)
            held = self._memory = Held(version, np.array(names, dtype=object), vectors)
        return held

    def _look_up(
        self, ids: Sequence[str], names: list[str] | None, *, missing: bool = True
    ) -> tuple[pa.Table, np.ndarray]:
        """Some columns (None: all) of photos, and the row of each id in them.

        Raises:
            KeyError: At an unknown id, unless ``missing`` is False: then it is left out.
        """
        import pyarrow as pa

        wanted, tables = sorted(set(ids)), []
        with self._reading() as table:
            select = table.schema.names if names is None else ["id", *names]
            for start in range(0, len(wanted), LOOKED_UP) or [0]:
                some = wanted[start : start + LOOKED_UP]
                search = table.search().where(ids_sql(some) if some else "false")
                tables.append(search.select(select).limit(None).to_arrow())
        found = pa.concat_tables(tables)
        places = {given_text(n): row for row, n in enumerate(found["id"].to_pylist())}
        rows = [places[name] for name in ids if missing or name in places]
        return found, np.array(rows, dtype=int)

    def _scan(self, names: Sequence[str]) -> pa.Table:
        with self._reading() as table:
            return table.search().select(list(names)).limit(None).to_arrow()

    def _ids(self) -> list[str]:
        return [given_text(name) for name in self._scan(["id"])["id"].to_pylist()]

    def _types(self) -> dict[str, type]:
        with self._reading() as table:
            return further_types(table.schema)

    def _check_schema(self) -> None:
        wanted = table_schema({}, self.settings)
        found = self._opened.schema
        if any(f.name not in found.names or found.field(f.name).type != f.type for f in wanted):
            raise ValueError("its columns are not the settings'")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        """The table; what goes wrong becomes one sentence."""
        self._refuse_fork()
        try:
            with self._folder.reading():
                yield getattr(self, "_opened", None)
        except (UserError, KeyError):
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"the index at {self._path} is damaged ({brief(error)}): make it again with "
                "freestyle index"
            ) from error

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Any]:
        self._refuse_fork()
        with changing(self._path):
            yield self._opened

    def _refuse_fork(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"the index at {self._path} was opened before a fork: open it in the process that "
                "uses it, and start processes by spawning"
            )
