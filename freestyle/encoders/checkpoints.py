"""Hub ids and local folders: find the files, check them, load them, name them by their content.

Only JSON, tokenizer files and safetensors are fetched and read: nothing from outside is unpickled.
Whatever is wrong with a checkpoint becomes one sentence with the remedy.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from freestyle.encoders.base import Preprocessing
from freestyle.encoders.tokenizers import HubTokenizer
from freestyle.errors import UserError

_FILES = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "model*.safetensors",
    "model.safetensors.index.json",
]
_RESAMPLE = {1: "lanczos", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class Checkpoint:
    """A folder in Hugging Face layout.

    Attributes:
        folder: Where the files are.
        config: The parsed ``config.json``.
        weights_tag: Hub id and commit, or folder name and hash of its content.
    """

    folder: Path
    config: dict[str, Any]
    weights_tag: str

    @property
    def family(self) -> str:
        """``model_type`` of the configuration, empty if there is none."""
        return str(self.config.get("model_type", ""))


def open_folder(folder: Path) -> Checkpoint:
    """A local folder, tagged ``name@sha256:...`` over its configuration and weights.

    Raises:
        UserError: If the configuration or the weights are missing or damaged.
    """
    config = _read_json(folder / "config.json")
    weights = _weight_files(folder)
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in weights:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    tag = f"{folder.resolve().name}@sha256:{digest.hexdigest()[:12]}"
    return Checkpoint(folder, config, tag)


def open_hub(repo_id: str, revision: str | None) -> Checkpoint:
    """A hub repository, downloaded or from the cache, tagged ``id@commit``.

    Raises:
        UserError: If it cannot be had, or its files are missing or damaged.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f" at revision {revision}" if revision else ""
    try:
        folder = Path(
            snapshot_download(
                repo_id, revision=revision, allow_patterns=_FILES, ignore_patterns=["*/*"]
            )
        )
    except GatedRepoError as error:
        raise UserError(
            f"encoder {repo_id}: the repository is gated; accept its terms on huggingface.co and "
            "log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"encoder {repo_id}: no such revision: {revision}") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"encoder {repo_id}: no such repository on huggingface.co, or no access to it; "
            "check the spelling, or log in with `hf auth login` if it is private"
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        folder = _cached_folder(repo_id, revision)
        if folder is None:
            raise UserError(
                f"encoder {repo_id}{at}: not in the local cache, and huggingface.co cannot be "
                "reached; give a local folder that holds the checkpoint, or use freestyle-mini, "
                "which needs no download"
            ) from error
    _weight_files(folder)
    commit = folder.name if folder.parent.name == "snapshots" else revision or "main"
    return Checkpoint(folder, _read_json(folder / "config.json"), f"{repo_id}@{commit}")


def _cached_folder(repo_id: str, revision: str | None) -> Path | None:
    """The snapshot another program left in the hub cache, be it complete or not."""
    from huggingface_hub import constants, try_to_load_from_cache

    config = try_to_load_from_cache(
        repo_id, "config.json", revision=revision, cache_dir=constants.HF_HUB_CACHE
    )
    return Path(config).parent if isinstance(config, str) else None


def load_model(checkpoint: Checkpoint, model_class: Any, config: Any) -> Any:
    """Weights into ``model_class``, in float32.

    Raises:
        UserError: If tensors are missing, of another shape or unreadable.
    """
    try:
        model, info = model_class.from_pretrained(
            checkpoint.folder,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:
        raise UserError(
            f"{checkpoint.folder}: the weights do not fit {model_class.__name__} "
            f"({_first_line(error)}); fetch the checkpoint again"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"{checkpoint.folder}: {len(missing)} tensors of {model_class.__name__} are missing, "
            f"{missing[0]} for one; use a checkpoint saved from {model_class.__name__}"
        )
    return model


def load_tokenizer(checkpoint: Checkpoint, **kwargs: Any) -> HubTokenizer:
    """The checkpoint's own tokenizer; keywords go to :class:`HubTokenizer`.

    Raises:
        UserError: If the files, or the packages that read them, are missing.
    """
    from transformers import AutoTokenizer

    if not any(checkpoint.folder.glob("tokenizer*")) and not any(checkpoint.folder.glob("vocab.*")):
        raise UserError(
            f"{checkpoint.folder}: no tokenizer files; copy tokenizer.json and "
            "tokenizer_config.json from the original checkpoint"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    except ImportError as error:
        raise UserError(
            f"{checkpoint.folder}: its tokenizer needs another package ({_first_line(error)}); "
            "pip install sentencepiece protobuf"
        ) from error
    except Exception as error:
        raise UserError(
            f"{checkpoint.folder}: the tokenizer cannot be read ({_first_line(error)}); "
            "copy the tokenizer files from the original checkpoint again"
        ) from error
    return HubTokenizer(tokenizer, **kwargs)


def read_preprocessing(checkpoint: Checkpoint, default: Preprocessing) -> Preprocessing:
    """Resize, crop and normalisation as the checkpoint's image processor states them.

    Args:
        checkpoint: Folder with ``preprocessor_config.json`` or ``processor_config.json``.
        default: The family's values, for keys the file leaves out.

    Raises:
        UserError: If there is no such file or it asks for steps that are not supported.
    """
    path = checkpoint.folder / "processor_config.json"
    values = _read_json(path).get("image_processor") if path.is_file() else None
    if values is None:
        path = checkpoint.folder / "preprocessor_config.json"
        if not path.is_file():
            raise UserError(
                f"{checkpoint.folder}: no preprocessor_config.json, so its image size and "
                "normalisation are unknown; copy the file from the original checkpoint"
            )
        values = _read_json(path)
    size, resize, shorter = _geometry(values, default, path)
    resample = values.get("resample", 3)
    if resample not in _RESAMPLE:
        raise UserError(
            f"{path}: resample {resample} is not supported; use 1 (lanczos), 2 (bilinear) or "
            "3 (bicubic)"
        )
    normalised = values.get("do_normalize", True)
    mean = tuple(values.get("image_mean") or default.mean) if normalised else (0.0, 0.0, 0.0)
    std = tuple(values.get("image_std") or default.std) if normalised else (1.0, 1.0, 1.0)
    return Preprocessing(size, resize, _RESAMPLE[resample], mean, std, shorter)


def _geometry(values: dict[str, Any], default: Preprocessing, path: Path) -> tuple:
    """``(size, resize rule, shorter side or None)`` from an image processor's settings."""
    size = values.get("size", default.size)
    if isinstance(size, int):  # files written before 2023
        shortest = default.resize == "shortest"
        size = {"shortest_edge": size} if shortest else {"height": size, "width": size}
    crop = values.get("crop_size", size.get("shortest_edge"))
    crop = crop if isinstance(crop, dict) else {"height": crop, "width": crop}
    cropped = values.get("do_center_crop", default.resize == "shortest")
    if "shortest_edge" in size:
        side, shorter = crop["height"], size["shortest_edge"]
        supported = cropped and crop["height"] == crop["width"] and side <= shorter
        result = (side, "shortest", None if shorter == side else shorter)
    else:
        side = size.get("height")
        supported = isinstance(side, int) and side == size.get("width")
        supported = supported and (not cropped or crop["height"] in (None, side))
        result = (side, "exact", None)
    supported = supported and all(values.get(k, True) for k in ("do_resize", "do_rescale"))
    if not supported or abs(values.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise UserError(
            f"{path}: these preprocessing steps are not supported (size {size}, crop {crop}); "
            "encoders here take squares: a shorter side with a centre crop, or height = width"
        )
    return result


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors of a folder, their headers checked against their length.

    Raises:
        UserError: If there are none, or one is damaged.
    """
    from safetensors import SafetensorError, safe_open

    paths = sorted(folder.glob("model*.safetensors"))
    if not paths:
        raise UserError(
            f"{folder}: no model.safetensors; pickled weights are not read, so save the model once "
            "with save_pretrained(folder) or choose a revision that has safetensors"
        )
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                file.keys()
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path}: the weights are damaged or cut off ({_first_line(error)}); "
                "fetch the file again"
            ) from error
    return paths


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: file not found; the checkpoint is incomplete") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({_first_line(error)})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a JSON object is expected")
    return values


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
