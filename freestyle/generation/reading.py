"""YAML files of named settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from freestyle.errors import UserError


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML mapping.

    Raises:
        UserError: If the file is missing or holds something else.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: mend it") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no settings by name: write NAME: {...} in it")
    return values
