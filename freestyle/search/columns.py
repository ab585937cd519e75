"""The columns that filters may read: the photos' own and further ones, each of one type.

A further column takes its type from the first photos that have it. Back ends store it under
:func:`key`, so that no name, whatever it holds, ever becomes part of a query's syntax.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from freestyle.errors import UserError
from freestyle.search.records import COLUMNS, IndexSettings, PhotoRecord, Scalar

OWN: dict[str, type] = {
    "path": str,
    "folder": str,
    "name": str,
    "caption": str,
    "width": int,
    "height": int,
    "size": int,
    "modified": float,
    "date": str,
}
RESERVED = {*COLUMNS, "id", "origin", "offset", "digest", "vector", "atoms", "thumbnail"}
KINDS = {str: "text", int: "whole numbers", float: "numbers", bool: "true or false"}
TOLERANCE = 0.01  # of a vector's norm, which half precision keeps by far
LARGEST = 2**63 - 1


def key(name: str) -> str:
    """The name under which a back end stores a further column: ``[a-z0-9_]`` only.

    >>> key("camera"), key("f-stop")
    ('c_camera', 'x_662d73746f70')
    """
    if re.fullmatch(r"[a-z0-9_]+", name):
        return f"c_{name}"
    return f"x_{name.encode('utf-8', 'surrogateescape').hex()}"


def name_of(stored: str) -> str:
    """The column that :func:`key` gave this name.

    >>> name_of(key("f-stop"))
    'f-stop'
    """
    if stored.startswith("c_"):
        return stored[2:]
    return bytes.fromhex(stored[2:]).decode("utf-8", "surrogateescape")


def stored_key(name: str) -> str:
    """The name under which any column that a filter may read is stored."""
    return name if name in OWN else key(name)


def value_of(value: Any) -> Scalar | None:
    """A plain scalar; None for what is missing: None, not a number, infinite.

    Raises:
        TypeError: If it is no scalar that a column can hold.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
        raise TypeError
    if not isinstance(value, str | int | float | bool):
        raise TypeError
    return value


def plain_extra(photo: PhotoRecord, types: dict[str, type]) -> dict[str, Scalar]:
    """A photo's further columns as values of their types; ``types`` takes up new ones.

    Raises:
        UserError: Naming photo and column where the value is of another type.
    """
    values: dict[str, Scalar] = {}
    for name, given in photo.extra.items():
        if name in RESERVED or not name:
            raise UserError(
                f"{photo.path}: a further column cannot be called {name!r}, which the index uses "
                "itself: rename it"
            )
        try:
            value = value_of(given)
        except TypeError as error:
            raise UserError(
                f"{photo.path}: column {name!r} holds {given!r:.80}: use text, a number below "
                "2^63, or true or false"
            ) from error
        if value is None:
            continue
        kind = types.setdefault(name, type(value))
        if kind is float and type(value) is int:
            value = float(value)
        elif kind is int and type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not kind:
            raise UserError(
                f"{photo.path}: column {name!r} holds {KINDS[kind]}, not {value!r:.80}: convert "
                "it, or call it otherwise"
            )
        values[name] = value
    return values


def first_types(photos: Iterable[PhotoRecord], known: Mapping[str, type]) -> dict[str, type]:
    """Types of all further columns: known ones, then new ones, whole numbers only if all are."""
    types = dict(known)
    mixed = {
        name
        for photo in photos
        for name, value in photo.extra.items()
        if name not in known and isinstance(value, float | np.floating) and math.isfinite(value)
    }
    return types | {name: float for name in mixed}


def checked(
    photos: Sequence[PhotoRecord], settings: IndexSettings, known: Mapping[str, type]
) -> tuple[list[PhotoRecord], list[dict[str, Scalar]], dict[str, type]]:
    """Photos that an index can take: the last of equal id, arrays of the settings' shapes.

    Args:
        photos: In any order.
        settings: Of the index.
        known: Types of its further columns.

    Returns:
        The photos, their further columns, and the types of all further columns.

    Raises:
        UserError: Naming the photo that does not fit.
    """
    photos = list({photo.id: photo for photo in photos}.values())
    types = first_types(photos, known)
    extras = []
    for photo in photos:
        if not photo.id:
            raise UserError(f"{photo.path}: a photo without an id: give it photo_id(path)")
        check_arrays(photo, settings)
        extras.append(plain_extra(photo, types))
    return photos, extras, types


def check_arrays(photo: PhotoRecord, settings: IndexSettings) -> None:
    """Refuse vectors and sets that are not of the settings' shapes, or not of unit norm.

    Raises:
        UserError: Naming the photo.
    """
    vector = np.asarray(photo.vector)
    if vector.shape != (settings.width,):
        raise UserError(
            f"{photo.path}: a vector of shape {vector.shape}, the index holds ({settings.width},): "
            "embed it with the index's encoder"
        )
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if not abs(norm - 1) <= TOLERANCE:
        raise UserError(f"{photo.path}: a vector of norm {norm:.4g}: normalise it to 1")
    wanted = (settings.atoms, settings.width) if settings.atoms else None
    found = None if photo.atoms is None else np.shape(photo.atoms)
    if found != wanted:
        raise UserError(
            f"{photo.path}: a set of shape {found}, the index holds {wanted}: embed it with the "
            "index's views"
        )
    if photo.atoms is not None and not np.isfinite(photo.atoms).all():
        raise UserError(f"{photo.path}: its set is not finite: embed it again")


def checked_queries(queries: np.ndarray, k: int, width: int, uri: str) -> np.ndarray:
    """Queries ``(Q, E)`` float32.

    Raises:
        UserError: If they are of another width, not finite, or ``k`` is below 1.
    """
    queries = np.asarray(queries, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != width:
        raise UserError(
            f"queries of shape {queries.shape} cannot be asked of {uri}, whose vectors have "
            f"{width} columns: use the index's encoder"
        )
    if not np.isfinite(queries).all():
        raise UserError(f"a query of {uri} is not finite: embed it again")
    if k < 1:
        raise UserError(f"{k} results cannot be asked for: ask for at least 1")
    return queries
