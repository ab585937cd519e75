"""Style codes on disk, computed once per picture and style reader.

One ``.npy`` per set of pictures (fp16, as the codes are used afterwards too), named by a hash of
the reader's tag, the preprocessing and the *content* of every file, so that a changed picture or
reader never meets stale codes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from freestyle.encoders.base import Preprocessing
from freestyle.errors import UserError
from freestyle.files import cache_folder as default_folder
from freestyle.files import write_atomically

logger = logging.getLogger(__name__)


class CodeCache:
    """Style codes by content.

    Args:
        folder: Where the files lie; None for :func:`default_folder`.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder else default_folder()

    def path(self, paths: Sequence[Path], reader_tag: str, preprocessing: Preprocessing) -> Path:
        """The file that holds these pictures' codes."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((reader_tag, preprocessing)).encode())
        with ThreadPoolExecutor(4) as pool:
            for value in pool.map(_content_hash, paths):
                digest.update(value)
        return self.folder / "codes" / f"{digest.hexdigest()}.npy"

    def get(
        self,
        paths: Sequence[Path],
        reader_tag: str,
        preprocessing: Preprocessing,
        compute: Callable[[], Tensor],
        *,
        write: bool = True,
        agree: Callable[[bool], bool] | None = None,
    ) -> Tensor:
        """Codes from disk, or computed and put there.

        Args:
            paths: Pictures, in the order of the rows.
            reader_tag: :attr:`freestyle.style.reader.StyleReader.tag`.
            preprocessing: What made the pixels the reader saw.
            compute: Gives ``(N, code_dim)`` when nothing is cached.
            write: Whether this process writes (one per run does).
            agree: True on every process only where all said True; needed where ``compute`` gathers
                over processes, since then all must run it or none.

        Returns:
            ``(N, code_dim)`` float16; a row of NaN stands for an unreadable picture.
        """
        path = self.path(paths, reader_tag, preprocessing)
        codes = self._read(path, len(paths))
        found = codes is not None
        if found if agree is None else agree(found):
            return codes
        codes = compute().half()
        if write:
            try:
                write_atomically(path, lambda p: _save(p, codes.numpy()))
            except UserError as error:
                logger.warning("style codes are not cached: %s", error)
        return codes

    def _read(self, path: Path, rows: int) -> Tensor | None:
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError, BadZipFile):
            return None
        if (
            not isinstance(values, np.ndarray)
            or values.ndim != 2
            or len(values) != rows
            or values.dtype != np.float16
        ):
            return None
        return torch.from_numpy(values)


def _content_hash(path: Path) -> bytes:
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest()
    except OSError:
        return b"unreadable"  # the reader reports it in words


def _save(path: Path, values: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, values)
