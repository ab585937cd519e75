"""The folder that a set is made in: whether it may be used, and the recipe that it keeps."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from freestyle.errors import UserError
from freestyle.files import write_json
from freestyle.generation.parts import Recipe

RECIPE = "recipe.json"


def working_folder(out: Path) -> Path:
    """Make the output folder and see that it can be written to.

    Raises:
        UserError: If it cannot.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".write-", dir=out)
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        raise UserError(
            f"cannot write to --out {out} ({error.strerror or error}): choose another folder"
        ) from error
    return out


def open_set(root: Path, recipe: Recipe, *, resume: bool, sharing: bool) -> list[str]:
    """Check the folder against the recipe and note the recipe in it.

    Args:
        root: From :func:`working_folder`.
        recipe: Of this run.
        resume: Whether a set that is there may be gone on with.
        sharing: Whether this run makes one shard of several.

    Returns:
        All styles of the set, those of earlier runs too.

    Raises:
        UserError: If the folder holds something else, or a set of another recipe.
    """
    path = root / RECIPE
    others = [p for p in root.iterdir() if not p.name.startswith(".")]
    if not path.exists() and others:
        raise UserError(f"--out {root} is not empty and holds no set: choose another folder")
    before: dict[str, Any] = {}
    if path.exists():
        before = read_mapping(path)
        if not resume and not (sharing and (root / ".parts").is_dir()):
            raise UserError(
                f"--out {root} holds a set: --resume goes on with it, or choose another"
            )
    now = json.loads(json.dumps(asdict(recipe)))
    for key in ("seed", "max_side"):
        if before and before.get(key) != now[key]:
            raise UserError(
                f"--out {root} was made with {key} {before.get(key)}, not {now[key]}: use the same "
                "or choose another folder"
            )
    for style, spec in before.get("styles", {}).items():
        if style in now["styles"] and now["styles"][style] != spec:
            raise UserError(
                f"--out {root} has style {style} with other settings ({json.dumps(spec)}): "
                f"remove {root / style} and its sidecar, or choose another folder"
            )
    now["styles"] = before.get("styles", {}) | now["styles"]
    packages = ("freestyle", "pillow", "opencv-python-headless", "scikit-image", "numpy")
    now["versions"] = before.get("versions") or {name: version(name) for name in packages}
    if now != before:
        write_json(path, now)
    return sorted(now["styles"])


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file holds something else.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: remove the folder and start anew") from error
    return values if isinstance(values, dict) else {}
