"""What a run of ``freestyle index`` has to do: which photos are new, changed, moved or gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freestyle.errors import UserError
from freestyle.search.lists import LISTS
from freestyle.search.records import COLUMNS, Fingerprint, PhotoRecord

if TYPE_CHECKING:
    from freestyle.search.index import Index
    from freestyle.search.sources import Listed, Listing

BATCH = 1000
_OWN = {*COLUMNS, "id", "origin", "offset"}


@dataclass
class Plan:
    """What differs between sources and index.

    Attributes:
        read: Photos to be read, with the SHA-256 that the index holds; empty for new ones. Equal
            bytes are not embedded again.
        refresh: Photos of unchanged files with other words: captions, columns, places.
        unchanged: Number of photos with nothing to do.
        gone: Ids of the sources' photos that are no longer there.
    """

    read: list[tuple[Listed, str]] = field(default_factory=list)
    refresh: list[Listed] = field(default_factory=list)
    unchanged: int = 0
    gone: list[str] = field(default_factory=list)


def make_plan(
    index: Index, listing: Listing, known: dict[str, Fingerprint], *, keep_deleted: bool = False
) -> Plan:
    """Compare sources with an index.

    Args:
        index: What is filled.
        listing: The sources' photos.
        known: The index's fingerprints.
        keep_deleted: Whether photos that are no longer there stay.

    Raises:
        UserError: If the index has another source of the same name, whose photos would seem gone.
    """
    plan = Plan()
    for start in range(0, len(listing.photos), BATCH):
        photos = [(photo.id, photo) for photo in listing.photos[start : start + BATCH]]
        plan.read += [(photo, "") for name, photo in photos if name not in known]
        there = [(name, photo) for name, photo in photos if name in known]
        rows = index.metadata([name for name, _ in there])
        for (name, photo), row in zip(there, rows, strict=True):
            if photo.origin != row["origin"]:
                _refuse_namesake(index, photo.source, row, listing)
            before = known[name]
            if (before.size, before.modified) != (photo.size, photo.modified):
                plan.read.append((photo, before.digest))
            elif says_another_thing(photo, row):
                plan.refresh.append(photo)
            else:
                plan.unchanged += 1
    if not keep_deleted:
        plan.gone = _gone(index, listing, known)
    return plan


def says_another_thing(photo: Listed, row: dict[str, Any]) -> bool:
    """Whether what the source says of a photo differs from what the index holds."""
    further = {name: value for name, value in row.items() if name not in _OWN}
    return (
        (row["origin"], row["offset"], row["caption"])
        != (photo.origin, photo.offset, photo.caption)
        or further != photo.columns
        or (photo.date != "" and row["date"] != photo.date)
    )


def refreshed(
    index: Index, changes: Sequence[tuple[Listed, dict[str, Any]]], digests: Sequence[str]
) -> list[PhotoRecord]:
    """Records of photos whose bytes the index knows, with what the source now says of them.

    Args:
        index: Which has them.
        changes: Photos, and further values that differ: ``size``, ``modified``, ``date``.
        digests: SHA-256 of each.
    """
    if not changes:
        return []
    ids = [photo.id for photo, _ in changes]
    vectors, rows, pictures = index.vectors(ids), index.metadata(ids), index.thumbnails(ids)
    atoms = index.atoms(ids) if index.settings.atoms else [None] * len(ids)
    records = []
    for at, (photo, values) in enumerate(changes):
        row = rows[at]
        records.append(
            PhotoRecord(
                id=photo.id,
                path=photo.path,
                vector=vectors[at],
                atoms=atoms[at],
                origin=photo.origin,
                offset=photo.offset,
                size=values.get("size", row["size"]),
                modified=values.get("modified", row["modified"]),
                digest=digests[at],
                width=row["width"],
                height=row["height"],
                caption=photo.caption,
                date=photo.date or values.get("date", row["date"]),
                thumbnail=pictures[at],
                extra=photo.columns,
            )
        )
    return records


def of_source(index: Index, name: str, known: Sequence[str]) -> list[str]:
    """Ids of the photos that came from a source."""
    found = []
    for start in range(0, len(known), BATCH):
        for row in index.metadata(known[start : start + BATCH]):
            if row.get("source") == name:
                found.append(row["id"])
    return found


def _gone(index: Index, listing: Listing, known: dict[str, Fingerprint]) -> list[str]:
    """Photos of the given sources that are not listed, nor in what could not be listed."""
    here = {photo.id for photo in listing.photos}
    here |= {photo.id for photo in listing.broken if photo.size >= 0}
    left = [name for name in known if name not in here]
    gone = []
    for start in range(0, len(left), BATCH):
        for row in index.metadata(left[start : start + BATCH]):
            source = row.get("source")
            if source in listing.roots and not listing.hides(source, row["path"]):
                if listing.roots[source].suffix.lower() not in LISTS:  # whose photos lie anywhere
                    _refuse_namesake(index, source, row, listing)
                gone.append(row["id"])
    return gone


def _refuse_namesake(index: Index, source: str, row: dict[str, Any], listing: Listing) -> None:
    """Refuse a second folder of one name; a folder that was moved is no longer where it was."""
    root, before = listing.roots[source], Path(row["origin"])
    if not row["origin"]:
        return
    depth = len(Path(row["path"]).parts) if root.is_dir() and row["offset"] < 0 else 0
    old_root = before.parents[depth - 1] if 0 < depth <= len(before.parents) else before
    if old_root == root or old_root.is_relative_to(root):
        return
    if old_root.exists() and not _same_place(old_root, root):
        raise UserError(
            f"{index.uri} holds photos of {old_root} under the name {source!r}: give {root} "
            f"another name, as in other={root}, or say --forget {source} first"
        )


def _same_place(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
