"""Text to token ids: a checkpoint's own tokenizer, or a stand-in where there are only weights.

Both are called alike: ``tokenizer(texts, max_length) -> (ids, mask)``, two int64 tensors ``(B, T)``
with T <= ``max_length`` and mask 1 on words, 0 on padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from freestyle.encoders.token_ids import WordHash

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


class WordHashTokenizer(WordHash):
    """A stand-in for encoders with random weights, which have no vocabulary to go with.

    The same text gives the same ids on every machine, different words nearly always different ids.
    """

    def __call__(self, texts: Sequence[str], max_length: int) -> tuple[Tensor, Tensor]:
        """Token ids and mask, each ``(B, T)``; longer texts are cut, the end token is kept."""
        ids, mask = super().__call__(texts, max_length)
        return torch.from_numpy(ids), torch.from_numpy(mask)
