"""Which index a run writes to and what embeds its photos: as asked, as before, or as usual.

An index in a folder holds its query model too, so that it can be moved and searched as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freestyle.errors import UserError

if TYPE_CHECKING:
    from freestyle.search.index import Index
    from freestyle.search.photo_encoder import EncoderChoice, PhotoEncoder
    from freestyle.search.records import IndexSettings

MODEL = "model"
MODEL_FILES = ("config.json", "model.safetensors", "README.md")


def folder_of(uri: str) -> Path | None:
    """The folder of an index; None where a server holds it."""
    from freestyle.search.index import SERVERS, split_uri

    scheme, rest = split_uri(uri)
    return None if scheme in SERVERS else Path(rest)


def uri_of(options: argparse.Namespace) -> str:
    """What ``--out`` and ``--back-end`` name."""
    from freestyle.search.index import split_uri

    scheme, rest = split_uri(options.out)
    if options.back_end and scheme not in (None, options.back_end):
        raise UserError(
            f"--back-end {options.back_end} and --out {options.out} are two: leave one out"
        )
    return f"{options.back_end}:{rest}" if options.back_end else options.out


def existing(options: argparse.Namespace) -> Index | None:
    """The index of ``--out``, or None where there is none yet."""
    from freestyle.search.folder import INFO
    from freestyle.search.index import open_index

    uri = uri_of(options)
    folder = folder_of(uri)
    if folder is not None:
        return open_index(uri) if (folder / INFO).exists() else None
    from freestyle.search.server_client import ask, connect, parse_address

    address = parse_address(uri)
    client = connect(address)
    there = ask(address, lambda: client.collection_exists(address.collection))
    client.close()
    return open_index(uri) if there else None


def choose(options: argparse.Namespace, index: Index | None) -> EncoderChoice:
    """What embeds: what is asked for, else what the index was made with, else the defaults."""
    from freestyle.search.photo_encoder import NO_VIEWS, EncoderChoice

    model, encoder = options.model or "", absolute(options.encoder or "")
    views, precision = options.views or "", options.precision or ""
    if index is not None:
        own = index.settings
        if encoder and encoder != own.encoder:  # said before it is loaded, which may fail
            raise UserError(
                f"{index.uri} was made with encoder {own.encoder}, not with {encoder}: leave "
                "--encoder out, or make a new index"
            )
        views, precision = views or own.views or NO_VIEWS, precision or own.precision
        if not model and own.model and encoder in ("", own.encoder):
            inside = folder_of(index.uri)
            copied = inside is not None and own.model == MODEL
            model = str(inside / MODEL) if copied else own.model
            if copied and not (inside / MODEL).exists():
                raise UserError(f"{model} is missing: name the --model that goes with the index")
        encoder = encoder or own.encoder
    if model:
        from freestyle.pretrained import named_encoder

        named = named_encoder(model)
        if encoder and named != encoder:
            raise UserError(
                f"{model} is a model of the encoder {named}, not of {encoder}: leave --encoder out"
            )
    return EncoderChoice(encoder or "freestyle-mini", model, views, precision, options.device)


def absolute(encoder: str) -> str:
    """An encoder's name; of a folder its whole path, so that a search finds it from anywhere."""
    return str(Path(encoder).absolute()) if os.path.isdir(encoder) else encoder


def agreeing(
    index: Index | None,
    options: argparse.Namespace,
    encoder: PhotoEncoder,
    choice: EncoderChoice,
) -> Index:
    """The index, made where there is none; refused where it was made otherwise."""
    uri = uri_of(options)
    if index is not None:
        settings = encoder.settings(index.settings.model)
        index.settings.refuse_other(settings, uri)
        if index.settings.precision != settings.precision:
            raise UserError(
                f"{uri} was made in {index.settings.precision}, not in {settings.precision}: leave "
                "--precision out, or make a new index"
            )
        folder = folder_of(uri)
        lost = (
            folder is not None and index.settings.model == MODEL and not (folder / MODEL).exists()
        )
        if options.model and lost:  # the run that made the index was killed before it copied it
            _copy_model(options.model, folder)
        elif options.model:
            _refuse_other_model(index, options.model)
        return index
    folder = folder_of(uri)
    named = str(Path(choice.model).absolute()) if os.path.isdir(choice.model) else choice.model
    try:
        index = _create(uri, encoder.settings(MODEL if folder and named else named), options)
    except UserError:
        index = existing(options)  # another run may have made it meanwhile
        if index is None:
            raise
        return agreeing(index, options, encoder, choice)
    if folder is not None and choice.model:
        _copy_model(choice.model, folder)
    return index


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
                    with open(temporary / name, "rb") as copy:
                        os.fsync(copy.fileno())
            temporary.chmod(0o755)
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
    if own == model and own != MODEL:  # a hub id, or the folder that a server's index names
        return
    place = folder / own if folder is not None and own == MODEL else Path(own)
    named = own and (place / WEIGHTS_FILE).is_file()
    theirs = (model_folder(model) / WEIGHTS_FILE).read_bytes()
    if not named or (place / WEIGHTS_FILE).read_bytes() != theirs:
        goes = f"the model in {place}" if own else "the untouched encoder"
        raise UserError(
            f"{index.uri} goes with {goes}, not with {model}: leave --model out (searches may name "
            "any model of the encoder), or make a new index"
        )
