"""The layout of FS-COCO (Chowdhury et al., ECCV 2022): freehand scene sketches with captions.

::

    root/
      images/<user>/<id>.jpg              photos: the gallery
      raster_sketches/<user>/<id>.jpg     style "sketch"
      text/<user>/<id>.txt                captions
      val_normal.txt                      held-out ids, one a line
      val_unseen_user.txt                 held-out ids by users that training never sees

The published splits are ``train-normal`` / ``val-normal`` and ``train-unseen`` / ``val-unseen``:
the list, and everything outside it. Choosing a model on the list that is then reported would
flatter it, so ``test`` is ``val-normal``, and ``train`` and ``val`` divide ``train-normal`` by the
hash of the record id (`freestyle.datasets.lists.in_validation`). For unseen drawers,
``train-unseen-fit`` and ``train-unseen-val`` divide ``train-unseen`` in the same way, and
``test-unseen`` is ``val-unseen``: ``train`` holds those drawers, and most of those photos. Other
folders (``art``, ``mosaic``, ...) are styles, as in the DSR layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from freestyle.datasets.folders import check_files, list_pictures, match_pictures, subfolders
from freestyle.datasets.lists import in_validation
from freestyle.datasets.records import QuerySet, RetrievalSplit
from freestyle.datasets.tables import NameTable, read_caption
from freestyle.errors import UserError

_NOT_STYLES = frozenset({"images", "text", "raster_sketches", "vector_sketches"})
_SKETCHES = "raster_sketches"

# split -> list file, whether its ids are in the split, which half of the carved training set
_SPLITS: dict[str, tuple[str, bool, bool | None]] = {
    "train": ("val_normal.txt", False, False),
    "val": ("val_normal.txt", False, True),
    "test": ("val_normal.txt", True, None),
    "test-unseen": ("val_unseen_user.txt", True, None),
    "train-normal": ("val_normal.txt", False, None),
    "val-normal": ("val_normal.txt", True, None),
    "train-unseen": ("val_unseen_user.txt", False, None),
    "val-unseen": ("val_unseen_user.txt", True, None),
    "train-unseen-fit": ("val_unseen_user.txt", False, False),
    "train-unseen-val": ("val_unseen_user.txt", False, True),
}


def style_folders(folders: Sequence[str]) -> dict[str, str]:
    """Map each style to its folder, given the folders of the data set."""
    styles = {folder: folder for folder in folders if folder not in _NOT_STYLES}
    if _SKETCHES in folders:
        styles["sketch"] = _SKETCHES
    return styles


def open_fscoco(root: Path, split: str, styles: Sequence[str], name: str) -> RetrievalSplit:
    """Open a split with these styles; query i of each asks for photo i."""
    if split not in _SPLITS:
        raise UserError(f"FS-COCO has no split {split!r}: choose from {', '.join(_SPLITS)}.")
    file, inside, validation = _SPLITS[split]
    origin = root / file
    files = _photos(root / "images")
    listed = _listed(origin, files)
    kept = [
        path
        for path in files
        if (path in listed) is inside
        and (validation is None or in_validation(_stem(path)) is validation)
    ]
    if not kept:
        raise UserError(f"{origin} leaves no photo for split {split!r}: correct the list.")
    stems = NameTable.build(_stem(path) for path in kept)
    endings = [path[len(_stem(path)) :] for path in kept]
    suffixes = sorted(set(endings))
    codes = np.array([suffixes.index(ending) for ending in endings], dtype=np.uint8)
    gallery = check_files(root / "images", stems, codes, suffixes, "images", root / "images")
    groups = np.arange(len(gallery), dtype=np.int64)
    queries = {}
    for style in styles:
        if style == "text":
            sources: Sequence = [read_caption(root / "text" / f"{stem}.txt") for stem in stems]
        else:
            folder = root / (_SKETCHES if style == "sketch" else style)
            sources = match_pictures(folder, stems, style, root / "images")
        queries[style] = QuerySet(style, sources, groups, stems)
    return RetrievalSplit(name, split, root, gallery, stems, groups, queries, "instance")


def _photos(folder: Path) -> list[str]:
    """``<user>/<id>.<ext>`` of every photo, users and ids in numeric order."""
    files = [
        f"{user}/{picture}"
        for user in subfolders(folder)
        for picture in list_pictures(folder / user)
    ]
    if not files:
        raise UserError(f"{folder} holds no <user>/<id>.jpg: copy the photos of FS-COCO there.")
    return sorted(files, key=_numeric)


def _numeric(path: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else 0, part) for part in _stem(path).split("/")]


def _listed(origin: Path, files: Sequence[str]) -> set[str]:
    """Photos that the list names: by id, ``<user>/<id>``, or number (the zeros are optional)."""
    try:
        lines = origin.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise UserError(
            f"{origin} does not exist: copy the split lists of FS-COCO into its folder."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{origin} is not UTF-8 text: copy it again from FS-COCO.") from error
    except OSError as error:
        raise UserError(
            f"{origin} cannot be read ({error.strerror}): check the file and its permissions."
        ) from error
    by_key: dict[str, list[str]] = {}
    for path in files:
        user, _, number = _stem(path).partition("/")
        for key in {_key(number), f"{user}/{_key(number)}"}:
            by_key.setdefault(key, []).append(path)
    listed: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not (text := line.strip()):
            continue
        user, slash, rest = text.rpartition("/")
        found = by_key.get(f"{user}{slash}{_key(_stem(rest))}", [])
        if len(found) != 1:
            problem = "has no photo" if not found else "is the photo of several users"
            raise UserError(
                f"{origin}, line {number}: {text!r} {problem} in images/: "
                "write <user>/<id> of a photo that is there."
            )
        if found[0] in listed:
            raise UserError(f"{origin}, line {number} lists {text!r} again: remove one line.")
        listed.add(found[0])
    if not listed:
        raise UserError(f"{origin} is empty: copy it again from FS-COCO.")
    return listed


def _key(number: str) -> str:
    return str(int(number)) if number.isdecimal() else number


def _stem(path: str) -> str:
    head, dot, _ = path.rpartition(".")
    return head if dot else path
