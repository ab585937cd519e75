"""Queries of many clients, answered together: one thread that owns the searcher.

What came while a batch was being answered is the next batch, so batches grow with the load and an
idle server answers at once (but for ``batch_wait``, in which the others of a burst arrive). The
queue is bounded; who gives up before the turn has come costs nothing more.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from freestyle.search.server.limits import Limits
from freestyle.search.server.metrics import Metrics
from freestyle.search.server.refusal import busy

logger = logging.getLogger("freestyle.serve")


@dataclass(eq=False)
class _Waiting:
    query: Any
    parts: int
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]
    since: float = field(default_factory=time.perf_counter)
    given_up: bool = False


class Batcher:
    """Runs ``search_many`` on batches of what :meth:`submit` was given.

    Args:
        search_many: Queries to as many results, an exception in the place of a bad one; only ever
            called from one thread. If it raises, each query is tried alone.
        limits: ``waiting_parts``, ``batch_parts`` and ``batch_wait``.
        metrics: Told of queue, batches, waits.
    """

    def __init__(
        self,
        search_many: Callable[[Sequence[Any]], Sequence[Any]],
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._search_many = search_many
        self._limits = limits
        self._metrics = metrics
        self._queue: deque[_Waiting] = deque()
        self._parts = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="searcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether queries are being answered."""
        return self._thread.is_alive() and not self._closing

    async def submit(self, query: Any, parts: int) -> Any:
        """The result of a query.

        Raises:
            Refusal: 503, if too many parts wait already.
                Exception: What ``search_many`` has for this query.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(query, parts, loop, loop.create_future())
        with self._changed:
            if self._closing:
                raise busy("the server is shutting down", "closing")
            if self._queue and self._parts + parts > self._limits.waiting_parts:
                raise busy("too many searches are waiting", "queue_full")
            self._queue.append(waiting)
            self._parts += parts
            self._metrics.queue.set(self._parts)
            self._changed.notify()
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            waiting.given_up = True
            self._forget(waiting)
            raise

    def close(self) -> None:
        """Answer what waits, then end the thread.

        A search that takes longer than ``limits.seconds`` has been refused by then: it is left to
        itself, and what waits behind it too.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(self._limits.seconds)
            if self._thread.is_alive():
                logger.error("a search does not end: the server ends without it")

    def _forget(self, waiting: _Waiting) -> None:
        with self._changed:
            if waiting in self._queue:
                self._queue.remove(waiting)
                self._parts -= waiting.parts
                self._metrics.queue.set(self._parts)
                self._metrics.dropped.inc()

    def _run(self) -> None:
        while batch := self._next():
            now = time.perf_counter()
            for waiting in batch:
                self._metrics.stages.labels("wait").observe(now - waiting.since)
            self._metrics.batch.observe(len(batch))
            self._answer(batch)

    def _next(self) -> list[_Waiting]:
        """The next batch; empty when the thread shall end."""
        with self._changed:
            while True:
                while not self._queue:
                    if self._closing:
                        return []
                    self._changed.wait()
                self._wait_for_more()
                if batch := self._take():  # empty only if all gave up meanwhile
                    return batch

    def _wait_for_more(self) -> None:
        deadline = self._queue[0].since + self._limits.batch_wait
        while self._queue and self._parts < self._limits.batch_parts and not self._closing:
            left = deadline - time.perf_counter()
            if left <= 0:
                break
            self._changed.wait(left)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        parts = 0
        while self._queue:
            if batch and parts + self._queue[0].parts > self._limits.batch_parts:
                break
            batch.append(self._queue.popleft())
            parts += batch[-1].parts
        self._parts -= parts
        self._metrics.queue.set(self._parts)
        return batch

    def _answer(self, batch: list[_Waiting]) -> None:
        batch = [waiting for waiting in batch if not waiting.given_up]
        if not batch:
            return
        try:
            results = self._search_many([waiting.query for waiting in batch])
        except Exception as error:
            if len(batch) == 1:
                _settle(batch[0], None, error)
                return
            for waiting in batch:  # one bad query must not fail its neighbours
                self._answer([waiting])
            return
        for waiting, result in zip(batch, results, strict=True):
            bad = isinstance(result, Exception)
            _settle(waiting, None if bad else result, result if bad else None)


def _settle(waiting: _Waiting, result: Any, error: Exception | None) -> None:
    def settle() -> None:
        if waiting.answer.done():
            return
        if error is None:
            waiting.answer.set_result(result)
        else:
            waiting.answer.set_exception(error)

    try:
        waiting.loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop has been closed: nobody waits any more
        logger.debug("an answer came after its loop was closed")
