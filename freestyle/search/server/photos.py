"""Photos and thumbnails by id. What a request holds is looked up in the index, never opened.

An original is served only if it is still what was indexed: a regular file, or a piece of a shard,
of the recorded size (and time of change), that begins like an allowed picture. Anything else, such
as a link that has been turned elsewhere, is not there; the page then shows the thumbnail.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from freestyle.search.server.limits import MEGABYTE, Limits
from freestyle.search.server.refusal import Refusal, busy

if TYPE_CHECKING:
    from freestyle.search.index import Index

T = TypeVar("T")
ID = re.compile("[0-9a-f]{20}")
CHUNK = 1 << 16
THUMBNAILS = 32 * MEGABYTE
MODIFIED_SECONDS = 0.01  # file systems and data bases round times


@dataclass
class Original:
    """An open original.

    Attributes:
        file: At the first byte.
        size: Bytes to send.
        media_type: Of the picture.
        tag: Changes when the bytes do.
    """

    file: BinaryIO
    size: int
    media_type: str
    tag: str

    async def chunks(self) -> AsyncIterator[bytes]:
        """Its bytes, a piece at a time."""
        left = self.size
        while left > 0:
            piece = await asyncio.to_thread(self.file.read, min(CHUNK, left))
            if not piece:  # the client sees a broken answer
                raise OSError("an original was cut short while it was sent")
            left -= len(piece)
            yield piece


class PhotoReader:
    """Reads from the index and the disk, on a thread of its own, beside the searches.

    Args:
        index: The gallery.
        limits: ``waiting_reads``.
    """

    def __init__(self, index: Index, limits: Limits) -> None:
        self._index = index
        self._limits = limits
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="photos")
        self._waiting = 0
        self._thumbnails: OrderedDict[str, bytes] = OrderedDict()
        self._kept = 0

    async def thumbnail(self, id: str) -> bytes:
        """WebP bytes.

        Raises:
            Refusal: 404 if there is none.
        """
        refuse_no_id(id)
        if (found := self._thumbnails.get(id)) is not None:
            self._thumbnails.move_to_end(id)
            return found
        found = await self._read(self._load_thumbnail, id)
        if not found:
            raise not_found("no thumbnail of this photo is kept")
        self._keep(id, found)
        return found

    async def original(self, id: str) -> Original:
        """Open the original; whoever asked closes its file.

        Raises:
            Refusal: 404 if it is not at hand.
        """
        refuse_no_id(id)
        metadata = await self._read(self._load_metadata, id)
        original = await self._read(open_original, metadata)
        if original is None:
            raise not_found("the original of this photo is not at hand: ask for its thumbnail")
        return original

    async def columns(self) -> dict[str, type]:
        """Names and types that conditions may use."""
        return await self._read(self._index.columns)

    async def describe(self) -> dict[str, Any]:
        """What the index is, for ``/info``."""
        return await self._read(_describe, self._index)

    def close(self) -> None:
        """End the thread."""
        self._threads.shutdown(cancel_futures=True)

    async def _read(self, function: Callable[..., T], *arguments: Any) -> T:
        if self._waiting >= self._limits.waiting_reads:
            raise busy("too many photos are asked for", "reads_full")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, function, *arguments)
        finally:
            self._waiting -= 1

    def _load_thumbnail(self, id: str) -> bytes:
        try:
            return bytes(self._index.thumbnail(id))
        except KeyError:
            raise not_found("there is no photo of this id") from None

    def _load_metadata(self, id: str) -> dict[str, Any]:
        try:
            return self._index.metadata([id])[0]
        except KeyError:
            raise not_found("there is no photo of this id") from None

    def _keep(self, id: str, thumbnail: bytes) -> None:
        self._kept += len(thumbnail) - len(self._thumbnails.pop(id, b""))
        self._thumbnails[id] = thumbnail
        while self._kept > THUMBNAILS:
            self._kept -= len(self._thumbnails.popitem(last=False)[1])


def _describe(index: Index) -> dict[str, Any]:
    columns = {name: kind.__name__ for name, kind in sorted(index.columns().items())}
    return {
        "photos": len(index),
        "encoder": index.settings.encoder,
        "weights": index.settings.weights,
        "model": Path(index.settings.model).name,
        "columns": columns,
    }


def refuse_no_id(id: str) -> None:
    """404 for what cannot be an id, before anything is asked for it."""
    if not ID.fullmatch(id):
        raise not_found("there is no photo of this id")


def not_found(sentence: str) -> Refusal:
    """404."""
    return Refusal(404, sentence, "not_found")


def open_original(metadata: dict[str, Any]) -> Original | None:
    """Open what the index recorded, if it is still there and still that.

    Args:
        metadata: Of a photo, with ``origin``, ``offset``, ``size`` and ``modified``.
    """
    origin, offset = metadata.get("origin") or "", int(metadata.get("offset", -1))
    size = int(metadata.get("size", -1))
    if not origin or not os.path.isabs(origin) or (offset >= 0 and size < 0):
        return None
    # Not blocking: a named pipe in the place of a photo must not hold the thread.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = open(os.open(origin, flags), "rb")  # noqa: SIM115 - who asked closes it
    except (OSError, ValueError):
        return None
    try:
        original = _checked(file, metadata, offset, size)
    except OSError:
        original = None
    if original is None:
        file.close()
    return original


def _checked(file: BinaryIO, metadata: dict[str, Any], offset: int, size: int) -> Original | None:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        return None
    if offset < 0:
        modified = float(metadata.get("modified") or 0)
        if size >= 0 and status.st_size != size:
            return None
        if modified and abs(status.st_mtime - modified) > MODIFIED_SECONDS:
            return None
        size = status.st_size
    elif offset + size > status.st_size:
        return None
    start = max(offset, 0)
    file.seek(start)
    media_type = media_type_of(file.read(16))
    if media_type is None:
        return None
    file.seek(start)
    tag = f'"{status.st_mtime_ns:x}-{start:x}-{size:x}"'
    return Original(file, size, media_type, tag)


def media_type_of(head: bytes) -> str | None:
    """Type of a picture that browsers show, by its first 16 bytes; None for anything else.

    >>> media_type_of(b"GIF89a" + bytes(10)), media_type_of(b"<svg onload=...>")
    ('image/gif', None)
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head.startswith(b"BM"):
        return "image/bmp"
    return None
