"""After training: the calibration's banks, from the trained model's own training queries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

if TYPE_CHECKING:
    from freestyle.training.module import RetrievalModule


@torch.no_grad()
def fit_calibration(module: RetrievalModule) -> None:
    """Embed the training queries once more and fill ``module.model.calibration`` with them.

    Args:
        module: After training, with its frozen caches; one without calibration is left alone.
    """
    model, data = module.model, module.data
    if model.calibration is None:
        return
    styles = data.train_styles
    queries: list[list[Tensor]] = [[] for _ in styles]
    codes: list[list[Tensor]] = [[] for _ in styles]
    model.eval()
    items = data.items("train")
    some = Subset(items, drawn(items.numbers, model.calibration.config.bank))
    for batch in DataLoader(some, batch_size=64, num_workers=data.num_workers):
        batch = {name: value.to(module.device) for name, value in batch.items()}
        features, raw = module.frozen(batch, "train", None)
        rows = model.query_from(features, raw).cpu()
        gram = None
        if model.calibration.gate_weight.shape[1]:
            gram = model.style_inputs(raw, len(rows))["gram"].cpu()
        for number in batch["style"].unique().tolist():
            own = (batch["style"] == number).cpu()
            queries[number].append(rows[own])
            if gram is not None:
                codes[number].append(gram[own])
    real = len(data.styles)
    reduced = [torch.cat(parts) for parts in codes] if codes[0] else None
    model.calibration.fit(
        [torch.cat(parts) for parts in queries[:real]],
        None if reduced is None else reduced[:real],
        None if reduced is None or len(styles) == real else torch.cat(reduced[real:]),
        _texts(module),
    )


def drawn(numbers: np.ndarray, most: int) -> list[int]:
    """Positions of at most so many items of each style ``numbers`` ``(N,)``, drawn with a seed."""
    order = np.random.default_rng(0)
    kept = []
    for number in np.unique(numbers):
        rows = np.flatnonzero(numbers == number)
        kept.append(np.sort(order.permutation(rows)[:most]))
    return np.concatenate(kept).tolist()


def _texts(module: RetrievalModule) -> Tensor | None:
    data = module.data
    if not module.model.calibration.config.text_strength:  # a bank that nothing would read
        return None
    if data.train.relevance != "instance" or not (Path(data.root) / "text").is_dir():
        return None
    captions = list(data.captions)
    parts = [captions[i : i + 64] for i in range(0, len(captions), 64)]
    return torch.cat([module.model.text_from(part).cpu() for part in parts])
