"""All that bounds a request, in one place."""

from __future__ import annotations

from dataclasses import dataclass, fields

from freestyle.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""What query pictures may be, by Pillow's names; TIFF has too many decoders behind it."""
READABLE = "JPEG, PNG, WebP, GIF or BMP"
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What is refused, and when.

    Memory stays below about ``in_flight * body`` for requests that are being read and decoded, plus
    ``waiting_parts`` pictures of ``longest_side ** 2 * 3`` bytes that wait for the encoder, plus
    ``decode_memory`` for each decoding process.

    Attributes:
        body: Bytes of a request body.
        parts: Parts of a query.
        text: Characters of a text.
        top: Photos in an answer.
        rerank: Candidates that are reranked.
        conditions: Conditions of ``where``.
        condition: Characters of each.
        weight: Largest weight of a part.
        pixels: Width times height of a picture, checked before it is decoded.
        longest_side: Decoded pictures with a longer side than this are shrunk to it.
        decode_seconds: Time for one picture; then its process is killed.
        decode_memory: Bytes that a decoding process may take above what it starts with.
        in_flight: Searches that are read, decoded or waiting at one time; more get 503.
        waiting_parts: Parts of decoded queries that wait for the encoder; more get 503.
        waiting_reads: Photos and thumbnails that wait to be read; more get 503.
        batch_parts: Parts that are embedded together; a larger query goes alone.
        batch_wait: Seconds that the first of a batch waits for others.
        body_seconds: Time for a whole body to arrive; then 408.
        seconds: Time for a search once its body is there; then 503.
        head_seconds: Time for a request's head to arrive, and for a client to take an answer's
            next 64 KiB; then the connection is cut.
        connections: Open connections; more are closed at once.
        address_connections: Open connections of one address, likewise; not behind a proxy.
        rate: Searches per second of one address; 0 for no limit.
        burst: Searches that an address may send at once after a rest.
        addresses: Addresses whose rate is remembered.
    """

    body: int = 16 * MEGABYTE
    parts: int = 8
    text: int = 1000
    top: int = 200
    rerank: int = 500
    conditions: int = 8
    condition: int = 300
    weight: float = 100.0
    pixels: int = 50_000_000
    longest_side: int = 1024
    decode_seconds: float = 5.0
    decode_memory: int = 1024 * MEGABYTE
    in_flight: int = 64
    waiting_parts: int = 128
    waiting_reads: int = 256
    batch_parts: int = 16
    batch_wait: float = 0.002
    body_seconds: float = 15.0
    seconds: float = 10.0
    head_seconds: float = 10.0
    connections: int = 512
    address_connections: int = 128
    rate: float = 20.0
    burst: float = 40.0
    addresses: int = 10_000

    def __post_init__(self) -> None:
        free = ("rate", "batch_wait")
        for field in fields(self):
            value = getattr(self, field.name)
            if not (value > 0 or (field.name in free and value == 0)):
                least = "0 or more" if field.name in free else "a number above 0"
                raise UserError(f"limit {field.name} is {value}: give {least}")

    def public(self) -> dict[str, float]:
        """What a client needs to know to ask within them."""
        names = ("body", "parts", "text", "top", "rerank", "conditions", "condition", "weight")
        return {name: getattr(self, name) for name in (*names, "pixels", "longest_side", "rate")}
