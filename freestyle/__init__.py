"""freestyle: find a photo however you can ask for it.

The public names load on first use, so that ``import freestyle`` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["DualEncoder", "FreestyleRet", "StyleSpace", "UserError", "create_encoder", "open_split"]

if TYPE_CHECKING:
    from freestyle.datasets.readers import open_split
    from freestyle.encoders.base import DualEncoder
    from freestyle.encoders.factory import create as create_encoder
    from freestyle.errors import UserError
    from freestyle.model import FreestyleRet
    from freestyle.style.space import StyleSpace

_HOMES = {
    "DualEncoder": ("freestyle.encoders.base", "DualEncoder"),
    "FreestyleRet": ("freestyle.model", "FreestyleRet"),
    "StyleSpace": ("freestyle.style.space", "StyleSpace"),
    "UserError": ("freestyle.errors", "UserError"),
    "create_encoder": ("freestyle.encoders.factory", "create"),
    "open_split": ("freestyle.datasets.readers", "open_split"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'freestyle' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
