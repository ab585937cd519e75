"""GeneCIS (Vaze et al., CVPR 2023): four tasks, a small gallery for every query.

::

    root/genecis/{focus,change}_{attribute,object}.json    [{reference, target, gallery, condition}]
    root/VG_100K_all/<id>.jpg                               Visual Genome, of the attribute tasks
    root/val2017/<12 digits>.jpg                            COCO, of the object tasks

The attribute tasks show the part of a picture in a box, the object tasks whole pictures.

Recall@1, @2, @3 among the target and the query's own gallery. The target is entry 0 there, so that
ties, which count against it here, must not be broken by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from freestyle.datasets.composed import (
    ComposedProtocol,
    ComposedQuery,
    ComposedSplit,
    Cut,
    entry_value,
    read_json,
)
from freestyle.errors import UserError

TASKS = ("focus_attribute", "change_attribute", "focus_object", "change_object")
PROTOCOL = ComposedProtocol((1, 2, 3), main="R@1")


def open_genecis(
    root: str | Path,
    split: str = "val",
    tasks: Sequence[str] = TASKS,
    *,
    genome: str = "VG_100K_all",
    coco: str = "val2017",
) -> ComposedSplit:
    """Open the four tasks as one split.

    Args:
        root: The folder that holds ``genecis/`` and the pictures.
        split: ``val``, the only one.
        tasks: Some of the four.
        genome: Folder of Visual Genome's pictures, below ``root``.
        coco: Folder of COCO's pictures, below ``root``.

    Raises:
        UserError: Anything in the files that does not fit.
    """
    root = Path(root)
    if split != "val":
        raise UserError(f"GeneCIS has no split '{split}': use val")
    pictures: dict[str, Path | Cut] = {}
    queries: list[ComposedQuery] = []
    for task in tasks:
        if task not in TASKS:
            raise UserError(f"unknown task '{task}': use {', '.join(TASKS)}")
        path = root / "genecis" / f"{task}.json"
        folder = root / (coco if task.endswith("object") else genome)
        rows = read_json(path, list, "a task of GeneCIS")
        for number, row in enumerate(rows):
            text = entry_value(row, "condition", str, path, number)
            others = entry_value(row, "gallery", list, path, number)
            _, reference = _picture(row.get("reference"), folder, path, number)
            names = []
            for entry in (row.get("target"), *others):
                name, picture = _picture(entry, folder, path, number)
                pictures.setdefault(name, picture)
                names.append(name)
            if names[0] in names[1:]:
                raise UserError(f"{path}, entry {number}: the target is in its gallery twice")
            queries.append(
                ComposedQuery(
                    id=f"{task}-{number}",
                    reference=reference,
                    reference_id="",
                    text=text,
                    targets=(names[0],),
                    group=task,
                    candidates=tuple(dict.fromkeys(names)),
                )
            )
    return ComposedSplit(
        "GeneCIS", split, list(pictures.values()), list(pictures), queries, PROTOCOL
    )


def _picture(entry: object, folder: Path, path: Path, row: int) -> tuple[str, Path | Cut]:
    """A name and the file, or the part of it, that an entry means."""
    if isinstance(entry, str | int):
        entry = {"image_id": entry}
    if not isinstance(entry, dict):
        raise UserError(f"{path}, entry {row}: a picture is missing: download the file again")
    if "val_image_id" in entry:
        number = entry["val_image_id"]
        if not str(number).isdigit():
            raise UserError(f"{path}, entry {row}: val_image_id {number!r} is no number")
        file = folder / f"{int(number):012d}.jpg"
    else:
        name = str(entry.get("image_id", ""))
        file = folder / (name if name.lower().endswith((".jpg", ".png")) else f"{name}.jpg")
    if not file.is_file():
        raise UserError(f"{path}, entry {row}: picture {file} is missing: complete {folder}")
    box = entry.get("instance_bbox")
    if box is None or "val_image_id" in entry:  # GeneCIS's own code cuts no picture of COCO
        return file.as_posix(), file
    numbers = isinstance(box, list) and all(isinstance(v, int | float) for v in box)
    if not numbers or len(box) != 4 or min(box[2:]) <= 0:
        raise UserError(f"{path}, entry {row}: instance_bbox {box} is no box")
    return f"{file.as_posix()} {tuple(box)}", Cut(file, tuple(float(v) for v in box))
