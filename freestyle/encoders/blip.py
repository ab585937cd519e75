"""BLIP (Li et al. 2022, arXiv 2201.12086) from ``transformers.BlipForImageTextRetrieval``.

Weights: the retrieval checkpoints, such as ``Salesforce/blip-itm-large-coco``. The two contrastive
towers are used; the image-text matching head, which reads pairs, is not.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from freestyle.encoders.huggingface import Attention, HuggingFaceEncoder, insert_prompts


class BlipEncoder(HuggingFaceEncoder):
    """BLIP's contrastive towers: CLS token of a ViT, CLS token of a BERT."""

    n_prefix = 1

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        self.embed_dim = model.config.image_text_hidden_size

    def _switch_attention(self, value: Attention) -> None:
        """Nothing to tell transformers, whose BLIP knows plain attention only."""

    def run_layer(self, layer: nn.Module, tokens: Tensor) -> Tensor:
        """One layer, its attention fused where asked for: ``(B, T, D) -> (B, T, D)``."""
        if self.attention == "eager":
            return layer(tokens)
        attention = layer.self_attn
        mixed = attention.qkv(layer.layer_norm1(tokens))  # (B, T, 3 D)
        mixed = mixed.unflatten(-1, (3, attention.num_heads, attention.head_dim))
        query, key, value = mixed.permute(2, 0, 3, 1, 4)  # each (B, heads, T, D / heads)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=attention.scale)
        tokens = tokens + attention.projection(mixed.transpose(1, 2).flatten(2))
        return tokens + layer.mlp(layer.layer_norm2(tokens))

    def pool(self, tokens: Tensor) -> Tensor:
        """Normalise and project the CLS token: ``(B, 1 + N, D) -> (B, E)``."""
        return self.model.vision_proj(self.model.vision_model.post_layernorm(tokens[:, 0]))

    def atoms(self, tokens: Tensor) -> Tensor:
        """Patches through the head of the CLS token: ``(B, 1 + N, D) -> (B, N, E)``, unit norm."""
        patches = self.model.vision_model.post_layernorm(tokens[:, 1:])  # (B, N, D)
        return F.normalize(self.model.vision_proj(patches), dim=-1)

    def embed_tokens(self, ids: Tensor, mask: Tensor, prompts: Tensor | None = None) -> Tensor:
        """Ids to ``(B, E)``, read at the CLS token; padding is masked.

        Args:
            ids: ``(B, T)``.
            mask: ``(B, T)``.
            prompts: ``(n, text_width)`` put after the CLS token, or None.
        """
        tower = self.model.text_encoder
        words = insert_prompts(tower.embeddings.word_embeddings(ids), prompts)
        if prompts is not None:  # the first n + 1 are prompts and CLS
            mask = F.pad(mask, (prompts.shape[0], 0), value=1)
        out = tower(inputs_embeds=words, attention_mask=mask)
        return self.model.text_proj(out.last_hidden_state[:, 0])
