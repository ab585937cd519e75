"""Text to token ids: a checkpoint's own tokenizer, or a stand-in where there are only weights.

Both are called alike: ``tokenizer(texts, max_length) -> (ids, mask)``, two int64 tensors ``(B, T)``
with T <= ``max_length`` and mask 1 on words, 0 on padding.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Tokenizer = Callable[[Sequence[str], int], tuple[Tensor, Tensor]]


class HubTokenizer:
    """A Hugging Face tokenizer, called the way the encoder was trained.

    Args:
        tokenizer: What ``AutoTokenizer.from_pretrained`` returned.
        pad_to_max: Pad every text to the full length (SigLIP reads its last position), instead of
            to the longest text of the batch.
        padding_side: ``"right"`` where positions must start with the text; None keeps the
            tokenizer's own.
    """

    def __init__(
        self, tokenizer: Any, *, pad_to_max: bool = False, padding_side: str | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.pad_to_max = pad_to_max
        if padding_side is not None:
            tokenizer.padding_side = padding_side

    def __call__(self, texts: Sequence[str], max_length: int) -> tuple[Tensor, Tensor]:
        """Token ids and mask, each ``(B, T)``; longer texts are cut, the end token is kept."""
        out = self.tokenizer(
            list(texts),
            padding="max_length" if self.pad_to_max else "longest",
            truncation=True,
            max_length=max_length,
            return_attention_mask=True,
        )
        return torch.tensor(out["input_ids"]), torch.tensor(out["attention_mask"])


class WordHashTokenizer:
    """A stand-in for encoders with random weights, which have no vocabulary to go with.

    Lower-cased words and single signs are hashed (CRC-32) to ids outside the special ones: the same
    text gives the same ids on every machine, different words nearly always different ids.

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
        self.start, self.end, self.pad, self.pad_to_max = start, end, pad, pad_to_max
        special = {start, end, pad}
        self._words = [i for i in range(vocab_size) if i not in special]

    def __call__(self, texts: Sequence[str], max_length: int) -> tuple[Tensor, Tensor]:
        """Token ids and mask, each ``(B, T)``; longer texts are cut, the end token is kept."""
        rows = [self._row(text, max_length) for text in texts]
        length = max_length if self.pad_to_max else max(map(len, rows))
        ids = torch.full((len(rows), length), self.pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        return ids, mask

    def _row(self, text: str, max_length: int) -> list[int]:
        words = re.findall(r"\w+|[^\w\s]", text.lower())
        ids = [self._words[zlib.crc32(w.encode()) % len(self._words)] for w in words]
        front = [] if self.start is None else [self.start]
        return front + ids[: max_length - len(front) - 1] + [self.end]
