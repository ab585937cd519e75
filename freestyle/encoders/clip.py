"""CLIP (Radford et al. 2021, arXiv 2103.00020) from ``transformers.CLIPModel``.

Weights: any CLIP checkpoint in Hugging Face layout with safetensors, such as
``openai/clip-vit-large-patch14`` or ``laion/CLIP-ViT-B-32-laion2B-s34B-b79K``. They differ by many
points on retrieval sets, which is why ``weights_tag`` belongs into every result.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from freestyle.encoders.huggingface import HuggingFaceEncoder, insert_prompts


class ClipEncoder(HuggingFaceEncoder):
    """CLIP image and text towers; one CLS token, causal text tower read at the end token."""

    n_prefix = 1

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        self.embed_dim = model.config.projection_dim

    def patch_tokens(self, pixels: Tensor) -> Tensor:
        """Pixels ``(B, 3, S, S)`` in [0, 1] to ``(B, 1 + N, D)``, after CLIP's first norm."""
        return self.model.vision_model.pre_layrnorm(super().patch_tokens(pixels))

    def pool(self, tokens: Tensor) -> Tensor:
        """Normalise and project the CLS token: ``(B, 1 + N, D) -> (B, E)``."""
        cls = self.model.vision_model.post_layernorm(tokens[:, 0])  # (B, D)
        return self.model.visual_projection(cls)

    def atoms(self, tokens: Tensor) -> Tensor:
        """Patches through the head of the CLS token: ``(B, 1 + N, D) -> (B, N, E)``, unit norm."""
        patches = self.model.vision_model.post_layernorm(tokens[:, 1:])  # (B, N, D)
        return F.normalize(self.model.visual_projection(patches), dim=-1)

    def embed_tokens(self, ids: Tensor, mask: Tensor, prompts: Tensor | None = None) -> Tensor:
        """Ids to ``(B, E)``; ``n`` prompts after the start token move the end by ``n``.

        Padding stands behind the end token, which a causal tower does not look at, so the result
        does not depend on the other texts of the batch.

        Args:
            ids: ``(B, T)``, with the prompts at most 77 tokens.
            mask: Not read.
            prompts: ``(n, text_width)`` or None.
        """
        tower = self.model.text_model
        words = insert_prompts(tower.embeddings.token_embedding(ids), prompts)
        tokens = tower.embeddings(inputs_embeds=words)  # (B, n + T, D)
        seen = self._causal_mask(tokens)
        for layer in tower.encoder.layers:
            tokens = layer(tokens, attention_mask=seen)
        end = self._end_positions(ids) + words.shape[1] - ids.shape[1]  # (B,)
        last = tokens[torch.arange(ids.shape[0], device=ids.device), end]  # (B, D)
        return self.model.text_projection(tower.final_layer_norm(last))

    def _end_positions(self, ids: Tensor) -> Tensor:
        """Index of the first end token, ``(B, T) -> (B,)``.

        Configurations written before 2023 say ``eos_token_id = 2``, which is wrong; there the end
        token is the highest id of the vocabulary, and Hugging Face takes the maximum too.
        """
        end = self.model.config.text_config.eos_token_id
        if end == 2:
            return ids.argmax(dim=-1)
        return (ids == end).int().argmax(dim=-1)

    def _causal_mask(self, tokens: Tensor) -> Tensor:
        """``(1, 1, T, T)``: True where a token may look (sdpa), or 0 / lowest to add (eager)."""
        length = tokens.shape[1]
        seen = torch.ones(1, 1, length, length, dtype=torch.bool, device=tokens.device).tril()
        if self.attention == "sdpa":
            return seen
        lowest = torch.finfo(tokens.dtype).min
        return torch.zeros_like(seen, dtype=tokens.dtype).masked_fill(~seen, lowest)
