"""Plain values, as JSON and YAML hold them, to the dataclasses of settings."""

from __future__ import annotations

import types
from dataclasses import is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from freestyle.errors import UserError


def from_values(kind: type, values: Any) -> Any:
    """Build a dataclass of settings from plain values.

    Args:
        kind: The dataclass.
        values: Settings by name, nested ones as dictionaries.

    Raises:
        UserError: If a setting is unknown, of the wrong type, or refused.
    """
    require(isinstance(values, dict), f"{kind.__name__} is {values!r}: give settings by name")
    known = get_type_hints(kind)
    made = {}
    for name, value in values.items():
        require(
            name in known,
            f"unknown setting '{name}' in {kind.__name__}: use {', '.join(sorted(known))}",
        )
        inner = [k for k in (known[name], *get_args(known[name])) if is_dataclass(k)]
        if inner and value is not None:
            value = from_values(inner[0], value)
        elif not _fits(value, known[name]):
            raise UserError(
                f"setting '{name}' of {kind.__name__} is {value!r}: use {_in_words(known[name])}"
            )
        made[name] = value
    return kind(**made)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value may stand for a type; allowed words are checked by the dataclass."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if origin is Literal:
        return isinstance(value, str)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)


def _in_words(hint: Any) -> str:
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    words[types.NoneType] = "null"
    named = [words.get(p, "a text" if get_origin(p) is Literal else "a list") for p in parts]
    return " or ".join(named)


def require(condition: bool, message: str) -> None:
    """Refuse a setting with a sentence.

    Raises:
        UserError: If the condition does not hold.
    """
    if not condition:
        raise UserError(message)
