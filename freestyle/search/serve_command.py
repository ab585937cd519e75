"""``freestyle serve``: one's own photos on a page, and for programs over HTTP."""

from __future__ import annotations

import logging
import math
import os
import re
import ssl
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from freestyle.errors import UserError
from freestyle.options import OneSentenceParser

if TYPE_CHECKING:
    import argparse

    from freestyle.search.server.limits import Limits

TOKEN = "FREESTYLE_TOKEN"
SHORTEST_TOKEN = 16


def parser() -> argparse.ArgumentParser:
    """All options of ``freestyle serve``."""
    p = OneSentenceParser(
        prog="freestyle serve",
        description="Serve an index: a page to draw, type and drop pictures on, and POST /search.",
    )
    p.add_argument("index", help="folder or URI, as of freestyle index")
    p.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this "
                   "machine only; 0.0.0.0 for the network)")  # fmt: skip
    p.add_argument("--port", type=int, default=8000, help="0 takes any free one")
    p.add_argument("--model", help="folder or hub id of a trained model (default: the index's)")
    p.add_argument("--onnx", help="folder of freestyle export: no torch is needed then")
    p.add_argument("--threads", type=int, help="of one pass with --onnx (default: all cores)")
    p.add_argument("--device", default="cpu", help="where torch computes (default: cpu)")
    p.add_argument(
        "--rerank", type=int, help="candidates that are scored by their sets (default: 50)"
    )
    p.add_argument(
        "--token-file", help=f"file whose first line is the bearer token (or set {TOKEN})"
    )
    p.add_argument("--token", help="the token itself; others on this machine can see it here")
    p.add_argument(
        "--cors", action="append", default=[], metavar="ORIGIN",
        help="origin of another page that may search, such as https://photos.example; repeatable",
    )  # fmt: skip
    p.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="name by which this server may be called, besides addresses, localhost and the "
        "machine's own; * for any; repeatable",
    )  # fmt: skip
    p.add_argument(
        "--behind-proxy", action="append", default=[], metavar="ADDRESS",
        help="address of a proxy whose X-Forwarded-For is believed; repeatable",
    )  # fmt: skip
    p.add_argument("--certificate", help="PEM file of a certificate chain, for HTTPS")
    p.add_argument("--key", help="PEM file of its key")
    p.add_argument(
        "--rate", type=float, help="searches per second and address (default: 20; 0: any number)"
    )
    p.add_argument(
        "--workers", type=int, default=0,
        help="processes that decode pictures (default: one per two cores)",
    )  # fmt: skip
    p.add_argument("--max-body", type=float, help="megabytes of a request (default: 16)")
    p.add_argument("--max-pixels", type=float, help="megapixels of a picture (default: 50)")
    p.add_argument("--timeout", type=float, help="seconds for a search (default: 10)")
    p.add_argument("--log-requests", action="store_true", help="a line each, without what is asked")
    return p


def main(args: Sequence[str]) -> None:
    """Run ``freestyle serve`` until it is told to end.

    Raises:
        UserError: At bad input, or where the server cannot start.
    """
    options = parser().parse_args(args)
    limits = read_limits(options)
    token = read_token(options)
    if options.workers < 0:
        raise UserError(f"--workers is {options.workers}: give 1 or more, or 0 for a good number")
    certificate = read_certificate(options)
    for origin in options.cors:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s]+/?", origin):
            raise UserError(f"--cors {origin} is no origin: write https://HOST, or * for any page")
    from freestyle.search.searcher import Searcher
    from freestyle.search.server import running
    from freestyle.search.server.app import create_app

    _log_to_stderr()
    listener = running.listen(options.host, options.port)
    own = {} if options.rerank is None else {"rerank": options.rerank}
    searcher = Searcher.open(
        options.index,
        options.model,
        options.onnx,
        device=options.device,
        threads=options.threads,
        **own,
    )
    app = create_app(
        searcher,
        limits=limits,
        token=token,
        hosts=[*options.allow_host, options.host],
        origins=options.cors,
        decoders=options.workers,
        log=options.log_requests,
    )
    port = listener.getsockname()[1]
    host = f"[{options.host}]" if ":" in options.host else options.host
    scheme = "https" if options.certificate else "http"
    photos = f"{len(searcher.index):,} photos"

    def started() -> None:
        sys.stdout.write(f"{photos} at {scheme}://{host}:{port}/ (end with Ctrl-C)\n")
        sys.stdout.flush()

    if not token and options.host not in ("127.0.0.1", "localhost", "::1"):
        sys.stderr.write("no token is set: whoever reaches this port sees the photos\n")
    running.serve(
        app,
        listener,
        limits,
        proxies=options.behind_proxy,
        certificate=certificate,
        started=started,
    )


def read_limits(options: argparse.Namespace) -> Limits:
    """The limits that options change.

    Raises:
        UserError: If one is not above 0.
    """
    from freestyle.search.server.limits import MEGABYTE, Limits

    for name in ("rate", "max_body", "max_pixels", "timeout"):
        value = getattr(options, name)
        if value is not None and not math.isfinite(value):
            raise UserError(f"--{name.replace('_', '-')} is {value}: give a number")
    changed: dict[str, float] = {}
    if options.rate is not None:
        changed |= {"rate": options.rate, "burst": max(2 * options.rate, 1)}
    if options.max_body is not None:
        changed["body"] = int(options.max_body * MEGABYTE)
    if options.max_pixels is not None:
        changed["pixels"] = int(options.max_pixels * 1_000_000)
    if options.timeout is not None:
        changed["seconds"] = options.timeout
    return replace(Limits(), **changed)  # type: ignore[arg-type]


def read_certificate(options: argparse.Namespace) -> tuple[str, str] | None:
    """Files of the certificate chain and its key; None for HTTP.

    Raises:
        UserError: If only one is given, or they cannot be used.
    """
    if not options.certificate and not options.key:
        return None
    if not options.certificate or not options.key:
        raise UserError("HTTPS needs --certificate and --key: give both")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.certificate, options.key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise UserError(
            f"{options.certificate} and {options.key} cannot be used for HTTPS ({error}): give the "
            "PEM files of a certificate chain and of its key"
        ) from error
    return options.certificate, options.key


def read_token(options: argparse.Namespace) -> str:
    """The bearer token of the option, the file or the environment, in this order; or empty.

    Raises:
        UserError: If the file cannot be read, or the token is too short to be one.
    """
    where = f"the environment's {TOKEN}"
    token = os.environ.get(TOKEN, "")
    if options.token_file:
        where = options.token_file
        try:
            lines = Path(options.token_file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot read {options.token_file} ({error}): give a file with the token in it"
            ) from error
        token = lines[0].strip() if lines else ""
        if not token:
            raise UserError(f"{options.token_file} is empty: write the token on its first line")
    if options.token:
        where, token = "--token", options.token
    if not token:
        return ""
    if (
        len(token) < SHORTEST_TOKEN
        or not token.isascii()
        or not token.isprintable()
        or " " in token
    ):
        raise UserError(
            f"the token of {where} is no good one: use {SHORTEST_TOKEN} or more ASCII characters "
            "without spaces, as of python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("freestyle.serve")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    for name in ("uvicorn.error", "python_multipart"):  # strangers' bad requests are no news
        logging.getLogger(name).setLevel(logging.CRITICAL)
