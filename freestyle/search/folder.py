"""A folder that is an index: what it says of itself, and the right to write into it.

my.index/info.json    back end and settings, written last: with it the folder is an index
my.index/.lock        held by whoever writes
my.index/model/       the query model, if one goes with the index
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator
from pathlib import Path

from freestyle.errors import UserError
from freestyle.files import write_json
from freestyle.locks import locked
from freestyle.search.records import IndexSettings

INFO = "info.json"
LOCK = ".lock"
READING = ".reading"
MODEL = "model"
BUSY = "wait for it to end, as freestyle index --wait does"


class IndexFolder:
    """An index's folder.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = False

    def read(self) -> tuple[str, IndexSettings]:
        """Back end and settings.

        Raises:
            UserError: If the folder is no index, or a damaged one.
        """
        file = self.path / INFO
        try:
            info = json.loads(file.read_text(encoding="utf-8"))
            back_end, settings = info["back_end"], dict(info["settings"])
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(
                f"there is no index at {self.path}: make one with freestyle index PHOTOS --out "
                f"{self.path}"
            ) from error
        except OSError as error:
            raise UserError(
                f"cannot read {file} ({error.strerror or error}): give yourself the right to"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{file} is damaged: make the index again with freestyle index"
            ) from error
        return back_end, IndexSettings.from_dict(settings, str(self.path))

    def create(self, back_end: str, settings: IndexSettings, left: set[str]) -> None:
        """Claim the folder, to be called when all else of the empty index is in place.

        Args:
            back_end: Its name.
            settings: How the index will be filled.
            left: Files and folders that a creation cut short may have left.

        Raises:
            UserError: If it is an index already, or holds something else.
        """
        self.refuse_taken(left)
        (self.path / READING).touch()
        write_json(self.path / INFO, {"back_end": back_end, "settings": settings.to_dict()})

    def refuse_taken(self, left: set[str]) -> None:
        """Refuse a place where an index or something else lies; see :meth:`create`."""
        if (self.path / INFO).exists():
            raise UserError(f"there is an index at {self.path} already: open it, or choose another")
        try:
            found = {p.name for p in self.path.iterdir()} if self.path.exists() else set()
        except OSError as error:
            raise UserError(
                f"cannot make an index at {self.path} ({error.strerror or error}): choose a folder"
            ) from error
        other = {name for name in found - left - {LOCK, MODEL} if not name.startswith(".")}
        if other:
            raise UserError(
                f"{self.path} holds {min(other)!r} and no index: choose a new or empty folder"
            )

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """While inside, no file goes that a reader of now may need; any number may read."""
        try:
            file = open(self.path / READING, "rb")  # noqa: SIM115 - held while the lock is
        except OSError:
            yield
            return
        with file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def undisturbed(self, seconds: float = 2.0) -> Iterator[bool]:
        """Whether nobody reads now, nor while inside; tried for some seconds."""
        end = time.monotonic() + seconds
        with open(self.path / READING, "ab") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if isinstance(error, BlockingIOError) and time.monotonic() < end:
                        time.sleep(0.01)
                        continue
                    yield False
                else:
                    yield True
                return

    @contextlib.contextmanager
    def writing(self, *, wait: bool) -> Iterator[None]:
        """Hold the right to write.

        Raises:
            UserError: If another process has it and ``wait`` is False.
            RuntimeError: If this object holds it already.
        """
        if self._writing:
            raise RuntimeError(f"{self.path} is being written to by this object already")
        with locked(
            self.path / LOCK,
            wait=wait,
            place=self.path,
            busy=BUSY,
            elsewhere="give yourself the right to, or choose another folder",
        ):
            self._writing = True
            try:
                yield
            finally:
                self._writing = False

    def require_writing(self) -> None:
        """Refuse a change without the right to write.

        Raises:
            RuntimeError: Outside :meth:`writing`.
        """
        if not self._writing:
            raise RuntimeError("change an index inside `with index.writing():`")
