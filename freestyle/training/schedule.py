"""AdamW, and its rate per step: a linear rise, then a cosine down to zero."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from freestyle.training.module import RetrievalModule


def optimiser_and_schedule(module: RetrievalModule) -> dict[str, Any]:
    """What Lightning's ``configure_optimizers`` returns, the query map at a rate of its own."""
    named = module.model.trained_parameters()
    groups = [
        {"params": [p for k, p in named.items() if k.startswith("query_map")]},
        {"params": [p for k, p in named.items() if not k.startswith("query_map")]},
    ]
    groups[0]["lr"] = module.map_learning_rate
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups, lr=module.learning_rate, weight_decay=module.weight_decay)
    total = _total_steps(module)
    rising = max(1, round(module.warmup * total))

    def rate(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _total_steps(module: RetrievalModule) -> int:
    """Optimiser steps of the whole run.

    Not ``trainer.estimated_stepping_batches``: that makes the loaders before the checkpoint's loop
    state is there, and a resumed epoch would begin anew.
    """
    trainer = module.trainer
    batches = module.data.batches_per_epoch(trainer.world_size)
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * (trainer.max_epochs or 0)
    if trainer.max_steps > 0:
        steps = min(steps, trainer.max_steps) if steps > 0 else trainer.max_steps
    return max(1, steps)
