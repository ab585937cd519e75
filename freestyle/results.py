"""``make results``: every control over several seeds, with paired intervals."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from freestyle.demo import CONFIG, evaluate, quiet, train

TRAINED = {
    "query-adapter": "configs/emoji_mini_query_adapter.yaml",
    "vpt-shallow": "configs/emoji_mini_vpt_shallow.yaml",
    "vpt-deep": "configs/emoji_mini_vpt_deep.yaml",
    "freestyle": CONFIG,
}
OURS = "freestyle"


def main(args: Sequence[str]) -> None:
    """Train every method with every seed, evaluate all, write one table.

    A finished run (its ``model/`` exists) is not trained again.

    Raises:
        UserError: At bad input.
    """
    parser = argparse.ArgumentParser(prog="freestyle results", description=main.__doc__)
    parser.add_argument("--out", default="runs/results", help="folder for runs and report")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated; default: 0,1,2")
    options = parser.parse_args(args)
    out = Path(options.out)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    command = shlex.join(["freestyle", "results", *args])
    from freestyle.frozen import shared_memory

    quiet()
    with shared_memory():
        evaluations, trained, unseen = run_seeds(out, seeds, command)
    publish(evaluations, out, trained, unseen)


def run_seeds(
    out: Path, seeds: Sequence[int], command: str
) -> tuple[dict[int, Any], list[str], list[str]]:
    """Train and evaluate with every seed.

    Returns:
        Evaluations by seed, the styles trained on, the unseen ones.
    """
    evaluations: dict[int, Any] = {}
    trained: list[str] = []
    unseen: list[str] = []
    for seed in seeds:
        models = []
        for method, config in TRAINED.items():
            run = out / f"{method}-seed{seed}"
            if not (run / "model" / "model.safetensors").is_file():
                sys.stdout.write(f"\n{method}, seed {seed}\n")
                sys.stdout.flush()
                train(config, run, [f"--seed_everything={seed}"])
            models.append(run / "model")
        sys.stdout.write(f"\nRanking, seed {seed}\n")
        sys.stdout.flush()
        evaluations[seed], trained, unseen = evaluate(CONFIG, models, command, style_controls=True)
    return evaluations, trained, unseen


def publish(
    evaluations: dict[int, Any], out: Path, trained: Sequence[str], unseen: Sequence[str]
) -> None:
    """Merge the seeds' reports; write JSON and Markdown; print table and differences."""
    from dataclasses import replace

    from freestyle.evaluation.report import write_report
    from freestyle.evaluation.tables import markdown_report, wide_table
    from freestyle.files import write_json, write_text

    reports = [evaluation.report for evaluation in evaluations.values()]
    first, *others = reports
    rows = list(first.rows)
    for report in others:
        rows += [row for row in report.rows if row.seed is not None]
    report = replace(first, rows=tuple(rows))
    write_report(report, out / "report.json")
    differences = compare(evaluations, trained, unseen)
    write_json(out / "differences.json", differences)
    lines = difference_table(differences)
    text = markdown_report(report, unseen=unseen, mean_over=trained)
    write_text(out / "report.md", f"{text}\n## {OURS} against each control\n\n{lines}\n")
    table = wide_table(report.rows, unseen=unseen, mean_over=trained)
    sys.stdout.write(f"\n{table}\n\n{lines}\n\nReport: {out}/report.md\n")


def compare(
    evaluations: dict[int, Any], trained: Sequence[str], unseen: Sequence[str]
) -> list[dict[str, Any]]:
    """R@1 of ours minus each other method, paired by query, averaged over seeds.

    Returns:
        One entry per method and scope (mean of the trained styles, each unseen style, text):
        difference in points of R@1 and its bootstrap 95 % interval.
    """
    from freestyle.evaluation.metrics import hits_at, paired_bootstrap_difference

    methods = [m for m in next(iter(evaluations.values())).outcomes if m != OURS]
    scopes = {f"mean of {', '.join(trained)}": list(trained)}
    scopes |= {f"{style} (unseen)": [style] for style in unseen} | {"text": ["text"]}
    entries = []
    for method in methods:
        for scope, styles in scopes.items():
            hits = {
                name: np.array(
                    [
                        [hits_at(e.outcomes[name][style].ranks, 1) for style in styles]
                        for e in evaluations.values()
                    ]
                )  # (seeds, styles, Q)
                for name in (OURS, method)
            }
            found = paired_bootstrap_difference(hits[OURS], hits[method])
            entries.append(
                {
                    "control": method,
                    "scope": scope,
                    "difference": found.mean,
                    "interval": [found.low, found.high],
                    "excludes_zero": found.excludes_zero,
                }
            )
    return entries


def difference_table(differences: Sequence[dict[str, Any]]) -> str:
    """The comparison as a Markdown table, in points of R@1."""
    scopes = list(dict.fromkeys(entry["scope"] for entry in differences))
    methods = list(dict.fromkeys(entry["control"] for entry in differences))
    cells = {(e["control"], e["scope"]): e for e in differences}
    lines = [
        f"| {OURS} minus | " + " | ".join(scopes) + " |",
        "|---" * (len(scopes) + 1) + "|",
    ]
    for method in methods:
        row = []
        for scope in scopes:
            entry = cells[method, scope]
            low, high = entry["interval"]
            row.append(f"{100 * entry['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
        lines.append(f"| {method} | " + " | ".join(row) + " |")
    return "\n".join(lines)
