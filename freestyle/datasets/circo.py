"""CIRCO (Baldrati et al., ICCV 2023): COCO's 123,403 unlabelled pictures, several targets a query.

::

    root/annotations/{val,test}.json                             [{id, reference_img_id, ...}]
    root/COCO2017_unlabeled/unlabeled2017/000000000000.jpg ...   the gallery
    root/COCO2017_unlabeled/annotations/image_info_unlabeled2017.json

The reference stays in the ranking. mAP@K over all valid targets. Those of ``test`` are not public.
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

PROTOCOL = ComposedProtocol((), (5, 10, 25, 50), main="mAP@5")


def open_circo(root: str | Path, split: str = "val") -> ComposedSplit:
    """Open one split; ids of the gallery are COCO's numbers as text.

    Args:
        root: The folder that holds ``annotations/`` and ``COCO2017_unlabeled/``.
        split: ``val`` or ``test``.

    Raises:
        UserError: Anything in the files that does not fit.
    """
    root = Path(root)
    annotations = root / "annotations" / f"{split}.json"
    rows = read_json(annotations, list, "CIRCO's annotations")
    folder = root / "COCO2017_unlabeled" / "unlabeled2017"
    names = _pictures(root, folder)
    queries = []
    for number, row in enumerate(rows):
        name, reference = (
            entry_value(row, key, int, annotations, number) for key in ("id", "reference_img_id")
        )
        if str(reference) not in names:
            raise UserError(f"{annotations}, query {name}: picture {reference} is not in {folder}")
        targets = row.get("gt_img_ids") or []
        if not isinstance(targets, list) or not all(isinstance(t, int) for t in targets):
            raise UserError(f"{annotations}, query {name}: gt_img_ids must be a list of numbers")
        queries.append(
            ComposedQuery(
                id=str(name),
                reference=names[str(reference)],
                reference_id=str(reference),
                text=entry_value(row, "relative_caption", str, annotations, number),
                targets=tuple(str(t) for t in targets),
                concept=str(row.get("shared_concept", "")),
            )
        )
    return ComposedSplit("CIRCO", split, list(names.values()), list(names), queries, PROTOCOL)


def _pictures(root: Path, folder: Path) -> dict[str, Path]:
    """COCO's list where it is there, else every picture of the folder."""
    info = root / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json"
    if info.is_file():
        listed = entry_value(
            read_json(info, dict, "COCO's list of pictures"), "images", list, info, "images"
        )
        return {
            str(entry_value(row, "id", int, info, n)): folder
            / entry_value(row, "file_name", str, info, n)
            for n, row in enumerate(listed)
        }
    if not folder.is_dir():
        raise UserError(f"CIRCO's pictures are missing: put COCO's unlabeled2017 at {folder}")
    try:
        return {str(int(path.stem)): path for path in sorted(folder.glob("*.jpg"))}
    except ValueError as error:
        raise UserError(
            f"{folder} holds a picture that is not named by a number: {error}"
        ) from error
