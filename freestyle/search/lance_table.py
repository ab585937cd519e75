"""How LanceDB is opened, and its errors said in one sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from freestyle.errors import UserError


@contextlib.contextmanager
def changing(path: Path) -> Iterator[None]:
    """Make one sentence of what goes wrong in a change."""
    try:
        yield
    except (UserError, KeyError):
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot write to the index at {path} ({brief(error)}): make room, give yourself the "
            "right to, or make it again"
        ) from error


def brief(error: Exception) -> str:
    """The first line of what a library says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def connect(path: Path) -> Any:
    """A connection whose every read sees the newest version."""
    try:
        import lancedb
    except ImportError as error:
        raise UserError(
            "the default index needs LanceDB: pip install lancedb, or use exact:FOLDER"
        ) from error
    return lancedb.connect(path, read_consistency_interval=timedelta(0))
