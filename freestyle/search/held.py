"""A small index's rows in memory: they are compared, and told of, faster than they are fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LARGEST = 256 * 2**20  # bytes of sets that are held


@dataclass(eq=False)
class Held:
    """One version of a table. Sets and metadata are added when they are first asked for.

    Attributes:
        version: Of the table.
        ids: N ids.
        vectors: ``(N, E)`` float32.
        places: Row by id.
        atoms: ``(N, M, E)`` float16, or None.
        metadata: N mappings, or None.
    """

    version: int
    ids: np.ndarray
    vectors: np.ndarray
    places: dict[str, int] = field(init=False)
    atoms: np.ndarray | None = field(init=False, default=None)
    metadata: list[Mapping[str, Any]] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.places = {name: row for row, name in enumerate(self.ids.tolist())}

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Where photos stand.

        Raises:
            KeyError: At an unknown id.
        """
        return np.array([self.places[name] for name in ids], dtype=int)

    def take_atoms(self, ids: Sequence[str], atoms: np.ndarray) -> None:
        """Hold the sets of all photos, unless the table has changed since."""
        if set(ids) == set(self.places):
            found = np.empty_like(atoms)
            found[self.rows(ids)] = atoms
            self.atoms = found

    def take_metadata(self, metadata: Sequence[Mapping[str, Any]]) -> None:
        """Hold what is known of all photos, unless the table has changed since."""
        by_id = {each["id"]: each for each in metadata}
        if set(by_id) == set(self.places):
            self.metadata = [by_id[name] for name in self.ids.tolist()]


def fits(count: int, size: int) -> bool:
    """Whether so many sets of ``size`` float16 numbers may be held."""
    return 2 * count * size <= LARGEST
