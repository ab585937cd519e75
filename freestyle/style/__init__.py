"""What a query looks like, apart from what it shows: frozen CNN, Gram matrix, style space.

Style extraction and style space follow FreestyleRet (arXiv 2312.02428, section 3.2). Names are
imported on first use, so that ``import freestyle.style`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freestyle.style.features import FrozenFeatures
    from freestyle.style.gram import gram_matrix, style_code, upper_triangle
    from freestyle.style.reader import StyleReader
    from freestyle.style.space import StyleSpace

_HOMES = {
    "FrozenFeatures": "features",
    "StyleReader": "reader",
    "StyleSpace": "space",
    "gram_matrix": "gram",
    "style_code": "gram",
    "upper_triangle": "gram",
}

__all__ = [
    "FrozenFeatures",
    "StyleReader",
    "StyleSpace",
    "gram_matrix",
    "style_code",
    "upper_triangle",
]


def __getattr__(name: str) -> Any:
    """Imports a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
