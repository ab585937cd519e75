"""Filters and ids as SQL, every name and value quoted: nothing that users write becomes syntax."""

from __future__ import annotations

from collections.abc import Iterable

from freestyle.search.columns import stored_key
from freestyle.search.filters import Condition, Filter, date_bounds
from freestyle.search.records import Scalar
from freestyle.search.rows import stored_text


def where_sql(where: Filter) -> str:
    """What a photo must be, as :meth:`Filter.matches` says."""
    return " AND ".join(f"({condition_sql(condition)})" for condition in where.conditions)


def ids_sql(ids: Iterable[str]) -> str:
    """Being one of some photos."""
    return f"id IN ({', '.join(literal(name) for name in ids)})"


def literal(value: Scalar) -> str:
    """A value in SQL."""
    if isinstance(value, str):
        return "'" + stored_text(value).replace("'", "''") + "'"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def condition_sql(condition: Condition) -> str:
    """One condition; of a missing value it is unknown, which is not true."""
    column = f"`{stored_key(condition.column)}`"
    values = condition.values
    match condition.operator:
        case "contains":
            return f"contains(lower({column}), {literal(str(values[0]).lower())})"
        case "under" if values[0] == "":
            return "true"
        case "under":
            below = literal(f"{values[0]}/")
            return f"{column} = {literal(values[0])} OR starts_with({column}, {below})"
    if condition.column == "date":
        either = " OR ".join(date_sql(column, condition.operator, str(value)) for value in values)
        return f"{column} >= '0' AND {column} < ':' AND ({either})"
    if condition.operator == "in":
        return f"{column} IN ({', '.join(map(literal, values))})"
    return f"{column} {condition.operator} {literal(values[0])}"


def date_sql(column: str, operator: str, value: str) -> str:
    """A comparison with all the dates that begin with ``value``."""
    first, last = map(literal, date_bounds(value))
    match operator:
        case "<":
            return f"{column} < {first}"
        case "<=":
            return f"{column} < {last}"
        case ">":
            return f"{column} >= {last}"
        case ">=":
            return f"{column} >= {first}"
        case "!=":
            return f"{column} < {first} OR {column} >= {last}"
    return f"({column} >= {first} AND {column} < {last})"
