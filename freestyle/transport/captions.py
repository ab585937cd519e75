"""What a composer writes for a query, and the files it is kept in.

The contract, one JSON file per benchmark and split::

    {"<query id>": {"captions": ["...", ...], "modification": "...", "reference": ["...", ...],
                    "desired": [...], "preserved": [...], "forbidden": [...]}}

``captions`` and ``modification`` are needed, the rest is for the presets that read it. The
annotation files of LDRE and SEIZE (lists of queries with ``multi_caption_opt``,
``multi_gpt-3.5_opt`` and the like) are read too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from freestyle.datasets.composed import ComposedQuery, read_json
from freestyle.errors import UserError
from freestyle.files import write_json

LISTS = ("captions", "reference", "desired", "preserved", "forbidden")


@dataclass(frozen=True)
class Composition:
    """What is written for one query.

    Attributes:
        captions: K descriptions of the target, at least one.
        modification: The text that changes the reference.
        reference: Captions of the reference.
        desired: Phrases of what the target newly shows.
        preserved: Phrases of what it keeps.
        forbidden: Phrases of what it must not show.
    """

    captions: tuple[str, ...]
    modification: str
    reference: tuple[str, ...] = ()
    desired: tuple[str, ...] = ()
    preserved: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()


class Composer(Protocol):
    """Writes compositions."""

    name: str

    def compose(self, queries: Sequence[ComposedQuery]) -> dict[str, Composition]:
        """The composition of every query, by its id."""
        ...


@dataclass
class CachedCaptions:
    """Compositions from a file.

    Attributes:
        path: The contract's file, or an annotation file of LDRE or SEIZE.
    """

    path: Path
    name: str = "cached"

    def compose(self, queries: Sequence[ComposedQuery]) -> dict[str, Composition]:
        """Those of the file.

        Raises:
            UserError: If the file is wrong or lacks a query.
        """
        known = read_compositions(self.path)
        missing = [
            query.id for query in queries if query.id not in known and query.pair not in known
        ]
        if missing:
            raise UserError(
                f"{self.path} has no captions for query {missing[0]!r} ({len(missing)} such in "
                "all): write them with another composer first"
            )
        return {q.id: known[q.id] if q.id in known else known[q.pair] for q in queries}


def read_compositions(path: str | Path) -> dict[str, Composition]:
    """Read the contract's file, or an annotation file with ``multi_*_opt`` fields.

    Raises:
        UserError: If the file is missing, no JSON, or an entry is wrong.
    """
    path = Path(path)
    values = read_json(path, (dict, list), "a file of captions")
    if isinstance(values, list):
        return _annotations(values, path)
    return {str(name): parse_composition(entry, path, name) for name, entry in values.items()}


def write_compositions(path: str | Path, compositions: dict[str, Composition]) -> Path:
    """Write the contract's file atomically, fields that are empty left out."""
    values = {}
    for name, composition in compositions.items():
        entry = {k: list(v) if k in LISTS else v for k, v in asdict(composition).items()}
        values[name] = {k: v for k, v in entry.items() if v or k in ("captions", "modification")}
    return write_json(path, values)


def parse_composition(entry: Any, path: Path, name: object) -> Composition:
    """One entry of the contract.

    Raises:
        UserError: Naming ``path`` and ``name``, if it is wrong.
    """
    if not isinstance(entry, dict):
        raise _wrong(path, name, "it is no object")
    found: dict[str, Any] = {}
    for key in LISTS:
        texts = entry.get(key, [])
        if not isinstance(texts, list) or not all(isinstance(t, str) and t.strip() for t in texts):
            raise _wrong(path, name, f"{key!r} must be a list of texts")
        found[key] = tuple(t.strip() for t in texts)
    if not found["captions"]:
        raise _wrong(path, name, "'captions' is empty")
    modification = entry.get("modification")
    if not isinstance(modification, str):
        raise _wrong(path, name, "'modification' must be a text")
    return Composition(modification=modification, **found)


def _annotations(rows: list[Any], path: Path) -> dict[str, Composition]:
    """LDRE's and SEIZE's files: the benchmark's own entries with generated fields beside them."""
    found = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise _wrong(path, number, "it is no object")
        name = next((row[key] for key in ("id", "pairid", "query_id") if key in row), number)
        target = [
            text
            for key, texts in sorted(row.items())
            if key.startswith("multi_") and key.endswith("_opt") and key != "multi_caption_opt"
            for text in (texts if isinstance(texts, list) else [texts])
        ]
        text = next((row[k] for k in ("relative_caption", "caption", "condition") if k in row), "")
        if isinstance(text, list):
            text = " and ".join(str(part) for part in text)
        reference = row.get("multi_caption_opt", [])
        if isinstance(reference, str):
            reference = [reference]
        entry = {"captions": target, "modification": text, "reference": reference}
        found[str(name)] = parse_composition(entry, path, name)
    return found


def _wrong(path: Path, name: object, why: str) -> UserError:
    return UserError(f"{path}, query {name!r}: {why}; mend the entry or remove it")
