"""Stage one: style codes of all training queries, on any number of devices, then the space."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor

from freestyle.config import StyleConfig
from freestyle.errors import UserError
from freestyle.style.build import build_reader, fit_space
from freestyle.style.reader import StyleReader
from freestyle.style.space import StyleSpace


class StyleSpaceModule(L.LightningModule):
    """Extracts style codes in ``trainer.predict`` and fits the K-means space on them.

    Unlabelled and before any prompt is trained (FreestyleRet, arXiv 2312.02428, section 3.2).
    Batches are ``(index, pixels, readable)`` as :class:`freestyle.frozen.Pictures` yields.

    Args:
        config: Reader and space.
        reader: A ready reader instead of the one described.
    """

    def __init__(self, config: StyleConfig, reader: StyleReader | None = None) -> None:
        super().__init__()
        self.config = config
        self.reader = reader if reader is not None else build_reader(config)
        self.codes: Tensor | None = None  # (N, code_dim) float16, NaN where unreadable
        self.space: StyleSpace | None = None
        self._parts: list[tuple[Tensor, Tensor]] = []

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Codes of one batch, ``(B, code_dim)``, gathered over devices."""
        index, pixels, readable = batch
        with torch.autocast(self.device.type, enabled=False):
            codes = self.reader(pixels)  # (B, code_dim), in float32 as at search time
        codes[~readable] = float("nan")
        if self.trainer.world_size > 1:
            index, codes = self.all_gather(index).flatten(), self.all_gather(codes).flatten(0, 1)
        self._parts.append((index.cpu(), codes.half().cpu()))
        return codes

    def on_predict_epoch_end(self) -> None:
        """Put the gathered rows in order (samplers repeat the tail; equal rows coincide)."""
        index = torch.cat([part[0] for part in self._parts])
        codes = torch.cat([part[1] for part in self._parts])
        self._parts.clear()
        self.codes = torch.empty(int(index.max()) + 1, codes.shape[1], dtype=codes.dtype)
        self.codes[index] = codes

    def fit_space(self, codes: Tensor | None = None) -> StyleSpace:
        """Fit the bases on the extracted codes, or on ``(N, code_dim)`` given ones.

        Returns:
            The fitted space, also kept as ``self.space``.

        Raises:
            UserError: If there are no codes yet, or too few readable ones.
        """
        codes = self.codes if codes is None else codes
        if codes is None:
            raise UserError("no style codes yet: run trainer.predict on the training queries first")
        codes = codes[codes.isfinite().all(dim=1)].float()
        self.space = fit_space(self.config, codes, self.reader.tag)
        return self.space
