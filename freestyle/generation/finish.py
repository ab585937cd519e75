"""From finished parts to a data set: sidecars, split lists, errors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freestyle.datasets.lists import iterate_json
from freestyle.datasets.photos import Photo
from freestyle.errors import UserError
from freestyle.files import write_text
from freestyle.generation.journal import ERRORS, PHOTOS, Journal, to_line, write_lines
from freestyle.generation.splits import SPLITS, assign, near_duplicates


@dataclass(frozen=True)
class Finished:
    """What a finished set holds.

    Attributes:
        ids: Of the photos that have every style, sorted.
        splits: Number of photos by split.
        errors: Reasons by id of the photos left out.
        duplicates: Number of photos with a near duplicate.
        divided: Groups of near duplicates that an earlier run or the source has divided.
        styles: Made styles, sorted.
    """

    ids: list[str]
    splits: dict[str, int]
    errors: dict[str, str]
    duplicates: int
    divided: int
    styles: list[str]


def unfinished(
    photos: Sequence[Photo], styles: Iterable[str], done: dict[str, set[str]], broken: Iterable[str]
) -> int:
    """Number of photos that still lack a style and are not known to be broken."""
    useless = set(broken)
    wanted = [done.get(style, set()) for style in (PHOTOS, *styles)]
    return sum(
        photo.id not in useless and not all(photo.id in ids for ids in wanted) for photo in photos
    )


def finish(
    journal: Journal,
    photos: Sequence[Photo],
    styles: Sequence[str],
    done: dict[str, set[str]],
    broken: dict[str, str],
    *,
    shares: tuple[int, int, int] | None,
    distance: int,
    lists: bool = True,
) -> Finished:
    """Write everything that tells of the whole set; the split lists come last.

    Args:
        journal: Of the output folder, all parts finished.
        photos: All photos.
        styles: All styles of the set.
        done: Finished ids by style.
        broken: Reasons by id.
        shares: Percent of train, validation and test; None keeps the source's splits.
        distance: Differing bits of perceptual hashes up to which photos are near duplicates.
        lists: Write the split lists.

    Raises:
        UserError: If no photo is left, or a file cannot be written.
    """
    given = {photo.id for photo in photos}
    kept = given.difference(broken).intersection(*(done.get(s, set()) for s in (PHOTOS, *styles)))
    if not kept:
        first = next(iter(broken.values()), "no photo has every style")
        raise UserError(f"none of the {len(photos)} photos can be used; the first: {first}")
    write_lines(
        journal.root / ERRORS,
        (to_line({"id": name, "error": broken[name]}) for name in sorted(broken)),
    )
    for style in (PHOTOS, *styles):
        journal.write_sidecar(style, kept)
    files, hashes = _photo_rows(journal)
    ids = sorted(kept)
    before = (
        {photo.id: photo.split for photo in photos if photo.split}
        if shares is None
        else earlier_splits(journal.root)
    )
    groups = near_duplicates([hashes[name] for name in ids], distance)
    splits = assign(ids, groups, shares or (100, 0, 0), before)
    if lists:
        write_lists(journal.root, ids, splits, files, captioned="text" in styles)
    sizes = Counter(groups.tolist())
    sides: dict[int, set[str]] = {}
    for group, split in zip(groups.tolist(), splits, strict=True):
        sides.setdefault(group, set()).add(split)
    return Finished(
        ids=ids,
        splits={split: splits.count(split) for split in SPLITS if split in splits},
        errors=broken,
        duplicates=sum(size for size in sizes.values() if size > 1),
        divided=sum(len(found) > 1 for found in sides.values()),
        styles=sorted(styles),
    )


def write_lists(
    root: Path, ids: Sequence[str], splits: Sequence[str], files: dict[str, str], *, captioned: bool
) -> None:
    """Write ``train.json``, ``val.json`` and ``test.json``; a split without photos has none."""
    for split in SPLITS:
        members = [name for name, chosen in zip(ids, splits, strict=True) if chosen == split]
        path = root / f"{split}.json"
        if not members:
            path.unlink(missing_ok=True)
            continue
        entries = []
        for name in members:
            entry = {"image": files[name]}
            if captioned:
                entry["caption"] = f"{name}.txt"
            entries.append(json.dumps(entry, ensure_ascii=False))
        write_text(path, "[\n" + ",\n".join(entries) + "\n]\n")


def _photo_rows(journal: Journal) -> tuple[dict[str, str], dict[str, str]]:
    """File below ``images/`` and perceptual hash, by id."""
    files, hashes = {}, {}
    for row in journal.rows(PHOTOS):
        files[row["id"]] = str(row["file"]).removeprefix(f"{PHOTOS}/")
        hashes[row["id"]] = str(row["perceptual_hash"])
    return files, hashes


def earlier_splits(root: Path) -> dict[str, str]:
    """Splits by id, as the lists of a folder have them."""
    found = {}
    for split in SPLITS:
        path = root / f"{split}.json"
        if not path.is_file():
            continue
        for entry in iterate_json(path):
            image: Any = entry.get("image") if isinstance(entry, dict) else None
            if isinstance(image, str):
                found[image.rpartition(".")[0]] = split
    return found
