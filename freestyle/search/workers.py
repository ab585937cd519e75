"""Decoding processes that may die: the photo is named, the others go on.

Every process has a pipe of its own and at most :data:`HELD` jobs, which it does in order, so that
the photo which killed it is known: it is tried a second time, then given up. (A pool of the
standard library is lost with its first process.) Results come back in the order of the jobs, and
only so many are made ahead of the reader.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from freestyle.errors import UserError
from freestyle.search.decode import Broken, Decoded, Decoder, Job

HELD = 4  # jobs that a process has at a time
TRIES = 2
_READY, _END = "ready", object()
_TICK = 0.5  # seconds between looks at what else has happened


def decode(
    decoder: Decoder,
    jobs: Sequence[Job],
    *,
    workers: int,
    ahead: int = 64,
    patience: float = 300,
) -> Iterator[Decoded | Broken]:
    """Decode photos in processes, in order.

    Args:
        decoder: What to do with each.
        jobs: The photos.
        workers: Processes; 0 decodes here.
        ahead: Photos that are decoded before they are asked for.
        patience: Seconds that a photo may take.

    Raises:
        UserError: If the processes do not start.
    """
    if workers < 1 or not jobs:
        yield from map(decoder, jobs)
        return
    pool = _Pool(decoder, jobs, min(workers, len(jobs)), ahead, patience)
    results: queue.Queue[Any] = queue.Queue(maxsize=max(1, ahead))
    stop = threading.Event()

    def put(item: Any) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                results.put(item, timeout=_TICK)
                return True
        return False

    def pump() -> None:  # a thread, so that the processes work while the reader embeds
        try:
            for result in pool.results():
                if not put(result):
                    return
            put(_END)
        except BaseException as error:
            put(error)
        finally:
            pool.close()

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    try:
        while (item := results.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _work(connection: Connection, decoder: Decoder) -> None:
    """A process: jobs in, results out, until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(_READY)
        while True:
            connection.send(decoder(connection.recv()))


@dataclass(eq=False)
class _Worker:
    """A process, its pipe, and the numbers of its jobs in order."""

    process: Any
    pipe: Connection
    held: deque[int] = field(default_factory=deque)
    ready: bool = False
    since: float = field(default_factory=time.monotonic)  # when its first job began
    late: bool = False


class _Pool:
    def __init__(
        self, decoder: Decoder, jobs: Sequence[Job], count: int, ahead: int, patience: float
    ) -> None:
        self.decoder, self.jobs, self.ahead, self.patience = decoder, jobs, ahead, patience
        self.context = multiprocessing.get_context("spawn")
        self.done: dict[int, Decoded | Broken] = {}
        self.tries: dict[int, int] = {}
        self.again: deque[int] = deque()
        self.next_job = self.next_result = 0
        self.workers = [self._start() for _ in range(count)]

    def results(self) -> Iterator[Decoded | Broken]:
        """All results in the order of the jobs."""
        while self.next_result < len(self.jobs):
            self._hand_out()
            while self.next_result in self.done:
                result = self.done.pop(self.next_result)
                self.next_result += 1
                yield result
            if self.next_result < len(self.jobs):
                self._collect()

    def close(self) -> None:
        """End the processes."""
        for worker in self.workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join()

    def _start(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_work, args=(theirs, self.decoder), daemon=True)
        process.start()
        theirs.close()  # so that its end, not ours, tells when it is gone
        return _Worker(process, ours)

    def _hand_out(self) -> None:
        """Jobs to whoever has the fewest."""
        while True:
            worker = min(self.workers, key=lambda w: len(w.held))
            if len(worker.held) >= HELD:
                return
            if self.again:
                number = self.again.popleft()
            elif self.next_job < min(len(self.jobs), self.next_result + self.ahead):
                number = self.next_job
                self.next_job += 1
            else:
                return
            if not worker.held:
                worker.since = time.monotonic()
            worker.held.append(number)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                worker.pipe.send(self.jobs[number])  # a process that is gone is seen when read

    def _collect(self) -> None:
        """Wait for one result or more, and for processes that die or take too long."""
        by_pipe = {worker.pipe: worker for worker in self.workers}
        for pipe in wait(list(by_pipe), timeout=_TICK):
            worker = by_pipe[pipe]
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                self._replace(worker)
                continue
            worker.since = time.monotonic()
            if not worker.ready:
                worker.ready = True
            else:
                self.done[worker.held.popleft()] = message
        for worker in self.workers:
            if worker.held and worker.ready and time.monotonic() - worker.since > self.patience:
                worker.late = True
                worker.process.kill()

    def _replace(self, worker: _Worker) -> None:
        worker.process.join()
        worker.pipe.close()
        if not worker.ready:
            raise UserError(
                "decoding processes do not start: use --workers 0, and in a script of your own "
                "guard what it does by if __name__ == '__main__'"
            )
        if worker.held:
            self._blame(worker.held.popleft(), worker)
        self.again.extendleft(reversed(worker.held))
        self.workers[self.workers.index(worker)] = self._start()

    def _blame(self, number: int, worker: _Worker) -> None:
        """Once more, or given up."""
        self.tries[number] = self.tries.get(number, 0) + 1
        if self.tries[number] < TRIES and not worker.late:
            self.again.appendleft(number)
            return
        why = f"took longer than {self.patience:g} seconds"
        if not worker.late:
            code = worker.process.exitcode
            how = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
            why = f"ended the process that decoded it ({how}), often for lack of memory"
        self.done[number] = Broken(f"{self.jobs[number].name} {why}: shrink or replace it")
