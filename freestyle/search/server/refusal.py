"""Answers that are no results: one sentence, and the status that fits."""

from __future__ import annotations

import json
from typing import Any


class Refusal(Exception):
    """Ends a request.

    Attributes:
        status: HTTP status.
        sentence: What is wrong and what would help; never what the client sent.
        reason: One word for the metrics.
        headers: Further headers.
    """

    def __init__(
        self,
        status: int,
        sentence: str,
        reason: str = "bad_request",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.reason = reason
        self.headers = headers or {}

    def body(self) -> bytes:
        """The JSON of the answer."""
        return json.dumps({"error": self.sentence}, ensure_ascii=False).encode("utf-8", "replace")


def busy(what: str, reason: str) -> Refusal:
    """503: the work is more than fits; nothing queues up beyond the limits."""
    return Refusal(503, f"{what}: try again in a second", reason, {"Retry-After": "1"})


def as_answer(refusal: Refusal) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body."""
    body = refusal.body()
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    headers += [(k.lower().encode(), v.encode()) for k, v in refusal.headers.items()]
    return refusal.status, headers, body


async def send_refusal(refusal: Refusal, send: Any, *, close: bool = False) -> None:
    """Send it as an ASGI response; ``close`` ends the connection where a body was left unread."""
    status, headers, body = as_answer(refusal)
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
