"""Filters: conditions on the photos' columns, all of which must hold.

    folder under trips/2020      the folder itself and all below it
    date >= 2024-01              dates are compared as far as they are given: this month or later
    size > 100000                numbers; also <, <=, >=, =, !=
    camera = Canon               texts, letter by letter
    caption contains dog         texts, upper and lower case alike
    name in a.jpg, "b, c.jpg"    one of several

A photo that lacks a column, or whose date is unknown, matches no condition on it, not even ``!=``.
What is said here is the reference; every back end must agree with it.
"""

from __future__ import annotations

import csv
import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from freestyle.errors import UserError
from freestyle.search.records import Scalar

COMPARISONS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
WORDS = ("in", "contains", "under")
FOLDERS = ("folder", "path")
LARGEST = 2**63 - 1
DATE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d)?)?)?)?)?")
OPERATION = re.compile(r"\s*(<=|>=|!=|==|=|<|>)|\s+(in|contains|under)(?=\s|$)")
TRUTHS = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True)
class Condition:
    """What one column must be.

    Attributes:
        column: Its name.
        operator: One of :data:`COMPARISONS` or :data:`WORDS`.
        values: One value; of ``in`` one or more.
    """

    column: str
    operator: str
    values: tuple[Scalar, ...]

    def holds(self, value: Scalar | None) -> bool:
        """Whether a photo with this value matches."""
        if value is None:
            return False
        if self.operator == "under":
            above = str(self.values[0])
            return not above or value == above or str(value).startswith(above + "/")
        if self.operator == "contains":
            return str(self.values[0]).lower() in str(value).lower()
        if self.column == "date":
            return known_date(str(value)) and any(self._dated(str(value), v) for v in self.values)
        if self.operator == "in":
            return value in self.values
        return bool(COMPARISONS[self.operator](value, self.values[0]))

    def _dated(self, value: str, wanted: Scalar) -> bool:
        first, last = date_bounds(str(wanted))
        match self.operator:
            case "<":
                return value < first
            case "<=":
                return value < last
            case ">":
                return value >= last
            case ">=":
                return value >= first
            case "!=":
                return not first <= value < last
        return first <= value < last

    def __str__(self) -> str:
        return f"{self.column} {self.operator} {', '.join(map(str, self.values))}"


@dataclass(frozen=True)
class Filter:
    """Conditions that must all hold."""

    conditions: tuple[Condition, ...]

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a photo of this metadata matches."""
        return all(c.holds(metadata.get(c.column)) for c in self.conditions)

    def __bool__(self) -> bool:
        return bool(self.conditions)

    def __str__(self) -> str:
        return " and ".join(map(str, self.conditions))


def known_date(value: str) -> bool:
    """Whether a photo's date is one."""
    return "0" <= value < ":"


def date_bounds(value: str) -> tuple[str, str]:
    """The dates that begin with ``value``: from the first, up to below the second.

    >>> date_bounds("2024-01")
    ('2024-01', '2024-01~')
    """
    return value, value + "~"  # which sorts behind digits, "-", ":", "T", "+" and "Z"


def parse_filter(texts: Sequence[str], columns: Mapping[str, type]) -> Filter:
    """Read conditions.

    Args:
        texts: One condition each, as above; a column's name or a value may be quoted.
        columns: Names and types of the columns there are, of :meth:`Index.columns`.

    Raises:
        UserError: Naming the condition and what it could be instead.
    """
    return Filter(tuple(parse_condition(text, columns) for text in texts))


def parse_condition(text: str, columns: Mapping[str, type]) -> Condition:
    """Read one condition; see :func:`parse_filter`."""
    name, sign, rest = split(text.strip(), columns)
    if name not in columns:
        there = ", ".join(sorted(columns)) or "none"
        raise UserError(f"filter {text!r}: there is no column {name!r}; there are {there}")
    kind = columns[name]
    allowed = operators(name, kind)
    if sign not in allowed:
        raise UserError(f"filter {text!r}: {name} takes no {sign!r}; use {', '.join(allowed)}")
    given = listed(rest) if sign == "in" else [unquoted(rest)]
    if not rest or not given:
        raise UserError(f"filter {text!r}: no value behind {sign!r}: add one, or '\"\"' for none")
    return Condition(name, sign, tuple(typed(text, name, kind, sign, value) for value in given))


def operators(name: str, kind: type) -> list[str]:
    """What can be asked of a column."""
    if kind is bool:
        return ["=", "!="]
    if kind is not str:
        return [*COMPARISONS, "in"]
    return [*COMPARISONS, "in", "contains", *(["under"] if name in FOLDERS else [])]


def split(text: str, columns: Mapping[str, type]) -> tuple[str, str, str]:
    """Name, operator and the rest; the longest name of a column that an operator follows."""
    quoted = re.match(r"\"([^\"]*)\"|'([^']*)'", text)
    if quoted:
        starts = [(quoted[1] if quoted[1] is not None else quoted[2], quoted.end())]
    else:
        known = sorted((c for c in columns if text.startswith(c)), key=len, reverse=True)
        starts = [(name, len(name)) for name in known]
    for name, end in starts:
        found = OPERATION.match(text, end)
        if found:
            sign = found[1] or found[2]
            return name, "=" if sign == "==" else sign, text[found.end() :].strip()
    found = OPERATION.search(text)
    if not found or not text[: found.start()].strip():
        raise UserError(
            f"filter {text!r} is no condition: write it like 'folder under trips/2020', "
            "'date >= 2024-01' or 'size > 100000'"
        )
    return text[: found.start()].strip(), found[1] or found[2], text[found.end() :].strip()


def unquoted(text: str) -> str:
    """A value without the quotes around it."""
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text


def listed(text: str) -> list[str]:
    """Values between commas, each quoted with ``"`` where it holds one."""
    rows = list(csv.reader([text], skipinitialspace=True))
    return [value.strip() for value in rows[0]] if rows else []


def typed(text: str, name: str, kind: type, sign: str, value: str) -> Scalar:
    """A value of the column's type.

    Raises:
        UserError: If it is none.
    """
    if sign == "under":
        return value.strip("/")
    if name == "date" and sign != "contains":
        value = value.replace(" ", "T", 1)
        if not DATE.fullmatch(value):
            raise UserError(
                f"filter {text!r}: {value!r} is no date: write 2024, 2024-01, 2024-01-31 or "
                "2024-01-31T12:30:00"
            )
        return value
    if kind is str:
        return value
    if kind is bool:
        if value.lower() not in TRUTHS:
            raise UserError(f"filter {text!r}: {name} is true or false, not {value!r}")
        return TRUTHS[value.lower()]
    try:
        number = kind(value)
    except ValueError:
        number = None
    if (
        number is None
        or not math.isfinite(number)
        or abs(number) > (LARGEST if kind is int else math.inf)
    ):
        word = "a whole number" if kind is int else "a number"
        raise UserError(f"filter {text!r}: {name} is {word}, not {value!r}")
    return number
