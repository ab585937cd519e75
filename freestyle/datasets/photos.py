"""Photos with an id, from a folder, a list, tar shards or a data set: what generation reads.

A photo is named by where it lies, never by a running number, so that adding photos renames none.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from freestyle.datasets.images import IMAGE_EXTENSIONS, load_bytes, load_image
from freestyle.datasets.readers import LAYOUTS, open_split
from freestyle.errors import UserError

SPLITS = ("train", "val", "test")
_TAR = (".tar",)
_CAPTION_KEYS = ("caption", "text", "txt")


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo, not yet read.

    Attributes:
        id: Path below its source without extension; names every picture made from it.
        path: The file, or the tar shard that holds it.
        suffix: Extension of the picture, as written.
        offset: Position of the picture's bytes in a shard; -1 for a file of its own.
        size: Number of those bytes.
        caption: What it shows, where the source says so.
        split: The split that the source puts it in, if it has splits.
        broken: Why the photo cannot be used, where the listing already tells.
    """

    id: str
    path: str
    suffix: str
    offset: int = -1
    size: int = -1
    caption: str | None = None
    split: str | None = None
    broken: str | None = None

    def data(self) -> bytes:
        """The picture file's bytes.

        Raises:
            UserError: If they cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                if self.offset < 0:
                    return file.read()
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be read ({error.strerror or error}): check the file and its "
                "permissions."
            ) from error

    def picture(self) -> Image.Image:
        """The photo as upright 8-bit RGB.

        Raises:
            UserError: If it is missing, damaged, or no picture.
        """
        if self.broken:
            raise UserError(self.broken)
        if self.offset < 0:
            return load_image(self.path)
        return load_bytes(self.data(), f"{self.path}, member {self.id}{self.suffix},")


def read_photos(source: str | Path, layout: str = "auto") -> list[Photo]:
    """List the photos of a source, sorted by id.

    ==================  ============================================================
    Source              Recognised by
    ==================  ============================================================
    data set            a folder with ``images/`` in one of the layouts of `open_split`
    shards              a ``.tar`` file, or a folder of them (webdataset: members
                        ``KEY.jpg``, ``KEY.txt`` or ``KEY.json`` with a caption)
    list                a ``.txt`` file of paths, or ``.jsonl`` of ``{"image", "caption"}``
    folder              anything else: every picture below it; ``<stem>.txt`` beside a
                        picture is its caption
    ==================  ============================================================

    Args:
        source: Folder or file.
        layout: ``auto``, ``folder``, ``list``, ``shards`` or a data set layout.

    Raises:
        UserError: If there is no such source, or no photo in it.
    """
    path = Path(source)
    if not path.exists():
        raise UserError(f"Photos {path} do not exist: give a folder, a list or tar shards.")
    kind = _recognise(path) if layout == "auto" else layout
    if kind == "shards":
        found: Iterable[Photo] = _from_shards(path)
    elif kind == "list":
        found = _from_list(path)
    elif kind == "folder":
        found = _from_folder(path)
    elif kind == "data set" or kind in LAYOUTS:
        found = _from_data_set(path, "auto" if kind == "data set" else kind)
    else:
        known = ", ".join(("auto", "folder", "list", "shards", *LAYOUTS))
        raise UserError(f"Unknown layout {layout!r} of {path}: choose from {known}.")
    photos = _distinct(sorted(found, key=lambda photo: (photo.id, photo.suffix)))
    if not photos:
        raise UserError(
            f"{path} holds no photo: give pictures that end in {' '.join(IMAGE_EXTENSIONS)}."
        )
    return photos


def _recognise(path: Path) -> str:
    if path.is_file():
        return "shards" if path.suffix.lower() in _TAR else "list"
    if (path / "images").is_dir():
        lists = [*path.glob("t*.json"), *(path / "images").glob("t*.json")]
        if lists or (path / "raster_sketches").is_dir():
            return "data set"
    if any(path.glob("*.tar")):
        return "shards"
    return "folder"


def _distinct(photos: list[Photo]) -> list[Photo]:
    """Of photos with one id, the first is kept; the others stay as broken ones of their own id."""
    result: list[Photo] = []
    previous: Photo | None = None
    for photo in photos:
        if previous is not None and photo.id == previous.id:
            reason = (
                f"{photo.path} has the same name as {previous.path} but for its extension: "
                "rename one of them."
            )
            result.append(Photo(photo.id + photo.suffix, photo.path, photo.suffix, broken=reason))
            continue
        previous = photo
        result.append(photo)
    return sorted(result, key=lambda photo: photo.id)


def _from_folder(root: Path) -> Iterator[Photo]:
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.suffix.lower() not in IMAGE_EXTENSIONS or not path.is_file():
            continue
        if any(part.startswith(".") for part in relative.parts):
            continue
        name = relative.with_suffix("").as_posix()
        yield Photo(name, str(path), path.suffix, caption=read_caption(path.with_suffix(".txt")))


def read_caption(path: Path) -> str | None:
    """The first line of a caption file; None where there is none that can be read."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.readline(100_000).strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _from_list(path: Path) -> Iterator[Photo]:
    """Paths relative to the list's folder; those outside it are named by their whole path."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no UTF-8 list of photos: write one path a line.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        entry: object = {"image": line.strip()}
        if path.suffix.lower() in (".jsonl", ".json"):
            try:
                entry = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f'{path}, line {number} is no JSON: write {{"image": "a.jpg"}} on each line.'
                ) from error
        image = entry.get("image") if isinstance(entry, dict) else None
        if not isinstance(image, str) or not image:
            raise UserError(
                f'{path}, line {number} names no picture: write {{"image": "a.jpg"}} in it.'
            )
        file = path.parent / image
        name = Path(image).with_suffix("").as_posix().lstrip("/")
        caption = entry.get("caption") or read_caption(file.with_suffix(".txt"))
        parts = [part for part in name.split("/") if part not in ("", ".", "..")]
        split = entry.get("split")
        yield Photo(
            "/".join(parts),
            str(file),
            file.suffix,
            caption=str(caption) if caption else None,
            split=split if split in SPLITS else None,
        )


def _from_shards(path: Path) -> Iterator[Photo]:
    shards = [path] if path.is_file() else sorted(path.glob("*.tar"))
    for shard in shards:
        yield from read_shard(shard)


def read_shard(shard: Path) -> Iterator[Photo]:
    """Members of a webdataset shard: all files of one key, up to the first dot, are one sample.

    Raises:
        UserError: If it is no tar that can be read; of one that was cut off, after what stands
            before the cut.
    """
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            cut = None
            try:
                for member in tar:
                    if member.isfile():
                        folder, _, name = member.name.rpartition("/")
                        key, _, ending = name.partition(".")
                        key = f"{folder}/{key}" if folder else key
                        samples.setdefault(key, {})[ending] = member
            except tarfile.ReadError as error:
                cut = error
            for key, members in samples.items():
                yield from _sample(shard, key, members, tar)
            if cut is not None:
                raise cut
    except (tarfile.TarError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{shard} is no readable tar shard ({reason}): unpack it, or replace it."
        ) from error


def _sample(
    shard: Path, key: str, members: dict[str, tarfile.TarInfo], tar: tarfile.TarFile
) -> Iterator[Photo]:
    endings = [e for e in sorted(members) if f".{e.rpartition('.')[2].lower()}" in IMAGE_EXTENSIONS]
    if not endings:
        return
    member = members[endings[0]]
    caption = None
    if "txt" in members:
        caption = _member_text(tar, members["txt"]).partition("\n")[0].strip()
    elif "json" in members:
        try:
            values = json.loads(_member_text(tar, members["json"]))
        except json.JSONDecodeError:
            values = {}
        if isinstance(values, dict):
            caption = next((values[k] for k in _CAPTION_KEYS if values.get(k)), None)
    parts = [part for part in key.split("/") if part not in ("", ".", "..")]
    yield Photo(
        "/".join([shard.stem, *parts]),
        str(shard),
        f".{endings[0].rpartition('.')[2]}",
        offset=member.offset_data,
        size=member.size,
        caption=str(caption) if caption else None,
    )


def _member_text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member)
    return file.read(1 << 20).decode("utf-8", "replace") if file else ""


def _from_data_set(root: Path, layout: str) -> Iterator[Photo]:
    """Photos of every split of a data set; its splits and captions are kept."""
    seen: set[str] = set()
    refused: UserError | None = None
    for split in SPLITS:
        try:
            opened = open_split(root, split, [], layout)
        except UserError as error:
            refused = refused or error
            continue
        for name, path in zip(opened.gallery_ids, opened.gallery, strict=True):
            if name not in seen:
                seen.add(name)
                caption = read_caption(root / "text" / f"{name}.txt")
                yield Photo(name, str(path), path.suffix, caption=caption, split=split)
    if not seen and refused is not None:
        raise refused
