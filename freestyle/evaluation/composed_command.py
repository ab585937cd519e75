"""``freestyle eval-composed``: composed queries on any of the benchmarks, by any of the presets."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from freestyle.datasets.composed import ComposedSplit
from freestyle.errors import UserError
from freestyle.evaluation.command import OneSentenceParser, listed
from freestyle.evaluation.composed import (
    ComposedOutcome,
    Prepared,
    evaluate_composed,
    metric_names,
    prepare,
)
from freestyle.evaluation.composed_report import (
    ComposedReport,
    difference_table,
    differences_of,
    rows_of,
    table,
    write_markdown,
    write_report,
)
from freestyle.evaluation.composed_setup import (
    collect_presets,
    load_encoder,
    make_composer,
    open_composed,
    read_settings,
    tune,
)
from freestyle.transport.presets import Preset


@dataclass
class ComposedEvaluation:
    """All that came of one composed evaluation.

    Attributes:
        report: Numbers and setting; no rows where targets are not public.
        outcomes: By preset.
        prepared: What they were computed on.
        presets: By name.
    """

    report: ComposedReport
    outcomes: dict[str, ComposedOutcome]
    prepared: Prepared
    presets: dict[str, Preset]


def parser() -> OneSentenceParser:
    """All options of ``freestyle eval-composed``."""
    p = OneSentenceParser(
        prog="freestyle eval-composed",
        description="A picture and a text that changes it, ranked by STiTch and its rivals.",
    )
    p.add_argument("--config", help="YAML: benchmark, model, views, composer, presets")
    p.add_argument("--model", help="model folder or hub id (default: the config's)")
    p.add_argument("--split", help="default: the config's")
    p.add_argument("--styles", help="reference styles of the emoji benchmark, comma-separated")
    p.add_argument("--presets", help="names, comma-separated (default: the config's)")
    p.add_argument("--captions", help="a JSON file of captions, instead of the config's composer")
    p.add_argument("--save-captions", help="write what the composer wrote here")
    p.add_argument("--cache", default=None, help="folder of embedded sets (default: none is kept)")
    p.add_argument("--json", help="write the report here")
    p.add_argument("--markdown", help="write the report as Markdown here")
    p.add_argument("--explain", help="folder: draw which view met which caption")
    p.add_argument("--explain-preset", default="stitch", help="whose plans are drawn (stitch)")
    p.add_argument("--explain-count", type=int, default=3, help="queries drawn, by seed (3)")
    p.add_argument("--submit", help="folder: write the submission files of CIRR or CIRCO")
    p.add_argument("--submit-preset", help="which preset is submitted (default: the last)")
    p.add_argument("--validate", action="append", default=[], help="check a submission file")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return p


def main(args: Sequence[str]) -> ComposedEvaluation | None:
    """Run ``freestyle eval-composed``.

    Raises:
        UserError: At bad input.
    """
    options = parser().parse_args(args)
    if not options.config:
        raise UserError("give --config: a YAML such as configs/composed/emoji.yaml")
    settings = read_settings(options.config)
    if options.captions:
        settings["composer"] = {"kind": "cached", "path": options.captions}
    if options.styles:
        settings["data"] = {**settings["data"], "styles": listed(options.styles)}
    presets = collect_presets(settings, listed(options.presets))
    split = open_composed(settings["data"], options.split)
    if options.validate:
        from freestyle.evaluation.submissions import validate

        for path in options.validate:
            sys.stdout.write(validate(path, split) + "\n")
        return None
    _check_options(options, presets, split)
    compared(settings, split)
    command = shlex.join(["freestyle", "eval-composed", *args])
    evaluation = run(settings, presets, split, options, command)
    publish(evaluation, options)
    return evaluation


def _check_options(options: Namespace, presets: dict[str, Preset], split: ComposedSplit) -> None:
    if options.explain and options.explain_preset not in presets:
        raise UserError(
            f"--explain-preset {options.explain_preset} is not evaluated: use {', '.join(presets)}"
        )
    if options.submit_preset and options.submit_preset not in presets:
        raise UserError(
            f"--submit-preset {options.submit_preset} is not evaluated: use {', '.join(presets)}"
        )
    if options.explain_count < 1:
        raise UserError(f"--explain-count is {options.explain_count}: use 1 or more")
    if options.submit and split.dataset not in ("CIRR", "CIRCO"):
        raise UserError(f"{split.dataset} has no evaluation server: --submit is for CIRR and CIRCO")


def run(
    settings: dict[str, Any],
    presets: dict[str, Preset],
    split: ComposedSplit,
    options: Namespace,
    command: str,
) -> ComposedEvaluation:
    """Embed, tune where asked for, rank by every preset."""
    encoder = load_encoder(settings, options.model, options.cache, options.device)
    benchmark = settings["data"]["benchmark"]
    composer = make_composer(settings.get("composer"), encoder, benchmark)
    media = any(preset.medium_step for preset in presets.values())
    prepared = prepare(split, encoder, composer, media=media)
    written = dict(prepared.compositions)
    tuned: dict[str, object] = {}
    for section in _tunes(settings):
        name = section.get("preset", "stitch")
        if name not in presets:
            continue  # not among those that were asked for
        validation = open_composed(settings["data"], section.get("split", "val"))
        _check_names(split, validation, options, settings)
        known = prepare(validation, encoder, composer, media=media)
        written.update(known.compositions)
        best = tune(presets[name], section.get("grid") or {}, known)
        presets[name] = best.preset
        tuned[name] = {**best.chosen, f"{best.metric} on {validation.split}": round(best.value, 4)}
    if options.save_captions:
        from freestyle.transport.captions import write_compositions

        write_compositions(options.save_captions, written)
    compare = compared(settings, split)
    for name in compare["single"]:
        if name in presets:
            single = presets[name].single()
            presets[single.name] = single
    outcomes = {name: evaluate_composed(prepared, preset) for name, preset in presets.items()}
    rows, differences = [], []
    if split.public:
        rows = [row for name, outcome in outcomes.items() for row in rows_of(name, outcome, split)]
        first = compare["preset"]
        if first in outcomes:
            differences = differences_of(first, outcomes, split, compare["metrics"])
    report = ComposedReport(
        dataset=split.dataset,
        split=split.split,
        gallery_size=len(split.gallery),
        weights=prepared.weights,
        model=options.model or str(settings.get("model", {}).get("path") or "frozen encoder"),
        composer=composer.name,
        views=encoder.views.tag,
        command=command,
        note=split.note,
        rows=tuple(rows),
        differences=tuple(differences),
        tuned=tuned,
    )
    return ComposedEvaluation(report, outcomes, prepared, presets)


def _tunes(settings: dict[str, Any]) -> list[dict]:
    section = settings.get("tune") or []
    sections = [section] if isinstance(section, dict) else section
    if not isinstance(sections, list) or not all(isinstance(s, dict) for s in sections):
        raise UserError("tune must hold preset, split and grid, or a list of such")
    return sections


def _check_names(
    split: ComposedSplit, tuning: ComposedSplit, options: Namespace, settings: dict[str, Any]
) -> None:
    """Captions are kept by query id: those of two splits in one file need different ids."""
    one_file = options.save_captions or (settings.get("composer") or {}).get("kind") == "cached"
    if not one_file or tuning.split == split.split:
        return
    if both := {q.id for q in split.queries} & {q.id for q in tuning.queries}:
        raise UserError(
            f"query id {min(both)!r} is in {split.split} and in {tuning.split}, so one file cannot "
            "hold the captions of both: leave tune out of the config"
        )


def compared(settings: dict[str, Any], split: ComposedSplit) -> dict[str, Any]:
    """The ``compare`` section: preset, names of ``single``, metrics (all where none are named).

    Raises:
        UserError: If it does not fit.
    """
    values = settings.get("compare") or {}
    if not isinstance(values, dict):
        raise UserError(f"compare is {values!r}: give preset, single and metrics")
    names = metric_names(split)
    single, metrics = values.get("single") or [], values.get("metrics") or names
    for name, value in (("single", single), ("metrics", metrics)):
        if not isinstance(value, list):
            raise UserError(f"compare.{name} is {value!r}: give a list")
    for name in metrics:
        if name not in names:
            raise UserError(f"compare.metrics has '{name}': use {', '.join(names)}")
    return {"preset": values.get("preset"), "single": single, "metrics": metrics}


def publish(evaluation: ComposedEvaluation, options: Namespace) -> None:
    """Table to the terminal; files where asked for."""
    report, split = evaluation.report, evaluation.prepared.split
    sys.stdout.write(
        f"\n{report.dataset}, {report.split}: {report.gallery_size:,} pictures, "
        f"{len(split.queries):,} queries, weights {report.weights}\n\n"
    )
    names = list(dict.fromkeys(d.metric for d in report.differences)) or metric_names(split)
    if report.rows:
        sys.stdout.write(table(report, names) + "\n")
        if report.tuned:
            sys.stdout.write(f"\nchosen on validation: {report.tuned}\n")
        if report.differences:
            sys.stdout.write("\n" + difference_table(report) + "\n")
    else:
        sys.stdout.write("targets are not public: write a submission with --submit\n")
    if options.json:
        write_report(report, options.json)
    if options.markdown:
        write_markdown(report, options.markdown, names)
    if options.submit:
        from freestyle.evaluation.submissions import write_submission

        chosen = options.submit_preset or list(evaluation.outcomes)[-1]
        for path in write_submission(evaluation.outcomes[chosen], split, options.submit):
            sys.stdout.write(f"{path}: {chosen}\n")
    if options.explain:
        from freestyle.evaluation.explain import explain_queries

        for path in explain_queries(
            evaluation.prepared,
            evaluation.presets[options.explain_preset],
            evaluation.outcomes[options.explain_preset],
            options.explain,
            count=options.explain_count,
        ):
            sys.stdout.write(f"{path}\n")
