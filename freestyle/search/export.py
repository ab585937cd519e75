"""A model's query side to a folder that needs no torch, checked against the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw

from freestyle.errors import UserError
from freestyle.files import write_folder_atomically
from freestyle.search.export_graphs import (
    ImageGraph,
    TextGraph,
    save_onnx,
    save_torch,
    trace_images,
    trace_texts,
)
from freestyle.search.export_tokens import SAMPLES, save_tokens
from freestyle.search.exported import CALIBRATION, MANIFEST, Manifest

if TYPE_CHECKING:
    from freestyle.model import FreestyleRet

FORMATS = ("onnx", "torch")
TOLERANCE = 1e-4  # of any entry, float32 against the model itself


def export_model(
    model: FreestyleRet,
    folder: str | Path,
    *,
    formats: Sequence[str] = ("onnx",),
    int8: bool = False,
) -> dict[str, float]:
    """Write everything that turns queries into vectors, and photos' vectors into complete ones.

    Args:
        model: Any FreestyleRet; it is moved to the CPU.
        folder: Where to; an earlier export there is replaced when the new one stands.
        formats: ``onnx``, ``torch`` (torch.export's ``.pt2``), or both.
        int8: Quantise the ONNX graphs dynamically.

    Returns:
        By format the largest difference of any entry of any row from the model's own, over
        pictures of odd shapes and contents and varied texts.

    Raises:
        UserError: If the folder holds something else or cannot be written to, the model cannot be
            exported, or a float32 graph differs from it by more than :data:`TOLERANCE`.
    """
    unknown = [f for f in formats if f not in FORMATS]
    if unknown or not formats:
        raise UserError(f"--format {','.join(unknown)}: use {' or '.join(FORMATS)}, or both")
    if int8 and "onnx" not in formats:
        raise UserError("--int8 quantises ONNX graphs: export with --format onnx")
    _refuse_other_content(Path(folder))
    model = model.cpu().eval()
    differences: dict[str, float] = {}

    def write(place: Path) -> None:
        _write(model, place, formats, int8)
        differences.update(compare(model, place, formats))
        worst = {k: v for k, v in differences.items() if k == "torch" or not int8}
        if max(worst.values(), default=0.0) > TOLERANCE:
            raise UserError(
                f"the exported graphs differ from the model by {max(worst.values()):.1e}, more "
                f"than {TOLERANCE:.0e}: serve the model with torch"
            )

    write_folder_atomically(folder, write)
    return differences


def _write(model: FreestyleRet, folder: Path, formats: Sequence[str], int8: bool) -> None:
    from freestyle import __version__
    from freestyle.search.torch_encoder import gallery_tag

    prompts = model.text_prompts
    tokens = save_tokens(model.encoder, folder, 0 if prompts is None else len(prompts))
    images, texts = ImageGraph(model), TextGraph(model)
    programs = {
        "image": (trace_images(images), images.outputs),
        "text": (trace_texts(texts, tokens["length"]), ("rows",)),
    }
    for name, (program, outputs) in programs.items():
        if "torch" in formats:
            save_torch(program, folder / f"{name}.pt2")
        if "onnx" in formats:
            _save_onnx(program, outputs, folder / f"{name}.onnx", int8)
    Manifest(
        encoder=model.encoder.name,
        weights=gallery_tag(model),
        method=model.config.method,
        width=model.encoder.embed_dim,
        columns=_save_calibration(model, folder),
        precision="int8" if int8 else "float32",
        prompts_gallery=model.prompts_gallery,
        preprocessing=asdict(model.encoder.preprocessing),
        outputs=images.outputs,
        styles=model.config.styles if images.gated else (),
        tokens=tokens,
        calibration=_calibration_settings(model),
        freestyle_version=__version__,
    ).write(folder)


def _save_onnx(
    program: torch.export.ExportedProgram, outputs: tuple[str, ...], path: Path, int8: bool
) -> None:
    if not int8:
        save_onnx(program, outputs, path)
        return
    from freestyle.search.quantise import quantise

    whole = path.with_name(f"float-{path.name}")
    save_onnx(program, outputs, whole)
    quantise(whole, path)
    for file in path.parent.glob(f"{whole.name}*"):
        file.unlink()


def _save_calibration(model: FreestyleRet, folder: Path) -> int:
    """Write the banks; returns C, 0 where there are none."""
    own = model.calibration
    if own is None or not own.is_fitted:
        return 0
    from safetensors.torch import save_file

    state = {"bank": own.bank, "member": own.member, "n_styles": torch.tensor([own.n_styles])}
    save_file({k: v.cpu().contiguous() for k, v in state.items()}, folder / CALIBRATION)
    return own.n_styles + 1


def _calibration_settings(model: FreestyleRet) -> dict[str, float] | None:
    own = model.calibration
    if own is None or not own.is_fitted:
        return None
    names = ("temperature", "strength", "text_temperature", "text_strength")
    return {name: float(getattr(own.config, name)) for name in names}


@torch.inference_mode()
def compare(
    model: FreestyleRet, folder: Path, formats: Sequence[str] = ("onnx",)
) -> dict[str, float]:
    """Largest difference of an export's rows from the model's own, by format."""
    pictures, texts = sample_pictures(), list(SAMPLES)
    short = [min(filter(str.strip, texts), key=len)]  # alone too: a batch is as long as its longest
    in_texts = np.concatenate([model.encode_text(some).numpy() for some in (texts, short)])
    expected = model.encode_query(pictures).numpy(), in_texts
    found = {}
    if "onnx" in formats:
        from freestyle.search.onnx_encoder import OnnxQueryEncoder

        exported = OnnxQueryEncoder(folder)
        rows = np.concatenate([exported.embed_texts(some).rows for some in (texts, short)])
        found["onnx"] = exported.embed_images(pictures).rows, rows
    if "torch" in formats:
        found["torch"] = _run_torch(model, folder, pictures, [texts, short])
    return {
        name: max(float(np.abs(a - b).max()) for a, b in zip(expected, rows, strict=True))
        for name, rows in found.items()
    }


def _run_torch(
    model: FreestyleRet, folder: Path, pictures: list[Image.Image], batches: list[list[str]]
) -> tuple[np.ndarray, np.ndarray]:
    pixels = torch.stack([model.encoder.preprocess(picture) for picture in pictures])
    outputs = torch_graph(folder, "image")(pixels=pixels)
    count = 0 if model.text_prompts is None else len(model.text_prompts)
    graph, rows = torch_graph(folder, "text"), []
    for texts in batches:
        ids, mask = model.encoder.tokenize(texts, count)
        rows.append(graph(ids=ids, mask=mask).numpy())
    return outputs[0].numpy(), np.concatenate(rows)


def torch_graph(folder: str | Path, name: str) -> torch.nn.Module:
    """A torch.export graph of an exported folder, ready to be called.

    Args:
        folder: Exported with format ``torch``.
        name: ``image`` (called with ``pixels``, returns the manifest's outputs) or ``text``
            (called with ``ids`` and ``mask``, returns rows).

    Raises:
        UserError: If the folder is no export, damaged, or holds no such graph.
    """
    from freestyle.search.exported import read_manifest

    read_manifest(folder, f"{name}.pt2")
    return torch.export.load(Path(folder) / f"{name}.pt2").module()


def sample_pictures() -> list[Image.Image]:
    """Pictures on which an export is checked: odd shapes, blank, one pixel, a drawing, noise."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 210, 3), dtype=np.uint8)
    drawing = Image.new("RGB", (200, 150), "white")
    pen = ImageDraw.Draw(drawing)
    pen.ellipse((20, 30, 90, 100), outline="black", width=3)
    pen.arc((40, 50, 70, 85), 20, 160, fill="black", width=2)
    coloured = Image.new("RGB", (64, 300), (30, 90, 160))
    ImageDraw.Draw(coloured).rectangle((10, 200, 70, 290), fill=(240, 200, 40))
    return [
        drawing,
        Image.fromarray(noise),
        coloured,
        Image.new("RGB", (50, 50), "white"),
        Image.new("RGB", (1, 1), (200, 10, 10)),
        Image.new("RGB", (3, 400), "black"),
        drawing.crop((0, 0, 60, 60)).resize((601, 599)),
    ]


def _refuse_other_content(folder: Path) -> None:
    """Never replace a folder that holds something else than an export."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"--out {folder} is a file: give a folder")
    if any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise UserError(f"--out {folder} holds other files: give a new folder")
