"""Pixels to style codes: a frozen CNN, its Gram matrices, a fixed normalisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from freestyle.errors import UserError
from freestyle.style.features import FrozenFeatures
from freestyle.style.gram import style_code


class StyleReader(nn.Module):
    """Reads the style code of a picture; nothing in it is ever trained.

    The code is the vectorised Gram matrix of each tap (FreestyleRet, arXiv 2312.02428, section
    3.2), one tap after the other. A tap with many channels is first mixed down by a fixed random
    orthonormal matrix Q, which turns its Gram matrix G into the small ``Q^T G Q``.

    Args:
        features: The frozen CNN.
        channels: Most channels per tap after mixing; ``None`` mixes nothing.
        power: Exponent on the magnitudes of the Gram entries; see
            :func:`freestyle.style.gram.style_code`.
        normalise: Unit Euclidean norm for each tap's part of the code.
        seed: Of the mixing matrices.

    Attributes:
        code_dim: Length of a code: the sum of ``c (c + 1) / 2`` over taps of ``c`` channels.
        tag: Everything that decides the codes, the key of a cache.
        config: The arguments as plain JSON values, for :meth:`from_config`.

    Raises:
        UserError: ``channels`` or ``power`` out of range.
    """

    def __init__(
        self,
        features: FrozenFeatures,
        *,
        channels: int | None = None,
        power: float = 0.5,
        normalise: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if channels is not None and channels < 1:
            raise UserError(f"Style channels {channels} must be at least 1, or none.")
        if not 0 < power <= 1:
            raise UserError(f"Style power {power} must lie in (0, 1].")
        self.features = features
        self.power, self.normalise = float(power), normalise
        sizes = [min(width, channels or width) for width in features.channels]
        for tap, (width, size) in enumerate(zip(features.channels, sizes, strict=True)):
            mixing = None if size == width else _orthonormal(width, size, seed + tap)
            self.register_buffer(f"mixing_{tap}", mixing, persistent=False)
        self.code_dim = sum(size * (size + 1) // 2 for size in sizes)
        self.tag = f"{features.tag}|p{self.power:g}|n{int(normalise)}"
        if sizes != list(features.channels):
            self.tag += f"|c{channels}s{seed}"
        self.config: dict[str, Any] = {
            "features": features.config,
            "channels": channels,
            "power": self.power,
            "normalise": normalise,
            "seed": seed,
        }
        self.requires_grad_(False).eval()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> StyleReader:
        """Rebuilds a reader from its ``config``."""
        options = dict(config)
        return cls(FrozenFeatures(**options.pop("features")), **options)

    def train(self, mode: bool = True) -> StyleReader:
        """Stays in evaluation mode whatever ``mode`` says."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Reads style codes.

        Args:
            pixels: ``(B, 3, S, S)`` RGB in [0, 1].

        Returns:
            ``(B, code_dim)`` float32, also under bf16 or fp16 autocast.
        """
        maps = self.features(pixels)  # per tap (B, C, H, W)
        mixed = [self._mix(tap, features) for tap, features in enumerate(maps)]
        return style_code(mixed, self.power, self.normalise)  # (B, code_dim)

    def _mix(self, tap: int, features: Tensor) -> Tensor:
        """Applies a tap's orthonormal mixing: ``(B, C, H, W)`` to ``(B, c, H, W)`` float32."""
        mixing: Tensor | None = getattr(self, f"mixing_{tap}")
        if mixing is None:
            return features
        with torch.autocast(features.device.type, enabled=False):
            flat = features.float().flatten(2)  # (B, C, H*W)
            mixed = mixing.float().t() @ flat  # (B, c, H*W)
        return mixed.unflatten(2, features.shape[2:])


def _orthonormal(width: int, size: int, seed: int) -> Tensor:
    """``(width, size)`` float32 with orthonormal columns, the same for a seed everywhere."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(width, size, generator=generator, dtype=torch.float64)
    columns, upper = torch.linalg.qr(noise)
    return (columns * upper.diagonal().sign()).float()
