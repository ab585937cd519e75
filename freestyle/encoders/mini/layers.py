"""The mini's parts: a folded EfficientNet-Lite0 trunk and plain pre-norm transformer blocks.

Sources: EfficientNet (arXiv 1905.11946) in its Lite variant (no squeeze-and-excite, ReLU6), with
batch normalisation folded into the convolutions; ViT (arXiv 2010.11929) blocks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (expansion, channels, repeats, stride, kernel) of EfficientNet-Lite0's seven stages
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
MIDDLE_STAGE, MIDDLE_WIDTH, LAST_WIDTH, SUMMARY_WIDTH = 4, 112, 320, 1280
SUMMARY_TOKENS = 4  # one of the tower's width could not hold the trunk's summary
LAYOUT_GRID = 3  # cells per side whose content the layout tells apart


class ConvSame(nn.Module):
    """Convolution with bias, TensorFlow's "same" padding for even inputs, optional ReLU6."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
    ):
        super().__init__()
        both = kernel - stride if stride > 1 else kernel - 1  # rows to add for an even input
        self.before, self.after = both // 2, both - both // 2
        even = self.before == self.after
        self.conv = nn.Conv2d(
            width_in, width_out, kernel, stride, self.before if even else 0, groups=groups
        )
        self.even, self.relu = even, relu

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C', H / stride, W / stride)``."""
        if not self.even:
            x = F.pad(x, (self.before, self.after, self.before, self.after))
        x = self.conv(x)
        return F.relu6(x) if self.relu else x


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, project; with a shortcut where the shape stays."""

    def __init__(self, width_in: int, width_out: int, expansion: int, stride: int, kernel: int):
        super().__init__()
        hidden = width_in * expansion
        steps = [] if expansion == 1 else [ConvSame(width_in, hidden, 1)]
        steps.append(ConvSame(hidden, hidden, kernel, stride, groups=hidden))
        steps.append(ConvSame(hidden, width_out, 1, relu=False))
        self.steps = nn.Sequential(*steps)
        self.shortcut = stride == 1 and width_in == width_out

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C', H / stride, W / stride)``."""
        return x + self.steps(x) if self.shortcut else self.steps(x)


class Trunk(nn.Module):
    """EfficientNet-Lite0 without its classifier: maps at stride 16 and 32, and their summary."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = ConvSame(3, 32, 3, 2)
        width, stages = 32, []
        for expansion, channels, repeats, stride, kernel in STAGES:
            blocks = []
            for i in range(repeats):
                step = stride if i == 0 else 1
                blocks.append(InvertedResidual(width, channels, expansion, step, kernel))
                width = channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.top = ConvSame(LAST_WIDTH, SUMMARY_WIDTH, 1)

    def summary(self, last: Tensor) -> Tensor:
        """The last map ``(B, 320, g, g)`` pooled as the classifier sees it, square-rooted.

        Returns:
            ``(B, 1280)``, unit norm.
        """
        pooled = self.top(last).mean(dim=(2, 3))
        return F.normalize((pooled + 1e-6).sqrt(), dim=1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised pixels ``(B, 3, S, S)``, S a multiple of 32.

        Returns:
            The middle map ``(B, 112, S/16, S/16)``, the last map ``(B, 320, S/32, S/32)`` and
            the summary ``(B, 1280)``.
        """
        x = self.entry(pixels)
        middle = x
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i == MIDDLE_STAGE:
                middle = x
        return middle, x, self.summary(x)


class Block(nn.Module):
    """Pre-norm transformer block, ``(B, T, D) -> (B, T, D)`` for any T."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def attend(self, x: Tensor) -> Tensor:
        """Multi-head self-attention, ``(B, T, D) -> (B, T, D)``."""
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1), dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, t, d))  # (B, H, T, d) -> (B, T, D)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, D) -> (B, T, D)``."""
        x = x + self.attend(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Tower(nn.Module):
    """Maps of the trunk to tokens, blocks, and two heads: what is seen, and where.

    Args:
        grid: Patch tokens per side; each stands for 2 x 2 positions of the middle map.
        width: Token width D.
        depth: Number of blocks.
        heads: Attention heads.
        hidden: Width of the blocks' MLPs.
        semantic_dim: Dimensions that pictures share with text.
        layout_dim: Dimensions for the spatial layout, which text leaves empty.
    """

    def __init__(
        self,
        grid: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        semantic_dim: int,
        layout_dim: int,
    ):
        super().__init__()
        self.grid, self.width = grid, width
        self.middle = nn.Linear(4 * MIDDLE_WIDTH, width)
        self.last = nn.Linear(LAST_WIDTH, width)
        self.summary = nn.Linear(SUMMARY_WIDTH, SUMMARY_TOKENS * width)
        self.positions = nn.Parameter(torch.zeros(1, SUMMARY_TOKENS + grid * grid, width))
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear((SUMMARY_TOKENS + 1) * width, semantic_dim)
        self.cell = nn.Linear(width, MIDDLE_WIDTH)
        self.layout = nn.Linear(LAYOUT_GRID * LAYOUT_GRID * MIDDLE_WIDTH, layout_dim)

    def tokens(self, middle: Tensor, last: Tensor, summary: Tensor) -> Tensor:
        """The trunk's output to ``(B, 4 + g*g, D)``, summary tokens first.

        Args:
            middle: ``(B, 112, 2 g, 2 g)``.
            last: ``(B, 320, g, g)``.
            summary: ``(B, 1280)``.
        """
        fine = F.pixel_unshuffle(middle, 2).permute(0, 2, 3, 1)  # (B, g, g, 448)
        x = self.middle(fine) + self.last(last.permute(0, 2, 3, 1))  # (B, g, g, D)
        first = self.summary(summary).view(-1, SUMMARY_TOKENS, self.width)  # (B, 4, D)
        return torch.cat([first, x.flatten(1, 2)], dim=1) + self.positions

    def pooled(self, normed: Tensor) -> Tensor:
        """Summary tokens and the average patch, side by side: ``(B, 4 + N, D) -> (B, 5 D)``."""
        patch = normed[:, SUMMARY_TOKENS:].mean(dim=1)
        return torch.cat([normed[:, :SUMMARY_TOKENS].flatten(1), patch], dim=1)

    def cells(self, normed: Tensor) -> Tensor:
        """Patches averaged on a 3 x 3 grid: ``(B, 4 + g*g, D) -> (B, 9, D)``.

        Raises:
            ValueError: If patches are missing: a layout needs all of them.
        """
        patches = normed[:, SUMMARY_TOKENS:]
        if patches.shape[1] != self.grid * self.grid:
            raise ValueError(
                f"the layout needs all {self.grid * self.grid} patches, got {patches.shape[1]}"
            )
        maps = patches.transpose(1, 2).unflatten(2, (self.grid, self.grid))  # (B, D, g, g)
        return F.adaptive_avg_pool2d(maps, LAYOUT_GRID).flatten(2).transpose(1, 2)

    def pool(self, tokens: Tensor) -> Tensor:
        """Two unit-norm parts, what and where: ``(B, 4 + g*g, D) -> (B, S + L)``, norm sqrt(2)."""
        normed = self.norm(tokens)
        what = self.head(self.pooled(normed)).float()
        where = self.layout(self.cell(self.cells(normed)).flatten(1)).float()
        return torch.cat([F.normalize(what, dim=1), F.normalize(where, dim=1)], dim=1)

    def patches(self, tokens: Tensor) -> Tensor:
        """Every patch by its part of the semantic head: ``(B, 4 + N, D) -> (B, N, S)``."""
        weight = self.head.weight[:, SUMMARY_TOKENS * self.width :]  # (S, D)
        return F.linear(self.norm(tokens[:, SUMMARY_TOKENS:]), weight)

    def forward(self, middle: Tensor, last: Tensor, summary: Tensor) -> Tensor:
        """The plain path from the trunk's output to embeddings ``(B, S + L)``, as :meth:`pool`."""
        x = self.tokens(middle, last, summary)
        for block in self.blocks:
            x = block(x)
        return self.pool(x)
