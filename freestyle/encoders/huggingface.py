"""What CLIP, SigLIP and BLIP share: a Hugging Face model taken apart into steps.

transformers 5 runs the vision towers as ``embeddings -> encoder.layers -> post_layernorm``; the
classes here call those modules one by one and keep every Hugging Face output type to themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from freestyle.encoders.base import DualEncoder, Preprocessing
from freestyle.encoders.tokenizers import Tokenizer

Attention = Literal["sdpa", "eager"]


class HuggingFaceEncoder(DualEncoder):
    """Base of the encoders that wrap a Hugging Face model.

    Args:
        model: ``CLIPModel``, ``SiglipModel`` or ``BlipForImageTextRetrieval``.
        tokenizer: Texts and a length to ``(ids, mask)``, see :mod:`freestyle.encoders.tokenizers`.
        preprocessing: Resize, crop and normalisation.
        name: The name that rebuilds it.
        weights_tag: Where the weights come from.
        attention: ``"sdpa"`` or ``"eager"``; may be changed later through the attribute.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        preprocessing: Preprocessing,
        *,
        name: str,
        weights_tag: str,
        attention: Attention = "sdpa",
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.preprocessing = preprocessing
        self.name = name
        self.weights_tag = weights_tag
        self.width = model.config.vision_config.hidden_size
        self.depth = model.config.vision_config.num_hidden_layers
        self.text_width = model.config.text_config.hidden_size
        self.text_length = model.config.text_config.max_position_embeddings
        self.attention = attention
        self.freeze()

    @property
    def attention(self) -> Attention:
        """How attention is computed: ``"sdpa"`` (fused) or ``"eager"`` (plain products)."""
        return self._attention

    @attention.setter
    def attention(self, value: Attention) -> None:
        if value not in get_args(Attention):
            raise ValueError(f"attention must be one of {get_args(Attention)}, got {value!r}")
        self._attention = value
        self._switch_attention(value)

    def _switch_attention(self, value: Attention) -> None:
        self.model.set_attn_implementation(value)

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The vision tower's layers."""
        return list(self.model.vision_model.encoder.layers)

    def run_layer(self, layer: nn.Module, tokens: Tensor) -> Tensor:
        """One layer without mask: ``(B, T, D) -> (B, T, D)``; none knows positions."""
        return layer(tokens, attention_mask=None)

    def patch_tokens(self, pixels: Tensor) -> Tensor:
        """Patches, class token and positions: ``(B, 3, S, S)`` in [0, 1] to ``(B, P + N, D)``."""
        self.check_pixels(pixels)
        return self.model.vision_model.embeddings(self.normalise_pixels(pixels))

    def tokenize(self, texts: list[str], n_prompts: int = 0) -> tuple[Tensor, Tensor]:
        """Ids and mask ``(B, T)`` that leave room for the prompts.

        Raises:
            ValueError: If the prompts leave no room for a word.
        """
        if n_prompts > self.text_length - 3:
            raise ValueError(
                f"{n_prompts} text prompts leave no room for words in {self.text_length} "
                f"positions: use at most {self.text_length - 3}"
            )
        ids, mask = self.tokenizer(texts, self.text_length - n_prompts)
        device = self.model.device
        return ids.to(device), mask.to(device)

    def embed_text(self, texts: list[str], prompts: Tensor | None = None) -> Tensor:
        """As :meth:`DualEncoder.embed_text`.

        Raises:
            ValueError: If the prompts have another width or leave no room for a word.
        """
        if prompts is not None and (prompts.ndim != 2 or prompts.shape[1] != self.text_width):
            raise ValueError(
                f"text prompts must have shape (n, {self.text_width}), got {tuple(prompts.shape)}"
            )
        return super().embed_text(texts, prompts)


def insert_prompts(embeddings: Tensor, prompts: Tensor | None) -> Tensor:
    """Put prompts after the first token: ``(B, T, D)`` and ``(n, D)`` to ``(B, T + n, D)``."""
    if prompts is None:
        return embeddings
    prompts = prompts.to(embeddings).expand(embeddings.shape[0], -1, -1)  # (B, n, D)
    return torch.cat([embeddings[:, :1], prompts, embeddings[:, 1:]], dim=1)
