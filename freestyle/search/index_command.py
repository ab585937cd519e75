"""``freestyle index``: makes an index of photos and keeps it up to date; imports and exports."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freestyle.errors import UserError
from freestyle.files import write_text
from freestyle.options import OneSentenceParser

if TYPE_CHECKING:
    from freestyle.search.fill import Summary
    from freestyle.search.index import Index
    from freestyle.search.photo_encoder import EncoderChoice, PhotoEncoder
    from freestyle.search.records import IndexSettings

MODEL = "model"
MODEL_FILES = ("config.json", "model.safetensors", "README.md")
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
    if options.export:
        _export(options)
        return
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
    index = _open(options)
    choice = _choice(options, index)
    encoder = choice.build()
    encoder.thumbnail = index.settings.thumbnail if index else options.thumbnail
    index = _agree(index, options, encoder, choice)
    gpu = encoder.model.device.type != "cpu"
    pace = Pace(_workers(options), options.batch_size or (256 if gpu else 32), options.commit)
    run = None
    if options.engine == "ray":
        from freestyle.search.ray_fill import RayEngine

        run = RayEngine(replace(choice, views=_named(encoder), precision=encoder.precision))
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


def folder_of(uri: str) -> Path | None:
    """The folder of an index; None where a server holds it."""
    from freestyle.search.index import SERVERS, split_uri

    scheme, rest = split_uri(uri)
    return None if scheme in SERVERS else Path(rest)


def _uri(options: argparse.Namespace) -> str:
    from freestyle.search.index import split_uri

    scheme, rest = split_uri(options.out)
    if options.back_end and scheme not in (None, options.back_end):
        raise UserError(
            f"--back-end {options.back_end} and --out {options.out} are two: leave one out"
        )
    return f"{options.back_end}:{rest}" if options.back_end else options.out


def _open(options: argparse.Namespace) -> Index | None:
    """The index of ``--out``, or None where there is none yet."""
    from freestyle.search.folder import INFO
    from freestyle.search.index import open_index

    uri = _uri(options)
    folder = folder_of(uri)
    if folder is not None:
        return open_index(uri) if (folder / INFO).exists() else None
    from freestyle.search.qdrant import QdrantIndex

    return open_index(uri) if QdrantIndex.exists(uri) else None


def _choice(options: argparse.Namespace, index: Index | None) -> EncoderChoice:
    """What embeds: what is asked for, else what the index was made with, else the defaults."""
    from freestyle.search.photo_encoder import NO_VIEWS, EncoderChoice

    model, encoder = options.model or "", options.encoder or ""
    views, precision = options.views or "", options.precision or ""
    if index is not None:
        own = index.settings
        views, precision = views or own.views or NO_VIEWS, precision or own.precision
        if not model and own.model and encoder in ("", own.encoder):
            inside = folder_of(index.uri)
            copied = inside is not None and own.model == MODEL
            model = str(inside / MODEL) if copied else own.model
        encoder = encoder or own.encoder
    if model:
        from freestyle.pretrained import named_encoder

        named = named_encoder(model)
        if encoder and named != encoder:
            raise UserError(
                f"{model} is a model of the encoder {named}, not of {encoder}: leave --encoder out"
            )
    return EncoderChoice(encoder or "freestyle-mini", model, views, precision, options.device)


def _agree(
    index: Index | None,
    options: argparse.Namespace,
    encoder: PhotoEncoder,
    choice: EncoderChoice,
) -> Index:
    """The index, made where there is none; refused where it was made otherwise."""
    uri = _uri(options)
    if index is not None:
        settings = encoder.settings(index.settings.model)
        index.settings.refuse_other(settings, uri)
        if index.settings.precision != settings.precision:
            raise UserError(
                f"{uri} was made in {index.settings.precision}, not in {settings.precision}: leave "
                "--precision out, or make a new index"
            )
        if options.model:
            _refuse_other_model(index, options.model)
        return index
    folder = folder_of(uri)
    model = choice.model
    if model:
        model = MODEL if folder is not None else str(Path(model).absolute())
        if folder is not None:
            _copy_model(choice.model, folder)
    return _create(uri, encoder.settings(model), options)


def _create(uri: str, settings: IndexSettings, options: argparse.Namespace) -> Index:
    from freestyle.search.index import create_index

    values: dict[str, Any] = {}
    for text in options.option:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--option {text} sets nothing: write NAME=VALUE")
        try:
            values[name.strip()] = json.loads(value)
        except ValueError:
            values[name.strip()] = value
    return create_index(uri, settings, **values)


def _copy_model(source: str, folder: Path) -> None:
    """Copy a model beside the index, whole or not at all."""
    from freestyle.pretrained import model_folder

    origin, target = model_folder(source), folder / MODEL
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".model-", dir=folder))
        try:
            for name in MODEL_FILES:
                if (origin / name).is_file():
                    shutil.copyfile(origin / name, temporary / name)
            temporary.chmod(0o755)
            if target.exists():  # of a run that was killed before the index was made
                shutil.rmtree(target)
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"cannot copy the model to {target} ({error.strerror or error}): choose another --out"
        ) from error


def _refuse_other_model(index: Index, model: str) -> None:
    """Refuse a model that is not the one which goes with the index."""
    from freestyle.pretrained import WEIGHTS_FILE, model_folder

    own, folder = index.settings.model, folder_of(index.uri)
    place = folder / own if folder is not None and own == MODEL else Path(own)
    named = own and (place / WEIGHTS_FILE).is_file()
    theirs = (model_folder(model) / WEIGHTS_FILE).read_bytes()
    if not named or (place / WEIGHTS_FILE).read_bytes() != theirs:
        goes = f"the model in {place}" if own else "the untouched encoder"
        raise UserError(
            f"{index.uri} goes with {goes}, not with {model}: leave --model out (searches may name "
            "any model of the encoder), or make a new index"
        )


def _forget(options: argparse.Namespace) -> None:
    """Remove a source's photos."""
    from freestyle.search.fill import Summary
    from freestyle.search.plan import of_source

    index = _open(options)
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
    from freestyle.search.import_vectors import import_vectors

    choice = _choice(options, _open(options))
    summary = import_vectors(
        options,
        choice,
        lambda settings: _open(options) or _create(_uri(options), settings, options),
    )
    _report(summary, options)


def _export(options: argparse.Namespace) -> None:
    from freestyle.search.export_vectors import export_vectors
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
