"""Which checkpoint exactly: id, revision and licence, for the rows of what it makes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from freestyle.errors import UserError

UNKNOWN = "unknown"


def describe_checkpoint(role: str, name: str, revision: str | None = None) -> dict[str, Any]:
    """What a row says of a checkpoint.

    Args:
        role: What it does, such as ``motion adapter``.
        name: Hub id, or a local folder or file.
        revision: Of a hub checkpoint; None for the newest.

    Returns:
        ``role``, ``id``, ``revision`` (the hub's commit, or a hash of a local checkpoint's files)
        and ``licence`` as its model card says.

    Raises:
        UserError: If it is neither there locally nor to be found on the hub.
    """
    path = Path(name)
    if path.exists():
        found, licence = content_hash(path), _licence(path / "README.md")
    else:
        found, licence = _on_hub(name, revision)
    return {"role": role, "id": name, "revision": found, "licence": licence}


def content_hash(path: Path) -> str:
    """``sha256:`` and 16 digits over the names and bytes of a checkpoint's files."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        relative = file.name if path.is_file() else file.relative_to(path).as_posix()
        if relative.startswith(".") or file.suffix == ".md":
            continue
        digest.update(f"{relative}\0".encode())
        with open(file, "rb") as opened:
            while block := opened.read(1 << 22):
                digest.update(block)
    return f"sha256:{digest.hexdigest()[:16]}"


def _licence(card: Path) -> str:
    """The licence in the head of a model card."""
    try:
        head = card.read_text(encoding="utf-8").split("---")[1]
        return str(yaml.safe_load(head).get("license", UNKNOWN))
    except (OSError, IndexError, AttributeError, yaml.YAMLError, UnicodeDecodeError):
        return UNKNOWN


def _on_hub(name: str, revision: str | None) -> tuple[str, str]:
    """Commit and licence of a hub checkpoint; from the local cache where the hub is not reached."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    refused = UserError(
        f"checkpoint {name} is neither a local folder nor on the model hub: check the name, or "
        "download it and give the folder"
    )
    if not constants.HF_HUB_OFFLINE:
        try:
            info = HfApi().model_info(name, revision=revision)
            licence = info.card_data.license if info.card_data else None
            return str(info.sha), str(licence or UNKNOWN)
        except HFValidationError as error:
            raise refused from error
        except Exception:  # not reached, in one of many ways: perhaps the cache has it
            pass
    for file in ("model_index.json", "config.json", "README.md"):
        try:
            cached = try_to_load_from_cache(name, file, revision=revision)
        except HFValidationError as error:
            raise refused from error
        if isinstance(cached, str):
            snapshot = Path(cached).parent
            return snapshot.name, _licence(snapshot / "README.md")
    raise refused
