"""``freestyle figures``: what a trained model does to styles, measured and drawn."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from freestyle.datasets.readers import open_split
from freestyle.errors import UserError
from freestyle.evaluation.command import (
    OneSentenceParser,
    all_styles,
    listed,
    load_model,
    picture_styles,
    read_config,
    unused,
)
from freestyle.evaluation.embed import Embedder
from freestyle.evaluation.map_figures import CONTROL, FIGURES, Measured, NothingToDraw, say
from freestyle.evaluation.models import evaluate_models
from freestyle.evaluation.variants import Variant
from freestyle.model import FreestyleRet


def parser() -> argparse.ArgumentParser:
    """All options of ``freestyle figures``."""
    p = OneSentenceParser(
        prog="freestyle figures", description="Draw what a trained model does to styles."
    )
    p.add_argument("--model", required=True, help="trained model folder or hub id")
    where = p.add_mutually_exclusive_group(required=True)
    where.add_argument("--config", help="experiment YAML that names the data set")
    where.add_argument("--data", help="data set folder")
    p.add_argument("--split", default="test", help="default: test")
    p.add_argument("--styles", help="comma-separated single styles (default: all there are)")
    p.add_argument("--out", default="runs/figures", help="folder of the figures")
    p.add_argument("--seed", type=int, default=0, help="of maps and drawn queries")
    return p


def main(args: Sequence[str]) -> None:
    """Measure once, draw every figure; those that do not apply are left out with a sentence.

    Raises:
        UserError: At bad input.
    """
    options = parser().parse_args(args)
    measured = measure(options)
    for name, draw in FIGURES.items():
        path = Path(options.out) / name
        try:
            say(f"{path}: {draw(measured, path)}")
        except NothingToDraw as reason:
            say(f"{name} is left out: {reason}")


def measure(options: argparse.Namespace) -> Measured:
    """Check the options, then embed and rank with the frozen encoder and the model.

    Raises:
        UserError: At bad input.
    """
    if not 0 <= options.seed < 2**32:
        raise UserError(f"--seed is {options.seed}: use 0 to {2**32 - 1}")
    data = (read_config(options.config).get("data") or {}) if options.config else {}
    root = options.data or data.get("root")
    if not root:
        raise UserError(f"--config {options.config} names no data set: give --data FOLDER instead")
    reading = {key: data[key] for key in ("layout", "relevance", "name") if data.get(key)}
    there = all_styles(root, reading.get("layout", "auto"))
    styles = list(dict.fromkeys(listed(options.styles))) or there
    for style in styles:
        if style not in there:
            known = ", ".join(there) or "none"
            what = "joint" if "+" in style else "not a style"
            raise UserError(f"--styles: '{style}' is {what} of {root}: use some of {known}")
    if not picture_styles(styles):
        raise UserError(f"--styles {','.join(styles)} has no pictures: name a picture style too")
    split = open_split(root, options.split, styles, **reading)
    try:
        Path(options.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make --out {options.out} ({error.strerror}): choose another folder"
        ) from error
    model = load_model(options.model)
    frozen = FreestyleRet.from_encoder(model.encoder.name, encoder=model.encoder)
    name = unused(model.config.method, {CONTROL: None})
    variants = {CONTROL: Variant(frozen), name: Variant(model)}
    embedder = Embedder(variants, device="cuda" if torch.cuda.is_available() else "cpu")
    evaluation = evaluate_models(variants, split, styles, embedder=embedder)
    codes = {}
    if model.reader is not None and model.space is not None:
        for style in picture_styles(styles):
            sources = evaluation.embeddings.split.queries[style].sources
            codes[style] = embedder.style_codes(sources, model.reader.tag, f"Reading {style}")
    trained = model.config.styles
    unseen = [s for s in picture_styles(styles) if trained and s not in trained]
    groups = read_groups(Path(root) / "concepts.json")
    return Measured(model, name, embedder, evaluation, codes, unseen, groups, options.seed)


def read_groups(path: Path) -> dict[str, str]:
    """Groups of concepts by stem; none where there is no such file.

    Raises:
        UserError: The file is there but is no list of concepts.
    """
    if not path.is_file():
        return {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {str(row["stem"]): str(row["group"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no list of concepts with 'stem' and 'group': mend it, or move it away "
            "from --data to do without groups"
        ) from error
