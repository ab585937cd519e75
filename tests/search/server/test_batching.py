"""Queries that come together are answered together; the queue is short; leaving costs nothing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from freestyle.errors import UserError
from freestyle.search.server.batching import Batcher
from freestyle.search.server.limits import Limits
from freestyle.search.server.metrics import Metrics
from freestyle.search.server.refusal import Refusal


class Engine:
    """Doubles numbers; waits at a gate; notes its batches."""

    def __init__(self):
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.batches = []
        self.threads = set()

    def __call__(self, queries):
        self.batches.append(list(queries))
        self.threads.add(threading.get_ident())
        self.begun.set()
        self.gate.wait(10)
        if "poison" in queries:
            raise RuntimeError("poison")
        return [UserError("bad: one") if q == "bad" else 2 * q for q in queries]


def run(test, **limits):
    """Run ``test(batcher, engine)`` with a batcher, and close it."""

    async def main():
        engine = Engine()
        batcher = Batcher(engine, Limits(**limits), Metrics())
        batcher.start()
        try:
            await asyncio.wait_for(test(batcher, engine), 20)
        finally:
            engine.gate.set()
            await asyncio.to_thread(batcher.close)

    asyncio.run(main())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.002)


def test_what_waits_is_one_batch():
    async def test(batcher, engine):
        first = asyncio.create_task(batcher.submit(0, 1))
        await until(engine.begun.is_set)
        others = [asyncio.create_task(batcher.submit(n, 1)) for n in range(1, 7)]
        await asyncio.sleep(0.02)
        engine.gate.set()
        assert await asyncio.gather(first, *others) == [0, 2, 4, 6, 8, 10, 12]
        assert engine.batches == [[0], [1, 2, 3, 4, 5, 6]]
        assert len(engine.threads) == 1

    run(test, batch_wait=0)


def test_a_burst_waits_for_each_other():
    async def test(batcher, engine):
        engine.gate.set()
        await asyncio.gather(*(batcher.submit(n, 1) for n in range(5)))
        assert engine.batches == [[0, 1, 2, 3, 4]]

    run(test, batch_wait=0.2, batch_parts=5)


def test_batches_are_bounded_by_parts():
    async def test(batcher, engine):
        first = asyncio.create_task(batcher.submit(0, 1))
        await until(engine.begun.is_set)
        sizes = {1: 3, 2: 2, 3: 9, 4: 1}  # number: parts
        others = [asyncio.create_task(batcher.submit(n, parts)) for n, parts in sizes.items()]
        await asyncio.sleep(0.02)
        engine.gate.set()
        await asyncio.gather(first, *others)
        assert engine.batches == [[0], [1, 2], [3], [4]]  # in order; a large one goes alone

    run(test, batch_wait=0, batch_parts=5)


def test_full_queue_refuses():
    async def test(batcher, engine):
        tasks = [asyncio.create_task(batcher.submit(0, 1))]
        await until(engine.begun.is_set)
        tasks += [asyncio.create_task(batcher.submit(n, 2)) for n in (1, 2)]
        await asyncio.sleep(0.02)
        with pytest.raises(Refusal) as refusal:
            await batcher.submit(3, 1)
        assert refusal.value.status == 503 and refusal.value.headers["Retry-After"] == "1"
        engine.gate.set()
        assert await asyncio.gather(*tasks) == [0, 2, 4]
        assert await batcher.submit(3, 9) == 6  # larger than the queue, but nothing waits

    run(test, batch_wait=0, waiting_parts=4)


def test_given_up_queries_are_not_searched():
    async def test(batcher, engine):
        first = asyncio.create_task(batcher.submit(0, 1))
        await until(engine.begun.is_set)
        gone = [asyncio.create_task(batcher.submit(n, 1)) for n in (1, 2)]
        stays = asyncio.create_task(batcher.submit(3, 1))
        await asyncio.sleep(0.02)
        for task in gone:
            task.cancel()
        await asyncio.sleep(0.02)
        engine.gate.set()
        assert (await first, await stays) == (0, 6)
        assert engine.batches == [[0], [3]]
        assert all(task.cancelled() for task in gone)

    run(test, batch_wait=0)


@pytest.mark.parametrize("bad", ["bad", "poison"])
def test_a_bad_query_does_not_spoil_its_neighbours(bad):
    async def test(batcher, engine):
        first = asyncio.create_task(batcher.submit(0, 1))
        await until(engine.begun.is_set)
        tasks = [asyncio.create_task(batcher.submit(q, 1)) for q in (1, bad, 2)]
        await asyncio.sleep(0.02)
        engine.gate.set()
        outcomes = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert [outcomes[0], outcomes[1], outcomes[3]] == [0, 2, 4]
        assert isinstance(outcomes[2], UserError if bad == "bad" else RuntimeError)

    run(test, batch_wait=0)


def test_closing_does_not_wait_for_a_search_that_hangs():
    async def test(batcher, engine):
        task = asyncio.create_task(batcher.submit(1, 1))
        await until(engine.begun.is_set)
        await asyncio.wait_for(asyncio.to_thread(batcher.close), 5)
        assert not task.done() and not batcher.alive
        engine.gate.set()
        assert await task == 2

    run(test, batch_wait=0, seconds=0.2)


def test_closing_answers_what_waits():
    async def test(batcher, engine):
        tasks = [asyncio.create_task(batcher.submit(n, 1)) for n in range(3)]
        await until(engine.begun.is_set)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await until(lambda: not batcher.alive)
        with pytest.raises(Refusal, match="shutting down"):
            await batcher.submit(9, 1)
        engine.gate.set()
        assert await asyncio.gather(*tasks) == [0, 2, 4]
        await closing
        assert not batcher.alive

    run(test, batch_wait=0)
