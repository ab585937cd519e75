"""Talking to a Qdrant server: its address, requests tried again, errors in one sentence."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from freestyle.errors import UserError

KEY = "QDRANT_API_KEY"
PORT = 6333
TIMEOUT = 30  # seconds of one request
WAITS = (0.2, 1.0)  # seconds before a request is tried again
Answer = TypeVar("Answer")
COLLECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


@dataclass(frozen=True)
class Address:
    """Where a collection is.

    Attributes:
        uri: As the user wrote it.
        url: Of the server.
        collection: Name.
    """

    uri: str
    url: str
    collection: str


def parse_address(uri: str) -> Address:
    """Read ``qdrant://host:6333/collection``; ``qdrants://`` is TLS.

    Raises:
        UserError: If it is not of that form.
    """
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port or PORT
    except ValueError:
        parts, host, port = urlsplit(""), None, PORT
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            f"a {parts.scheme}:// URI holds host, port and collection only: put the key into the "
            f"environment variable {KEY}"
        )
    collection = parts.path.strip("/")
    if not host or not COLLECTION.fullmatch(collection):
        raise UserError(
            f"{uri} is no collection: write qdrant://HOST:6333/COLLECTION, the collection in "
            "letters, digits, '_', '.' and '-'"
        )
    protocol = "https" if parts.scheme == "qdrants" else "http"
    name = f"[{host}]" if ":" in host else host
    return Address(uri, f"{protocol}://{name}:{port}", collection)


def connect(address: Address) -> Any:
    """A client of the server; nothing is sent yet.

    Raises:
        UserError: If the package is not installed.
    """
    try:
        from qdrant_client import QdrantClient
    except ImportError as error:
        raise UserError(f"{address.uri} needs its client: pip install qdrant-client") from error
    key = os.environ.get(KEY) or None
    return QdrantClient(url=address.url, api_key=key, timeout=TIMEOUT, check_compatibility=False)


def ask(address: Address, request: Callable[[], Answer]) -> Answer:
    """Send a request, again where the server does not answer in time or is overloaded.

    Every request of ours may be sent twice: points are replaced by equal ones.

    Raises:
        UserError: If it stays so, or the server refuses.
    """
    for wait in WAITS:
        try:
            return request()
        except Exception as error:
            if not passing(error):
                raise sentence(address, error) from error
        time.sleep(wait)
    try:
        return request()
    except Exception as error:
        raise sentence(address, error) from error


def passing(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    if isinstance(error, UnexpectedResponse):
        return (error.status_code or 0) >= 500
    return isinstance(error, (ResponseHandlingException, ResourceExhaustedResponse, OSError))


def sentence(address: Address, error: Exception) -> Exception:
    """What a user reads of a failed request; errors that are not the server's as they are."""
    from qdrant_client.http.exceptions import UnexpectedResponse

    if isinstance(error, UnexpectedResponse):
        return refused(address, error)
    if passing(error):
        return UserError(
            f"the server of {address.uri} does not answer ({brief(error)}): start it, or check "
            "host and port"
        )
    return error


def refused(address: Address, error: Any) -> UserError:
    """What a user reads of an answer that is an error."""
    if error.status_code in (401, 403):
        return UserError(f"the server of {address.uri} refuses the key: set {KEY}")
    if error.status_code == 404:
        return missing(address)
    text = bytes(error.content).decode("utf-8", "replace")
    found = re.search(r'"error"\s*:\s*"((?:[^"\\]|\\.)*)"', text)
    reason = (found[1] if found else text).strip()[:200] or error.reason_phrase
    return UserError(
        f"the server of {address.uri} refuses a request ({error.status_code}: {reason}): see its "
        "log, and use a server of the client's version"
    )


def missing(address: Address) -> UserError:
    """What a user reads where there is no collection."""
    return UserError(
        f"there is no index at {address.uri}: make one with freestyle index PHOTOS --out "
        f"{address.uri}"
    )


def brief(error: Exception) -> str:
    """The first line of what a library says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
