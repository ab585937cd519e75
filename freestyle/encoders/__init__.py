"""Frozen dual encoders behind one interface; nothing heavy is imported before its first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freestyle.encoders.base import DualEncoder, Preprocessing
    from freestyle.encoders.factory import create

_HOMES = {
    "DualEncoder": "freestyle.encoders.base",
    "Preprocessing": "freestyle.encoders.base",
    "create": "freestyle.encoders.factory",
}

__all__ = ["DualEncoder", "Preprocessing", "create"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
