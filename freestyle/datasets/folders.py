"""Files of a style, found with one directory listing per folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from freestyle.datasets.images import IMAGE_EXTENSIONS
from freestyle.datasets.tables import NameTable, PathTable
from freestyle.errors import UserError


def subfolders(root: Path) -> list[str]:
    """Names of the folders in a data set, sorted; hidden ones and ``__...`` left out."""
    try:
        with os.scandir(root) as entries:
            found = [entry.name for entry in entries if entry.is_dir()]
    except OSError as error:
        raise UserError(
            f"Data folder {root} cannot be listed ({error.strerror}): check the path."
        ) from error
    return sorted(name for name in found if not name.startswith((".", "__")))


def list_pictures(folder: Path) -> list[str]:
    """Names of the picture files in one folder, unsorted; empty where there is no folder."""
    return [name for name in _files(folder) if _suffix(name).lower() in IMAGE_EXTENSIONS]


def holds_pictures(folder: Path) -> bool:
    """Whether there is a picture file in a folder or below; stops at the first."""
    return bool(list_pictures(folder)) or any(
        holds_pictures(folder / below) for below in subfolders(folder)
    )


def match_pictures(folder: Path, stems: NameTable, style: str, origin: Path) -> PathTable:
    """Find the picture of each stem, whatever its extension.

    Args:
        folder: Folder of the style.
        stems: N paths relative to it, without extension.
        style: Name of the style, for messages.
        origin: The list that names the records, for messages.

    Raises:
        UserError: A file is missing, or a stem has files with two extensions.
    """
    codes = np.zeros(len(stems), dtype=np.uint8)
    suffixes: dict[str, int] = {}
    missing: list[int] = []
    for parent, positions in stems.by_folder():
        found: dict[str, str] = {}
        doubled: dict[str, str] = {}
        for name in list_pictures(folder / parent):
            suffix = _suffix(name)
            stem = name[: -len(suffix)]
            if stem in found:
                doubled[stem] = suffix
            found[stem] = suffix
        for position, path in zip(positions.tolist(), stems.take(positions), strict=True):
            stem = path.rpartition("/")[2]
            if stem in doubled:
                raise UserError(
                    f"{folder / parent / stem} has more than one picture extension "
                    f"in style {style}: keep one file of that name."
                )
            if stem in found:
                codes[position] = suffixes.setdefault(found[stem], len(suffixes))
            else:
                missing.append(position)
    if missing:
        raise _missing(folder, stems, missing, ".<png, jpg, ...>", style, origin)
    return PathTable(folder, stems, codes, tuple(suffixes))


def check_files(
    folder: Path,
    stems: NameTable,
    codes: np.ndarray,
    suffixes: Sequence[str],
    style: str,
    origin: Path,
) -> PathTable:
    """Check that files of known extension exist and that no stem is listed twice.

    Args:
        folder: Folder of the style, or of the photos.
        stems: N paths relative to it, without extension.
        codes: (N,) uint8 positions in ``suffixes``.
        suffixes: The extensions that occur.
        style: Name of the style, for messages.
        origin: The list that names the records, for messages.

    Raises:
        UserError: A file is missing or listed twice.
    """
    missing: list[int] = []
    for parent, positions in stems.by_folder():
        present = set(_files(folder / parent))
        seen: set[str] = set()
        for position, path in zip(positions.tolist(), stems.take(positions), strict=True):
            stem = path.rpartition("/")[2]
            if stem in seen:
                raise UserError(f"{origin} lists {path!r} twice for {style}: remove one entry.")
            seen.add(stem)
            if stem + suffixes[codes[position]] not in present:
                missing.append(position)
    if missing:
        first = min(missing)
        raise _missing(folder, stems, missing, suffixes[codes[first]], style, origin)
    return PathTable(folder, stems, codes, suffixes)


def _missing(
    folder: Path, stems: NameTable, missing: list[int], suffix: str, style: str, origin: Path
) -> UserError:
    first = stems[min(missing)]
    what = "photos" if style == "images" else f"style {style}"
    return UserError(
        f"{len(missing)} of {len(stems)} entries of {origin} have no file for {what}; the first, "
        f"{first!r}, was expected at {folder / (first + suffix)}: add the files or drop the "
        f"{'entries' if style == 'images' else 'entries or the style'}."
    )


def _files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"Folder {folder} cannot be listed ({error.strerror}): check its permissions."
        ) from error


def _suffix(name: str) -> str:
    """Extension with its dot, ``""`` for none; as the split lists cut it."""
    stem, dot, ending = name.rpartition(".")
    return dot + ending if stem else ""
