"""Sequences of names, paths and captions that stay small for millions of entries.

A list of a million `Path` objects takes some 500 MB; here the names are one block of bytes with
16 bytes of offsets each, and a `Path` is made when it is asked for.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from freestyle.errors import UserError

_ERRORS = "surrogatepass"  # JSON may hold half characters; they only ever lead to "no such file"


class NameTable(Sequence[str]):
    """N strings in one block of UTF-8 bytes."""

    def __init__(self, block: bytes, starts: np.ndarray, ends: np.ndarray) -> None:
        """Wrap ``block``; string i is ``block[starts[i]:ends[i]]``, both arrays (N,) int64."""
        self._block = block
        self._starts = starts
        self._ends = ends

    @classmethod
    def build(cls, names: Iterable[str]) -> NameTable:
        """Pack the names, reading them once."""
        block, ends = bytearray(), array("q")
        for name in names:
            block += name.encode("utf-8", _ERRORS)
            ends.append(len(block))
        stops = np.array(ends, dtype=np.int64)
        starts = np.zeros_like(stops)
        starts[1:] = stops[:-1]
        return cls(bytes(block), starts, stops)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> NameTable: ...
    def __getitem__(self, index: int | slice) -> str | NameTable:
        if isinstance(index, slice):
            return NameTable(self._block, self._starts[index], self._ends[index])
        return self._block[self._starts[index] : self._ends[index]].decode("utf-8", _ERRORS)

    def __iter__(self) -> Iterator[str]:
        for start, end in zip(self._starts.tolist(), self._ends.tolist(), strict=True):
            yield self._block[start:end].decode("utf-8", _ERRORS)

    def take(self, indices: np.ndarray) -> NameTable:
        """Return the strings at these positions, sharing the block."""
        return NameTable(self._block, self._starts[indices], self._ends[indices])

    def by_folder(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield each parent folder (``""`` for none) with the positions of its entries."""
        numbers: dict[str, int] = {}
        owners = np.fromiter(
            (numbers.setdefault(name.rpartition("/")[0], len(numbers)) for name in self),
            dtype=np.int32,
            count=len(self),
        )
        order = np.argsort(owners, kind="stable")
        edges = np.searchsorted(owners[order], np.arange(len(numbers) + 1))
        for folder, number in numbers.items():
            yield folder, order[edges[number] : edges[number + 1]]


class PathTable(Sequence[Path]):
    """N files below one folder: a shared table of stems and one byte of suffix each."""

    def __init__(
        self, folder: Path, stems: NameTable, codes: np.ndarray, suffixes: Sequence[str]
    ) -> None:
        """File i is ``folder / (stems[i] + suffixes[codes[i]])``, codes (N,) uint8."""
        self.folder = folder
        self.stems = stems
        self._codes = codes
        self._suffixes = tuple(suffixes)

    def __len__(self) -> int:
        return len(self.stems)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> PathTable: ...
    def __getitem__(self, index: int | slice) -> Path | PathTable:
        if isinstance(index, slice):
            return PathTable(self.folder, self.stems[index], self._codes[index], self._suffixes)
        return self.folder / (self.stems[index] + self._suffixes[self._codes[index]])

    def take(self, indices: np.ndarray) -> PathTable:
        """Return the files at these positions."""
        return PathTable(
            self.folder, self.stems.take(indices), self._codes[indices], self._suffixes
        )


class CaptionTable(Sequence[str]):
    """N captions, each read from its text file when asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Wrap the paths of the text files."""
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> CaptionTable: ...
    def __getitem__(self, index: int | slice) -> str | CaptionTable:
        if isinstance(index, slice):
            return CaptionTable(self.paths[index])
        return read_caption(self.paths[index])

    def take(self, indices: np.ndarray) -> CaptionTable:
        """Return the captions at these positions, still unread."""
        if isinstance(self.paths, PathTable):
            return CaptionTable(self.paths.take(indices))
        return CaptionTable([self.paths[index] for index in indices.tolist()])


def read_caption(path: Path) -> str:
    """Return the first line of a UTF-8 text file, without surrounding space.

    Raises:
        UserError: The file is missing, not UTF-8, or its first line is empty.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            caption = file.readline(100_000).strip()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: write the caption on its first line.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: save the caption as UTF-8.") from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): check the file and its permissions."
        ) from error
    if not caption:
        raise UserError(f"{path} has an empty first line: write the caption there.")
    return caption
