"""``make demo``: from a fresh clone to an honest Recall@K table in one command."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from freestyle.evaluation.models import Evaluation

CONFIG = "configs/emoji_mini_freestyle.yaml"
ADAPTER_CONFIG = "configs/emoji_mini_query_adapter.yaml"


def main(args: Sequence[str]) -> None:
    """Fit the style space, train, evaluate, draw; everything lands in one folder.

    Raises:
        UserError: At bad input.
    """
    parser = argparse.ArgumentParser(prog="freestyle demo", description=main.__doc__)
    parser.add_argument("--out", default="runs/demo", help="folder for model, report, figures")
    parser.add_argument("--config", default=CONFIG, help=f"default: {CONFIG}")
    options = parser.parse_args(args)
    from freestyle.frozen import shared_memory

    with shared_memory():
        run(Path(options.out), options.config, shlex.join(["freestyle", "demo", *args]))


def run(out: Path, config: str, command: str) -> None:
    """The four steps of the demo."""
    start = time.monotonic()
    _say("1/4  Fitting the style space, training what a query's style does to its embedding")
    train(config, out)
    _say("2/4  Training the control: one linear query adapter")
    adapter = out / "controls" / "query-adapter"
    train(ADAPTER_CONFIG, adapter)
    _say("3/4  Ranking the whole test gallery")
    evaluation, trained, unseen = evaluate(config, [adapter / "model", out / "model"], command)
    _say("4/4  Writing report and figures")
    publish(evaluation, out, trained, unseen)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    _say(f"Done in {minutes} min {seconds} s. Model, report and figures: {out}/")


def train(config: str | Path, out: Path, overrides: Sequence[str] = ()) -> None:
    """Train by a config file into ``out``, from the beginning."""
    import shutil

    from freestyle.training.cli import main as fit

    quiet()
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    fit(["fit", "--config", str(config), f"--trainer.default_root_dir={out}", *overrides])


def evaluate(
    config: str | Path, models: Sequence[Path], command: str
) -> tuple[Evaluation, list[str], list[str]]:
    """Zero-shot, style-centred and the given models on the config's test split.

    Args:
        config: Experiment YAML: data set and style settings.
        models: Trained model folders.
        command: Kept in the report.

    Returns:
        The evaluation, the styles trained on, and the unseen ones.
    """
    from freestyle import baselines
    from freestyle.config import StyleConfig
    from freestyle.datasets.readers import available_styles, open_split
    from freestyle.evaluation.centred import fit_style_centred
    from freestyle.evaluation.command import read_config
    from freestyle.evaluation.embed import Variant
    from freestyle.evaluation.models import evaluate_models
    from freestyle.model import FreestyleRet

    values = read_config(config)
    data = values["data"]
    root, name, trained = data["root"], data.get("name"), list(data["styles"])
    unseen = [style for style in available_styles(root) if style not in trained]
    styles = [*trained, "text", *unseen]
    loaded = [FreestyleRet.from_pretrained(models[0])]
    loaded += [FreestyleRet.from_pretrained(m, encoder=loaded[0].encoder) for m in models[1:]]
    encoder = loaded[0].encoder
    centred = FreestyleRet(
        baselines.settings(
            "style-centred", encoder.name, style=StyleConfig(**values["model"].get("style", {}))
        ),
        encoder=encoder,
    )
    fit_style_centred(centred, open_split(root, "train", trained, name=name), trained)
    variants = {
        "zero-shot": Variant(FreestyleRet.from_encoder(encoder.name, encoder=encoder)),
        "style-centred": Variant(centred),
    }
    for model in loaded:
        variants[model.config.method] = Variant(model)
        if model.query_map is not None and model.prompts is not None:
            variants[f"{model.config.method} (map off)"] = Variant(model, use_map=False)
    split = open_split(root, "test", styles, name=name)
    return evaluate_models(variants, split, styles, command=command), trained, unseen


def publish(
    evaluation: Evaluation, out: Path, trained: Sequence[str], unseen: Sequence[str]
) -> None:
    """Report as JSON and Markdown, curve, case studies; the table to the terminal."""
    from freestyle.evaluation.figures import case_grid, training_curve
    from freestyle.evaluation.models import cases
    from freestyle.evaluation.report import write_markdown, write_report
    from freestyle.evaluation.tables import wide_table

    report = evaluation.report
    write_report(report, out / "report.json")
    write_markdown(report, out / "report.md", unseen=unseen, mean_over=trained)
    training_curve(out / "metrics.csv", out / "training_curve.png")
    case_grid(
        cases(evaluation, ["zero-shot", "freestyle"], [*trained, *unseen]),
        out / "case_studies.png",
        gallery_size=report.gallery_size,
        title="Drawn by seed from queries that only one of the two finds",
        names={"zero-shot": "frozen encoder", "freestyle": "freestyle"},
    )
    table = wide_table(report.rows, unseen=unseen, mean_over=trained)
    sys.stdout.write(
        f"\n{report.dataset}, {report.split} split: every query ranks all {report.gallery_size} "
        f"photos. Encoder {report.weights}\n\n{table}\n\n"
    )


def quiet() -> None:
    """Keep the terminal to what a reader needs; warnings of our own still show."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*in eval mode at the start of training.*",
        ".*isinstance.treespec.*",
        ".*model summary.*",
        ".*is supported for.*",
    ):
        warnings.filterwarnings("ignore", message=text)


def _say(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()
