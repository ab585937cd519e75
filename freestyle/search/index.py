"""The interface of all indexes, and the one place that opens them by URI.

    my.index                        a LanceDB folder (the default), or what the folder already is
    lance:my.index                  a LanceDB folder
    exact:my.index                  memory-mapped matrices: the reference, good to about a million
    qdrant://host:6333/collection   a Qdrant server or cluster

Indexes are plain NumPy. One process may write at a time; readers see whole commits only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from freestyle.errors import UserError
from freestyle.search.folder import IndexFolder

if TYPE_CHECKING:
    from freestyle.search.filters import Filter
    from freestyle.search.records import Fingerprint, Hits, IndexSettings, PhotoRecord

FOLDERS = ("exact", "lance")
SERVERS = ("qdrant", "qdrants")
DEFAULT = "lance"


class Index(Protocol):
    """A gallery that can be searched, filled and emptied.

    Attributes:
        uri: What :func:`open_index` was given.
        settings: How it was made.
    """

    uri: str
    settings: IndexSettings

    def __len__(self) -> int:
        """Number of photos."""

    def writing(self, *, wait: bool = False) -> AbstractContextManager[None]:
        """Hold the right to write; every change happens inside.

        Raises:
            UserError: If another process writes and ``wait`` is False.
        """

    def upsert(self, photos: Sequence[PhotoRecord]) -> None:
        """Add photos, replacing those of equal id; all of them or, when killed, none."""

    def delete(self, ids: Sequence[str]) -> int:
        """Remove photos; unknown ids are passed over. Returns how many went."""

    def optimise(self) -> None:
        """After many writes: build or refresh what makes a search fast, drop what is obsolete."""

    def fingerprints(self) -> dict[str, Fingerprint]:
        """By id, what tells whether photos have changed."""

    def search(self, queries: np.ndarray, k: int, where: Filter | None = None) -> list[Hits]:
        """The k photos of the largest inner product with each query.

        Args:
            queries: ``(Q, E)``, any norm above 0.
            k: At least 1; fewer come back where fewer match.
            where: Only photos that match.
        """

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        """Pooled embeddings ``(N, E)`` float32 in the order of ``ids``.

        Raises:
            KeyError: At an unknown id.
        """

    def atoms(self, ids: Sequence[str]) -> np.ndarray:
        """Sets ``(N, M, E)`` float16 in the order of ``ids``; M is ``settings.atoms``.

        Raises:
            KeyError: At an unknown id.
        """

    def metadata(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """:meth:`PhotoRecord.metadata` of each, with ``origin`` and ``offset``, in order.

        Raises:
            KeyError: At an unknown id.
        """

    def thumbnail(self, id: str) -> bytes:
        """WebP bytes; empty where there is none.

        Raises:
            KeyError: At an unknown id.
        """

    def thumbnails(self, ids: Sequence[str]) -> list[bytes]:
        """:meth:`thumbnail` of each, in order."""

    def sample(self, count: int, seed: int = 0) -> list[str]:
        """Up to ``count`` different ids, the same for the same content and seed."""

    def records(self, batch_size: int = 1000) -> Iterator[list[PhotoRecord]]:
        """All photos, ordered by id: for exports and for moving to another back end."""

    def columns(self) -> dict[str, type]:
        """Names and Python types of the columns that filters may read."""

    def close(self) -> None:
        """Free what is held open."""


def open_index(uri: str) -> Index:
    """Open an index that exists.

    Raises:
        UserError: If there is none, it is damaged, its server does not answer, or its back end's
            package is not installed.
    """
    scheme, rest = split_uri(uri)
    if scheme in SERVERS:
        from freestyle.search.qdrant import QdrantIndex

        return QdrantIndex.open(uri)
    back_end, _ = IndexFolder(Path(rest)).read()
    if back_end not in FOLDERS or scheme not in (None, back_end):
        raise UserError(
            f"the index at {rest} is of the back end {back_end!r}: open it as {back_end}:{rest}"
            if back_end in FOLDERS
            else f"the index at {rest} is of the unknown back end {back_end!r}: update freestyle"
        )
    return folder_class(back_end)(uri, Path(rest))


def create_index(uri: str, settings: IndexSettings, **options: Any) -> Index:
    """Make an empty index.

    Args:
        uri: Where; a path without a scheme is a LanceDB folder.
        settings: How it will be filled.
        **options: Of the back end, such as ``shard_number`` and ``replication_factor`` of Qdrant.

    Raises:
        UserError: If there is one already, or the options are not the back end's.
    """
    scheme, rest = split_uri(uri)
    if scheme in SERVERS:
        from freestyle.search.qdrant import QdrantIndex

        return QdrantIndex.create(uri, settings, **options)
    if options:
        raise UserError(
            f"{', '.join(sorted(options))}: a folder takes no such options; they are for "
            "qdrant://host:6333/collection"
        )
    return folder_class(scheme or DEFAULT).create(uri, Path(rest), settings)


def split_uri(uri: str) -> tuple[str | None, str]:
    """Scheme, if there is one, and the rest.

    Raises:
        UserError: If the scheme is unknown or nothing follows it.

    >>> split_uri("exact:my.index"), split_uri("my.index")
    (('exact', 'my.index'), (None, 'my.index'))
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+]+):", uri)
    if not found or Path(uri).exists():
        scheme, rest = None, uri
    else:
        scheme, rest = found[1].lower(), uri[found.end() :]
        if scheme not in (*FOLDERS, *SERVERS):
            raise UserError(
                f"{uri} is no index: write a folder, lance:FOLDER, exact:FOLDER or "
                "qdrant://HOST:6333/COLLECTION"
            )
    if not rest:
        raise UserError(f"index {uri!r} names no place: write a folder or a URI")
    return scheme, rest


def folder_class(back_end: str) -> Any:
    """The class of a back end in a folder."""
    if back_end == "exact":
        from freestyle.search.exact import ExactIndex

        return ExactIndex
    from freestyle.search.lance import LanceIndex

    return LanceIndex
