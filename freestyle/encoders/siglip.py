"""SigLIP (Zhai et al. 2023, arXiv 2303.15343) and SigLIP 2 (arXiv 2502.14786) at fixed resolution.

Both run as ``transformers.SiglipModel``. The NaFlex variants of SigLIP 2, which take pictures of
any aspect as a list of patches, are not supported.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from freestyle.encoders.huggingface import HuggingFaceEncoder, insert_prompts


class SiglipEncoder(HuggingFaceEncoder):
    """SigLIP towers: attention pooling without a CLS token; text read at its last position."""

    n_prefix = 0

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        self.embed_dim = self.width

    def pool(self, tokens: Tensor) -> Tensor:
        """Norm and attention-pooling head: ``(B, N, D) -> (B, E)`` with E = D."""
        tower = self.model.vision_model
        return tower.head(tower.post_layernorm(tokens))

    def atoms(self, tokens: Tensor) -> Tensor:
        """Each patch through the pooling head alone: ``(B, N, D) -> (B, N, E)``, unit norm.

        With one token to look at, the head's attention weight is 1 whatever the query, and the head
        is the value and output projections followed by its MLP. The pooled vector is the same
        function of a weighted mean of the patches' values: atoms and pooled vectors share a space.
        """
        tower = self.model.vision_model
        attention, width = tower.head.attention, self.width
        patches = tower.post_layernorm(tokens)
        values = F.linear(
            patches, attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :]
        )
        values = attention.out_proj(values)  # (B, N, D)
        return F.normalize(values + tower.head.mlp(tower.head.layernorm(values)), dim=-1)

    def embed_tokens(self, ids: Tensor, mask: Tensor, prompts: Tensor | None = None) -> Tensor:
        """Ids to ``(B, E)``, read at the last of the 64 positions.

        The tower was trained on texts padded to 64 tokens without a mask, and so it is run here,
        for any batch. With ``n`` prompts after the first token the text gets 64 - n positions.

        Args:
            ids: ``(B, 64 - n)``.
            mask: Not read.
            prompts: ``(n, text_width)`` or None.
        """
        tower = self.model.text_model
        words = insert_prompts(tower.embeddings.token_embedding(ids), prompts)
        tokens = tower.embeddings(inputs_embeds=words)  # (B, 64, D)
        for layer in tower.encoder.layers:
            tokens = layer(tokens, attention_mask=None)
        return tower.head(tower.final_layer_norm(tokens[:, -1]))
