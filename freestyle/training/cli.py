"""The training command: LightningCLI around the two stages.

python train.py fit --config configs/emoji_mini_freestyle.yaml
python train.py fit --config ... --ckpt_path last        # resume
python train.py fit --config ... --wandb true            # log to Weights & Biases too
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DataLoader

from freestyle.code_cache import CodeCache
from freestyle.errors import UserError
from freestyle.frozen import Pictures
from freestyle.style.space import StyleSpace
from freestyle.training.callbacks import BestCheckpoint, SaveModel
from freestyle.training.curve import CurveLogger
from freestyle.training.data import RetrievalData
from freestyle.training.module import RetrievalModule
from freestyle.training.space_module import StyleSpaceModule

SPACE_FILE = "style_space.safetensors"


class SaveConfigPlain(SaveConfigCallback):
    """Writes the resolved configuration beside the run, replacing an older one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "overwrite": True})

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Into the run's folder itself, not a logger's version folder."""
        if trainer.is_global_zero and not self.already_saved:
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.parser.save(
                self.config,
                str(folder / "config.yaml"),
                skip_none=False,
                overwrite=True,
                multifile=False,
            )
        self.already_saved = True


class OneSentenceParser(LightningArgumentParser):
    """Says what is wrong with the options in one sentence, without the usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of exit."""
        text = re.sub(r"\s+", " ", message).strip().rstrip(".")
        unfit = re.match(r'Parser key "(.+?)": Does not validate .* Given value: (.+)', text)
        if unfit:
            text = f"option {unfit[1]} does not take {unfit[2]}"
        raise UserError(f"{text}: see train.py fit --help") from ex


class FreestyleCLI(LightningCLI):
    """LightningCLI that fits the style space first and keeps everything in one folder."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options beside trainer, model and data."""
        parser.add_argument("--wandb", type=bool, default=False, help="log to Weights & Biases")
        parser.add_argument("--wandb_project", type=str, default="freestyle", help="its project")
        parser.add_argument(
            "--checkpoint_every",
            type=int,
            default=0,
            help="also checkpoint every so many steps in mid-epoch; 0: at epoch ends only",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and open a given checkpoint before Lightning does."""
        super().parse_arguments(parser, args)
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path is not None and path != "last":
            read_checkpoint(Path(path))

    def before_instantiate_classes(self) -> None:
        """One seed for everything; loggers and callbacks that depend on the run's folder."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        seed = config.seed_everything
        if isinstance(seed, int) and not isinstance(seed, bool):
            config.data.seed = seed

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """A trainer whose loggers, checkpoints and model all lie in ``default_root_dir``."""
        root = Path(self._get(self.config_init, "trainer.default_root_dir") or "runs/train")
        loggers: list[Any] = [CurveLogger(root)]
        if self._get(self.config_init, "wandb"):
            from lightning.pytorch.loggers import WandbLogger

            project = self._get(self.config_init, "wandb_project")
            loggers.append(WandbLogger(project=project, name=root.name, save_dir=root))
        every = self._get(self.config_init, "checkpoint_every") or 0
        callbacks = [BestCheckpoint(root / "checkpoints", every), SaveModel(root / "model")]
        given = self._get(self.config_init, "trainer.logger")
        extra: dict[str, Any] = {"use_distributed_sampler": False, "default_root_dir": str(root)}
        if given in (None, True):
            extra["logger"] = loggers
        self.run_callbacks = callbacks
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        return super().instantiate_trainer(**extra, **kwargs)

    def before_fit(self) -> None:
        """Stage one: fit the style space, unless the run resumes or has been given one."""
        data = self.datamodule
        checkpoint = self._get(self.config, "ckpt_path")
        if checkpoint is not None:
            done = check_checkpoint(str(checkpoint), self.model, self.trainer)
            for logger in self.trainer.loggers:
                if isinstance(logger, CurveLogger):
                    logger.done_steps = done
        self.model.model.config = replace(
            self.model.model.config, seed=int(data.seed), styles=tuple(data.styles)
        )
        space = self.model.model.space
        if space is None or (checkpoint is not None and _has_checkpoint(self.trainer)):
            return
        if self.model.space_file:
            given = StyleSpace.load(self.model.space_file)
            given.check_reader(self.model.model.reader.tag)
            adopt_space(self.model, given)
            return
        fitted = fit_first(self.model, self.datamodule, self.trainer)
        adopt_space(self.model, fitted)
        if self.trainer.is_global_zero:
            fitted.save(Path(self.trainer.default_root_dir) / SPACE_FILE)


def fit_first(module: RetrievalModule, data: RetrievalData, trainer: L.Trainer) -> StyleSpace:
    """Run :class:`StyleSpaceModule` over all training queries, on the trainer's devices.

    Codes go to the disk cache, style by style, where stage two finds them.
    """
    data.setup("fit")
    model = module.model
    preprocessing = model.encoder.preprocessing
    cache = CodeCache(module.cache_dir)
    stage = StyleSpaceModule(model.config.style, model.reader)
    parts = []
    data.preprocessing = preprocessing
    for style in data.train_styles:
        pictures = data.pictures("train", style)

        def compute(pictures: Pictures = pictures) -> Tensor:
            loader = DataLoader(pictures, batch_size=64, num_workers=data.num_workers)
            trainer.predict(stage, loader, return_predictions=False)
            return stage.codes

        codes = cache.get(
            pictures.paths,
            model.reader.tag + pictures.tag,
            preprocessing,
            compute,
            write=trainer.is_global_zero,
            agree=trainer.strategy.reduce_boolean_decision if trainer.world_size > 1 else None,
        )
        parts.append(codes)
    return stage.fit_space(torch.cat(parts))


def adopt_space(module: RetrievalModule, space: StyleSpace) -> None:
    """Put a fitted space into the model.

    Raises:
        UserError: If its shape is not the one that the model's settings ask for.
    """
    own = module.model.space
    shapes = {k: tuple(v.shape) for k, v in own.state_dict().items()}
    given = {k: tuple(v.shape) for k, v in space.state_dict().items()}
    if shapes != given:
        raise UserError(
            f"the style space has {given['bases'][0]} bases of width {given['bases'][1]}, but "
            f"model.style asks for {shapes['bases'][0]} of width {shapes['bases'][1]}: "
            "fit it again with the same settings"
        )
    own.load_state_dict(space.state_dict())


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], int]:
    """The tensors of a checkpoint by name, and the optimiser steps it had done.

    Raises:
        UserError: If the file is missing or corrupt.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        return dict(checkpoint["state_dict"]), int(checkpoint["global_step"])
    except FileNotFoundError as error:
        raise UserError(
            f"--ckpt_path {path} does not exist: give a checkpoint of this run, or 'last'"
        ) from error
    except Exception as error:  # pickles fail in many ways
        raise UserError(
            f"--ckpt_path {path} is corrupt: give another checkpoint, or leave the option out"
        ) from error


def check_checkpoint(name: str, module: RetrievalModule, trainer: L.Trainer) -> int | None:
    """Refuse a ``--ckpt_path`` that cannot be resumed from, before anything is computed.

    Args:
        name: A file, or ``last``, which may not be there yet.
        module: What it shall be loaded into.
        trainer: Knows where its checkpoints lie.

    Returns:
        The optimiser steps it had done, or None where ``last`` is not there yet.

    Raises:
        UserError: If the file is missing, corrupt, or of another model.
    """
    path = Path(name)
    if name == "last":
        if not _has_checkpoint(trainer):
            return None
        path = Path(trainer.checkpoint_callback.dirpath) / "last.ckpt"
    state, steps = read_checkpoint(path)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    if shapes != {key: tuple(value.shape) for key, value in module.state_dict().items()}:
        raise UserError(
            f"--ckpt_path {path} is of a model with other settings: use the configuration it was "
            "made with, or leave the option out"
        )
    return steps


def _has_checkpoint(trainer: L.Trainer) -> bool:
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    return folder is not None and (Path(folder) / "last.ckpt").is_file()


def main(args: list[str] | None = None) -> FreestyleCLI:
    """Parse a command line (``sys.argv`` where None) and run it."""
    # Commands such as the demo call this from within Python on purpose.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    try:
        return FreestyleCLI(
            RetrievalModule,
            RetrievalData,
            args=args,
            save_config_callback=SaveConfigPlain,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            parser_class=OneSentenceParser,
        )
    except MisconfigurationException as error:
        text = re.sub(r"\s+", " ", str(error)).strip()
        raise UserError(f"{text} Change the trainer section: see train.py fit --help") from error
