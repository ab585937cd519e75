"""Text to token ids in NumPy: what an exported text tower reads, without torch or transformers.

All are called alike: ``tokens(texts) -> (ids, mask)``, two int64 arrays ``(B, T)`` with mask 1 on
tokens and 0 on padding.
"""

from __future__ import annotations

import re
import string
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from freestyle.errors import UserError

TokenIds = tuple[np.ndarray, np.ndarray]
Tokens = Callable[[Sequence[str]], TokenIds]


class WordHash:
    """Lower-cased words and single signs hashed (CRC-32) to ids outside the special ones.

    Args:
        vocab_size: Ids are below this.
        start: Id put first, or None for towers without a start token.
        end: Id put after the text, or None.
        pad: Id of padding.
        pad_to_max: Pad every text to the full length instead of to the batch's longest.
    """

    def __init__(
        self, vocab_size: int, *, start: int | None, end: int, pad: int, pad_to_max: bool = False
    ) -> None:
        self.vocab_size, self.start, self.end = vocab_size, start, end
        self.pad, self.pad_to_max = pad, pad_to_max
        special = {start, end, pad}
        self._words = [i for i in range(vocab_size) if i not in special]

    def __call__(self, texts: Sequence[str], max_length: int) -> TokenIds:
        """Ids and mask, each ``(B, T)``; longer texts are cut, the end token is kept."""
        rows = [self._row(text, max_length) for text in texts]
        return padded(rows, max_length if self.pad_to_max else 0, self.pad)

    def _row(self, text: str, max_length: int) -> list[int]:
        words = re.findall(r"\w+|[^\w\s]", text.lower())
        ids = [self._words[zlib.crc32(w.encode()) % len(self._words)] for w in words]
        front = [] if self.start is None else [self.start]
        return front + ids[: max_length - len(front) - 1] + [self.end]


class FastTokens:
    """A tokenizer in the JSON form of the package ``tokenizers``, which cuts and pads itself."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(path))

    def __call__(self, texts: Sequence[str]) -> TokenIds:
        """Ids and mask, each ``(B, T)``."""
        encoded = self._tokenizer.encode_batch(list(texts))
        ids = np.array([row.ids for row in encoded], dtype=np.int64)
        return ids, np.array([row.attention_mask for row in encoded], dtype=np.int64)


class PieceTokens:
    """SigLIP 1's tokenizer: a SentencePiece model behind a canonical form of the text.

    As ``transformers.SiglipTokenizer``: lower case, no punctuation, single spaces, the end token
    last. Names of special tokens in a text are read as words.

    Args:
        path: The SentencePiece model.
        length: Every text is cut or padded to this.
        end: Id of the end token.
        pad: Id of padding.
        lower: Whether texts are lower-cased.
    """

    def __init__(self, path: Path, *, length: int, end: int, pad: int, lower: bool = True) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise UserError(
                f"{path} is read by the package sentencepiece, which is not installed: "
                "run pip install sentencepiece"
            ) from error
        self._pieces = SentencePieceProcessor(model_proto=path.read_bytes())
        self.length, self.end, self.pad, self.lower = length, end, pad, lower

    def __call__(self, texts: Sequence[str]) -> TokenIds:
        """Ids and mask, each ``(B, length)``."""
        return padded([self._row(text) for text in texts], self.length, self.pad)

    def _row(self, text: str) -> list[int]:
        text = text.lower() if self.lower else text
        text = text.translate(str.maketrans("", "", string.punctuation))
        text = re.sub(r"\s+", " ", "\u2581" + text.replace("\u2581", " ")).strip()
        # pieces at the start of a text lose their space, so something unknown is put before it
        unknown = self._pieces.id_to_piece(self._pieces.unk_id())
        before = len(self._pieces.encode(unknown))
        ids = self._pieces.encode(unknown + text)
        return [*ids[before:][: self.length - 1], self.end]


def padded(rows: Sequence[Sequence[int]], length: int, pad: int) -> TokenIds:
    """Rows of different lengths as ids and mask ``(B, T)``, T at least ``length``."""
    length = max(length, *map(len, rows))
    ids = np.full((len(rows), length), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask


def open_tokens(settings: dict[str, Any], folder: Path) -> Tokens:
    """The tokenizer that an export's manifest describes.

    Raises:
        UserError: If it is of an unknown kind, or its file cannot be read.
    """
    options = dict(settings)
    kind = options.pop("kind", None)
    try:
        if kind == "word-hash":
            length, words = options.pop("length"), WordHash(**options)
            return lambda texts: words(texts, length)
        if kind == "sentencepiece":
            return PieceTokens(folder / options.pop("file"), **options)
        if kind == "tokenizers":
            return FastTokens(folder / options["file"])
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{folder} holds a damaged tokenizer ({error}): export the model again"
        ) from error
    raise UserError(f"{folder} has a tokenizer of kind {kind!r}: export it with this version")
