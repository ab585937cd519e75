"""From a received query to its answer: decode, wait for one's turn, search."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from PIL import Image

from freestyle.errors import UserError
from freestyle.search.embed_parts import elements_of
from freestyle.search.server.batching import Batcher
from freestyle.search.server.decoding import Decoder, default_processes
from freestyle.search.server.limits import Limits
from freestyle.search.server.metrics import Metrics
from freestyle.search.server.photos import PhotoReader
from freestyle.search.server.receiving import Received
from freestyle.search.server.refusal import Refusal

if TYPE_CHECKING:
    from freestyle.search.searcher import Query, Searcher, SearchResult

PRIVATE = ("origin", "offset")
"""What an index knows of photos and nobody outside needs: where they lie on this machine."""


class Service:
    """Everything of a server that lives longer than a request.

    Args:
        searcher: Answers the queries.
        limits: What is refused.
        decoders: Decoding processes; by the number of cores where 0.

    Attributes:
        count: Photos at the last search; asking a server's index each time could take long.
        closing: Whether the end has begun.
        failure: Why it did not start.
        styles: Names of those that the model tells apart.
    """

    def __init__(self, searcher: Searcher, limits: Limits, decoders: int = 0) -> None:
        self.searcher, self.limits = searcher, limits
        self.metrics = Metrics()
        self.decoder = Decoder(limits, self.metrics, decoders or default_processes())
        self.batcher = Batcher(self._search_many, limits, self.metrics)
        self.photos = PhotoReader(searcher.index, limits)
        self.closing = False
        self.failure: Exception | None = None
        self.styles: list[str] = []
        self.count = len(searcher.index)
        self.metrics.photos.set(self.count)

    async def start(self) -> None:
        """Start processes and thread, and pay what only the first query costs."""
        await self.decoder.start()
        self.styles = await asyncio.to_thread(self._warm_up)
        self.batcher.start()

    async def close(self) -> None:
        """Finish what was accepted, then end."""
        self.closing = True
        await asyncio.to_thread(self.batcher.close)
        await self.decoder.close()
        self.photos.close()
        self.searcher.close()

    @property
    def status(self) -> str:
        """``ok``, ``closing`` or ``failing``."""
        if self.closing:
            return "closing"
        return "ok" if self.batcher.alive and self.decoder.alive else "failing"

    async def answer(self, received: Received, start: float) -> dict[str, Any]:
        """The JSON of an answer.

        Args:
            received: The query.
            start: When its request began, of ``time.perf_counter``.

        Raises:
            Refusal: If it cannot be answered.
        """
        begin = time.perf_counter()
        numbers = list(received.pictures)
        decoded = await self._decode([received.pictures[n] for n in numbers])
        decode = time.perf_counter() - begin
        try:
            query = await self._query(received, dict(zip(numbers, decoded, strict=True)))
            result = await self.batcher.submit(query, load_of(received))
        except UserError as error:
            raise Refusal(422, str(error), "query") from error
        values = answer_values(result)
        stages = {**values["milliseconds"], "decode": round(1000 * decode, 2)}
        stages["total"] = round(1000 * (time.perf_counter() - start), 2)
        self.metrics.search_took({**stages, "receive": 1000 * (begin - start)})
        self.count = values["photos"]
        self.metrics.photos.set(self.count)
        return {**values, "milliseconds": stages}

    async def _decode(self, pictures: list[bytes]) -> list[Image.Image]:
        tasks = [asyncio.create_task(self.decoder.decode(picture)) for picture in pictures]
        try:
            return await asyncio.gather(*tasks)
        finally:  # after a refusal the others must not wait on for a process
            for task in tasks:
                task.cancel()

    async def _query(self, received: Received, pictures: dict[int, Image.Image]) -> Query:
        from freestyle.search.searcher import Part, Query

        request = received.request
        parts = tuple(
            Part(
                text=part.text,
                image=pictures.get(number),
                photo=part.photo,
                weight=part.weight,
                exclude=part.exclude,
                name=part.name,
            )
            for number, part in enumerate(request.parts)
        )
        where = None
        if request.where:
            from freestyle.search.filters import parse_filter

            columns = await self.photos.columns()
            where = parse_filter(request.where, columns)
        return Query(parts, top=request.top, where=where, rerank=request.rerank)

    def _warm_up(self) -> list[str]:
        """Names of the styles, which only the reading of a picture tells."""
        self.searcher.warm_up()
        grey = Image.new("RGB", (64, 64), "grey")
        return list(self.searcher.encoder.embed_images([grey]).styles[0])

    def _search_many(self, queries: Any) -> Any:
        return self.searcher.search_many(queries, keep_errors=True)


def load_of(received: Received) -> int:
    """Passes of the encoder that a query may need: a text counts with its phrases."""
    return sum(len(elements_of(part.text)) if part.text else 1 for part in received.request.parts)


def answer_values(result: SearchResult) -> dict[str, Any]:
    """Plain values of a result, without what must not leave this machine."""
    values = result.to_dict()
    for hit in values["hits"]:
        hit["metadata"] = {k: v for k, v in hit["metadata"].items() if k not in PRIVATE}
    return values
