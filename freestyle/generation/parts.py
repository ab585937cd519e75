"""One part of the work: some photos in all their styles, all or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
from PIL import Image

from freestyle.datasets.photos import Photo
from freestyle.errors import UserError
from freestyle.generation.engine import Engine, EngineError, Item, Made, seed_of
from freestyle.generation.journal import PHOTOS, Journal, Row, sha256
from freestyle.generation.pictures import encode, perceptual_hash, shrunk


@dataclass(frozen=True)
class Recipe:
    """All that decides a set, but for its photos.

    Attributes:
        styles: Settings by style, as `freestyle.generation.catalogue.choose` returns them.
        seed: Of everything random.
        max_side: Photos are shrunk to this longer side before they are drawn; None for never.
        keep_photos: ``link`` (hard link, a copy where that fails), ``copy`` or ``symlink``.
    """

    styles: dict[str, dict[str, Any]]
    seed: int = 0
    max_side: int | None = 640
    keep_photos: str = "link"


@dataclass(frozen=True)
class Part:
    """Photos and the styles that each still lacks.

    Attributes:
        number: Of the part within its run.
        shard: Name of the shard that makes it.
        photos: The photos.
        missing: For each photo, what is to be made; `PHOTOS` stands for the photo itself.
    """

    number: int
    shard: str
    photos: tuple[Photo, ...]
    missing: tuple[tuple[str, ...], ...]

    @property
    def digest(self) -> str:
        """Names what is made: equal for equal photos and styles."""
        digest = hashlib.sha256()
        for photo, styles in zip(self.photos, self.missing, strict=True):
            digest.update(f"{photo.id}\0{','.join(styles)}\n".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]


@dataclass
class _Work:
    """A photo of a part on its way through the engines."""

    photo: Photo
    missing: tuple[str, ...]
    picture: Image.Image
    caption: str | None
    files: list[tuple[Path, Row]] = field(default_factory=list)
    error: str | None = None


def make_part(
    part: Part, recipe: Recipe, engines: dict[str, Engine], journal: Journal, *, strict: bool
) -> int:
    """Make everything of a part, then record it.

    Args:
        part: The photos.
        recipe: The settings.
        engines: By style, captions first.
        journal: Of the output folder.
        strict: Raise at the first photo that cannot be used, instead of recording why.

    Returns:
        Number of photos that could not be used.

    Raises:
        UserError: If the output cannot be written; with ``strict``, also at a broken photo.
    """
    folder = journal.parts / f"tmp-{part.shard}-{os.getpid()}-{part.digest}"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        works = [
            _read(photo, missing, recipe, folder, journal)
            for photo, missing in zip(part.photos, part.missing, strict=True)
        ]
        for style, engine in engines.items():
            _run(style, engine, works, recipe, folder)
        rows = []
        for work in works:
            if work.error is not None:
                if strict:
                    raise UserError(work.error)
                rows.append({"id": work.photo.id, "error": work.error})
                continue
            for temporary, row in work.files:
                place(temporary, journal.root / row["file"])
                rows.append(row)
        journal.write_part(part.number, part.digest, rows)
        return sum(work.error is not None for work in works)
    except OSError as error:
        raise UserError(
            f"cannot write to {journal.root} ({error.strerror or error}): make room or choose "
            "another --out; --resume goes on from the last finished part"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def place(temporary: Path, path: Path) -> None:
    """Rename a finished file into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(temporary, path)


def _read(
    photo: Photo, missing: tuple[str, ...], recipe: Recipe, folder: Path, journal: Journal
) -> _Work:
    try:
        whole = photo.picture()
    except UserError as error:
        return _Work(photo, missing, Image.new("RGB", (1, 1)), None, error=str(error))
    caption = photo.caption
    if not caption and "text" not in missing:  # what is there otherwise may be cut short
        caption = _written_caption(journal.root, photo.id)
    work = _Work(photo, missing, shrunk(whole, recipe.max_side), caption)
    if PHOTOS in missing:
        _keep_photo(work, whole, recipe.keep_photos, folder)
    return work


def _written_caption(root: Path, name: str) -> str | None:
    """The caption that an earlier run made."""
    try:
        return (root / "text" / f"{name}.txt").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _keep_photo(work: _Work, whole: Image.Image, how: str, folder: Path) -> None:
    """Put the photo itself into the set, untouched."""
    photo = work.photo
    temporary = folder / _temporary_name(PHOTOS, photo.id, photo.suffix)
    inside = photo.offset < 0
    if inside and how == "symlink":
        os.symlink(os.path.abspath(photo.path), temporary)
    elif not (inside and how == "link" and _linked(photo.path, temporary)):
        _write(temporary, photo.data())
    data = photo.data()
    row = {
        "id": photo.id,
        "style": PHOTOS,
        "file": f"{PHOTOS}/{photo.id}{photo.suffix}",
        "bytes": len(data),
        "sha256": sha256(data),
        "width": whole.width,
        "height": whole.height,
        "perceptual_hash": perceptual_hash(work.picture),
    }
    if photo.split:
        row["source_split"] = photo.split
    work.files.append((temporary, row))


def _linked(source: str, target: Path) -> bool:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        return False
    return True


def _temporary_name(style: str, name: str, suffix: str) -> str:
    return hashlib.sha256(f"{style}\0{name}".encode("utf-8", "surrogatepass")).hexdigest() + suffix


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _run(
    style: str,
    engine: Engine,
    works: Sequence[_Work],
    recipe: Recipe,
    folder: Path,
) -> None:
    """Draw all photos of a part that lack this style, batch by batch."""
    for work in works:
        if style in work.missing and engine.needs_caption and not work.caption and not work.error:
            work.error = (
                f"{work.photo.id} has no caption, which style {style} needs: write it to "
                "<stem>.txt beside the photo, or give --captioner"
            )
    ready = [work for work in works if style in work.missing and work.error is None]
    for start in range(0, len(ready), engine.batch_size):
        batch = ready[start : start + engine.batch_size]
        items = [
            Item(w.photo.id, w.picture, w.caption, seed_of(recipe.seed, style, w.photo.id))
            for w in batch
        ]
        for work, item, made in zip(batch, items, _make(engine, items), strict=True):
            if isinstance(made, str):
                work.error = f"{work.photo.id} cannot be drawn in style {style}: {made}"
                continue
            _keep_made(work, item, style, engine, made, recipe, folder)


def _make(engine: Engine, items: list[Item]) -> list[Made | str]:
    """Pictures, or the reason where a photo fails; a failing batch is tried one by one.

    Only light engines' photos are given up at errors of any kind: what goes wrong in a network,
    such as too little memory, is no fault of the photo.
    """
    try:
        return list(engine(items))
    except EngineError:
        raise
    except UserError as error:
        if len(items) == 1:
            return [str(error)]
    except (ValueError, cv2.error, ArithmeticError, IndexError) as error:
        if not engine.light:
            raise
        if len(items) == 1:
            return [f"{type(error).__name__}: {' '.join(str(error).split())}"]
    return [made for item in items for made in _make(engine, [item])]


def _keep_made(
    work: _Work,
    item: Item,
    style: str,
    engine: Engine,
    made: Made,
    recipe: Recipe,
    folder: Path,
) -> None:
    form = recipe.styles[style].get("format", "png")
    row: Row = {
        "id": item.id,
        "style": style,
        "file": f"{style}/{item.id}.{form}",
        "seed": item.seed,
        "max_side": recipe.max_side,
        "format": form,
        "made_by": engine.describe(),
        **made.details,
    }
    if made.picture is not None:
        data = encode(made.picture, form)
        row |= {"width": made.picture.width, "height": made.picture.height}
    else:
        work.caption = made.text
        data = f"{made.text}\n".encode()
    if item.caption and not engine.light:  # networks may read it
        row["caption"] = item.caption
    temporary = folder / _temporary_name(style, item.id, f".{form}")
    _write(temporary, data)
    work.files.append((temporary, row | {"bytes": len(data), "sha256": sha256(data)}))
