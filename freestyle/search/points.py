"""Photos as points of Qdrant: payloads, and filters as conditions on them.

A payload holds a photo's columns under the names of :mod:`freestyle.search.columns`, thumbnail and
set as base64 (a set is read as a whole and never searched), and what filters need besides:

    below_folder, below_path   all folders above, the value itself included, for ``under``
    date_number                2024-03-01T10:20:30 as 20240301102030, since only numbers have ranges
    lower_COLUMN               text in lower case where that differs, for ``contains``
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from qdrant_client import models

from freestyle.search.columns import OWN, key, stored_key
from freestyle.search.filters import FOLDERS, Condition, Filter, known_date
from freestyle.search.records import PhotoRecord, Scalar
from freestyle.search.rows import stored_text

FIXED = ("id", "origin", "offset", "digest", *OWN)
BULK = ("thumbnail", "atoms")
DIGITS = 14  # of a date and time to the second


def point_id(name: str) -> str:
    """A photo's id as the UUID that Qdrant wants: a hash of it."""
    text = name.encode("utf-8", "surrogateescape")
    return str(uuid.UUID(bytes=hashlib.blake2b(text, digest_size=16).digest()))


def payload(photo: PhotoRecord, extra: Mapping[str, Scalar]) -> dict[str, Any]:
    """All of a photo but its vector."""
    values = {name: getattr(photo, name) for name in FIXED}
    values |= {key(name): value for name, value in extra.items()}
    values = {n: stored_text(v) if isinstance(v, str) else v for n, v in values.items()}
    for name, value in list(values.items()):
        if isinstance(value, str) and value.lower() != value:
            values[f"lower_{name}"] = value.lower()
    for name in FOLDERS:
        values[f"below_{name}"] = ancestors(values[name])
    if known_date(photo.date):
        values["date_number"] = date_number(photo.date, "0")
    values["thumbnail"] = base64.b64encode(photo.thumbnail).decode()
    if photo.atoms is not None:
        atoms = np.asarray(photo.atoms, dtype="<f2")
        values["atoms"] = base64.b64encode(atoms.tobytes()).decode()
    return values


def columns_of(values: Mapping[str, Any], types: Mapping[str, type]) -> dict[str, Any]:
    """The row of a payload, as :mod:`freestyle.search.rows` has rows."""
    row = {name: values[name] for name in FIXED if name in values}
    row |= {key(name): values[key(name)] for name in types if values.get(key(name)) is not None}
    kinds = {**OWN, **{key(name): kind for name, kind in types.items()}}
    return {name: kinds[name](v) if name in kinds else v for name, v in row.items()}


def given_atoms(values: Mapping[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """A photo's set ``(M, E)`` float16."""
    raw = base64.b64decode(values["atoms"])
    return np.frombuffer(raw, dtype="<f2").reshape(shape).astype(np.float16)


def ancestors(path: str) -> list[str]:
    """A path and all folders above it.

    >>> ancestors("trips/2020")
    ['trips', 'trips/2020']
    """
    parts = path.split("/")
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def date_number(value: str, fill: str) -> int:
    """Digits of a date to the second, filled up.

    >>> date_number("2024-03", "0")
    20240300000000
    """
    return int(re.sub(r"[^0-9]", "", value[:19])[:DIGITS].ljust(DIGITS, fill))


def native(where: Filter) -> tuple[models.Filter | None, Filter]:
    """What the server filters, and what is left to be asked of the payloads it returns.

    Texts have no order there, so ``<`` and the like of texts are left.
    """
    conditions, left = [], []
    for condition in where.conditions:
        found = native_condition(condition)
        if found is None:
            left.append(condition)
        else:
            conditions.append(found)
    return models.Filter(must=conditions) if conditions else None, Filter(tuple(left))


def native_condition(condition: Condition) -> models.Condition | None:
    """One condition, or None where the server has none that is equal."""
    name, value = stored_key(condition.column), condition.values[0]
    match condition.operator:
        case "under":
            return below(name, str(value))
        case "contains":
            text = models.MatchSubstring(substring=stored_text(str(value)).lower())
            either = [field(f"lower_{name}", match=text), field(name, match=text)]
            return models.Filter(should=either)
    if condition.column == "date":
        return dated(condition)
    if isinstance(value, bool):
        wanted = value if condition.operator == "=" else not value
        return field(name, match=models.MatchValue(value=wanted))
    if condition.operator in ("=", "in", "!=") and not isinstance(value, float):
        return one_of(condition, name)
    return None if isinstance(value, str) else numbered(condition, name)


def field(name: str, **what: Any) -> models.FieldCondition:
    """A condition on a payload's key."""
    return models.FieldCondition(key=name, **what)


def below(name: str, folder: str) -> models.Condition:
    """Being a folder, or anywhere below it."""
    if not folder:
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=name))
        return models.Filter(must_not=[empty])
    match = models.MatchValue(value=stored_text(folder))
    return field(f"below_{name}", match=match)


def one_of(condition: Condition, name: str) -> models.Condition:
    """Texts, letter by letter, and whole numbers."""
    values = [stored_text(v) if isinstance(v, str) else v for v in condition.values]
    if condition.operator == "!=":
        return field(name, match=models.MatchExcept(**{"except": values}))
    return field(name, match=models.MatchAny(any=values))


def numbered(condition: Condition, name: str) -> models.Condition:
    """Numbers, as ranges."""
    values = [float(value) for value in condition.values]
    match condition.operator:
        case "=" | "in":
            either = [field(name, range=models.Range(gte=v, lte=v)) for v in values]
            return models.Filter(should=either)
        case "!=":
            either = [models.Range(lt=values[0]), models.Range(gt=values[0])]
            return models.Filter(should=[field(name, range=part) for part in either])
    return field(name, range=bounded(condition.operator, values[0]))


def bounded(operator: str, value: float) -> models.Range:
    """A range open at one end."""
    ends = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
    return models.Range(**{ends[operator]: value})


def dated(condition: Condition) -> models.Condition:
    """Dates, as far as they are given."""
    either = []
    for value in map(str, condition.values):
        first, last = date_number(value, "0"), date_number(value, "9")
        match condition.operator:
            case "<" | ">=":
                either.append(bounded(condition.operator, first))
            case "<=" | ">":
                either.append(bounded(condition.operator, last))
            case "!=":
                either += [models.Range(lt=first), models.Range(gt=last)]
            case _:
                either.append(models.Range(gte=first, lte=last))
    return models.Filter(should=[field("date_number", range=part) for part in either])
