"""Files for the evaluation servers of CIRR and CIRCO, written and checked.

CIRR, two files::

    {"version": "rc2", "metric": "recall", "<pairid>": [50 names]}
    {"version": "rc2", "metric": "recall_subset", "<pairid>": [3 names]}

CIRCO, one file: ``{"0": [50 different numbers], ..., "799": [...]}``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from freestyle.datasets.composed import ComposedSplit, read_json
from freestyle.errors import UserError
from freestyle.evaluation.composed import ComposedOutcome
from freestyle.files import write_json

LENGTH, SUBSET_LENGTH = 50, 3
VERSION = "rc2"


def write_submission(
    outcome: ComposedOutcome, split: ComposedSplit, folder: str | Path
) -> list[Path]:
    """Write the files of a ranking, and check them.

    Args:
        outcome: With lists of at least 50 (fewer only where the gallery is smaller).
        split: Of CIRR or CIRCO.
        folder: Where to.

    Returns:
        The files.

    Raises:
        UserError: If the benchmark has no server, or the place cannot be written to.
    """
    folder = Path(folder)
    names = split.gallery_ids
    if split.dataset == "CIRCO":
        lists = {
            query.id: [int(names[i]) for i in top[:LENGTH]]
            for query, top in zip(split.queries, outcome.top, strict=True)
        }
        paths = [write_json(folder / f"circo_{split.split}.json", lists)]
    elif split.dataset == "CIRR":
        whole: dict[str, Any] = {"version": VERSION, "metric": "recall"}
        groups: dict[str, Any] = {"version": VERSION, "metric": "recall_subset"}
        for query, top, own in zip(split.queries, outcome.top, outcome.subset_top, strict=True):
            whole[query.id] = [names[i] for i in top[:LENGTH]]
            groups[query.id] = [names[i] for i in own[:SUBSET_LENGTH]]
        paths = [
            write_json(folder / f"cirr_{split.split}_recall.json", whole),
            write_json(folder / f"cirr_{split.split}_recall_subset.json", groups),
        ]
    else:
        raise UserError(f"{split.dataset} has no evaluation server: --submit is for CIRR and CIRCO")
    for path in paths:
        validate(path, split)
    return paths


def validate(path: str | Path, split: ComposedSplit) -> str:
    """Check a submission file against its split.

    Args:
        path: The file.
        split: The split it is for.

    Returns:
        One sentence that says that it is right.

    Raises:
        UserError: The first thing that is wrong with it.
    """
    path = Path(path)
    values = read_json(path, dict, "a submission")
    if split.dataset == "CIRCO":
        _check_circo(values, split, path)
        kind = "CIRCO"
    elif split.dataset == "CIRR":
        kind = f"CIRR, {_check_cirr(values, split, path)}"
    else:
        raise UserError(
            f"{split.dataset} has no evaluation server: --validate is for CIRR and CIRCO"
        )
    return f"{path}: a valid submission ({kind}, {len(split.queries)} queries)"


def _check_circo(values: dict[str, Any], split: ComposedSplit, path: Path) -> None:
    _check_keys(set(values), split, path)
    allowed = set(split.gallery_ids)
    length = min(LENGTH, len(allowed))
    for query in split.queries:
        _check_list(values[query.id], int, length, allowed, path, query.id)


def _check_cirr(values: dict[str, Any], split: ComposedSplit, path: Path) -> str:
    rest = dict(values)
    version, metric = rest.pop("version", None), rest.pop("metric", None)
    if version != VERSION:
        raise UserError(f"{path}: version is {version!r}: it must be {VERSION!r}")
    if metric not in ("recall", "recall_subset"):
        raise UserError(f"{path}: metric is {metric!r}: it must be 'recall' or 'recall_subset'")
    _check_keys(set(rest), split, path)
    for query in split.queries:
        if metric == "recall":
            allowed = set(split.gallery_ids) - {query.reference_id}
            length = min(LENGTH, len(allowed))
        else:
            allowed, length = set(query.subset), min(SUBSET_LENGTH, len(query.subset))
        _check_list(rest[query.id], str, length, allowed, path, query.id)
    return metric


def _check_keys(found: set[str], split: ComposedSplit, path: Path) -> None:
    wanted = {query.id for query in split.queries}
    if missing := sorted(wanted - found):
        raise UserError(
            f"{path}: query {missing[0]!r} is missing ({len(missing)} in all): write all"
        )
    if extra := sorted(found - wanted):
        raise UserError(
            f"{path}: {extra[0]!r} is no query of {split.dataset} {split.split}: drop it"
        )


def _check_list(
    found: Any, kind: type, length: int, allowed: set[str], path: Path, query: str
) -> None:
    where = f"{path}, query {query}"
    if not isinstance(found, list) or not all(
        isinstance(v, kind) and not isinstance(v, bool) for v in found
    ):
        raise UserError(f"{where}: it must be a list of {kind.__name__} ids")
    if len(found) != length:
        raise UserError(f"{where}: {len(found)} ids: it must have {length}")
    if len(set(found)) != len(found):
        raise UserError(f"{where}: an id occurs twice: give different ones")
    for value in found:
        if str(value) not in allowed:
            raise UserError(f"{where}: {value!r} may not be listed: it is not among the candidates")
