"""The frozen half of every picture, computed once: embeddings, patch tokens, style codes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from freestyle.datasets.images import load_image
from freestyle.encoders.base import Preprocessing
from freestyle.encoders.preprocess import to_pixels
from freestyle.errors import UserError

logger = logging.getLogger(__name__)
T = TypeVar("T")
_memory: dict[tuple[Hashable, ...], object] | None = None


@contextmanager
def shared_memory() -> Iterator[None]:
    """Keep frozen rows while a command trains and evaluates several models on the same pictures."""
    global _memory
    before, _memory = _memory, {}
    try:
        yield
    finally:
        _memory = before


def remembered(key: tuple[Hashable, ...], compute: Callable[[], T]) -> T:
    """``compute()``, or what it gave for the same key under :func:`shared_memory`."""
    if _memory is None:
        return compute()
    if key not in _memory:
        _memory[key] = compute()
    return cast("T", _memory[key])


def remembers() -> bool:
    """Whether a :func:`shared_memory` is open."""
    return _memory is not None


def is_remembered(key: tuple[Hashable, ...]) -> bool:
    """Whether :func:`remembered` would not have to compute."""
    return _memory is not None and key in _memory


def frozen_key(kind: str, tag: str, paths: Sequence[Path], *rest: Hashable) -> tuple[Hashable, ...]:
    """Names the rows of some files under an encoder's weights tag."""
    digest = hashlib.sha256("\n".join(str(path) for path in paths).encode()).hexdigest()
    return (kind, tag, digest, *rest)


class Pictures(Dataset):
    """Picture files as pixels.

    Args:
        paths: Files.
        preprocessing: The encoder's resize and crop.
        on_broken: ``stop`` raises the reader's error; ``skip`` yields a white picture marked as
            broken, which callers leave out and report.

    Attributes:
        tag: What is done to the pictures before they are read, for the keys of caches.
    """

    tag = ""

    def __init__(
        self, paths: Sequence[Path], preprocessing: Preprocessing, on_broken: str = "stop"
    ) -> None:
        if on_broken not in ("stop", "skip"):
            raise UserError(f"on_broken is '{on_broken}': use 'stop' or 'skip'")
        self.paths, self.preprocessing, self.on_broken = paths, preprocessing, on_broken

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, index: int) -> tuple[Tensor, bool]:
        """Pixels ``(3, S, S)`` in [0, 1] and whether the file could be read."""
        try:
            return to_pixels(load_image(self.paths[index]), self.preprocessing), True
        except UserError:
            if self.on_broken == "stop":
                raise
        side = self.preprocessing.size
        return torch.ones(3, side, side), False

    def __getitem__(self, index: int) -> tuple[int, Tensor, bool]:
        pixels, readable = self.pixels(index)
        return index, pixels, readable


@dataclass
class FrozenRows:
    """What a pass over N pictures gave.

    Attributes:
        values: Per name a tensor whose first dimension is N, on the CPU.
        readable: ``(N,)`` bool; rows of unreadable files hold values of a white picture.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    readable: Tensor = field(default_factory=lambda: torch.ones(0, dtype=torch.bool))

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]


@torch.no_grad()
def frozen_pass(
    compute: Callable[[Tensor, Tensor], dict[str, Tensor]],
    pictures: Pictures,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    num_workers: int = 0,
    description: str = "Reading pictures",
    rank: int = 0,
    world_size: int = 1,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> FrozenRows:
    """Run a frozen function over pictures, split over ranks, rows gathered everywhere.

    Args:
        compute: Pixels ``(B, 3, S, S)`` on ``device`` and their rows ``(B,)`` to named tensors
            ``(B, ...)``.
        pictures: What to read.
        device: Where ``compute`` runs.
        batch_size: Pictures per call and rank.
        num_workers: Decoding processes.
        description: Of the progress bar, which shows itself after two seconds.
        rank: This process, of ``world_size``.
        world_size: Number of processes.
        gather: Stacks a tensor over ranks, ``(...) -> (world_size, ...)``; needed beyond one.

    Returns:
        Rows of all pictures, on every rank.

    Raises:
        UserError: If a file cannot be read and ``pictures`` stops at such files.
    """
    total = len(pictures)
    share = -(-total // world_size)
    # Every rank runs equally many batches, so that gathering never waits: the tail wraps around.
    own = [i % total for i in range(rank * share, (rank + 1) * share)] if total else []
    loader = DataLoader(
        pictures, batch_size=batch_size, sampler=own, num_workers=num_workers, pin_memory=False
    )
    rows = FrozenRows(readable=torch.ones(total, dtype=torch.bool))
    bar = tqdm(total=len(own), desc=description, unit="picture", delay=2, disable=rank != 0)
    with bar:
        for index, pixels, readable in loader:
            values = compute(pixels.to(device), index)
            index, readable = index.to(device), readable.to(device)
            if world_size > 1:
                values = {k: gather(v.contiguous()).flatten(0, 1) for k, v in values.items()}
                index, readable = gather(index).flatten(), gather(readable).flatten()
            place = index.cpu()
            for name, value in values.items():
                if name not in rows.values:
                    rows.values[name] = torch.empty((total, *value.shape[1:]), dtype=value.dtype)
                rows.values[name][place] = value.cpu()
            rows.readable[place] = readable.cpu()
            bar.update(len(pixels))
    report_broken(pictures.paths, rows.readable)
    return rows


def report_broken(paths: Sequence[Path], readable: Tensor) -> None:
    """Log each unreadable file once; nothing is dropped silently."""
    for index in (~readable).nonzero().flatten().tolist():
        logger.warning("skipped %s: it cannot be read as a picture", paths[index])


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """A mild random view: mirrored half of the time, turned, scaled and shifted a little.

    Args:
        pixels: ``(B, 3, S, S)`` in [0, 1].
        generator: CPU generator; the same state gives the same views.

    Returns:
        ``(B, 3, S, S)`` in [0, 1]; what comes in from outside repeats the border.
    """
    batch = pixels.shape[0]
    draw = torch.rand(batch, 5, generator=generator)
    mirror = torch.where(draw[:, 0] < 0.5, -1.0, 1.0)
    angle = (draw[:, 1] - 0.5) * 2 * 0.21  # radians, about 12 degrees
    scale = 0.87 + draw[:, 2] * 0.3  # of the sampled window: below 1 enlarges
    shift = (draw[:, 3:] - 0.5) * 2 * 0.08
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    matrix = torch.stack(
        [
            torch.stack([cos * mirror, -sin, shift[:, 0]], dim=1),
            torch.stack([sin * mirror, cos, shift[:, 1]], dim=1),
        ],
        dim=1,
    ).to(pixels)  # (B, 2, 3)
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False).clamp(0, 1)
