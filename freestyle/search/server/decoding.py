"""Pictures of strangers are decoded in other processes, which are killed when they take too long.

The processes stay: starting one costs more than a hundred pictures. Each has a bounded address
space, so a bomb ends in a refusal or, at worst, in the end of its process; another is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys

from PIL import Image

from freestyle.errors import UserError
from freestyle.search.server import decode_worker as worker
from freestyle.search.server.limits import Limits
from freestyle.search.server.metrics import Metrics
from freestyle.search.server.refusal import Refusal

logger = logging.getLogger("freestyle.serve")
START_SECONDS = 60.0
_STATUS = {
    worker.REFUSED: (422, "damaged"),
    worker.TOO_LARGE: (413, "pixels"),
    worker.OUT_OF_MEMORY: (413, "memory"),
    worker.UNKNOWN_FORMAT: (415, "format"),
}


class _Process:
    """One decoding process and its pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.process = process
        self.stdin, self.stdout = process.stdin, process.stdout

    @classmethod
    async def start(cls, limits: Limits) -> _Process:
        """Start one and wait until it is ready."""
        values = (limits.pixels, limits.longest_side, limits.decode_memory)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            worker.__name__,
            *(str(value) for value in values),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=1 << 22,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for the server, which ends its processes itself
        )
        started = cls(process)
        try:
            async with asyncio.timeout(START_SECONDS):
                kind, _, _ = await started.answer()
        except (TimeoutError, EOFError) as error:
            await started.kill()
            raise UserError(
                "the decoding process does not start: raise the memory limit of this shell"
            ) from error
        assert kind == worker.READY
        return started

    async def answer(self) -> tuple[int, tuple[int, int], bytes]:
        """The next answer.

        Raises:
            EOFError: If the process has ended.
        """
        head = await self.stdout.readexactly(worker.ANSWER.size)
        kind, width, height, length = worker.ANSWER.unpack(head)
        return kind, (width, height), await self.stdout.readexactly(length)

    async def decode(self, data: bytes) -> tuple[int, tuple[int, int], bytes]:
        """Send a picture, take the answer."""
        self.stdin.write(worker.REQUEST.pack(len(data)))
        self.stdin.write(data)
        return await self.answer()

    async def kill(self) -> None:
        """End it at once."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        self.stdin.close()
        await self.process.wait()


class Decoder:
    """A few decoding processes.

    Args:
        limits: Of pixels, time and memory.
        metrics: Told of failures and restarts.
        processes: How many.
    """

    def __init__(self, limits: Limits, metrics: Metrics, processes: int = 1) -> None:
        self._limits = limits
        self._metrics = metrics
        self._processes = processes
        self._idle: asyncio.LifoQueue[_Process] = asyncio.LifoQueue()
        self._running: set[_Process] = set()
        self._tasks: set[asyncio.Task] = set()
        self._closing = False
        self._failing = False  # no process could be started

    async def start(self) -> None:
        """Start the processes.

        Raises:
            UserError: If one does not start.
        """
        await asyncio.gather(*(self._begin() for _ in range(self._processes)))

    @property
    def alive(self) -> bool:
        """Whether pictures are decoded; a process that is being replaced counts as there."""
        return not self._closing and (bool(self._running) or not self._failing)

    def pids(self) -> list[int]:
        """Of the processes, for measurements."""
        return [p.process.pid for p in self._running]

    async def decode(self, data: bytes) -> Image.Image:
        """Decode a picture.

        Returns:
            Upright RGB, its longer side at most ``limits.longest_side``.

        Raises:
            Refusal: 413, 415 or 422 with what is wrong with it.
        """
        process = await self._next()
        # Whoever asked may be gone before the answer; the pipe must be read to its end anyway.
        task = asyncio.create_task(self._exchange(process, data))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        kind, size, body = await asyncio.shield(task)
        if kind != worker.PICTURE:
            status, reason = _STATUS[kind]
            self._metrics.decode_failures.labels(reason).inc()
            raise Refusal(status, body.decode("utf-8", "replace"), f"picture_{reason}")
        return Image.frombytes("RGB", size, body)

    async def close(self) -> None:
        """End the processes."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(process.kill() for process in list(self._running)))
        self._running.clear()

    async def _begin(self) -> None:
        process = await _Process.start(self._limits)
        self._failing = False
        self._running.add(process)
        self._idle.put_nowait(process)

    async def _next(self) -> _Process:
        """An idle process; those that ended while they had nothing to do are replaced."""
        while True:
            process = await self._idle.get()
            if process.process.returncode is None:
                return process
            self._replace(process)

    async def _exchange(self, process: _Process, data: bytes) -> tuple[int, tuple, bytes]:
        try:
            async with asyncio.timeout(self._limits.decode_seconds):
                answer = await process.decode(data)
            if answer[0] == worker.OUT_OF_MEMORY:
                self._replace(process)
            else:
                self._idle.put_nowait(process)
            return answer
        except TimeoutError:
            self._replace(process)
            self._metrics.decode_failures.labels("time").inc()
            raise Refusal(
                422, "the picture takes too long to decode: shrink it", "picture_time"
            ) from None
        except (EOFError, OSError):  # ended, or its pipe broke
            self._replace(process)
            self._metrics.decode_failures.labels("crash").inc()
            raise Refusal(
                422, "the picture cannot be decoded: save it anew", "picture_crash"
            ) from None

    def _replace(self, process: _Process) -> None:
        self._metrics.decoder_restarts.inc()
        self._running.discard(process)
        task = asyncio.create_task(self._restart(process))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def _restart(self, process: _Process) -> None:
        await process.kill()
        while not self._closing:
            try:
                return await self._begin()
            except (UserError, OSError) as error:
                self._failing = True
                logger.error("no decoding process can be started: %s", error)
                await asyncio.sleep(1.0)

    def _done(self, task: asyncio.Task) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # taken note of: who asked may be gone


def default_processes() -> int:
    """One per two cores, at most four: decoding is a small part of a search."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))


def _environment() -> dict[str, str]:
    """What a decoding process needs to start, without the server's secrets."""
    kept = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "HOME")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        **environment,
        **dict.fromkeys(threads, "1"),
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "MALLOC_ARENA_MAX": "1",
    }
