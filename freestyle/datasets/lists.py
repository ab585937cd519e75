"""Split lists: JSON arrays of entries, read one entry at a time.

The list of a million-image split is parsed from a buffer of about a megabyte instead of being held
as a million dictionaries.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from freestyle.datasets.images import IMAGE_EXTENSIONS
from freestyle.datasets.tables import NameTable
from freestyle.errors import UserError

VALIDATION_PERCENT = 5
"""Share of the training records that serve as validation where a set has no list of its own."""

_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_ESCAPES = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|\0")  # an empty part, "." or "..", or a NUL


def in_validation(record_id: str) -> bool:
    """Whether a training record is held out for validation: by the SHA-256 of its id."""
    digest = hashlib.sha256(record_id.encode("utf-8", "surrogatepass")).hexdigest()
    return int(digest, 16) % 100 < VALIDATION_PERCENT


@dataclass(frozen=True)
class SplitList:
    """A split of a set: the list file it comes from and which of its entries belong to it."""

    path: Path
    keep: Callable[[str], bool]

    @property
    def carved(self) -> bool:
        """Whether the split is a part of the list, chosen by hash."""
        return self.keep is not _always


def find_split(folder: Path, split: str) -> SplitList | None:
    """Locate ``<split>.json`` in a folder, or carve validation out of ``train.json``.

    Only where there is no ``val.json``, ``val`` is `VALIDATION_PERCENT` of the training records,
    and ``train`` is the others.
    """
    has_val = (folder / "val.json").is_file()
    if split in ("train", "val") and not has_val:
        path = folder / "train.json"
        keep: Callable[[str], bool] = in_validation if split == "val" else _outside_validation
    else:
        path, keep = folder / f"{split}.json", _always
    return SplitList(path, keep) if path.is_file() else None


def listed_splits(folder: Path) -> list[str]:
    """Names of the splits that `find_split` finds in a folder."""
    names = {path.stem for path in folder.glob("*.json") if path.is_file()}
    names &= {"train", "val", "test"}
    return sorted(names | ({"val"} if "train" in names else set()))


def _always(_record_id: str) -> bool:
    return True


def _outside_validation(record_id: str) -> bool:
    return not in_validation(record_id)


@dataclass(frozen=True, eq=False)
class Entries:
    """The N entries of a split list, compactly.

    Attributes:
        path: The list file, for messages.
        stems: Picture paths without extension.
        codes: (N,) uint8 positions in ``suffixes``.
        suffixes: The extensions that occur, as written.
        labels: (N,) int64 positions in ``names``; -1 where the entry has no label.
        names: Distinct values of the label field, in order of first appearance.
    """

    path: Path
    stems: NameTable
    codes: np.ndarray
    suffixes: tuple[str, ...]
    labels: np.ndarray
    names: tuple[str, ...]


def read_entries(split: SplitList, label: str, *, required: bool = False) -> Entries:
    """Read the ``"image"`` field and one label field of the entries that belong to a split.

    Args:
        split: Where to read and what to keep.
        label: Name of the label field (``"caption"`` or ``"classname"``).
        required: Whether every entry must have the label.

    Raises:
        UserError: The list is malformed or empty, or an entry is unusable.
    """
    codes, labels = array("B"), array("q")
    suffixes: dict[str, int] = {}
    names: dict[str, int] = {}

    def stems() -> Iterator[str]:
        for number, entry in enumerate(iterate_json(split.path), start=1):
            stem, suffix = _picture(split.path, number, entry)
            if not split.keep(stem):
                continue
            codes.append(suffixes.setdefault(suffix, len(suffixes)))
            if required or label in entry:
                value = _field(split.path, number, entry, label)
                labels.append(names.setdefault(value, len(names)))
            else:
                labels.append(-1)
            yield stem

    table = NameTable.build(stems())
    if not len(table):
        raise UserError(f"{split.path} leaves no record for this split: add entries to the list.")
    return Entries(
        path=split.path,
        stems=table,
        codes=np.array(codes, dtype=np.uint8),
        suffixes=tuple(suffixes),
        labels=np.array(labels, dtype=np.int64),
        names=tuple(names),
    )


def relative_path(text: str, where: str) -> str:
    """Return the path if it stays below its folder; refuse it otherwise."""
    if _ESCAPES.search(text):
        raise UserError(
            f"{where}: the path {text!r} leaves its folder or has empty parts: "
            "write it relative to the folder of its style, such as 'a/1.jpg'."
        )
    return text


def _picture(path: Path, number: int, entry: object) -> tuple[str, str]:
    """Return stem and extension of an entry's picture."""
    text = _field(path, number, entry, "image")
    if _ESCAPES.search(text):
        relative_path(text, f"{path}, entry {number}")
    stem, dot, ending = text.rpartition(".")
    suffix = dot + ending
    if suffix.lower() not in IMAGE_EXTENSIONS or not stem or stem[-1] == "/":
        raise UserError(
            f"{path}, entry {number}: 'image' is {text!r}, which has no picture extension: "
            f"end it in one of {' '.join(IMAGE_EXTENSIONS)}."
        )
    return stem, suffix


def _field(path: Path, number: int, entry: object, name: str) -> str:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not value:
        raise UserError(
            f'{path}, entry {number} has no text in "{name}": write {{"{name}": "..."}} in it.'
        )
    return value


def iterate_json(path: Path) -> Iterator[object]:
    """Yield the elements of a JSON array one by one.

    Raises:
        UserError: The file cannot be read or is no JSON array; the message has the line.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from _Scanner(path, file).elements()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: save the list as UTF-8.") from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): check the file and its permissions."
        ) from error


class _Scanner:
    """A position in a JSON text of which only a window is held."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path, self.file = path, file
        self.window, self.position, self.lines_before = "", 0, 0
        self.decoder = json.JSONDecoder()

    def elements(self) -> Iterator[object]:
        if self.next_character() != "[":
            raise self.malformed("expected '[' at the start of a list of entries")
        self.position += 1
        if self.next_character() == "]":
            self.position += 1
        else:
            while True:
                yield self.element()
                mark = self.next_character()
                if mark not in (",", "]"):
                    raise self.malformed("expected ',' or ']' after an entry")
                self.position += 1
                if mark == "]":
                    break
        if self.next_character():
            raise self.malformed("unexpected text after the list")

    def element(self) -> object:
        self.next_character()
        while True:
            try:
                value, self.position = self.decoder.raw_decode(self.window, self.position)
                return value
            except json.JSONDecodeError as error:
                if not self.extend():
                    self.position = min(error.pos, len(self.window))
                    raise self.malformed(error.msg) from error
            except RecursionError as error:
                raise self.malformed("too deeply nested") from error

    def next_character(self) -> str:
        """Skip white space and return the character there, ``""`` at the end."""
        while True:
            if self.position < len(self.window):
                character = self.window[self.position]
                if character not in " \t\r\n":
                    return character
                self.position = _SPACE.match(self.window, self.position).end()
                continue
            if not self.extend():
                return ""

    def extend(self) -> bool:
        """Drop what was consumed and read on; False at the end of the file."""
        chunk = self.file.read(_CHUNK)
        self.lines_before += self.window.count("\n", 0, self.position)
        self.window = self.window[self.position :] + chunk
        self.position = 0
        return bool(chunk)

    def malformed(self, reason: str) -> UserError:
        line = self.lines_before + self.window.count("\n", 0, self.position) + 1
        return UserError(
            f"{self.path}, line {line} is not valid JSON ({reason}): correct the list."
        )
