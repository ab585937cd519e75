"""What a training run leaves behind: the best model's folder and a curve."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from freestyle.training.calibrate import fit_calibration
from freestyle.training.module import RetrievalModule

MONITOR = "val/MRR"  # less noisy than Recall@1 where validation is small


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint with the best mean validation reciprocal rank, and the last one.

    The mean is over the styles trained on; no other style enters the choice.

    Args:
        folder: Where checkpoints go; ``--ckpt_path last`` finds them there.
        every_n_train_steps: Also write ``last`` in mid-epoch, for epochs of hours; 0 for not.
    """

    def __init__(self, folder: str | Path, every_n_train_steps: int = 0) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=MONITOR,
            mode="max",
            save_top_k=1,
            save_last=True,
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )
        self.every = every_n_train_steps

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write ``last`` after every epoch: Lightning's own skips those that are not the best."""
        super().on_train_epoch_end(trainer, module)
        trainer.save_checkpoint(Path(self.dirpath) / "last.ckpt")

    def on_train_batch_end(self, trainer: L.Trainer, *args: object, **kwargs: object) -> None:
        """Write ``last`` in mid-epoch, without looking at the metric."""
        super().on_train_batch_end(trainer, *args, **kwargs)
        if self.every and trainer.global_step % self.every == 0:
            trainer.save_checkpoint(Path(self.dirpath) / "last.ckpt")


class SaveModel(L.Callback):
    """Writes the best checkpoint's model as a folder when training ends.

    Args:
        folder: For ``config.json`` and ``model.safetensors``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_fit_end(self, trainer: L.Trainer, module: RetrievalModule) -> None:
        """Load the best weights into the module and save it, on the first process."""
        best = trainer.checkpoint_callback.best_model_path if trainer.checkpoint_callback else ""
        trainer.strategy.barrier()
        if best and Path(best).is_file():
            state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
            module.load_state_dict(state)
        if trainer.is_global_zero:
            module.to(trainer.strategy.root_device)  # the trainer has taken it to the CPU
            fit_calibration(module)
            module.model.save_pretrained(self.folder)
