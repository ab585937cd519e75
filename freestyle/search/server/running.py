"""The loop that accepts connections: uvicorn, with what it lacks against slow or many clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from freestyle.errors import UserError
from freestyle.search.server.limits import Limits
from freestyle.search.server.rate import bucket_of

HEAD_BYTES = 32 << 10
KEEP_ALIVE_SECONDS = 15
LAST_SECONDS = 0.3  # at the end, for requests that were sent before the client could know of it
SWITCH_SECONDS = 0.001  # how long the searcher's Python may keep the loop waiting


def serve(
    app: FastAPI,
    listener: socket.socket,
    limits: Limits,
    *,
    proxies: Sequence[str] = (),
    certificate: tuple[str, str] | None = None,
    started: Callable[[], object] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted and return.

    Args:
        app: From :func:`~freestyle.search.server.app.create_app`.
        listener: From :func:`listen`; closed at the end.
        limits: Of connections and times.
        proxies: Addresses of proxies whose ``X-Forwarded-For`` is believed; none by default.
        certificate: Files of a certificate chain and its key, for HTTPS.
        started: Called when requests are answered.

    Raises:
        UserError: If the server does not start.
    """
    chain, key = certificate or (None, None)
    config = uvicorn.Config(
        app,
        http=_protocol(limits, shared=bool(proxies)),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(limits.seconds + limits.body_seconds) + 1,
        h11_max_incomplete_event_size=HEAD_BYTES,
        backlog=256,
        ssl_certfile=chain,
        ssl_keyfile=key,
    )
    sys.setswitchinterval(SWITCH_SECONDS)
    server = _Server(config, app.state.service, started)
    with listener:
        try:
            server.run(sockets=[listener])
        except SystemExit as error:
            raise app.state.service.failure or error from error  # uvicorn would only log it


class _Server(uvicorn.Server):
    """Ends with exit code 0 after SIGTERM, and lets clients in the act of asking finish."""

    def __init__(self, config: uvicorn.Config, service: Any, started: Callable[[], object]) -> None:
        super().__init__(config)
        self._service, self._tell = service, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, then say so."""
        await super().startup(sockets)
        self._tell()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but signals that were obeyed are not raised again."""
        ours = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in ours}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """No new connections; a moment for those that are about to ask; then as uvicorn does."""
        self._service.closing = True  # answers now say `Connection: close`
        for listening in self.servers:
            listening.close()
        for listener in sockets or []:
            listener.close()
        await asyncio.sleep(LAST_SECONDS)
        await super().shutdown(sockets)


def _protocol(limits: Limits, *, shared: bool) -> type[H11Protocol]:
    """A protocol class; ``shared`` where a proxy's address stands for those of many clients."""

    class Protocol(H11Protocol):
        """HTTP/1.1 in which a request's head must arrive in time, on few enough connections."""

        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections or self._one_of_many():
                transport.abort()
                return
            _give_up_stalled(transport, limits.head_seconds)
            self._await_head()

        def _one_of_many(self) -> bool:
            if shared or self.client is None:
                return False
            address = bucket_of(self.client[0])
            others = (other.client for other in self.connections)
            same = sum(bucket_of(client[0]) == address for client in others if client)
            return same > limits.address_connections

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_came()
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            if self.cycle is not None and not self.cycle.response_complete:
                self._head_came()

        def data_received(self, data: bytes) -> None:
            if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
                self._await_head()  # the next request on a connection that was kept
            super().data_received(data)

        def send_400_response(self, msg: str) -> None:
            _send_malformed(self)

        def _await_head(self) -> None:
            self._head_timer = self.loop.call_later(limits.head_seconds, self.transport.abort)

        def _head_came(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return Protocol


def _send_malformed(protocol: H11Protocol) -> None:
    """400 for what is no HTTP, in the form of all errors."""
    import h11

    body = json.dumps({"error": "the request is no HTTP/1.1: send one"}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"connection", b"close"),
    ]
    for event in (
        h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
        h11.Data(data=body),
        h11.EndOfMessage(),
    ):
        protocol.transport.write(protocol.conn.send(event) or b"")
    protocol.transport.close()


def _give_up_stalled(transport: asyncio.Transport, seconds: float) -> None:
    """Let the kernel reset a connection whose other end takes no data for this long."""
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    raw = transport.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits at an address; port 0 takes any free one.

    Raises:
        UserError: If the address cannot be had.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"port {port} does not exist: choose one up to 65535, or 0 for any")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot listen at {host} port {port} ({reason}): choose --host and --port"
        ) from error
    listener.set_inheritable(False)
    return listener
