"""What Prometheus may know: counts and times, nothing of what was asked."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        to = {"registry": self.registry}
        self.requests = Counter(
            "freestyle_requests", "Answers by route and status", ["route", "status"], **to
        )
        self.seconds = Histogram(
            "freestyle_request_seconds", "From head to answer", ["route"], buckets=SECONDS, **to
        )
        self.stages = Histogram(
            "freestyle_stage_seconds",
            "Parts of a search: receive, decode, wait, embed, nearest, rerank, total",
            ["stage"],
            buckets=SECONDS,
            **to,
        )
        self.batch = Histogram(
            "freestyle_batch_queries",
            "Queries answered together",
            buckets=(1, 2, 3, 4, 6, 8, 12, 16),
            **to,
        )
        self.queue = Gauge("freestyle_queue_parts", "Query parts that wait for the encoder", **to)
        self.in_flight = Gauge("freestyle_searches_in_flight", "Searches begun, not ended", **to)
        self.rejected = Counter("freestyle_rejected", "Requests refused", ["reason"], **to)
        self.dropped = Counter("freestyle_dropped", "Queries given up before their turn", **to)
        self.decode_failures = Counter(
            "freestyle_decode_failures", "Pictures that could not be decoded", ["reason"], **to
        )
        self.decoder_restarts = Counter(
            "freestyle_decoder_restarts", "Decoding processes that were killed or died", **to
        )
        self.photos = Gauge("freestyle_photos", "Photos in the index", **to)

    def search_took(self, milliseconds: Mapping[str, float]) -> None:
        """Record the stages of a search, milliseconds by name."""
        for stage, value in milliseconds.items():
            self.stages.labels(stage).observe(value / 1000)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
