"""How a Qdrant collection is made for an index, and what its metadata say."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from freestyle.errors import UserError
from freestyle.files import cache_folder
from freestyle.locks import locked
from freestyle.search.columns import name_of
from freestyle.search.folder import BUSY
from freestyle.search.records import IndexSettings
from freestyle.search.server_client import Address, ask

OPTIONS = ("shard_number", "replication_factor", "write_consistency_factor")
VECTOR = "photo"
KINDS = {kind.__name__: kind for kind in (str, int, float, bool)}
SETTINGS, TYPES = "freestyle_settings", "freestyle_types"
INDEXED = {"below_folder": "keyword", "date_number": "integer", "size": "integer"}


def check_options(uri: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a collection does not take.

    Raises:
        UserError: If one is not of :data:`OPTIONS`, or no positive number.
    """
    for name, value in options.items():
        if name not in OPTIONS:
            raise UserError(f"{uri} takes no {name}; it takes {', '.join(OPTIONS)}")
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{name} is a number from 1, not {value!r}")


def make_collection(
    address: Address, client: Any, settings: IndexSettings, options: Mapping[str, int]
) -> None:
    """Make an empty collection, with indexes of what filters ask for most.

    Args:
        address: Of the collection.
        client: A ``QdrantClient``.
        settings: How it will be filled.
        options: Of :data:`OPTIONS`.

    Raises:
        UserError: If there is one already, or the server does not answer.
    """
    from qdrant_client import models

    name = address.collection
    if ask(address, lambda: client.collection_exists(name)):
        raise UserError(
            f"there is a collection at {address.uri} already: open it, or choose another"
        )
    vector = models.VectorParams(size=settings.width, distance=models.Distance.DOT)
    metadata = {SETTINGS: settings.to_dict(), TYPES: {}}
    ask(
        address,
        lambda: client.create_collection(
            name, vectors_config={VECTOR: vector}, metadata=metadata, **options
        ),
    )
    with warnings.catch_warnings():  # the client's memory mode has no indexes of payloads
        warnings.simplefilter("ignore", UserWarning)
        for column, kind in INDEXED.items():
            ask(address, lambda c=column, k=kind: client.create_payload_index(name, c, k))


def read_settings(address: Address, metadata: Mapping[str, Any]) -> IndexSettings:
    """The settings in a collection's metadata.

    Raises:
        UserError: If the collection is no index.
    """
    values = metadata.get(SETTINGS)
    if not isinstance(values, dict):
        raise UserError(
            f"the collection at {address.uri} is no index of freestyle: choose another name"
        )
    return IndexSettings.from_dict(values, address.uri)


def read_types(metadata: Mapping[str, Any]) -> dict[str, type]:
    """The types of the further columns in a collection's metadata."""
    kinds = metadata.get(TYPES) or {}
    return {name_of(stored): KINDS[kind] for stored, kind in kinds.items()}


def sole_writer(address: Address, *, wait: bool) -> AbstractContextManager[None]:
    """The right to write to a collection, among the processes of this machine.

    Raises:
        UserError: Where another process has it and ``wait`` is False.
    """
    place = f"{address.url}/{address.collection}"
    name = hashlib.sha256(place.encode()).hexdigest()[:32]
    folder = cache_folder() / "locks"
    return locked(
        folder / f"{name}.lock",
        wait=wait,
        place=address.uri,
        busy=BUSY,
        elsewhere=f"make {folder} writable, or set FREESTYLE_CACHE",
    )
