"""The query encoder that goes with an index."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from freestyle.errors import UserError

if TYPE_CHECKING:
    from freestyle.search.index import Index
    from freestyle.search.query_encoder import QueryEncoder


def open_encoder(
    index: Index,
    model: str | None = None,
    onnx: str | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> QueryEncoder:
    """A query encoder for an index.

    Args:
        index: An open index.
        model: Folder or hub id of a trained model; the index's own, or the untouched encoder of
            the index, where None.
        onnx: Folder of an exported query encoder, which runs without torch.
        device: Where torch computes.
        threads: Of an exported encoder, for one pass; all cores where None.

    Raises:
        UserError: If it cannot be read, both are given, or torch is needed and not installed.
    """
    if model is not None and onnx is not None:
        raise UserError("both a model and an exported encoder are given: leave one out")
    if onnx is not None:
        from freestyle.search.onnx_encoder import OnnxQueryEncoder

        return OnnxQueryEncoder.open(onnx, threads=threads)
    if find_spec("torch") is None:
        raise UserError(
            "torch is not installed: name a folder of freestyle export with --onnx, or install it"
        )
    from freestyle.search.torch_encoder import TorchQueryEncoder, placed

    source = model or model_of(index)
    if source:
        return TorchQueryEncoder.open(source, device=device)
    try:
        found = TorchQueryEncoder.from_encoder(index.settings.encoder)
    except UserError as error:
        own = index.settings.encoder
        raise UserError(f"{index.uri} was made with encoder {own}, and {error}") from error
    placed(found.model, device)
    return found


def model_of(index: Index) -> str:
    """Folder or hub id of the query model that an index names; empty where it names none.

    Raises:
        UserError: If it is one in the index's own folder, and is not there.
    """
    from freestyle.search.folder import MODEL
    from freestyle.search.index import SERVERS, split_uri

    named = index.settings.model
    scheme, place = split_uri(index.uri)
    if not named or scheme in SERVERS:
        return named
    inside = Path(place) / named
    if named == MODEL and not inside.is_dir():
        raise UserError(f"{inside} is missing: name the --model that goes with the index")
    return str(inside) if inside.is_dir() else named


def refuse_other_encoder(index: Index, encoder: QueryEncoder) -> None:
    """Refuse an encoder whose queries do not fit an index.

    Raises:
        UserError: Naming both.
    """
    own = index.settings
    other = replace(own, encoder=encoder.encoder, weights=encoder.weights, width=encoder.width)
    own.refuse_other(other, index.uri)
