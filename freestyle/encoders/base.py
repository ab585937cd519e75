"""The interface every frozen dual encoder offers: patch tokens, blocks one by one, pooling, text.

Prompt tokens enter between blocks, so an encoder is a list of steps instead of one forward:

    tokens = encoder.patch_tokens(pixels)            # (B, P + N, D)
    for block in encoder.blocks:                     # prompts are put in and taken out here
        tokens = block(tokens)
    embedding = encoder.pool(tokens)                 # (B, E), not normalised

Pixels are always RGB in [0, 1] after :meth:`DualEncoder.preprocess`; the encoder normalises for
itself, as does every other consumer (the style reader has statistics of its own).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from freestyle.encoders.preprocess import Preprocessing, to_pixels

if TYPE_CHECKING:
    from PIL import Image


class DualEncoder(nn.Module):
    """A frozen image tower and text tower that share one embedding space.

    Subclasses set the attributes below in ``__init__``, implement the abstract methods, and call
    :meth:`freeze` last.

    Attributes:
        name: The name that rebuilds it through :func:`freestyle.encoders.create`.
        weights_tag: Where the weights come from, with revision or hash; printed in every result.
        preprocessing: Resize, crop and normalisation.
        width: Token width D.
        depth: Number of blocks.
        embed_dim: Width E of the shared space.
        n_prefix: Tokens before the patches: 1 with a CLS token, 0 without, more where a tower has
            several; prompts go after them.
        text_width: Width of the text tower's token embeddings, for learned text prompts.
        needs_all_patches: Whether :meth:`pool` reads patches by their places, so that none may be
            left out.
        attention: ``"sdpa"`` (fused kernels) or ``"eager"`` (plain matrix products, whose backward
            pass is the faster one on a CPU); settable where the encoder offers both.
    """

    name: str
    weights_tag: str
    preprocessing: Preprocessing
    width: int
    depth: int
    embed_dim: int
    n_prefix: int
    text_width: int
    needs_all_patches: bool = False
    attention: Literal["sdpa", "eager"] = "sdpa"

    @property
    def image_size(self) -> int:
        """Side of the input square in pixels."""
        return self.preprocessing.size

    @property
    def blocks(self) -> Sequence[Callable[[Tensor], Tensor]]:
        """The transformer blocks in order, each ``(B, T, D) -> (B, T, D)`` for any T."""
        return [partial(self.run_layer, layer) for layer in self.layers]

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The blocks' modules in order, for those who train a copy of them."""
        raise NotImplementedError

    def run_layer(self, layer: nn.Module, tokens: Tensor) -> Tensor:
        """One of :attr:`layers`, or a copy of one: ``(B, T, D) -> (B, T, D)``."""
        return layer(tokens)

    def patch_tokens(self, pixels: Tensor) -> Tensor:
        """Everything before the first block.

        Args:
            pixels: RGB in [0, 1], ``(B, 3, H, W)`` with H = W = ``image_size``.

        Returns:
            ``(B, n_prefix + N, D)`` with positions added.
        """
        raise NotImplementedError

    def pool(self, tokens: Tensor) -> Tensor:
        """Last norm, pooling and projection: ``(B, n_prefix + N, D) -> (B, E)``, unnormalised."""
        raise NotImplementedError

    def atoms(self, tokens: Tensor) -> Tensor:
        """Patch tokens in the shared space: ``(B, n_prefix + N, D) -> (B, N, E)``, unit norm."""
        raise NotImplementedError

    def tokenize(self, texts: list[str], n_prompts: int = 0) -> tuple[Tensor, Tensor]:
        """One or more strings to ids and mask, each ``(B, T)`` int64, room left for prompts."""
        raise NotImplementedError

    def embed_tokens(self, ids: Tensor, mask: Tensor, prompts: Tensor | None = None) -> Tensor:
        """Text tower: what :meth:`tokenize` gave to ``(B, E)``, unnormalised.

        Args:
            ids: ``(B, T)``.
            mask: ``(B, T)``, 1 on tokens, 0 on padding.
            prompts: Learned tokens ``(n, text_width)`` put right after the first token, or None.
        """
        raise NotImplementedError

    def embed_text(self, texts: list[str], prompts: Tensor | None = None) -> Tensor:
        """Both steps: ``B`` strings to ``(B, E)``, unnormalised.

        Args:
            texts: Any strings; longer ones are cut to what the tower holds.
            prompts: As for :meth:`embed_tokens`.
        """
        if not texts:
            return next(self.parameters()).new_zeros(0, self.embed_dim)
        ids, mask = self.tokenize(texts, 0 if prompts is None else len(prompts))
        return self.embed_tokens(ids, mask, prompts)

    def run_blocks(self, tokens: Tensor) -> Tensor:
        """All blocks without prompts: ``(B, T, D) -> (B, T, D)``."""
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def embed_image(self, pixels: Tensor) -> Tensor:
        """The plain frozen path: pixels ``(B, 3, H, W)`` in [0, 1] to ``(B, E)``, unnormalised."""
        if pixels.shape[0] == 0:  # not every block can reshape an empty batch
            return pixels.new_zeros(0, self.embed_dim)
        return self.pool(self.run_blocks(self.patch_tokens(pixels)))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Unit-norm float32 image embeddings ``(B, E)`` of pixels ``(B, 3, H, W)`` in [0, 1]."""
        return F.normalize(self.embed_image(pixels).float(), dim=-1)

    def encode_text(self, texts: list[str], prompts: Tensor | None = None) -> Tensor:
        """Unit-norm float32 text embeddings ``(B, E)``."""
        return F.normalize(self.embed_text(texts, prompts).float(), dim=-1)

    def normalise_pixels(self, pixels: Tensor) -> Tensor:
        """Subtract the encoder's own means and divide by its deviations."""
        mean = pixels.new_tensor(self.preprocessing.mean).view(1, 3, 1, 1)
        std = pixels.new_tensor(self.preprocessing.std).view(1, 3, 1, 1)
        return (pixels - mean) / std

    def preprocess(self, image: Image.Image) -> Tensor:
        """One RGB picture of any shape to pixels ``(3, S, S)`` in [0, 1]."""
        return to_pixels(image, self.preprocessing)

    def check_pixels(self, pixels: Tensor) -> None:
        """Refuse a batch of another size in one sentence.

        Raises:
            ValueError: If ``pixels`` is not ``(B, 3, image_size, image_size)``.
        """
        expected = (3, self.image_size, self.image_size)
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != expected:
            raise ValueError(
                f"{self.name} takes pixels of shape (B, 3, {self.image_size}, {self.image_size}), "
                f"got {tuple(pixels.shape)}: pass pictures through its preprocess() first"
            )

    def freeze(self) -> None:
        """No gradients and evaluation mode for good: ``train()`` leaves the encoder as it is."""
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> DualEncoder:
        """Stay in evaluation mode: dropout or batch statistics would move the gallery."""
        return super().train(False)
