"""The composed benchmark over DSR-Emoji (``data/build_composed.py`` says how it is made)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from freestyle.datasets.composed import (
    ComposedProtocol,
    ComposedQuery,
    ComposedSplit,
    entry_value,
    read_json,
)
from freestyle.datasets.folders import match_pictures
from freestyle.datasets.readers import open_split
from freestyle.errors import UserError

PHOTO = "photo"


def open_emoji_composed(
    root: str | Path,
    split: str,
    styles: Sequence[str] | None = None,
    *,
    keep_reference: bool = False,
) -> ComposedSplit:
    """Open one split: every pair once per reference style, photos of the split as the gallery.

    Args:
        root: Folder of the three lists.
        split: ``train``, ``val`` or ``test``.
        styles: Reference styles, ``photo`` among them; None takes the file's.
        keep_reference: Whether the reference's own photo is ranked too (CIRCO); by default it
            leaves the ranking (CIRR).

    Raises:
        UserError: Anything in the files that does not fit.
    """
    path = Path(root) / f"{split}.json"
    values = read_json(path, dict, "a list of composed queries")
    images = entry_value(values, "images", str, path, "images")
    known = entry_value(values, "styles", list, path, "styles")
    rows = entry_value(values, "queries", list, path, "queries")
    for style in styles or ():
        if style not in known:
            raise UserError(f"unknown reference style '{style}': {path} has {', '.join(known)}")
    photos = open_split(Path(root) / images, split, [])
    place = {name: row for row, name in enumerate(photos.gallery_ids)}
    queries = []
    for style in styles or known:
        files = photos.gallery
        if style != PHOTO:
            files = match_pictures(photos.root / style, photos.gallery_ids, style, path)
        for number, row in enumerate(rows):
            name, reference, text = (
                entry_value(row, key, str, path, number) for key in ("id", "reference", "text")
            )
            targets = entry_value(row, "targets", list, path, number)
            if reference not in place:
                raise UserError(f"{path}: reference {reference!r} is no photo of split {split}")
            queries.append(
                ComposedQuery(
                    id=f"{name}:{style}",
                    reference=files[place[reference]],
                    reference_id=reference,
                    text=text,
                    targets=tuple(targets),
                    style=style,
                    pair=name,
                )
            )
    protocol = ComposedProtocol(
        (1, 5, 10), (5, 10), drop_reference=not keep_reference, main="mAP@5"
    )
    return ComposedSplit(
        "DSR-Emoji composed", split, photos.gallery, photos.gallery_ids, queries, protocol
    )
