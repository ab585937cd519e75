"""A trained model on disk: one small folder with what was trained, no backbone weights.

``config.json`` holds the settings and the weights tag of the encoder it was trained on;
``model.safetensors`` holds prompts, query map and style space.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freestyle.config import FreestyleConfig
from freestyle.errors import UserError
from freestyle.files import write_atomically, write_json, write_text

if TYPE_CHECKING:
    from torch import Tensor

    from freestyle.model import FreestyleRet

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def own_state(model: FreestyleRet) -> dict[str, Tensor]:
    """Tensors that belong to the model and not to a frozen network, by name."""
    trained = model.trained_parameters()
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith(("encoder.", "reader."))
        and not (name.startswith("tower.") and name not in trained)  # the encoder's own, copied
    }


def save(model: FreestyleRet, folder: str | Path) -> Path:
    """Write the model's folder; each file is replaced atomically, the weights last.

    Args:
        model: Any :class:`~freestyle.model.FreestyleRet`.
        folder: Where to; made if missing.

    Returns:
        The folder.
    """
    from safetensors.torch import save_file

    from freestyle import __version__

    folder = Path(folder)
    values: dict[str, Any] = {
        "freestyle_version": __version__,
        "weights": model.encoder.weights_tag,
        "style_reader": model.reader.tag if model.reader is not None else None,
        **model.config.to_dict(),
    }
    write_json(folder / CONFIG_FILE, values)
    write_text(folder / "README.md", _card(model, values))
    state = own_state(model)
    write_atomically(
        folder / WEIGHTS_FILE, lambda p: save_file(state, p, metadata={"format": "pt"})
    )
    return folder


def load(
    source: str | Path,
    *,
    encoder: Any = None,
    reader: Any = None,
    revision: str | None = None,
    token: str | None = None,
) -> FreestyleRet:
    """Rebuild a model from its folder or hub repository.

    Args:
        source: Local folder, or hub id such as ``user/model``.
        encoder: A ready encoder instead of the one named in the configuration.
        reader: A ready style reader, likewise.
        revision: Hub revision of the model.
        token: Hub token for private repositories.

    Raises:
        UserError: If the folder, its files or the hub cannot be read, or if encoder or style reader
            differ from those the model was trained with.
    """
    from freestyle.model import FreestyleRet

    folder = model_folder(source, revision, token)
    values = _read_config(folder / CONFIG_FILE)
    expected = {key: values.pop(key, None) for key in ("weights", "style_reader")}
    values.pop("freestyle_version", None)
    try:
        config = FreestyleConfig.from_dict(values)
    except (TypeError, UserError) as error:
        raise UserError(
            f"{folder / CONFIG_FILE} does not describe a freestyle model ({error}): "
            "point --model at a folder written by save_pretrained"
        ) from error
    state = _read_weights(folder / WEIGHTS_FILE)
    model = FreestyleRet(config, encoder=encoder, reader=reader)
    _same("encoder weights", expected["weights"], model.encoder.weights_tag, folder)
    if model.reader is not None:
        _same("style reader", expected["style_reader"], model.reader.tag, folder)
    restore(model, state, folder / WEIGHTS_FILE)
    return model.eval()


def restore(model: FreestyleRet, state: dict[str, Tensor], origin: Path) -> None:
    """Put tensors of :func:`own_state` back.

    Raises:
        UserError: If names or shapes do not fit the model.
    """
    if model.calibration is not None:
        model.calibration.adopt(state, "calibration.")
    own = own_state(model)
    problems = [f"'{name}' is missing" for name in own if name not in state]
    problems += [f"'{name}' is not of this model" for name in state if name not in own]
    problems += [
        f"'{name}' has shape {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        raise UserError(
            f"{origin} does not fit its {CONFIG_FILE} ({problems[0]}): save the model again"
        )
    model.load_state_dict(state, strict=False)


def push(model: FreestyleRet, repo_id: str, *, private: bool, token: str | None) -> str:
    """Upload the model's folder; returns the repository's URL."""
    import tempfile

    from huggingface_hub import HfApi

    api = HfApi(token=token)
    url = api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder)
        api.upload_folder(repo_id=repo_id, folder_path=folder)
    return str(url)


def model_folder(source: str | Path, revision: str | None = None, token: str | None = None) -> Path:
    """The folder of a model, downloaded where ``source`` is a hub id.

    Raises:
        UserError: If there is no such folder, and no repository that can be reached.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    text = str(source)
    looks_local = text.startswith((".", "/", "~")) or text.count("/") != 1
    if not looks_local:
        from huggingface_hub import snapshot_download

        try:
            return Path(
                snapshot_download(
                    text,
                    revision=revision,
                    token=token,
                    allow_patterns=[CONFIG_FILE, WEIGHTS_FILE],
                )
            )
        except Exception as error:
            raise UserError(
                f"model '{text}' is neither a folder here nor a hub repository that can be "
                f"reached ({type(error).__name__}): check the path, or the network"
            ) from error
    raise UserError(f"model folder '{text}' does not exist: train one first, or check the path")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing: point --model at a folder written by save_pretrained"
        ) from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): check the file and its permissions"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): save the model again") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} does not hold an object: save the model again")
    return values


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: save the model again, or copy it whole") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is corrupt ({error}): copy it again, or save the model again"
        ) from error


def _same(what: str, expected: str | None, found: str, folder: Path) -> None:
    if expected is not None and expected != found:
        raise UserError(
            f"{folder} was trained with {what} '{expected}', but '{found}' is at hand: "
            "use the same weights, or train again"
        )


def _card(model: FreestyleRet, values: dict[str, Any]) -> str:
    trained = sum(p.numel() for p in model.trained_parameters().values())
    return (
        "---\nlibrary_name: freestyle\nlicense: apache-2.0\n"
        "pipeline_tag: image-feature-extraction\n"
        f"---\n\n# {values['method']} on {values['encoder']}\n\n"
        f"{trained:,} trained parameters around the frozen encoder `{values['weights']}`.\n\n"
        f"{_photos(model)}\n\n"
        "```python\nfrom freestyle import FreestyleRet\n\n"
        'model = FreestyleRet.from_pretrained("path/or/hub-id")\n'
        'queries = model.encode_query(["sketch.png"])\n```\n'
    )


def _photos(model: FreestyleRet) -> str:
    if model.prompts_gallery:
        return "Photos are embedded by this model too: the encoder's own index does not fit it."
    return "Photos are embedded by the encoder itself: an index of them stays valid."


def named_encoder(source: str | Path, revision: str | None = None) -> str | None:
    """The encoder a saved model names, without loading anything else."""
    return _read_config(model_folder(source, revision, None) / CONFIG_FILE).get("encoder")
