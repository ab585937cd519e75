"""CIRR (Liu et al., ICCV 2021): ``cirr/captions/cap.rc2.*.json``, ``cirr/image_splits``.

::

    root/cirr/captions/cap.rc2.{train,val,test1}.json    [{pairid, reference, target_hard, ...}]
    root/cirr/image_splits/split.rc2.{...}.json          {name: "./dev/name.png"}
    root/{train,dev,test1}/...                           the pictures, as those paths say

The reference leaves the ranking. Recall@K over all pictures of the split, and Rs@K over the other
five of a query's group. Targets of ``test1`` are not public: see ``evaluation/submissions.py``.
"""

from __future__ import annotations

from pathlib import Path

from freestyle.datasets.composed import (
    ComposedProtocol,
    ComposedQuery,
    ComposedSplit,
    entry_value,
    read_json,
)
from freestyle.errors import UserError

PROTOCOL = ComposedProtocol((1, 5, 10, 50), (), (1, 2, 3), drop_reference=True, main="R@5")


def open_cirr(root: str | Path, split: str = "val") -> ComposedSplit:
    """Open one split.

    Args:
        root: The folder that holds ``cirr/`` and the pictures.
        split: ``train``, ``val`` or ``test1``.

    Raises:
        UserError: Anything in the files that does not fit.
    """
    root = Path(root)
    captions = root / "cirr" / "captions" / f"cap.rc2.{split}.json"
    images = root / "cirr" / "image_splits" / f"split.rc2.{split}.json"
    rows = read_json(captions, list, "CIRR's captions")
    places = read_json(images, dict, "CIRR's image split")
    files = {name: _file(root, place, images, name) for name, place in places.items()}
    queries = []
    for number, row in enumerate(rows):
        pair = entry_value(row, "pairid", int, captions, number)
        reference = entry_value(row, "reference", str, captions, number)
        text = entry_value(row, "caption", str, captions, number)
        group = entry_value(row, "img_set", dict, captions, number)
        members = entry_value(group, "members", list, captions, number)
        if reference not in files:
            raise UserError(f"{captions}, pair {pair}: reference {reference!r} is not in {images}")
        target = row.get("target_hard")
        queries.append(
            ComposedQuery(
                id=str(pair),
                reference=files[reference],
                reference_id=reference,
                text=text,
                targets=(target,) if isinstance(target, str) else (),
                subset=tuple(m for m in members if m != reference),
            )
        )
    return ComposedSplit("CIRR", split, list(files.values()), list(files), queries, PROTOCOL)


def _file(root: Path, place: object, images: Path, name: str) -> Path:
    if not isinstance(place, str):
        raise UserError(f"{images}: picture {name!r} has no path: download the file again")
    path = root / place
    if not path.is_file():
        raise UserError(f"CIRR's picture {path} is missing: complete the pictures below {root}")
    return path
