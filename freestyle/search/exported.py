"""A folder of exported graphs: what lies in it, and whether it is whole.

    manifest.json             what follows, with the SHA-256 of every other file
    image.onnx, text.onnx     pixels or token ids to rows (image.pt2, text.pt2 for torch.export)
    tokenizer.json            or tokenizer.model; none where words are hashed
    calibration.safetensors   the banks that complete photos' vectors

Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from freestyle.encoders.preprocess import Preprocessing
from freestyle.errors import UserError
from freestyle.files import write_json

FORMAT = 1
MANIFEST = "manifest.json"
CALIBRATION = "calibration.safetensors"


@dataclass(frozen=True)
class Manifest:
    """What an export holds.

    Attributes:
        encoder: Name of the frozen encoder.
        weights: Its weights tag.
        method: Name of the trained model's method, ``zero-shot`` without one.
        width: E.
        columns: C, of a calibration; 0 without one.
        precision: ``float32`` or ``int8``.
        prompts_gallery: Whether photos take a query's path: only the model's own index fits then.
        preprocessing: Fields of :class:`~freestyle.encoders.preprocess.Preprocessing`.
        outputs: Names of the image graph's outputs in order: ``rows`` ``(B, E + C)``; where there
            is a gate ``shares`` ``(B, S)``; with a style space ``places`` ``(B, K)`` and the
            reduced Gram ``codes`` ``(B, d)``.
        styles: Names of the S trained styles.
        tokens: Settings of :func:`freestyle.encoders.token_ids.open_tokens`.
        calibration: ``temperature``, ``strength`` and, for texts, ``text_temperature`` and
            ``text_strength``; None without one.
        files: SHA-256 of each file, hexadecimal.
        freestyle_version: Of the program that exported.
        format: Of the folder.
    """

    encoder: str
    weights: str
    method: str
    width: int
    columns: int
    precision: str
    prompts_gallery: bool
    preprocessing: dict[str, Any]
    outputs: tuple[str, ...]
    styles: tuple[str, ...]
    tokens: dict[str, Any]
    calibration: dict[str, float] | None
    files: dict[str, str] = field(default_factory=dict)
    freestyle_version: str = ""
    format: int = FORMAT

    @property
    def pixels(self) -> Preprocessing:
        """How pictures become pixels."""
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in self.preprocessing.items()}
        return Preprocessing(**values)

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``, with the hashes of what the folder holds now."""
        names = sorted(p.name for p in folder.iterdir() if p.name != MANIFEST)
        values = {**asdict(self), "files": {name: digest(folder / name) for name in names}}
        write_json(folder / MANIFEST, values)


def read_manifest(folder: str | Path, *needed: str) -> Manifest:
    """Read and check an exported folder: every file is there, with the content that was written.

    Args:
        folder: The folder.
        *needed: Files that it must hold, such as ``image.onnx``.

    Raises:
        UserError: If it is no export, of another version, incomplete or changed.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} is no exported model (it has no {MANIFEST}): make one with freestyle export"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): export the model again") from error
    manifest = _from_values(values, path)
    for name in needed:
        if name not in manifest.files:
            raise UserError(
                f"{folder} holds no {name}: export with --format {_format_of(name)} among others"
            )
    for name, expected in manifest.files.items():
        if Path(name).name != name:
            raise UserError(f"{path} names a file outside its folder: export the model again")
        if not (folder / name).is_file() or digest(folder / name) != expected:
            raise UserError(
                f"{folder / name} is missing or not what was exported: export the model again, "
                "or copy the folder whole"
            )
    return manifest


def _from_values(values: Any, path: Path) -> Manifest:
    if not isinstance(values, Mapping) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, Mapping) else None
        raise UserError(
            f"{path} is of format {found}, needed is {FORMAT}: export the model with this version"
        )
    known = {f.name for f in fields(Manifest)}
    values = {key: tuple(v) if key in ("outputs", "styles") else v for key, v in values.items()}
    try:
        manifest = Manifest(**{key: value for key, value in values.items() if key in known})
        _ = manifest.pixels, manifest.files.items(), dict(manifest.tokens)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} lacks settings ({error}): export the model again") from error
    return manifest


def _format_of(name: str) -> str:
    return "torch" if name.endswith(".pt2") else "onnx"


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
