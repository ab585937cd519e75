"""Locks between processes, which the system takes back from a process that dies."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from freestyle.errors import UserError


@contextlib.contextmanager
def locked(
    path: Path, *, wait: bool, place: object, busy: str, elsewhere: str
) -> Iterator[IO[str]]:
    """Hold a file's lock.

    Args:
        path: The lock file; it stays.
        wait: Until another process lets go, instead of being refused.
        place: What is locked, as the user knows it.
        busy: What to do when another process writes.
        elsewhere: What to do when the file cannot be made.

    Raises:
        UserError: If another process holds it and ``wait`` is False, or it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")  # noqa: SIM115 - held while the lock is
    except OSError as error:
        raise UserError(
            f"cannot write to {place} ({error.strerror or error}): {elsewhere}"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise UserError(f"another run is writing to {place}: {busy}") from error
        except OSError:
            pass  # a file system without locks: one writer at a time is the user's care
        yield file
