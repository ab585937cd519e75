"""The distributed back end, ``qdrant://host:6333/collection``: a Qdrant server or cluster.

``qdrants://`` speaks TLS; the key, if the server wants one, is the environment variable
``QDRANT_API_KEY``. A photo is a point: its vector, and a payload with all else (see
:mod:`freestyle.search.points`); settings and the columns' types are the collection's metadata.
Sharding and replication are the server's, by options when a collection is made (see
:mod:`freestyle.search.qdrant_collection`).

What differs from a folder:

- An upsert goes in requests of about :data:`REQUEST` bytes, in order. Each is whole when the client
  is killed; an upsert larger than that may stop between two of them.
- The right to write is a lock file on this machine, named by the URI. Writers on *other* machines
  are not kept apart: nothing breaks, since every point is written whole, but of one photo the last
  writer's stays, and a type of a new column may be lost. Let one machine write.
- Conditions that the server lacks (an order of texts) are asked of more and more of the nearest
  points, until enough match.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from freestyle.search.columns import OWN, checked, checked_queries, key
from freestyle.search.qdrant_collection import (
    TYPES,
    VECTOR,
    check_options,
    make_collection,
    read_settings,
    read_types,
    sole_writer,
)
from freestyle.search.records import Fingerprint, Hits, IndexSettings, PhotoRecord
from freestyle.search.rows import given_text, to_metadata, to_record
from freestyle.search.server_client import ask, connect, missing, parse_address

if TYPE_CHECKING:
    from freestyle.search.filters import Filter

REQUEST = 8 * 2**20  # bytes of one upsert, about; servers take 32 MB
PAGE = 2_000  # points of one scroll
SLACK = 16  # results asked for beyond k, among which equal scores are put in order
TIES = 10_000  # equal scores at the last place that are still put in order
PATIENCE = 600  # seconds that optimise() waits for the server's own work


class QdrantIndex:
    """A collection of a Qdrant server; see :class:`freestyle.search.index.Index`.

    Args:
        uri: Of the collection.
        client: A ``QdrantClient``; None connects to the server of the URI.
    """

    def __init__(self, uri: str, client: Any = None) -> None:
        self.uri = uri
        self._address = parse_address(uri)
        self._client = client or connect(self._address)
        self._owned = client is None
        self._writing = False
        self.settings = read_settings(self._address, self._metadata())

    @classmethod
    def open(cls, uri: str, client: Any = None) -> QdrantIndex:
        """Open an index that exists.

        Raises:
            UserError: If there is none, or the server does not answer.
        """
        return cls(uri, client)

    @classmethod
    def create(
        cls, uri: str, settings: IndexSettings, client: Any = None, **options: int
    ) -> QdrantIndex:
        """Make an empty collection.

        Args:
            uri: Of the collection.
            settings: How it will be filled.
            client: As of the class.
            **options: Of :data:`freestyle.search.qdrant_collection.OPTIONS`.

        Raises:
            UserError: If there is one already, an option is unknown or no positive number, or the
                server does not answer.
        """
        address = parse_address(uri)
        check_options(uri, options)
        used = client or connect(address)
        make_collection(address, used, settings, options)
        return cls(uri, client or used)

    def __len__(self) -> int:
        return self._ask(self._client.count, exact=True).count

    @contextlib.contextmanager
    def writing(self, *, wait: bool = False) -> Iterator[None]:
        """Hold the right to write, among the processes of this machine."""
        if self._writing:
            raise RuntimeError(f"{self.uri} is being written to by this object already")
        with sole_writer(self._address, wait=wait):
            self._writing = True
            try:
                yield
            finally:
                self._writing = False

    def upsert(self, photos: Sequence[PhotoRecord]) -> None:
        """Add photos, replacing those of equal id, in requests of bounded size."""
        from qdrant_client import models

        from freestyle.search.points import payload, point_id

        self._require_writing()
        known = self._types()
        photos, extras, types = checked(photos, self.settings, known)
        if types != known:
            kinds = {key(column): kind.__name__ for column, kind in types.items()}
            name = self._address.collection
            metadata = {TYPES: kinds}
            ask(
                self._address,
                lambda: self._client.update_collection(collection_name=name, metadata=metadata),
            )
        batch: list[models.PointStruct] = []
        size = 0
        for photo, extra in zip(photos, extras, strict=True):
            vector = {VECTOR: np.asarray(photo.vector, dtype=np.float32).tolist()}
            values = payload(photo, extra)
            batch.append(models.PointStruct(id=point_id(photo.id), vector=vector, payload=values))
            size += 12 * self.settings.width + sum(len(str(v)) for v in values.values())
            if size >= REQUEST:
                self._ask(self._client.upsert, points=batch, wait=True)
                batch, size = [], 0
        if batch:
            self._ask(self._client.upsert, points=batch, wait=True)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove photos; unknown ids are passed over."""
        from qdrant_client import models

        self._require_writing()
        known = [str(point.id) for point in self._retrieve(sorted(set(ids)), False)]
        for start in range(0, len(known), PAGE):
            selector = models.PointIdsList(points=known[start : start + PAGE])
            self._ask(self._client.delete, points_selector=selector, wait=True)
        return len(known)

    def optimise(self) -> None:
        """Wait, for :data:`PATIENCE` at most, until the server has done its own optimising."""
        self._require_writing()
        end = time.monotonic() + PATIENCE
        while self._ask(self._client.get_collection).status == "yellow":
            if time.monotonic() > end:
                break
            time.sleep(0.5)

    def fingerprints(self) -> dict[str, Fingerprint]:
        """By id, what tells whether photos have changed."""
        return {
            given_text(row["id"]): Fingerprint(
                int(row["size"]), float(row["modified"]), row["digest"]
            )
            for row in self._scroll(["id", "size", "modified", "digest"])
        }

    def search(self, queries: np.ndarray, k: int, where: Filter | None = None) -> list[Hits]:
        """The k photos of the largest inner product with each query, as far as the server finds."""
        from freestyle.search.points import native

        queries = checked_queries(queries, k, self.settings.width, self.uri)
        condition, left = native(where) if where else (None, None)
        return [self._nearest(query, k, condition, left) for query in queries]

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        """Pooled embeddings ``(N, E)`` float32."""
        points = self._look_up(ids, ["id"], vectors=True)
        rows = [point.vector[VECTOR] for point in points]
        return np.array(rows, dtype=np.float32).reshape(len(ids), self.settings.width)

    def atoms(self, ids: Sequence[str]) -> np.ndarray:
        """Sets ``(N, M, E)`` float16."""
        from freestyle.search.points import given_atoms

        shape = (self.settings.atoms, self.settings.width)
        points = self._look_up(ids, ["id", "atoms"])
        out = np.empty((len(ids), *shape), dtype=np.float16)
        for row, point in enumerate(points if shape[0] else ()):
            out[row] = given_atoms(point.payload, shape)
        return out

    def metadata(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """What is known of each photo but its arrays and pictures."""
        from freestyle.search.points import FIXED, columns_of

        types = self._types()
        points = self._look_up(ids, [*FIXED, *map(key, types)])
        return [to_metadata(columns_of(point.payload, types)) for point in points]

    def thumbnail(self, id: str) -> bytes:
        """WebP bytes; empty where there is none."""
        return self.thumbnails([id])[0]

    def thumbnails(self, ids: Sequence[str]) -> list[bytes]:
        """Those of several photos."""
        points = self._look_up(ids, ["thumbnail"])
        return [base64.b64decode(point.payload["thumbnail"]) for point in points]

    def sample(self, count: int, seed: int = 0) -> list[str]:
        """Up to ``count`` different ids, the same for the same content and seed.

        Points are ordered by a hash of their id, so those behind a place that the seed chooses are
        a sample, and a large collection need not be read.
        """
        digest = hashlib.blake2b(str(seed).encode(), digest_size=16).digest()
        found: list[str] = []
        for offset in (str(uuid.UUID(bytes=digest)), None):
            for row in self._scroll(["id"], offset=offset, limit=min(count, PAGE)):
                name = given_text(row["id"])
                if len(found) >= count or (found and name == found[0]):
                    return found
                found.append(name)
        return found

    def records(self, batch_size: int = 1000) -> Iterator[list[PhotoRecord]]:
        """All photos, ordered by id; those that go meanwhile are left out."""
        from freestyle.search.points import columns_of, given_atoms

        shape = (self.settings.atoms, self.settings.width)
        order = sorted(given_text(row["id"]) for row in self._scroll(["id"]))
        types = self._types()
        for start in range(0, len(order), batch_size):
            points = self._retrieve(order[start : start + batch_size], True, vectors=True)
            batch = []
            for point in points:
                row = columns_of(point.payload, types)
                row["thumbnail"] = base64.b64decode(point.payload["thumbnail"])
                vector = np.array(point.vector[VECTOR], dtype=np.float32)
                atoms = given_atoms(point.payload, shape) if shape[0] else None
                batch.append(to_record(row, vector, atoms))
            if batch:
                yield sorted(batch, key=lambda photo: photo.id)

    def columns(self) -> dict[str, type]:
        """Names and Python types of the columns that filters may read."""
        return {**self._types(), **OWN}

    def close(self) -> None:
        """Close the connection, if it is this object's own."""
        if self._owned:
            self._client.close()

    def _nearest(self, query: np.ndarray, k: int, condition: Any, left: Filter | None) -> Hits:
        from freestyle.search.points import FIXED, columns_of

        types = self._types() if left else {}
        keys = [*FIXED, *map(key, types)] if left else ["id"]
        limit = k + SLACK
        while True:
            points = self._ask(
                self._client.query_points,
                query=query.tolist(),
                using=VECTOR,
                query_filter=condition,
                limit=limit,
                with_payload=keys,
            ).points
            scores = {
                given_text(point.payload["id"]): np.float32(point.score)
                for point in points
                if not left or left.matches(to_metadata(columns_of(point.payload, types)))
            }
            order = sorted(scores, key=lambda name: (-scores[name], name))[:k]
            hits = Hits(order, np.array([scores[name] for name in order], dtype=np.float32))
            if len(points) < limit:
                return hits
            full = len(order) == k
            if full and (points[-1].score < hits.scores[-1] or limit > k + TIES):
                return hits
            limit *= 4

    def _look_up(self, ids: Sequence[str], keys: list[str], *, vectors: bool = False) -> list[Any]:
        """Points in the order of ``ids``.

        Raises:
            KeyError: At an unknown id.
        """
        from freestyle.search.points import point_id

        found = {str(p.id): p for p in self._retrieve(sorted(set(ids)), keys, vectors=vectors)}
        try:
            return [found[point_id(name)] for name in ids]
        except KeyError:
            unknown = next(name for name in ids if point_id(name) not in found)
            raise KeyError(unknown) from None

    def _retrieve(self, ids: Sequence[str], keys: Any, *, vectors: bool = False) -> list[Any]:
        from freestyle.search.points import point_id

        points = []
        for start in range(0, len(ids), PAGE):
            some = [point_id(name) for name in ids[start : start + PAGE]]
            points += self._ask(
                self._client.retrieve, ids=some, with_payload=keys, with_vectors=vectors
            )
        return points

    def _scroll(
        self, keys: list[str], *, offset: str | None = None, limit: int = PAGE
    ) -> Iterator[dict[str, Any]]:
        """Payloads of all points from an id on."""
        while True:
            points, offset = self._ask(
                self._client.scroll, limit=limit, offset=offset, with_payload=keys
            )
            yield from (point.payload for point in points)
            if offset is None:
                return

    def _types(self) -> dict[str, type]:
        return read_types(self._metadata())

    def _metadata(self) -> dict[str, Any]:
        if not self._ask(self._client.collection_exists):
            raise missing(self._address)
        return self._ask(self._client.get_collection).config.metadata or {}

    def _ask(self, request: Callable[..., Any], **arguments: Any) -> Any:
        name = self._address.collection
        return ask(self._address, lambda: request(collection_name=name, **arguments))

    def _require_writing(self) -> None:
        if not self._writing:
            raise RuntimeError("change an index inside `with index.writing():`")
