"""``freestyle index``: makes an index of photos and keeps it up to date; imports and exports."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from freestyle.errors import UserError
from freestyle.files import write_text
from freestyle.options import OneSentenceParser
from freestyle.search.making import agreeing, choose, existing, folder_of

if TYPE_CHECKING:
    from freestyle.search.fill import Summary
    from freestyle.search.photo_encoder import PhotoEncoder

SHOWN = 5  # broken photos that are named on the screen


def parser() -> argparse.ArgumentParser:
    """All options of ``freestyle index``."""
    p = OneSentenceParser(
        prog="freestyle index",
        description="Make an index of photos, or bring one up to date: only new and changed photos "
        "are embedded, and those that are gone go.",
    )
    p.add_argument(
        "photos",
        nargs="*",
        metavar="PHOTOS",
        help="folders, lists (.txt, .jsonl, .csv, .parquet) or webdataset .tar files; NAME=FOLDER "
        "names a source otherwise than by its last part",
    )
    p.add_argument("--out", help="the index: a folder, or qdrant://HOST:6333/COLLECTION")
    p.add_argument("--back-end", choices=("lance", "exact"), help="of a new folder index")
    p.add_argument("--encoder", help="of a new index (default: freestyle-mini, or the model's)")
    p.add_argument("--model", help="trained model that goes with the index, copied into its folder")
    p.add_argument(
        "--views",
        help="what the sets for reranking are made of: patches:10 (default; one pass), grid:10, "
        "pyramid:11, random:11, whole or none",
    )
    p.add_argument("--precision", help="float32, bfloat16 or float16 (default: bfloat16 on a GPU)")
    p.add_argument("--device", default="", help="of the encoder (default: a GPU if there is one)")
    p.add_argument("--thumbnail", type=int, default=256, help="their longer side; 0 for none")
    p.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="where photos are embedded"
    )
    p.add_argument(
        "--workers", type=int, help="decoding processes (default: one per core; 0 uses none)"
    )
    p.add_argument("--batch-size", type=int, help="photos per pass (default: 32, on a GPU 256)")
    p.add_argument("--commit", type=int, default=1000, help="photos per commit")
    p.add_argument("--keep-deleted", action="store_true", help="keep photos that are gone")
    p.add_argument("--forget", metavar="NAME", help="remove all photos of a source")
    p.add_argument("--strict", action="store_true", help="stop at the first broken photo")
    p.add_argument("--wait", action="store_true", help="for another run that writes to the index")
    p.add_argument(
        "--import",
        dest="import_from",
        metavar="EMBEDDINGS",
        help="folder of clip-retrieval (img_emb/, metadata/), or of .npy files and lists of names; "
        "PHOTOS, if given, are where the photos lie",
    )
    p.add_argument("--trust", action="store_true", help="import without comparing eight photos")
    p.add_argument("--export", metavar="FOLDER", help="write PHOTOS, an index, as clip-retrieval")
    p.add_argument("--half", action="store_true", help="export vectors as float16")
    p.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of a new Qdrant collection, such as shard_number=3; repeatable",
    )
    p.add_argument("--json", metavar="FILE", help="write the summary as JSON; - for the screen")
    p.add_argument("--quiet", action="store_true", help="show no progress and no summary")
    return p


def main(args: Sequence[str]) -> None:
    """Run ``freestyle index``.

    Raises:
        UserError: At bad input, or where the index cannot be written.
    """
    options = parser().parse_args(args)
    try:
        _run(options)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what was committed is kept, and the same command goes on\n")
        raise SystemExit(130) from None


def _run(options: argparse.Namespace) -> None:
    if options.export:
        _export(options)
        return
    if options.half:
        raise UserError("--half is of --export: name the folder to export to, or leave it out")
    if not options.out:
        raise UserError("--out is missing: name the index, as in --out my.index")
    if options.thumbnail < 0:
        raise UserError(f"--thumbnail is {options.thumbnail}: use 0 or more pixels")
    if options.forget:
        _forget(options)
    elif options.import_from:
        _import(options)
    else:
        _fill(options)


def _fill(options: argparse.Namespace) -> None:
    from freestyle.search.fill import Pace, fill, write_errors
    from freestyle.search.sources import list_sources

    if not options.photos:
        raise UserError("no photos are given: name a folder, a list or .tar files")
    _check_pace(options)
    listing = list_sources(options.photos)
    index = existing(options)
    choice = choose(options, index)
    encoder = choice.build()
    encoder.thumbnail = index.settings.thumbnail if index else options.thumbnail
    gpu = encoder.model.device.type != "cpu"
    pace = Pace(_workers(options), options.batch_size or (256 if gpu else 32), options.commit)
    run = None
    if options.engine == "ray":
        from freestyle.search.ray_fill import RayEngine

        exact = replace(choice, views=_named(encoder), precision=encoder.precision)
        run = RayEngine(exact, options.workers)
    index = agreeing(index, options, encoder, choice)
    with index.writing(wait=options.wait):
        summary = fill(
            index,
            listing,
            encoder,
            pace=pace,
            run=run,
            strict=options.strict,
            keep_deleted=options.keep_deleted,
            quiet=options.quiet,
        )
        folder = folder_of(index.uri)
        if folder is not None:
            write_errors(folder, summary)
    index.close()
    _report(summary, options)


def _check_pace(options: argparse.Namespace) -> None:
    """Refuse numbers before anything is read."""
    from freestyle.search.fill import Pace

    Pace(options.workers or 0, 32 if options.batch_size is None else options.batch_size)
    Pace(commit=options.commit)


def _workers(options: argparse.Namespace) -> int:
    return len(os.sched_getaffinity(0)) if options.workers is None else options.workers


def _named(encoder: PhotoEncoder) -> str:
    from freestyle.search.photo_encoder import NO_VIEWS

    return NO_VIEWS if encoder.views is None else encoder.views.key


def _forget(options: argparse.Namespace) -> None:
    """Remove a source's photos."""
    from freestyle.search.fill import Summary
    from freestyle.search.plan import of_source

    index = existing(options)
    if index is None:
        raise UserError(f"there is no index at {options.out}: check --out")
    with index.writing(wait=options.wait):
        ids = of_source(index, options.forget, list(index.fingerprints()))
        if not ids:
            raise UserError(f"{options.out} holds no photos of a source {options.forget!r}")
        summary = Summary(index.uri, deleted=index.delete(ids))
        index.optimise()
        summary.photos = len(index)
    index.close()
    _report(summary, options)


def _import(options: argparse.Namespace) -> None:
    from freestyle.search.clip_retrieval import open_embeddings
    from freestyle.search.import_vectors import Places, compare, import_vectors
    from freestyle.search.photo_encoder import NO_VIEWS
    from freestyle.search.sources import parse_source

    embeddings = open_embeddings(Path(options.import_from))
    roots = {name: path.absolute() for name, path in map(parse_source, options.photos)}
    places = Places(embeddings.folder.resolve().name, roots)
    index, made = existing(options), embeddings.settings
    if not (options.encoder or options.model or index or made):
        raise UserError("--encoder is missing: name the encoder that made the embeddings")
    if made and not (options.encoder or options.model or index):
        options.encoder = made.encoder
    views = made.views if made else ""
    encoder = replace(choose(options, index), views=views or NO_VIEWS).build()
    encoder.thumbnail = index.settings.thumbnail if index else options.thumbnail
    name, width = encoder.model.encoder.name, encoder.model.encoder.embed_dim
    if embeddings.width != width:
        raise UserError(
            f"{embeddings.folder} holds vectors of {embeddings.width} numbers, {name} makes "
            f"{width}: name the --encoder that made them"
        )
    compared = 0 if options.trust else compare(embeddings, places, encoder)
    index = agreeing(index, options, encoder, choose(options, index))
    with index.writing(wait=options.wait):
        summary = import_vectors(index, embeddings, places, quiet=options.quiet)
    index.close()
    _report(summary, options)
    if not options.quiet and options.json != "-":
        why = "nothing was compared" if options.trust else "no photo was at hand to compare"
        taken = f"{why}, so this is taken on your word"
        looked = f"{compared} photos embedded anew agree" if compared else taken
        _say(f"made by {encoder.settings().weights}: {looked}")


def _export(options: argparse.Namespace) -> None:
    from freestyle.search.clip_retrieval import export_vectors
    from freestyle.search.index import open_index

    if len(options.photos) != 1:
        raise UserError("--export takes one index: freestyle index my.index --export FOLDER")
    index = open_index(options.photos[0])
    count = export_vectors(index, Path(options.export), half=options.half, quiet=options.quiet)
    index.close()
    if not options.quiet:
        _say(f"{count:,} photos: {options.export}")


def _report(summary: Summary, options: argparse.Namespace) -> None:
    if options.json == "-":
        _say(json.dumps(summary.to_dict(), indent=2, ensure_ascii=False))
    elif options.json:
        write_text(options.json, json.dumps(summary.to_dict(), indent=2, ensure_ascii=False) + "\n")
    if options.quiet or options.json == "-":
        return
    _say(f"{summary.index}\n{summary.table()}")
    for error in summary.errors[:SHOWN]:
        sys.stderr.write(f"left out: {error['error']}\n")
    if summary.broken > SHOWN:
        folder = folder_of(summary.index)
        where = f": see {folder / 'errors.jsonl'}" if folder is not None else " (see --json)"
        sys.stderr.write(f"left out: {summary.broken - SHOWN:,} more{where}\n")


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
