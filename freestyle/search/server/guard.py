"""What stands before every route: who may ask, how often, how long, and what every answer says.

One ASGI middleware, since each of these has to see refusals of the others. In this order: the
host's name (a page of a stranger's domain that was made to resolve to this machine must not read
photos), the address's rate, the origin of a POST, the token, the number of searches in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from freestyle.search.server.limits import Limits
from freestyle.search.server.metrics import Metrics
from freestyle.search.server.page import POLICY
from freestyle.search.server.rate import TokenBuckets
from freestyle.search.server.refusal import Refusal, busy, send_refusal

logger = logging.getLogger("freestyle.serve")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ROUTES = ("search", "image", "thumbnail", "static", "healthz", "metrics", "info", "openapi.json")
OPEN = ("/", "/static", "/healthz")
"""Routes without a token: they tell nothing of the photos, and the page asks for the token."""
COSTS = {"/search": 1.0, "/healthz": 0.0, "/static": 0.0, "/": 0.0}
COST = 0.02  # of other routes: a page of results is dozens of thumbnails
DRAIN_SECONDS = 2.0
GONE = 499  # in metrics: the client left


class Guard:
    """The middleware.

    Args:
        app: What it stands before.
        limits: Of rates, bodies and times.
        metrics: Told of every answer.
        token: That requests must bear; none where empty.
        hosts: Names by which this server may be called, besides addresses, ``localhost`` and the
            machine's own name; ``*`` for any.
        origins: Origins of other pages that may search.
        closing: Whether the server is ending.
        log: Whether to log a line per request.
    """

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        *,
        limits: Limits,
        metrics: Metrics,
        token: str = "",
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        closing: Callable[[], bool] = lambda: False,
        log: bool = False,
    ) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self._token = token.encode()
        own = socket.gethostname().lower()
        self._hosts = {"localhost", own, f"{own}.local", *(h.lower() for h in hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._closing, self._log = closing, log
        self._buckets = TokenBuckets(limits.rate, limits.burst, limits.addresses)
        self._in_flight = 0
        self._headers = common_headers(shared=bool(self._origins))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, receive, send)
        search = exchange.route == "/search" and scope["method"] == "POST"
        counted = False
        try:
            self.admit(scope, exchange.route)
            if search:
                if self._in_flight >= self.limits.in_flight:
                    raise busy("too many searches are running", "in_flight")
                counted = True
                self._count(1)
            await self.app(scope, exchange.receive, exchange.send)
        except Refusal as refusal:
            self.metrics.rejected.labels(refusal.reason).inc()
            await exchange.refuse(refusal)
        except ClientDisconnect:
            exchange.status = GONE
        except Exception:
            logger.exception("%s %s failed", scope["method"], exchange.route)
            await exchange.refuse(Refusal(500, "the server failed: its log says why", "failure"))
        finally:
            if counted:
                self._count(-1)
            self._record(scope, exchange)

    def admit(self, scope: Message, route: str) -> None:
        """Refuse who may not ask.

        Raises:
            Refusal: 400, 401, 403 or 429.
        """
        headers = Headers(scope=scope)
        self._check_host(headers.get("host", ""))
        address = (scope.get("client") or ("unknown",))[0]
        cost = COSTS.get(route, COST)
        if cost and (wait := self._buckets.wait(address, cost)):
            seconds = str(max(1, round(wait + 0.5)))
            sentence = f"too many requests from this address: wait {seconds} s"
            raise Refusal(429, sentence, "rate", {"Retry-After": seconds})
        if scope["method"] == "POST":
            self._check_origin(headers)
        if self._token and route not in OPEN and not self._bears_token(headers):
            raise Refusal(
                401, "a bearer token is needed: send it in the header Authorization", "token",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

    def _check_host(self, host: str) -> None:
        name = re.sub(r":\d*$", "", host).strip("[]").lower().rstrip(".")
        if not name or name in self._hosts or "*" in self._hosts:
            return
        try:
            ipaddress.ip_address(name)
        except ValueError:
            raise Refusal(
                400, "this server does not go by that host name: start it with --allow-host", "host"
            ) from None

    def _check_origin(self, headers: Headers) -> None:
        """A page of another origin may not even send a search, unless it is allowed to."""
        origin = headers.get("origin", "").lower()
        if not origin or origin in self._origins or "*" in self._origins:
            return
        if origin.partition("://")[2] != headers.get("host", "").lower():
            raise Refusal(403, "pages of other origins may not search: start with --cors", "origin")

    def _bears_token(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token)
        return False

    def _count(self, change: int) -> None:
        self._in_flight += change
        self.metrics.in_flight.set(self._in_flight)

    def _record(self, scope: Message, exchange: _Exchange) -> None:
        seconds = time.perf_counter() - exchange.start
        self.metrics.requests.labels(exchange.route, str(exchange.status)).inc()
        self.metrics.seconds.labels(exchange.route).observe(seconds)
        if self._log:  # never what was asked: neither query, id, nor address
            method = scope["method"] if scope["method"] in ("GET", "POST") else "other"
            logger.info("%s %s %d %.0f ms", method, exchange.route, exchange.status, seconds * 1e3)


class _Exchange:
    """One request and its answer, watched."""

    def __init__(self, guard: Guard, scope: Message, receive: Receive, send: Send) -> None:
        self.guard, self.scope = guard, scope
        self._receive, self._send = receive, send
        self.start = time.perf_counter()
        self.route = route_of(scope["path"])
        self.status = GONE
        headers = Headers(scope=scope)
        self._unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._expects = "expect" in headers
        self._body_deadline: float | None = None
        self._started = False

    async def receive(self) -> Message:
        """The next message; the whole body must come in time.

        Raises:
            Refusal: 408.
        """
        if not self._unread:
            return await self._receive()
        now = asyncio.get_running_loop().time()
        if self._body_deadline is None:
            self._body_deadline = now + self.guard.limits.body_seconds
        try:
            async with asyncio.timeout_at(self._body_deadline):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(408, "the body did not arrive in time: send it again", "slow") from None
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        """Send, with what every answer says; a client that takes nothing is given up.

        Raises:
            ClientDisconnect: If the client does not take it in time.
        """
        if message["type"] == "http.response.start":
            self._started = True
            self.status = message["status"]
            headers = list(message.get("headers", []))
            names = {name.lower() for name, _ in headers}
            headers += [pair for pair in self.guard._headers if pair[0] not in names]
            if self.guard._closing() and b"connection" not in names:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        try:
            async with asyncio.timeout(self.guard.limits.head_seconds):
                await self._send(message)
        except TimeoutError:
            raise ClientDisconnect from None

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal, after what is left of the body, so that clients get to read it."""
        if self._started:
            return
        ended = await self._drain()
        with contextlib.suppress(ClientDisconnect):
            await send_refusal(refusal, self.send, close=not ended)

    async def _drain(self) -> bool:
        """Whether the body has come to its end, without reading on for long."""
        if not self._unread:
            return True
        if self._expects:
            return False
        left = 2 * self.guard.limits.body
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while left > 0 and self._unread:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    self._unread = message.get("more_body", False)
        except TimeoutError:
            return False
        return not self._unread


def route_of(path: str) -> str:
    """The route's name for metrics and rules: few different ones, whatever is asked for.

    >>> route_of("/image/cf46"), route_of("/"), route_of("/../etc/passwd")
    ('/image', '/', 'other')
    """
    first = path[1:].partition("/")[0]
    return f"/{first}" if first in ROUTES else "/" if path == "/" else "other"


def common_headers(*, shared: bool) -> list[tuple[bytes, bytes]]:
    """Of every answer that does not say otherwise."""
    values = {
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "permissions-policy": "camera=(self), microphone=(), geolocation=()",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "cross-origin" if shared else "same-origin",
        "cache-control": "no-store",
    }
    return [(name.encode(), value.encode()) for name, value in values.items()]
