"""A frozen CNN that stops at the last layer anyone asked for.

Networks by name:

- ``vgg16``, ``vgg19``: torchvision's layout and ImageNet weights; taps ``relu1_1`` ... ``relu5_4``.
- ``vgg-mini``: the small VGG that ships with the package.
- ``timm:<name>``: any convolutional network of timm; taps are its feature stages, ``0``, ``1``, ...

Pixels come in as RGB in [0, 1] and are normalised with the network's own statistics, never the
encoder's. FreestyleRet (arXiv 2312.02428, section 3.2) reads ``relu2_1`` of a VGG.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from freestyle.errors import UserError
from freestyle.style.networks import build


class FrozenFeatures(nn.Module):
    """Feature maps of a frozen CNN at chosen layers.

    The network ends at the deepest tap, needs no gradient and stays in evaluation mode, also when
    a parent module is switched to training.

    Args:
        network: ``vgg16``, ``vgg19``, ``vgg-mini`` or ``timm:<name>``.
        taps: Layer names (VGG) or stage indices (timm), in the order wanted back.
        resolution: Larger pictures are shrunk (bilinear, antialiased) until their longer side has
            this many pixels; smaller ones are never enlarged. ``None`` leaves the size alone.
        weights: ``"pretrained"``, ``"random"`` or the path of a ``.safetensors`` file.
        seed: Of the random weights.

    Attributes:
        channels: Channels per tap.
        tag: Network, taps, resolution and a hash of the kept weights: equal tags, equal features.
        config: The arguments, as plain JSON values.

    Raises:
        UserError: Unknown network or tap, or weights that cannot be had or read.
    """

    def __init__(
        self,
        network: str,
        taps: Sequence[str | int],
        resolution: int | None = None,
        weights: str = "pretrained",
        seed: int = 0,
    ) -> None:
        super().__init__()
        names = tuple(str(tap) for tap in taps)
        if not names or len(set(names)) != len(names):
            raise UserError(f"Style taps {list(names)} must be one or more different layers.")
        if resolution is not None and resolution < 1:
            raise UserError(f"Style resolution {resolution} must be at least 1, or none.")
        self.config: dict[str, Any] = {
            "network": network,
            "taps": list(names),
            "resolution": resolution,
            "weights": str(weights),
            "seed": seed,
        }
        self.taps, self.resolution = names, resolution
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built = build(network, names, str(weights))
        self.network, self.channels = built.network, built.channels
        self._indices, self._smallest = built.indices, built.smallest
        self.network.to(memory_format=torch.channels_last)
        for key, values in (("mean", built.mean), ("std", built.std)):
            buffer = torch.tensor(values).view(1, 3, 1, 1)
            self.register_buffer(key, buffer, persistent=False)
        self.requires_grad_(False).eval()
        size = resolution or "full"
        self.tag = f"{network}:{','.join(names)}@{size}#{weights_hash(self.network)}"

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Stays in evaluation mode whatever ``mode`` says."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Reads the taps.

        Args:
            pixels: ``(B, 3, H, W)`` RGB in [0, 1].

        Returns:
            One ``(B, C_i, H_i, W_i)`` per tap, in the order of ``taps``.

        Raises:
            UserError: Pictures too small for the deepest tap.
        """
        return self.maps(pixels)

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """`forward` that lets gradients through to the pixels."""
        pixels = shrink(pixels.float(), self.resolution)
        if min(pixels.shape[2:]) < self._smallest:
            raise UserError(
                f"A picture of {pixels.shape[3]}x{pixels.shape[2]} pixels is too small for style "
                f"tap {self.taps[-1]}: enlarge it to at least {self._smallest} pixels a side."
            )
        dtype = next(self.network.parameters()).dtype
        x = ((pixels - self.mean.float()) / self.std.float()).to(dtype)  # (B, 3, H, W)
        x = x.contiguous(memory_format=torch.channels_last)
        if not isinstance(self.network, nn.Sequential):
            maps = self.network(x)  # timm: a list, shallow to deep
            maps = [maps[index] for index in self._indices]
            if any(
                m.ndim != 4 or m.shape[1] != c for m, c in zip(maps, self.channels, strict=True)
            ):
                raise UserError(
                    f"{self.config['network']} gives no (B, C, H, W) maps: choose a CNN."
                )
            return maps
        found: dict[int, Tensor] = {}
        for index, layer in enumerate(self.network):
            x = layer(x)
            if index in self._indices:
                found[index] = x
        return [found[index] for index in self._indices]


def shrink(pixels: Tensor, side: int | None) -> Tensor:
    """Shrinks pictures until their longer side is ``side``; smaller ones come back unchanged.

    Args:
        pixels: ``(B, 3, H, W)``.
        side: Pixels, or ``None`` for no limit.

    Returns:
        ``(B, 3, H', W')`` with ``max(H', W') <= side``.
    """
    height, width = pixels.shape[2:]
    longer = max(height, width)
    if side is None or longer <= side:
        return pixels
    size = (max(1, round(height * side / longer)), max(1, round(width * side / longer)))
    return F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)


def weights_hash(network: nn.Module) -> str:
    """Twelve hex digits of a SHA-256 over names and values of a network's weights."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
