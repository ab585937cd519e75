"""What an index holds of a photo, and how it was made: the words that all back ends share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from freestyle.errors import UserError

FORMAT = 1
Scalar = str | int | float | bool
COLUMNS = ("path", "folder", "name", "caption", "width", "height", "size", "modified", "date")
"""Columns that every photo has; others are the user's own."""


def photo_id(source: str) -> str:
    """The opaque name of a photo: 20 hexadecimal digits of where it lies.

    >>> photo_id("holiday/beach.jpg")
    'cf46a8bc38a39a70f4c2'
    """
    return hashlib.blake2b(source.encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()


@dataclass(frozen=True, eq=False)
class PhotoRecord:
    """All that an index knows of one photo.

    Attributes:
        id: From :func:`photo_id`; the only name of a photo that leaves the program.
        path: Where the photo lies, below its source where the source is a folder or a shard.
        vector: Pooled embedding ``(E,)`` float32, unit norm, of the untouched encoder (of the model
            where its gallery is prompted), without columns of a calibration.
        atoms: ``(M, E)`` float16, unit norm, the whole picture first; None where no sets are kept.
        origin: Absolute file, or tar shard, that holds the bytes; empty where the photo is not at
            hand, as in an imported index.
        offset: Position of the bytes in a shard; -1 for a file of its own.
        size: Number of bytes; -1 where unknown.
        modified: Seconds since 1970 of the file's last change; 0 where unknown.
        digest: SHA-256 of the bytes, hexadecimal; empty where unknown.
        width: Pixels, upright; 0 where unknown.
        height: Pixels, upright; 0 where unknown.
        caption: What it shows, or empty.
        date: ISO date and time when it was taken, or of the last change; empty where unknown.
        thumbnail: WebP bytes; empty where there is none.
        extra: Further columns.
    """

    id: str
    path: str
    vector: np.ndarray
    atoms: np.ndarray | None = None
    origin: str = ""
    offset: int = -1
    size: int = -1
    modified: float = 0.0
    digest: str = ""
    width: int = 0
    height: int = 0
    caption: str = ""
    date: str = ""
    thumbnail: bytes = b""
    extra: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The folder part of :attr:`path`, empty at the top."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The last part of :attr:`path`."""
        return self.path.rpartition("/")[2]

    def metadata(self) -> dict[str, Any]:
        """Everything but vectors and pictures: :data:`COLUMNS`, ``id`` and further columns."""
        own = {name: getattr(self, name) for name in COLUMNS}
        return {"id": self.id, **self.extra, **own}


@dataclass(frozen=True)
class Fingerprint:
    """What tells whether a photo has changed since it was embedded."""

    size: int
    modified: float
    digest: str


@dataclass(frozen=True)
class IndexSettings:
    """How an index was made; an append or a search with other settings is refused.

    Attributes:
        encoder: Name that rebuilds the encoder.
        weights: Its weights tag; for a prompted gallery, the model's own tag follows.
        width: E.
        views: Tag of the photos' views, such as ``patches-10-uniform``; empty where no sets are
            kept.
        atoms: M, elements of a photo's set; 0 where no sets are kept.
        precision: In which it was embedded: ``float32``, ``bfloat16`` or ``float16``.
        thumbnail: Longer side of the thumbnails in pixels; 0 for none.
        model: Query model that goes with the index: a folder below the index's own, a path or a
            hub id; empty for the untouched encoder.
        format: Of the index.
    """

    encoder: str
    weights: str
    width: int
    views: str = ""
    atoms: int = 0
    precision: str = "float32"
    thumbnail: int = 256
    model: str = ""
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> IndexSettings:
        """Read values of :meth:`to_dict`.

        Raises:
            UserError: Naming ``where`` if they are of another format or no index's.
        """
        known = {f.name for f in fields(cls)}
        if values.get("format") != FORMAT or not {"encoder", "weights", "width"} <= set(values):
            raise UserError(
                f"{where} is no index of this version (format {values.get('format')}, needed is "
                f"{FORMAT}): make it again with freestyle index"
            )
        return cls(**{key: value for key, value in values.items() if key in known})

    def refuse_other(self, other: IndexSettings, where: str) -> None:
        """Refuse an encoder whose vectors cannot stand beside those of this index.

        Raises:
            UserError: Naming both encoders, or the setting that differs.
        """
        if self.encoder == other.encoder and self.weights != other.weights:
            raise UserError(
                f"{where} was made with other weights of {self.encoder} ({self.weights}, now "
                f"{other.weights}): bring them back, or make a new index"
            )
        if self.encoder != other.encoder:
            raise UserError(
                f"{where} was made with encoder {self.encoder} ({self.weights}), not with "
                f"{other.encoder} ({other.weights}): use that encoder, or make a new index"
            )
        for name in ("width", "views", "atoms"):
            if getattr(self, name) != getattr(other, name):
                raise UserError(
                    f"{where} was made with {name} {getattr(self, name) or 'none'}, not "
                    f"{getattr(other, name) or 'none'}: use that setting, or make a new index"
                )


@dataclass(frozen=True, eq=False)
class Hits:
    """The nearest photos of one query, best first; of equal scores the smaller id first.

    Attributes:
        ids: k ids.
        scores: ``(k,)`` float32 inner products with the query.
    """

    ids: list[str]
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)
