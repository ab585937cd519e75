"""Data sets: pictures, records and the readers of the DSR, FS-COCO and ImageNet-X layouts."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from freestyle.datasets.images import IMAGE_EXTENSIONS, load_image
    from freestyle.datasets.readers import available_styles, open_split
    from freestyle.datasets.records import QuerySet, RetrievalSplit

_HOMES = {
    "IMAGE_EXTENSIONS": "images",
    "load_image": "images",
    "QuerySet": "records",
    "RetrievalSplit": "records",
    "available_styles": "readers",
    "open_split": "readers",
}

__all__ = [
    "IMAGE_EXTENSIONS",
    "QuerySet",
    "RetrievalSplit",
    "available_styles",
    "load_image",
    "open_split",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
