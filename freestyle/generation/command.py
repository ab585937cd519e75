"""``freestyle generate``: query sets in several styles from any photos."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from freestyle.datasets.photos import Photo, read_photos
from freestyle.errors import UserError
from freestyle.generation import catalogue, runner
from freestyle.generation.card import write_card
from freestyle.generation.cir import Benchmark, publish, read_benchmark
from freestyle.generation.finish import finish, unfinished
from freestyle.generation.journal import ERRORS, PHOTOS, Journal, locked
from freestyle.generation.parts import Recipe
from freestyle.generation.set_folder import RECIPE, open_set, read_mapping, working_folder
from freestyle.generation.sheet import contact_sheet
from freestyle.generation.splits import SPLITS, parse_shares
from freestyle.generation.statistics import style_statistics
from freestyle.options import OneSentenceParser, listed

WRITTEN = (
    RECIPE,
    ERRORS,
    "contact_sheet.png",
    "statistics.json",
    "statistics.md",
    "CARD.md",
    "references.json",
)


def parser() -> argparse.ArgumentParser:
    """All options of ``freestyle generate``."""
    p = OneSentenceParser(
        prog="freestyle generate",
        description="Make query sets in several styles from photos, in the DSR layout.",
    )
    p.add_argument("photos", help="folder, list (.txt, .jsonl), tar shards, or a data set")
    p.add_argument("--out", required=True, help="folder of the set")
    p.add_argument(
        "--styles", default="art,sketch,mosaic", help="comma-separated; --list-styles shows all"
    )
    p.add_argument("--list-styles", action="store_true", help="show all styles and stop")
    p.add_argument("--styles-file", help="YAML of further named styles")
    p.add_argument(
        "--layout", default="auto", help="of the photos: auto, folder, list, shards, ..."
    )
    p.add_argument(
        "--art",
        choices=catalogue.ART_ENGINES,
        help="engine of the style art: npr needs no download (default), gram takes textures from "
        "pictures, animatediff draws from captions, animatediff-v2v redraws the photo",
    )
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="STYLE.SETTING=VALUE",
        help="change a setting, such as sketch.drop=0.3 or art.preset=toonyou; repeatable",
    )
    p.add_argument(
        "--cir",
        action="store_true",
        help="PHOTOS is a composed-retrieval benchmark: draw its reference pictures",
    )
    p.add_argument("--captioner", help="BLIP checkpoint that writes missing captions")
    p.add_argument(
        "--max-side",
        type=int,
        help="pixels; 0 keeps photos as they are (default: 640, with --cir 0)",
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument(
        "--photos",
        dest="keep_photos",
        choices=("link", "copy", "symlink"),
        default="link",
        help="how photos come into the set (default: hard links)",
    )
    p.add_argument("--resume", action="store_true", help="go on with the set that is in --out")
    p.add_argument("--verify", action="store_true", help="with --resume: compare files' SHA-256")
    p.add_argument("--strict", action="store_true", help="stop at the first broken photo")
    p.add_argument("--shard", help="0/8 makes the first eighth; torchrun and SLURM are understood")
    p.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="what runs the parts"
    )
    p.add_argument("--workers", type=int, help="processes (default: one per core, or 0 on a GPU)")
    p.add_argument("--part-size", type=int, default=32, help="photos per part")
    p.add_argument("--device", help="of networks (default: a GPU where there is one)")
    p.add_argument(
        "--splits", help="percent of train,val,test (default: the source's own, or 80,5,15)"
    )
    p.add_argument("--near", type=int, default=4, help="bits between near duplicates; -1 for none")
    p.add_argument("--sheet-rows", type=int, default=12, help="photos on the contact sheet")
    p.add_argument("--statistics", type=int, default=200, help="photos compared; 0 leaves it out")
    return p


def main(args: Sequence[str]) -> None:
    """Run ``freestyle generate``.

    Raises:
        UserError: At bad input, or where the output cannot be written.
    """
    if "--list-styles" in args:
        _list_styles()
        return
    options = parser().parse_args(args)
    if options.max_side is None:
        options.max_side = 0 if options.cir else 640
    _check(options)
    benchmark = read_benchmark(options.photos) if options.cir else None
    photos = list(benchmark.photos) if benchmark else read_photos(options.photos, options.layout)
    recipe = read_recipe(options, photos)
    shares = parse_shares(options.splits) if options.splits else _default_shares(photos)
    root = working_folder(Path(options.out))
    journal = Journal(root)
    shard = runner.parse_shard(options.shard)
    with locked(journal.parts / f"shard-{shard.name}.lock", wait=False):
        styles = open_set(root, recipe, resume=options.resume, sharing=shard.count > 1)
        journal.clean(shard.name)
        done, broken = journal.finished(hashes=options.verify)
        parts = runner.plan(
            photos, recipe.styles, done, broken, shard, options.part_size, journal.next_number()
        )
        device = options.device or _device(recipe)
        runner.run_parts(
            parts,
            recipe,
            root,
            workers=_workers(options, recipe),
            device=device,
            strict=options.strict,
            engine=options.engine,
        )
        with locked(journal.parts / "finish.lock", wait=True):
            _finish(journal, photos, recipe, styles, shares, options, benchmark)


def _check(options: argparse.Namespace) -> None:
    for name, least in (
        ("part_size", 1),
        ("max_side", 0),
        ("sheet_rows", 0),
        ("statistics", 0),
        ("near", -1),
    ):
        value = getattr(options, name)
        if value < least:
            raise UserError(f"--{name.replace('_', '-')} is {value}: use {least} or more")
    if options.workers is not None and options.workers < 0:
        raise UserError(f"--workers is {options.workers}: use 0 or more")
    if options.near > 16:
        raise UserError(f"--near is {options.near}: use 16 bits of 64 or less")


def read_recipe(options: argparse.Namespace, photos: Sequence[Photo]) -> Recipe:
    """The settings that the options name, checked.

    Raises:
        UserError: At unknown styles or settings.
    """
    names = list(dict.fromkeys(listed(options.styles)))
    if not names:
        raise UserError("--styles is empty: name styles such as art,sketch,mosaic")
    captioned = all(photo.caption or photo.broken for photo in photos)
    if "text" not in names and (captioned or options.captioner):
        names.append("text")
    changes = dict(_change(text) for text in options.set)
    if options.captioner:
        changes["text.model"] = options.captioner
    styles = catalogue.choose(names, file=options.styles_file, art=options.art, changes=changes)
    return Recipe(styles, options.seed, options.max_side or None, options.keep_photos)


def _change(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text} changes nothing: write STYLE.SETTING=VALUE")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"--set {text} has no readable value: quote it") from error


def _default_shares(photos: Sequence[Photo]) -> tuple[int, int, int] | None:
    """None where the source has splits of its own."""
    return None if any(photo.split for photo in photos) else (80, 5, 15)


def _device(recipe: Recipe) -> str:
    if runner.is_light(recipe):
        return "cpu"
    import torch

    return f"cuda:{runner.local_rank()}" if torch.cuda.is_available() else "cpu"


def _workers(options: argparse.Namespace, recipe: Recipe) -> int:
    if options.workers is not None:
        return options.workers
    cores = len(os.sched_getaffinity(0))
    return cores if runner.is_light(recipe) else int(options.engine == "ray")


def _finish(
    journal: Journal,
    photos: Sequence[Photo],
    recipe: Recipe,
    styles: Sequence[str],
    shares: tuple[int, int, int] | None,
    options: argparse.Namespace,
    benchmark: Benchmark | None,
) -> None:
    """Merge, if nothing is left to make by this or any other shard."""
    done, broken = journal.finished()
    left = unfinished(photos, styles, done, broken)
    if left:
        lacking = sorted(set(styles) - set(recipe.styles))
        if lacking and not runner.parse_shard(options.shard).count > 1:
            raise UserError(
                f"{left:,} photos lack {', '.join(lacking)}, which the set in {journal.root} has: "
                "name these in --styles too, with --resume"
            )
        _say(
            f"{left:,} photos are left to other shards, the last of which completes {journal.root}"
        )
        return
    root = journal.root
    written = [root / name for name in (*WRITTEN, *(f"{split}.json" for split in SPLITS))]
    written += [journal.sidecar(style) for style in (PHOTOS, *styles)]
    if benchmark is not None:
        written += [root / path.relative_to(benchmark.root) for path in benchmark.annotations]
    journal.sweep(written)
    complete = Recipe(
        {**read_mapping(journal.root / RECIPE)["styles"]},
        recipe.seed,
        recipe.max_side,
        recipe.keep_photos,
    )
    finished = finish(
        journal,
        photos,
        styles,
        done,
        broken,
        shares=shares,
        distance=options.near,
        lists=benchmark is None,
    )
    if benchmark is not None:
        publish(journal, benchmark, styles, set(finished.ids))
    journal.close()
    if options.sheet_rows:
        path = journal.root / "contact_sheet.png"
        contact_sheet(journal, finished.ids, styles, path, options.sheet_rows)
    statistics = None
    if options.statistics:
        statistics = style_statistics(journal, finished.ids, styles, options.statistics)
    write_card(journal, complete, finished, statistics)
    counts = ", ".join(f"{count:,} {split}" for split, count in finished.splits.items())
    what = counts if benchmark is None else f"references of {benchmark.name}"
    _say(f"{len(finished.ids):,} photos in {len(styles)} styles ({what}): {journal.root}")
    if broken:
        _say(f"{len(broken):,} photos could not be used: {journal.root / 'errors.jsonl'}")


def _list_styles() -> None:
    for name, spec in catalogue.named_styles().items():
        rest = ", ".join(f"{k} {v}" for k, v in spec.items() if k not in ("engine", "format"))
        _say(f"{name:<16}{spec['engine']:<16}{rest}")


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
