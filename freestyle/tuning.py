"""A model's own copy of the image tower's blocks: low-rank adapters, or full fine-tuning.

Low-rank adapters (LoRA, arXiv 2106.09685) are peft's. With a style code they are gated: between
``A`` and ``B`` of every adapted layer the r channels are scaled by a function of the code, so that
the same few matrices change the tower differently for a sketch and for a painting. Full
fine-tuning is what SketchScape (BMVC 2025) does to its image tower: the expensive upper line.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from freestyle.config import TowerConfig

if TYPE_CHECKING:
    from freestyle.encoders.base import DualEncoder


class TunedTower(nn.Module):
    """Trainable copies of an encoder's blocks; the encoder itself stays as it is.

    Args:
        encoder: Whose blocks are copied.
        config: ``lora`` or ``full``, rank, and what gates the adapters.
        code_dim: Width d of the code that gates; 0 where nothing does.
    """

    def __init__(self, encoder: DualEncoder, config: TowerConfig, code_dim: int = 0) -> None:
        super().__init__()
        self.config = config
        self._run_layer = encoder.run_layer
        self.layers = nn.ModuleList(copy.deepcopy(layer) for layer in encoder.layers)
        self.layers.requires_grad_(config.kind == "full")
        self.gates: nn.Sequential | None = None
        self._scales: list[Tensor] | None = None
        if config.kind == "lora":
            self._adapt(code_dim)

    def _adapt(self, code_dim: int) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        names = {name for name, m in self.layers.named_modules() if isinstance(m, nn.Linear)}
        lora = LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.rank,
            lora_dropout=0.0,
            target_modules=sorted(names),
        )
        inject_adapter_in_model(lora, self.layers)
        if self.config.gate == "none":
            return
        downs = [m for name, m in self.layers.named_modules() if name.endswith("lora_A.default")]
        last = nn.Linear(self.config.hidden, len(downs) * self.config.rank)
        nn.init.normal_(last.weight, std=0.02)
        nn.init.ones_(last.bias)  # at first, every query has the plain adapters
        self.gates = nn.Sequential(nn.Linear(code_dim, self.config.hidden), nn.GELU(), last)
        for number, down in enumerate(downs):
            down.register_forward_hook(partial(self._scaled, number))

    def _scaled(self, number: int, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        """``(B, T, r)`` times the query's gate ``(B, 1, r)``."""
        if self._scales is None:
            return output
        return output * self._scales[number].to(output.dtype)

    def blocks(self, code: Tensor | None) -> Sequence[Callable[[Tensor], Tensor]]:
        """The blocks in order, each ``(B, T, D) -> (B, T, D)``, for queries of these codes.

        Args:
            code: ``(B, d)``, or None where nothing gates.
        """
        self._scales = None
        if self.gates is not None and code is not None:
            gates = self.gates(code)  # (B, layers * r)
            self._scales = [g[:, None] for g in gates.split(self.config.rank, dim=1)]
        return [partial(self._run_layer, layer) for layer in self.layers]

    def train(self, mode: bool = True) -> TunedTower:
        """Copies of frozen blocks stay in evaluation mode: no dropout."""
        super().train(mode)
        if self.config.kind == "lora":
            self.layers.eval()
        return self
