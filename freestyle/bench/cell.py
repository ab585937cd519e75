"""One cell: train it (or go on with a killed run), evaluate it, give a line for the ledger."""

from __future__ import annotations

import platform
import shutil
import time
from functools import lru_cache
from typing import Any

import torch
import yaml

from freestyle.bench.ledger import Ledger
from freestyle.bench.matrix import Cell
from freestyle.datasets.readers import open_split
from freestyle.demo import quiet
from freestyle.encoders.factory import create
from freestyle.evaluation.centred import fit_style_centred
from freestyle.evaluation.embed import Embedder, Variant
from freestyle.evaluation.fusion import WEIGHTED
from freestyle.evaluation.models import joint_weights, rank_embeddings, single_styles
from freestyle.evaluation.protocols import parse_protocol
from freestyle.files import write_text
from freestyle.model import FreestyleRet

OWN = "own"  # the variant that is the method itself


def run_cell(cell: Cell, ledger: Ledger) -> dict[str, Any]:
    """Train and evaluate one cell, and write its result into the ledger.

    A run that was killed goes on from its last checkpoint; a model that is there is not trained
    again.

    Args:
        cell: What to run.
        ledger: Where results lie.

    Returns:
        The cell's line.

    Raises:
        UserError: At bad input.
    """
    quiet()
    start = time.monotonic()
    model = train_cell(cell, ledger) if cell.trained else untrained(cell)
    trained = time.monotonic() - start
    results, ranks, gallery_size = measure(cell, model)
    settings = cell.settings()
    row = {
        "id": cell.id,
        "matrix": cell.matrix,
        "name": cell.name,
        "seed": cell.seed,
        "styles": cell.styles,
        "gallery_size": gallery_size,
        "trained_parameters": sum(p.numel() for p in model.trained_parameters().values()),
        "train_seconds": round(trained, 1),
        "seconds": round(time.monotonic() - start, 1),
        "results": results,
        "settings": settings,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    ledger.finish(row, ranks)
    shutil.rmtree(ledger.cell_folder(cell.id) / "checkpoints", ignore_errors=True)
    return row


def train_cell(cell: Cell, ledger: Ledger) -> FreestyleRet:
    """The cell's model, trained now or before."""
    from freestyle.training.cli import main as fit

    folder = ledger.cell_folder(cell.id)
    if not (folder / "model" / "model.safetensors").is_file():
        experiment = folder / "experiment.yaml"
        write_text(experiment, yaml.safe_dump(cell.config, sort_keys=False))
        command = [
            "fit",
            f"--config={experiment}",
            f"--trainer.default_root_dir={folder}",
            f"--seed_everything={cell.seed}",
        ]
        if (folder / "checkpoints" / "last.ckpt").is_file():
            command.append("--ckpt_path=last")
        fit(command)
    return FreestyleRet.from_pretrained(folder / "model", encoder=shared_encoder(*cell.encoder))


def untrained(cell: Cell) -> FreestyleRet:
    """Zero-shot, or style-centred fitted on the training queries."""
    from freestyle import baselines
    from freestyle.config import StyleConfig
    from freestyle.values import from_values

    encoder = shared_encoder(*cell.encoder)
    style = from_values(StyleConfig, cell.config["model"].get("style") or {})
    framing = cell.config["model"].get("framing", "whole")
    if framing == "both":  # nothing is trained that could join them
        framing = "whole"
    model = FreestyleRet(
        baselines.settings(cell.method, encoder.name, style=style, framing=framing),
        encoder=encoder,
    )
    if model.config.centred:
        train = open_cell_split(cell, cell.config["data"].get("train_split", "train"), cell.styles)
        fit_style_centred(model, train, cell.styles, **embedding_options(cell))
    return model


def measure(
    cell: Cell, model: FreestyleRet
) -> tuple[list[dict[str, Any]], dict[str, dict[str, list[int]]], int]:
    """Rows of every variant and protocol, ranks over the whole gallery, and its size."""
    variants = cell_variants(cell, model)
    wanted = cell.evaluate
    single = single_styles(wanted.styles)
    split = open_cell_split(cell, wanted.split, single)
    options = embedding_options(cell)
    embeddings = Embedder(variants, **options).embed(split, single)
    results: list[dict[str, Any]] = []
    ranks: dict[str, dict[str, list[int]]] = {}
    weights = {}
    if WEIGHTED in wanted.fusions:
        validation = cell.config["data"].get("val_split", "val")
        known = Embedder(variants, **options).embed(
            open_cell_split(cell, validation, single), single
        )
        weights = joint_weights(variants, known, wanted.styles)
    for name in wanted.protocols:
        protocol = parse_protocol(name)
        rows, outcomes = rank_embeddings(
            variants,
            embeddings,
            wanted.styles,
            protocol=protocol,
            fusions=wanted.fusions,
            weights=weights,
        )
        for row in rows:
            result = {"protocol": name, "variant": row.method, **row.to_json()}
            if row.fusion == WEIGHTED:
                result["weights"] = list(weights[row.method, row.style])
            results.append(result)
        if protocol.batch_size is None:
            ranks = {
                variant: {style: o.ranks.values.tolist() for style, o in by_style.items()}
                for variant, by_style in outcomes.items()
            }
    pictures = [style for style in single if style != "text"]
    for change in wanted.changes:
        changed = Embedder(variants, change=change, **options).embed(split, pictures)
        rows, _ = rank_embeddings(variants, changed, pictures)
        results += [
            {"protocol": "gallery", "variant": row.method, "change": change, **row.to_json()}
            for row in rows
        ]
    for row in results:
        row["method"], row["seed"] = cell.name, cell.seed
    return results, ranks, embeddings.split.n_gallery


def cell_variants(cell: Cell, model: FreestyleRet) -> dict[str, Variant]:
    """The method itself, and beside it what is always reported with it."""
    prompts = model.config.prompts
    dealt = prompts is not None and prompts.codes == "shuffled"
    variants = {OWN: Variant(model, style="shuffled" if dealt else "own")}
    if model.query_map is not None and model.prompts is not None:
        variants["map off"] = Variant(model, use_map=False)
    if model.calibration is not None:
        variants["calibration off"] = Variant(model, calibrate=False)
    if cell.evaluate.style_controls and model.reader is not None and not model.config.centred:
        for how in ("mean", "shuffled"):
            variants[f"{how} style"] = Variant(model, style=how)
    return variants


def embedding_options(cell: Cell) -> dict[str, Any]:
    """Device, decoding processes, cache and unreadable files, as the cell's training has them."""
    data, model = cell.config["data"], cell.config.get("model") or {}
    asked = (cell.config.get("trainer") or {}).get("accelerator", "auto")
    on_gpu = asked in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return {
        "device": "cuda" if on_gpu else "cpu",
        "num_workers": data.get("num_workers", 0),
        "on_broken": data.get("on_broken", "stop"),
        "cache_dir": model.get("cache_dir"),
    }


def open_cell_split(cell: Cell, split: str, styles: list[str]) -> Any:
    """A split of the cell's data set."""
    data = cell.config["data"]
    options = {k: data[k] for k in ("layout", "relevance", "name") if data.get(k)}
    return open_split(data["root"], split, styles, **options)


@lru_cache(maxsize=2)
def shared_encoder(name: str, revision: str | None) -> Any:
    """One encoder for all cells of a process."""
    return create(name, revision=revision)
