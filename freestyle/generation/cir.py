"""CIR-Style: the reference pictures of a composed-retrieval benchmark, in other styles.

No public set asks with a *sketch* and a modification. Here the references of one that asks with a
photo are drawn; texts, targets and galleries stay, and annotation files are copied byte for byte.

==========  =======================================================================
Benchmark   Recognised by
==========  =======================================================================
CIRR        ``cirr/captions/cap.rc2.<split>.json`` and ``cirr/image_splits/``
CIRCO       ``annotations/<split>.json`` of ``reference_img_id``
FashionIQ   ``captions/cap.<category>.<split>.json`` of ``candidate``
GeneCIS     ``<change|focus>_<object|attribute>.json``, at the top or in ``genecis/``
==========  =======================================================================
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freestyle.datasets.images import IMAGE_EXTENSIONS
from freestyle.datasets.photos import Photo
from freestyle.errors import UserError
from freestyle.files import write_atomically, write_json
from freestyle.generation.journal import PHOTOS, Journal

_GENECIS = tuple(f"{a}_{b}.json" for a in ("change", "focus") for b in ("object", "attribute"))


@dataclass(frozen=True)
class Benchmark:
    """A composed-retrieval benchmark.

    Attributes:
        name: ``CIRR``, ``CIRCO``, ``FashionIQ`` or ``GeneCIS``.
        root: Its folder.
        annotations: Its annotation files.
        references: Photo id by the name that annotations give a reference picture.
        photos: The reference pictures, sorted by id.
    """

    name: str
    root: Path
    annotations: tuple[Path, ...]
    references: dict[str, str]
    photos: tuple[Photo, ...]


def read_benchmark(root: str | Path) -> Benchmark:
    """Find a benchmark's annotations and reference pictures.

    A reference without a file is listed as a broken photo.

    Raises:
        UserError: If the folder is none of the benchmarks, or an annotation file is damaged.
    """
    root = Path(root)
    for name, files, references in (
        ("CIRR", list(root.glob("cirr/*/*.json")), _cirr),
        ("FashionIQ", [*root.glob("captions/*.json"), *root.glob("image_splits/*.json")], _fashion),
        ("CIRCO", list(root.glob("annotations/*.json")), _circo),
        (
            "GeneCIS",
            [p for f in _GENECIS for p in (root / f, root / "genecis" / f) if p.is_file()],
            _genecis,
        ),
    ):
        if files:
            return _collect(name, root, sorted(files), references(root, sorted(files)))
    raise UserError(
        f"{root} is no composed-retrieval benchmark: give the folder of CIRR, CIRCO, FashionIQ or "
        "GeneCIS, which holds its annotations"
    )


def _collect(
    name: str, root: Path, files: list[Path], found: Iterable[tuple[str, Sequence[str]]]
) -> Benchmark:
    references: dict[str, str] = {}
    photos: dict[str, Photo] = {}
    for reference, places in found:
        if reference in references:
            continue
        path = next((root / p for p in places if (root / p).is_file()), None)
        if path is None:
            reason = f"{root / places[0]} does not exist: add the picture of {reference}."
            place = Path(places[0])
            photo = Photo(place.with_suffix("").as_posix(), str(root / place), "", broken=reason)
        else:
            relative = path.relative_to(root)
            photo = Photo(relative.with_suffix("").as_posix(), str(path), path.suffix)
        references[reference] = photo.id
        photos.setdefault(photo.id, photo)
    if not references:
        raise UserError(f"the annotations of {name} in {root} name no reference: check the files")
    ordered = tuple(photos[key] for key in sorted(photos))
    return Benchmark(name, root, tuple(files), references, ordered)


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no readable JSON: replace it by an intact copy") from error


def _entries(path: Path) -> list[dict[str, Any]]:
    values = _load(path)
    if not isinstance(values, list) or not all(isinstance(entry, dict) for entry in values):
        raise UserError(f"{path} is no list of queries: replace it by the benchmark's own file")
    return values


def _named(entry: dict[str, Any], key: str, path: Path) -> Any:
    if key not in entry:
        raise UserError(f"an entry of {path} has no {key}: replace it by the benchmark's own file")
    return entry[key]


def _number(entry: dict[str, Any], key: str, path: Path) -> str:
    """COCO's name of a picture: its number in twelve digits."""
    value = _named(entry, key, path)
    try:
        return f"{int(value):012d}"
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path}: {key} is {value!r}, no number: replace it by the benchmark's own file"
        ) from error


def _cirr(root: Path, files: list[Path]) -> Iterator[tuple[str, Sequence[str]]]:
    places: dict[str, str] = {}
    for path in files:
        if path.parent.name == "image_splits":
            values = _load(path)
            if not isinstance(values, dict):
                raise UserError(f"{path} is no image split: replace it by the benchmark's own file")
            places |= {str(name): str(place) for name, place in values.items()}
    for path in files:
        if path.parent.name != "captions" or not path.name.startswith("cap."):
            continue
        for entry in _entries(path):
            name = str(_named(entry, "reference", path))
            place = Path(places.get(name, f"{name}.png")).as_posix()
            yield name, [place, f"img_raw/{place}", f"images/{place}", f"cirr/{place}"]


def _fashion(root: Path, files: list[Path]) -> Iterator[tuple[str, Sequence[str]]]:
    for path in files:
        if path.parent.name != "captions":
            continue
        for entry in _entries(path):
            name = str(_named(entry, "candidate", path))
            yield name, [f"images/{name}{suffix}" for suffix in (".jpg", ".png", *IMAGE_EXTENSIONS)]


def _circo(root: Path, files: list[Path]) -> Iterator[tuple[str, Sequence[str]]]:
    for path in files:
        values = _load(path)
        if not isinstance(values, list):
            continue  # COCO's own picture lists lie beside the queries
        for entry in values:
            if not isinstance(entry, dict):
                raise UserError(
                    f"{path} is no list of queries: replace it by the benchmark's own file"
                )
            name = _number(entry, "reference_img_id", path)
            places = ("COCO2017_unlabeled/unlabeled2017", "unlabeled2017", "images")
            yield name, [f"{place}/{name}.jpg" for place in places]


def _genecis(root: Path, files: list[Path]) -> Iterator[tuple[str, Sequence[str]]]:
    for path in files:
        for entry in _entries(path):
            reference = _named(entry, "reference", path)
            if not isinstance(reference, dict):
                reference = {"image_id": reference}
            if "val_image_id" in reference:
                name = _number(reference, "val_image_id", path)
                yield name, [f"{place}/{name}.jpg" for place in ("val2017", "coco/val2017")]
            else:
                name = str(_named(reference, "image_id", path))
                places = ("VG_100K", "VG_100K_2", "VG_100K_all", "visual_genome/VG_100K_all")
                yield name, [f"{place}/{name}.jpg" for place in places]


def publish(journal: Journal, benchmark: Benchmark, styles: Sequence[str], kept: set[str]) -> None:
    """Copy the annotations and write ``references.json``.

    Args:
        journal: Of the finished set.
        benchmark: Its source.
        styles: Made styles.
        kept: Ids of the photos that have every style.
    """
    for path in benchmark.annotations:
        target = journal.root / path.relative_to(benchmark.root)
        write_atomically(target, lambda temporary, path=path: shutil.copyfile(path, temporary))
    files = {
        style: {row["id"]: row["file"] for row in journal.rows(style)}
        for style in (PHOTOS, *styles)
    }
    references = {
        name: {style: files[style][photo] for style in files}
        for name, photo in sorted(benchmark.references.items())
        if photo in kept
    }
    values = {"benchmark": benchmark.name, "styles": sorted(styles), "references": references}
    write_json(journal.root / "references.json", values)
