"""Atomic writes: a file is either the old one or the whole new one, never half of it; the cache."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from freestyle.errors import UserError


def cache_folder() -> Path:
    """``$FREESTYLE_CACHE`` or ``~/.cache/freestyle``."""
    return Path(os.environ.get("FREESTYLE_CACHE") or Path.home() / ".cache" / "freestyle")


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, sync it, then rename it into place.

    Args:
        path: Where the file shall be; its folder is made.
        write: Called with the temporary path, which keeps the suffix of ``path``.

    Returns:
        ``path``.

    Raises:
        UserError: If the place cannot be written to; what was there before stays.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): choose another place, or make room"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def write_json(path: str | Path, values: Any) -> Path:
    """Write indented JSON atomically."""
    return write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def write_folder_atomically(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary folder beside ``path``, then put it in the place of ``path``.

    What was there before goes only when the new folder stands.

    Args:
        path: Where the folder shall be; its parents are made.
        write: Called with the temporary folder.

    Returns:
        ``path``.

    Raises:
        UserError: If the place cannot be written to; what was there before stays.
    """
    path = Path(path).absolute()
    work = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        new, old = work / "new", work / "old"
        new.mkdir()
        write(new)
        mask = os.umask(0)
        os.umask(mask)
        for file in new.rglob("*"):
            if file.is_file():
                with open(file, "rb") as opened:
                    os.fsync(opened.fileno())
                os.chmod(file, 0o666 & ~mask)
        if path.exists():
            os.rename(path, old)
        try:
            os.rename(new, path)
        except OSError:
            if old.exists():
                os.rename(old, path)
            raise
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): choose another place, or make room"
        ) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return path
