"""``eval.py``: models and controls on any folder in a known layout."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from freestyle import baselines
from freestyle.config import StyleConfig
from freestyle.datasets.readers import available_styles, open_split
from freestyle.errors import UserError
from freestyle.evaluation.centred import fit_style_centred
from freestyle.evaluation.embed import Variant
from freestyle.evaluation.fusion import DEFAULT_FUSION, RULES, WEIGHTED
from freestyle.evaluation.models import Evaluation, cases, evaluate_models, single_styles
from freestyle.evaluation.protocols import parse_protocol
from freestyle.evaluation.report import write_markdown, write_report
from freestyle.evaluation.tables import wide_table
from freestyle.model import FreestyleRet
from freestyle.options import OneSentenceParser, listed
from freestyle.values import from_values

CONTROLS = ("mean-style", "shuffled-style", "zero-style")


def parser() -> argparse.ArgumentParser:
    """All options of ``eval.py``."""
    p = OneSentenceParser(
        prog="eval.py",
        description="Recall@K of zero-shot and trained models over a gallery.",
    )
    p.add_argument("--config", help="experiment YAML: gives data set, encoder and style settings")
    p.add_argument(
        "--model", action="append", default=[], help="trained model folder or hub id; repeatable"
    )
    p.add_argument("--data", help="data set folder (default: the config's)")
    p.add_argument("--layout", help="auto, dsr, fscoco or imagenet-x (default: the config's)")
    p.add_argument("--relevance", choices=("instance", "class"), help="default: the layout's")
    p.add_argument("--encoder", help="encoder, where no model names one (default: the config's)")
    p.add_argument("--styles", help="comma-separated, joint ones with +: sketch,text,sketch+text")
    p.add_argument("--split", default="test", help="default: test")
    p.add_argument(
        "--methods",
        default="",
        help="further rows, comma-separated: style-centred (fitted on the training split), or "
        f"controls of the model: {', '.join(CONTROLS)}",
    )
    p.add_argument("--protocol", default="gallery", help="gallery (default) or batch:24")
    p.add_argument(
        "--fusion",
        default=DEFAULT_FUSION,
        help=f"rules for joint styles, comma-separated: {', '.join(RULES)}",
    )
    p.add_argument("--json", help="write the report here")
    p.add_argument("--markdown", help="write report.md here")
    p.add_argument("--grid", help="write a case-study grid (PNG) here")
    p.add_argument("--batch-size", type=int, default=64)
    p.add_argument("--num-workers", type=int, default=0, help="decoding processes")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument(
        "--on-broken", choices=("stop", "skip"), default="stop", help="at unreadable pictures"
    )
    return p


def main(args: Sequence[str]) -> Evaluation:
    """Run ``eval.py``.

    Raises:
        UserError: At bad input.
    """
    options = parser().parse_args(args)
    check_options(options)
    config = read_config(options.config) if options.config else {}
    data, own = config.get("data") or {}, config.get("model") or {}
    root = options.data or data.get("root")
    if not root:
        raise UserError("no data set: give --data FOLDER, or a --config that names one")
    layout = options.layout or data.get("layout") or "auto"
    protocol = parse_protocol(options.protocol)
    styles = listed(options.styles) or all_styles(root, layout)
    reading: dict[str, Any] = {"layout": layout}
    if root == data.get("root"):
        reading["name"] = data.get("name")
    relevance = options.relevance or data.get("relevance")
    if relevance:
        reading["relevance"] = relevance
    split = open_split(root, options.split, single_styles(styles), **reading)
    settings: dict[str, Any] = {
        "device": options.device,
        "batch_size": options.batch_size,
        "num_workers": options.num_workers,
        "on_broken": options.on_broken,
    }
    variants = collect(options, own)
    methods = listed(options.methods)
    if "style-centred" in methods:
        encoder = next(iter(variants.values())).model.encoder
        style = from_values(StyleConfig, own.get("style") or {})
        model = FreestyleRet(
            baselines.settings("style-centred", encoder.name, style=style), encoder=encoder
        )
        trained = data.get("styles") or _trained_styles(variants) or picture_styles(styles)
        train = open_split(root, data.get("train_split") or "train", trained, **reading)
        fit_style_centred(model, train, trained, **settings)
        variants["style-centred"] = Variant(model)
    if options.grid and len(variants) < 2:
        raise UserError("--grid compares two methods: give --model or --methods, or leave it out")
    validation = None
    if WEIGHTED in listed(options.fusion):
        joint = [style for style in styles if "+" in style]
        validation = open_split(
            root, data.get("val_split") or "val", single_styles(joint), **reading
        )
    result = evaluate_models(
        variants,
        split,
        styles,
        protocol=protocol,
        fusions=listed(options.fusion) or [DEFAULT_FUSION],
        validation=validation,
        command=shlex.join(["python", "eval.py", *args]),
        **settings,
    )
    publish(result, options, _trained_styles(variants))
    return result


def check_options(options: argparse.Namespace) -> None:
    """Refuse, before anything is computed, what would fail in the middle.

    Raises:
        UserError: If a number, the device or a fusion rule cannot be used.
    """
    if options.batch_size < 1:
        raise UserError(f"--batch-size is {options.batch_size}: use 1 or more")
    if options.num_workers < 0:
        raise UserError(f"--num-workers is {options.num_workers}: use 0 or more")
    for rule in listed(options.fusion):
        if rule not in RULES:
            raise UserError(f"unknown rule '{rule}' in --fusion: use {', '.join(RULES)}")
    try:
        torch.empty(1, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {options.device} is not there: use cpu or cuda") from error


def all_styles(root: str, layout: str) -> list[str]:
    """Every picture style of a data set, and text where there are captions."""
    styles = available_styles(root, layout)
    return [*styles, "text"] if (Path(root) / "text").is_dir() else styles


def publish(result: Evaluation, options: argparse.Namespace, trained: Sequence[str]) -> None:
    """Table to the terminal; JSON, Markdown and grid where asked for."""
    seen = {*trained, "text"}
    rows = result.report.rows
    unseen = [s for s in single_styles([r.style for r in rows]) if trained and s not in seen]
    report = result.report
    sys.stdout.write(
        f"\n{report.dataset}, {report.split}: {report.gallery_size:,} photos, "
        f"protocol {report.protocol}, weights {report.weights}\n\n"
        f"{wide_table(rows, unseen=unseen, mean_over=trained)}\n"
    )
    if result.embeddings.skipped:
        sys.stdout.write(f"left out {len(result.embeddings.skipped)} unreadable files\n")
    if options.json:
        write_report(report, options.json)
    if options.markdown:
        write_markdown(report, options.markdown, unseen=unseen, mean_over=trained)
    if options.grid:
        from freestyle.evaluation.figures import case_grid

        methods = list(result.outcomes)
        styles = [s for s in result.outcomes[methods[0]] if "+" not in s and s != "text"]
        found = cases(result, [methods[0], methods[-1]], styles)
        if not found:
            raise UserError(
                f"--grid {options.grid} has nothing to compare: give --model or --methods, and "
                "single picture styles in which both differ"
            )
        case_grid(
            found,
            options.grid,
            gallery_size=report.gallery_size,
        )


def collect(options: argparse.Namespace, own: dict[str, Any]) -> dict[str, Variant]:
    """Zero-shot, then every model under its method's name, then controls of the last model."""
    methods = listed(options.methods)
    known = (*CONTROLS, "style-centred", "zero-shot")
    for method in methods:
        if method in baselines.METHODS and method not in known:
            raise UserError(
                f"'{method}' is trained: train it with train.py and give its folder with --model"
            )
        if method not in known:
            raise UserError(f"unknown method '{method}' in --methods: use {', '.join(known)}")
    models: list[FreestyleRet] = []
    for source in options.model:
        shared = models[0].encoder if models else None
        models.append(load_model(source, shared))
    if models:
        if options.encoder and options.encoder != models[0].encoder.name:
            raise UserError(
                f"--encoder {options.encoder} is not the encoder of --model "
                f"({models[0].encoder.name}): leave --encoder out"
            )
        encoder = models[0].encoder
        frozen = FreestyleRet.from_encoder(encoder.name, encoder=encoder)
    else:
        frozen = FreestyleRet.from_encoder(
            options.encoder or own.get("encoder") or "freestyle-mini"
        )
    variants = {"zero-shot": Variant(frozen)}
    for model in models:
        name = unused(model.config.method, variants)
        variants[name] = Variant(model)
        if model.query_map is not None and model.prompts is not None:
            variants[f"{name} (map off)"] = Variant(model, use_map=False)
    for control in methods:
        if control not in CONTROLS:
            continue
        if not models or models[-1].reader is None:
            raise UserError(
                f"--methods {control} needs a model that reads the query's style: "
                "give its folder with --model"
            )
        how = control.removesuffix("-style")
        variants[f"{models[-1].config.method} ({control})"] = Variant(models[-1], style=how)
    return variants


def load_model(source: str, shared: Any = None) -> FreestyleRet:
    """Load a model, on an encoder that is already there if it is the same."""
    from freestyle.pretrained import named_encoder

    if shared is not None and named_encoder(source) == shared.name:
        return FreestyleRet.from_pretrained(source, encoder=shared)
    return FreestyleRet.from_pretrained(source)


def unused(name: str, taken: dict[str, Variant]) -> str:
    """A name that is still free: ``freestyle``, ``freestyle 2``, ..."""
    if name not in taken:
        return name
    number = 2
    while f"{name} {number}" in taken:
        number += 1
    return f"{name} {number}"


def picture_styles(styles: Sequence[str]) -> list[str]:
    """Single styles other than text."""
    return [style for style in single_styles(styles) if style != "text"]


def _trained_styles(variants: dict[str, Variant]) -> list[str]:
    for variant in reversed(variants.values()):
        if variant.model.config.styles:
            return list(variant.model.config.styles)
    return []


def read_config(path: str | Path) -> dict[str, Any]:
    """The experiment YAML as a dictionary.

    Raises:
        UserError: If it is missing or no YAML mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read --config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path} is not valid YAML: mend it") from error
    sections = [values]
    if isinstance(values, dict):
        sections += [values.get(key) or {} for key in ("data", "model")]
    if not all(isinstance(section, dict) for section in sections):
        raise UserError(f"--config {path} holds no settings: use one of configs/*.yaml")
    return values
