"""A photo's bytes to all that an index keeps of it, but its embedding; torch is not needed.

Decoding is most of the work of indexing large photos, and it reads what strangers made: it happens
in processes of its own (:mod:`freestyle.search.workers`), which may die without ending the run.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from freestyle.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from freestyle.encoders.preprocess import Preprocessing
    from freestyle.search.sources import Listed
    from freestyle.transport.views import Box

MAX_PIXELS = 200_000_000
QUALITY = 80  # of the thumbnails' WebP


@dataclass(frozen=True, slots=True)
class Job:
    """What a decoding process is told of a photo.

    Attributes:
        name: What errors call it.
        origin: File or shard.
        offset: Of the bytes in a shard; -1 for a file of its own.
        size: Number of bytes in a shard.
        known: SHA-256 of the bytes that the index holds; empty where it holds none.
    """

    name: str
    origin: str
    offset: int = -1
    size: int = -1
    known: str = ""

    @classmethod
    def of(cls, photo: Listed, known: str = "") -> Job:
        """The job of a listed photo."""
        name = photo.origin if photo.offset < 0 else f"{photo.origin}, member {photo.path},"
        return cls(name, photo.origin, photo.offset, photo.size, known)


@dataclass(eq=False, slots=True)
class Decoded:
    """A photo's pixels and what its file says.

    Attributes:
        digest: SHA-256 of the bytes.
        size: Number of bytes.
        modified: Seconds since 1970 of the file's last change.
        date: When it was taken; without EXIF of the last change.
        squares: One square per view ``(V, S, S, 3)``, 8-bit RGB; None where the bytes are those
            that the index holds.
        thumbnail: WebP bytes; empty where none is wanted.
        width: Pixels, upright.
        height: Pixels, upright.
    """

    digest: str
    size: int
    modified: float
    date: str
    squares: np.ndarray | None = None
    thumbnail: bytes = b""
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class Broken:
    """Why a photo is left out.

    Attributes:
        reason: One sentence.
        unread: Whether its bytes could not be read at all, so that they may be as they were.
    """

    reason: str
    unread: bool = False


@dataclass(frozen=True)
class Decoder:
    """Reads, checks and prepares photos as one encoder wants them.

    Attributes:
        preprocessing: Of the encoder: the squares are the pixels that it makes itself.
        boxes: Views of a photo, cut before each becomes a square.
        thumbnail: Longer side of thumbnails in pixels; 0 for none.
        max_pixels: Largest width times height, checked before decoding.
    """

    preprocessing: Preprocessing
    boxes: tuple[Box, ...]
    thumbnail: int = 256
    max_pixels: int = MAX_PIXELS

    def __call__(self, job: Job) -> Decoded | Broken:
        """Prepare one photo; whatever is wrong with it comes back as :class:`Broken`."""
        from freestyle.datasets.images import date_taken, load_bytes

        try:
            data, modified = _read(job)
        except OSError as error:
            reason = error.strerror or str(error)
            return Broken(f"{job.origin} cannot be read ({reason}): check the file", unread=True)
        if job.offset >= 0 and len(data) < job.size:
            return Broken(f"{job.origin} is cut short: replace the shard")
        digest = hashlib.sha256(data).hexdigest()
        date = date_taken(data) or _iso(modified)
        found = Decoded(digest, len(data), modified, date)
        if digest == job.known:
            return found
        try:
            image = load_bytes(data, job.name, max_pixels=self.max_pixels)
            found.width, found.height = image.size
            found.squares = self.squares(image)
            found.thumbnail = self.small(image)
        except UserError as error:
            return Broken(str(error))
        except MemoryError:
            return Broken(f"{job.name} needs more memory than there is: shrink it")
        except Exception as error:  # a stranger's file must not end the run
            kind = " ".join(f"{type(error).__name__} {error}".split())
            return Broken(f"{job.name} cannot be decoded ({kind}): replace it")
        return found

    def squares(self, image: Image.Image) -> np.ndarray:
        """Views of an upright RGB picture as the encoder's 8-bit pixels ``(V, S, S, 3)``."""
        from freestyle.encoders.preprocess import to_square

        return np.stack([to_square(box.cut(image), self.preprocessing) for box in self.boxes])

    def small(self, image: Image.Image) -> bytes:
        """A picture's thumbnail; small ones are not enlarged."""
        from PIL import Image

        if not self.thumbnail:
            return b""
        scale = self.thumbnail / max(image.size)
        if scale < 1:
            size = tuple(max(1, round(scale * side)) for side in image.size)
            image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=QUALITY, method=2)
        return buffer.getvalue()


def _read(job: Job) -> tuple[bytes, float]:
    """The bytes, and when the file that holds them was changed last."""
    with open(job.origin, "rb") as file:
        modified = os.fstat(file.fileno()).st_mtime
        if job.offset < 0:
            return file.read(), modified
        file.seek(job.offset)
        return file.read(job.size), modified


def _iso(seconds: float) -> str:
    """Local time without a zone, as cameras write theirs."""
    try:
        return datetime.fromtimestamp(seconds).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return ""
