"""What is indexed: folders, lists and webdataset shards, each a source with a name of its own.

A photo's id is made of its source's name and its path below the source, not of where the source
lies: a moved folder keeps its photos' embeddings, and two folders with equal paths in them stay
apart, since they have different names. The name is the last part of the folder's path, or what
stands before ``=`` in ``NAME=FOLDER``; two sources of one index with one name are refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from freestyle.datasets.images import IMAGE_EXTENSIONS
from freestyle.datasets.photos import read_caption, read_shard
from freestyle.errors import UserError
from freestyle.search.lists import (
    CAPTION_COLUMNS,
    LISTS,
    PATH_COLUMNS,
    first_text,
    further_columns,
    read_list,
    whole_text,
)
from freestyle.search.records import Scalar, photo_id

SHARD = ".tar"


@dataclass(frozen=True, slots=True)
class Listed:
    """One photo of a source, not yet read.

    Attributes:
        source: Name of the source.
        path: Below the source; of a list as the list writes it.
        origin: Absolute file, or shard, that holds the bytes.
        offset: Position of the bytes in a shard; -1 for a file of its own.
        size: Number of bytes.
        modified: Seconds since 1970 of the file's last change.
        caption: What it shows, or empty.
        date: ISO date from a list, or empty.
        extra: Further columns of a list.
        broken: Why it cannot be used, where the listing already tells; of a size of 0 or more it
            may be there all the same.
    """

    source: str
    path: str
    origin: str
    offset: int = -1
    size: int = -1
    modified: float = 0.0
    caption: str = ""
    date: str = ""
    extra: Mapping[str, Scalar] = field(default_factory=dict)
    broken: str = ""

    @property
    def id(self) -> str:
        """The photo's id in the index."""
        return photo_id(f"{self.source}/{self.path}")

    @property
    def columns(self) -> dict[str, Scalar]:
        """:attr:`extra` with the source's name."""
        return {**self.extra, "source": self.source}


@dataclass
class Listing:
    """The photos of some sources.

    Attributes:
        photos: Those that may be read, in the order of the sources and of their paths.
        broken: Those that cannot be used.
        roots: Absolute path of each source by name.
        unread: Per source, folders and shards (``""`` is all of it) that could not be listed: what
            an index holds of them is not known to be gone.
    """

    photos: list[Listed] = field(default_factory=list)
    broken: list[Listed] = field(default_factory=list)
    roots: dict[str, Path] = field(default_factory=dict)
    unread: list[tuple[str, str]] = field(default_factory=list)

    def hides(self, source: str, path: str) -> bool:
        """Whether a photo may lie in what could not be listed."""
        return any(
            source == name and (not prefix or path == prefix or path.startswith(f"{prefix}/"))
            for name, prefix in self.unread
        )


def list_sources(sources: Sequence[str]) -> Listing:
    """List all photos of folders, lists and shards.

    ==================  ============================================================
    Source              What is taken
    ==================  ============================================================
    folder              every picture and every photo of a ``.tar`` shard below it; links are
                        followed, each folder is read once; names with a dot in front are not
    ``.tar``            a webdataset shard: members ``KEY.jpg``, ``KEY.txt`` or ``KEY.json``
    list                ``.txt`` of paths; ``.jsonl``, ``.csv`` or ``.parquet`` with a column
                        ``image`` (or ``path``), ``caption`` and ``date`` if there are any, and
                        further columns, by which searches can filter
    ==================  ============================================================

    Captions stand in ``<stem>.txt`` (first line) or ``<stem>.json`` (``caption``) beside a photo,
    or in ``text/<stem>.txt`` beside a folder ``images`` that holds it, as in the layout of DSR.

    Args:
        sources: Paths, or ``NAME=PATH``.

    Raises:
        UserError: If a source is missing, holds no photo, or shares its name with another.
    """
    listing = Listing()
    for text in sources:
        name, path = parse_source(text)
        if name in listing.roots:
            raise UserError(
                f"{path} and {listing.roots[name]} are both named {name!r}: give one another name, "
                f"as in other={path}"
            )
        listing.roots[name] = path.absolute()
        before, lost = len(listing.photos), len(listing.broken)
        for photo in _distinct(_photos(name, path.absolute(), listing)):
            (listing.broken if photo.broken else listing.photos).append(photo)
        if len(listing.photos) == before:
            why = f" ({listing.broken[lost].broken})" if len(listing.broken) > lost else ""
            raise UserError(
                f"{path} holds no photo that can be read{why}: check the path and whether its disk "
                f"is there; photos of it that an index holds stay, --forget {name} removes them"
            )
    return listing


def parse_source(text: str) -> tuple[str, Path]:
    """Name and path of a source.

    Raises:
        UserError: If there is no such folder or file.
    """
    path = Path(text).expanduser()
    name, equals, rest = text.partition("=")
    if equals and name.strip() and not path.exists():
        path = Path(rest).expanduser()
    else:
        whole = path.resolve() if path.name in ("", "..") else path
        name = whole.stem if whole.suffix.lower() in (SHARD, *LISTS) else whole.name
    if not path.exists():
        raise UserError(
            f"photos {path} do not exist, so their entries stay in the index: check the path, or "
            f"say --forget {name.strip()} to remove them"
        )
    return name.strip() or "root", path


def _photos(source: str, root: Path, listing: Listing) -> Iterator[Listed]:
    if root.is_dir():
        yield from _from_folder(source, root, listing)
    elif root.suffix.lower() == SHARD:
        yield from _from_shard(source, root, "", listing)
    elif root.suffix.lower() in LISTS:
        yield from _from_list(source, root)
    else:
        raise UserError(f"{root} is no folder, no .tar and no list ({', '.join(LISTS)}): give one")


def _distinct(photos: Iterator[Listed]) -> Iterator[Listed]:
    """Of rows that name one photo, the first."""
    seen: set[str] = set()
    for photo in photos:
        if photo.path not in seen:
            seen.add(photo.path)
            yield photo


def _from_folder(source: str, root: Path, listing: Listing) -> Iterator[Listed]:
    """Real folders first, then linked ones that no real one has shown already."""
    seen: set[tuple[int, int]] = set()
    waiting, linked = [("", str(root))], []
    while waiting or linked:
        relative, folder = waiting.pop() if waiting else linked.pop(0)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            listing.unread.append((source, relative))
            reason = f"{folder} cannot be listed ({error.strerror}): check its permissions"
            yield Listed(source, relative, folder, broken=reason)
            continue
        names = {entry.name for entry in entries}
        below = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{relative}/{entry.name}" if relative else entry.name
            kind = _kind(entry)
            if kind == "folder":
                (linked if entry.is_symlink() else below).append((path, entry.path))
            elif entry.name.lower().endswith(SHARD) and kind == "file":
                yield from _from_shard(source, Path(entry.path), path, listing)
            elif entry.name.lower().endswith(IMAGE_EXTENSIONS) and kind:
                yield _file(source, path, entry.path, _beside(Path(entry.path), names))
        waiting += reversed(below)


def _kind(entry: os.DirEntry[str]) -> str:
    """``folder``, ``file``, ``lost`` (a link to what cannot be reached), or empty."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        return "lost" if entry.is_symlink() and not os.path.exists(entry.path) else ""
    except OSError:  # a link in a circle, or through a closed folder
        return "lost"


def _file(source: str, path: str, origin: str, caption: str, **more: object) -> Listed:
    """A photo in a file of its own."""
    misnamed = _misnamed(source, path, origin)
    if misnamed:
        return misnamed
    try:
        status = os.stat(origin)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        reason = f"{origin} cannot be read ({reason}): check the path and its permissions"
        gone = isinstance(error, FileNotFoundError | ValueError)  # else it may be as it was
        return Listed(source, path, origin, size=-1 if gone else 0, broken=reason)
    return Listed(
        source,
        path,
        origin,
        size=status.st_size,
        modified=status.st_mtime,
        caption=caption,
        **more,
    )


def _misnamed(source: str, path: str, origin: str) -> Listed | None:
    """A broken photo where the name is not Unicode, which no index can hold."""
    try:
        path.encode()
        origin.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "replace")
        reason = f"{shown!r} has a name that is not UTF-8: rename it"
        return Listed(source, shown, "", broken=reason)
    return None


def _beside(photo: Path, names: set[str]) -> str:
    """The caption in a file beside a photo, or beside its folder ``images``."""
    caption = ""
    if f"{photo.stem}.txt" in names:
        caption = read_caption(photo.with_suffix(".txt")) or ""
    elif f"{photo.stem}.json" in names:
        try:
            values = json.loads(photo.with_suffix(".json").read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError):
            values = None
        caption = first_text(values, CAPTION_COLUMNS) if isinstance(values, dict) else ""
    if not caption and photo.parent.name == "images":
        caption = read_caption(photo.parent.parent / "text" / f"{photo.stem}.txt") or ""
    return caption


def _from_shard(source: str, shard: Path, place: str, listing: Listing) -> Iterator[Listed]:
    """Photos of a tar; ``place`` is its path below the source, empty where it is the source."""
    place = place.removesuffix(shard.suffix)
    try:
        modified = shard.stat().st_mtime
        for photo in read_shard(shard):
            inside = photo.id.partition("/")[2] + photo.suffix  # the reader puts the stem in front
            path = f"{place}/{inside}" if place else inside
            yield _misnamed(source, path, str(shard)) or Listed(
                source,
                path,
                str(shard),
                offset=photo.offset,
                size=photo.size,
                modified=modified,
                caption=whole_text(photo.caption or ""),
            )
    except (UserError, OSError) as error:
        listing.unread.append((source, place))
        yield Listed(source, place or shard.name, str(shard), broken=str(error))


def _from_list(source: str, path: Path) -> Iterator[Listed]:
    for number, row in enumerate(read_list(path), start=1):
        image = first_text(row, PATH_COLUMNS)
        if not image:
            raise UserError(f"{path}, entry {number} names no picture: fill its column 'image'")
        file = Path(os.path.normpath(path.parent / image))
        caption = first_text(row, CAPTION_COLUMNS)
        if not caption:
            sidecars = (f"{file.stem}.txt", f"{file.stem}.json")
            caption = _beside(file, {n for n in sidecars if os.path.isfile(file.parent / n)})
        yield _file(
            source,
            "/".join(part for part in image.split("/") if part not in ("", ".", "..")),
            str(file),
            caption,
            date=iso_date(row.get("date")),
            extra=further_columns(row),
        )


def iso_date(value: Scalar | None) -> str:
    """A date of a list, where it is one in ISO's form."""
    try:
        return datetime.fromisoformat(str(value)).isoformat() if value is not None else ""
    except ValueError:
        return ""
