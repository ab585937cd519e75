"""DSR-Emoji as the recipe sees it: only for measuring, validation to choose and test to report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from teachers import Features
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1] / "emoji"
STYLES = ("sketch", "art", "mosaic", "colour")


def entries(split: str) -> list[dict[str, str]]:
    """The entries of ``val.json`` or ``test.json``."""
    return json.loads((ROOT / f"{split}.json").read_text())


def captions(split: str) -> list[str]:
    """Line 1 of every entry's text."""
    return [(ROOT / "text" / e["caption"]).read_text().splitlines()[0] for e in entries(split)]


def pictures(split: str, style: str, side: int) -> Tensor:
    """All pictures of a style, ``(N, 3, side, side)`` in [0, 1]."""
    arrays = []
    for entry in entries(split):
        with Image.open(ROOT / style / entry["image"]) as image:
            square = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        arrays.append(np.asarray(square))
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def cached_maps(split: str, cache: Path) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Style to (middle, last, teacher) of every entry; computed once in float32."""
    path = cache / f"emoji_{split}.pt"
    if not path.exists():
        model = Features().eval().to(memory_format=torch.channels_last)
        result = {}
        with torch.no_grad():
            for style in ("images", *STYLES):
                batches = pictures(split, style, 224).split(32)
                parts = [model(b.contiguous(memory_format=torch.channels_last)) for b in batches]
                result[style] = tuple(torch.cat(p).half() for p in zip(*parts, strict=True))
        temporary = path.with_suffix(".tmp")
        torch.save(result, temporary)
        temporary.replace(path)
    return torch.load(path, weights_only=True)


def recall(queries: Tensor, gallery: Tensor, k: int = 1) -> float:
    """Share in % of queries ``(N, E)`` whose own row of the gallery is in the top k, ties lost."""
    scores = F.normalize(queries.float(), dim=1) @ F.normalize(gallery.float(), dim=1).T
    rank = (scores >= scores.diagonal()[:, None]).sum(1)
    return 100 * (rank <= k).float().mean().item()
