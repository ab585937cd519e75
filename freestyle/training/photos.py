"""A prompted gallery in training: photos take the trained path too.

The photos that a step draws - those its queries ask for, and the triplet loss's negatives - are
embedded in that step and pass gradients on. Where every training photo is needed (the loss
``gallery``, and text prompts), all others stand as they were embedded when the epoch began: a
memory without gradients, at most an epoch old. Validation embeds its photos anew each time.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from freestyle.frozen import Pictures

if TYPE_CHECKING:
    from freestyle.training.module import RetrievalModule

CHUNK = 64  # photos at a time


@dataclass
class FrozenPhotos:
    """The frozen half of a split's photos; rows are those of the readable ones.

    Attributes:
        pictures: All N photos.
        files: Which of them could be read, in order, ``(G,)``.
        codes: Style codes of all ``(N, code_dim)`` float16 on the CPU; None without a reader.
        features: Features of all ``(N, ...)`` on the CPU; None where pixels are read at each step.
    """

    pictures: Pictures
    files: Tensor
    codes: Tensor | None = None
    features: Tensor | None = None

    def pixels(self, files: Tensor, workers: int) -> Tensor:
        """Pixels ``(B, 3, S, S)`` of files ``(B,)``, decoded by so many threads."""
        with ThreadPoolExecutor(max(1, workers)) as pool:
            read = list(pool.map(self.pictures.pixels, files.tolist()))
        return torch.stack([pixels for pixels, _ in read])


def embed_photos(module: RetrievalModule, which: str, rows: Tensor) -> Tensor:
    """Photos of a split through the trained path, with gradients.

    They are seen whole and as they are: no random views, no patch or code left out.

    Args:
        module: In training, with its frozen caches.
        which: ``train`` or ``val``.
        rows: ``(B,)``, of ``module.caches.gallery[which]``.

    Returns:
        Unit-norm float32 ``(B, E)``.
    """
    photos, device = module.caches.photos[which], module.device
    files = photos.files[rows.cpu()]
    codes = None if photos.codes is None else photos.codes[files].to(device).float()
    if photos.features is not None:
        features = photos.features[files].to(device).float()
    else:
        pixels = photos.pixels(files, module.data.num_workers).to(device)
        features = module.model.frozen_features(pixels)
    return module.model.query_from(features, codes)


@torch.no_grad()
def embed_gallery(module: RetrievalModule, which: str) -> None:
    """Embed all photos of a split by the model as it is now, split over processes."""
    _, groups = module.caches.gallery[which]
    trainer, training = module.trainer, module.model.training
    total, world_size = len(groups), trainer.world_size
    share = -(-total // world_size)
    start = trainer.global_rank * share
    rows = torch.arange(start, start + share) % total  # equally many on every process
    module.model.eval()
    own = torch.cat([embed_photos(module, which, part) for part in rows.split(CHUNK)])
    module.model.train(training)
    if world_size > 1:
        own = module.all_gather(own).flatten(0, 1)
    module.caches.gallery[which] = own[:total], groups
