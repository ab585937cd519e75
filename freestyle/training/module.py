"""Stage two: prompt tuning around a frozen encoder, as a Lightning module."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor

from freestyle import baselines
from freestyle.config import (
    CalibrationConfig,
    LossConfig,
    PromptConfig,
    StyleConfig,
    TowerConfig,
)
from freestyle.errors import UserError
from freestyle.evaluation.ranks import first_relevant_ranks
from freestyle.frozen import augment
from freestyle.model import FreestyleRet
from freestyle.pretrained import own_state
from freestyle.prompts import some_patches
from freestyle.training.caches import FrozenCaches
from freestyle.training.data import RetrievalData
from freestyle.training.losses import StepPhotos, gallery_cross_entropy, retrieval_loss
from freestyle.training.photos import embed_gallery, embed_photos
from freestyle.training.schedule import optimiser_and_schedule


class RetrievalModule(L.LightningModule):
    """Trains what is trainable of a :class:`~freestyle.model.FreestyleRet`.

    Args:
        method: One of :data:`freestyle.baselines.METHODS`.
        encoder: Encoder name for :func:`freestyle.encoders.create`.
        revision: Hub revision of the encoder.
        style: Style reader and space.
        prompts: Prompt tokens.
        tower: A trained copy of the query's image tower; None leaves it frozen.
        query_map: ``linear`` or ``styled`` adds a trained map behind the query embedding.
        calibration: Lowers photos that are near to everything, by banks of training queries that
            are filled after training; None leaves scores as they are.
        gallery: ``frozen`` embeds photos once by the untouched encoder; ``prompted`` passes them
            through what queries pass through, in training (:mod:`freestyle.training.photos`),
            validation and search.
        framing: ``framed`` cuts query pictures to their content, ``both`` joins the two before the
            query map, with weights that depend on the style where the map does.
        loss: Which loss, and its settings.
        learning_rate: Peak rate of AdamW.
        map_learning_rate: Peak rate of the query map; None takes ``learning_rate``.
        weight_decay: Decoupled weight decay.
        warmup: Share of all steps in which the rate rises linearly, in [0, 1).
        views: Views of each query picture in the feature cache: the picture and ``views - 1``
            random ones; without a cache, above 1 means a random view at every step.
        patch_keep: Share of a query's patches that a training step sees, in (0, 1]; embedding
            always sees all.
        cache: ``features`` keeps the frozen half of every query in memory, ``codes`` only the
            style codes, ``auto`` the features where they fit into ``cache_gigabytes``.
        cache_gigabytes: See ``cache``.
        cache_dir: Folder of the style codes on disk; None for the default.
        space: A fitted style space (``.safetensors``); None fits one first.
    """

    def __init__(
        self,
        method: str = "freestyle",
        encoder: str = "freestyle-mini",
        revision: str | None = None,
        style: StyleConfig = StyleConfig(),  # noqa: B008 - frozen
        prompts: PromptConfig = PromptConfig(),  # noqa: B008 - frozen
        tower: TowerConfig | None = None,
        query_map: Literal["none", "linear", "styled"] = "none",
        calibration: CalibrationConfig | None = None,
        gallery: Literal["frozen", "prompted"] = "frozen",
        framing: Literal["whole", "framed", "both"] = "whole",
        loss: LossConfig = LossConfig(),  # noqa: B008 - frozen
        learning_rate: float = 1e-3,
        map_learning_rate: float | None = None,
        weight_decay: float = 1e-2,
        warmup: float = 0.05,
        views: int = 1,
        patch_keep: float = 1.0,
        cache: Literal["auto", "features", "codes"] = "auto",
        cache_gigabytes: float = 2.0,
        cache_dir: str | None = None,
        space: str | None = None,
    ) -> None:
        super().__init__()
        if learning_rate <= 0:
            raise UserError(f"model.learning_rate is {learning_rate}: use a value above 0")
        if views < 1:
            raise UserError(f"model.views is {views}: use 1 or more")
        if not 0 < patch_keep <= 1:
            raise UserError(f"model.patch_keep is {patch_keep}: use a value in (0, 1]")
        config = baselines.settings(
            method,
            encoder,
            revision=revision,
            style=style,
            prompts=prompts,
            tower=tower,
            query_map=query_map,
            calibration=calibration,
            gallery=gallery,
            framing=framing,
        )
        self.model = FreestyleRet(config)
        if patch_keep < 1 and self.model.encoder.needs_all_patches:
            raise UserError(
                f"model.patch_keep is {patch_keep}, but {encoder} reads its patches by their "
                "places: set it to 1"
            )
        self.loss = loss
        self.learning_rate, self.weight_decay, self.warmup = learning_rate, weight_decay, warmup
        self.map_learning_rate = map_learning_rate or learning_rate
        self.views, self.patch_keep = views, patch_keep
        self.cache, self.cache_gigabytes = cache, cache_gigabytes
        self.cache_dir, self.space_file = cache_dir, space
        self.caches: FrozenCaches | None = None
        self._found: list[tuple[Tensor, Tensor]] = []
        if not self.model.trained_parameters():
            raise UserError(
                f"method '{method}' trains nothing: evaluate it with eval.py, or set model.method"
            )

    # -- set-up ----------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Compute everything frozen once: gallery, style codes, features.

        Runs before the loaders are made, since they need not decode what is cached.
        """
        if stage not in ("fit", "validate"):
            return
        self.to(self.trainer.strategy.root_device)
        self._plain_attention()
        self.data.preprocessing = self.model.encoder.preprocessing
        if self.caches is None:
            self.caches = FrozenCaches.build(self, self.data)
        self.data.decode = not self.caches.has_features
        self.data.keep = self.caches.keep

    def on_fit_start(self) -> None:
        """Refuse to train on an empty style space.

        Raises:
            UserError: If neither a file, nor a checkpoint, nor stage one has filled it.
        """
        space = self.model.space
        if space is not None and not space.is_fitted:
            raise UserError(
                "the style space is not fitted: train with train.py, which fits it first, "
                "or give model.space a file"
            )

    def _plain_attention(self) -> None:
        """PyTorch's fused attention has a slow backward pass on CPUs: half of a step."""
        if self.device.type == "cpu" and hasattr(self.model.encoder, "attention"):
            self.model.encoder.attention = "eager"
            for module in self.model.tower.modules() if self.model.tower is not None else ():
                config = getattr(module, "config", None)
                if hasattr(config, "_attn_implementation"):  # the copies' own configurations
                    config._attn_implementation = "eager"

    @property
    def data(self) -> RetrievalData:
        """The trainer's data module."""
        return self.trainer.datamodule

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with linear warm-up and cosine decay to zero, per step."""
        return optimiser_and_schedule(self)

    # -- a prompted gallery ------------------------------------------------------------------

    @property
    def _keeps_photos(self) -> bool:
        """Whether steps need all photos of a gallery that moves."""
        everyone = self.loss.name == "gallery" or self.model.text_prompts is not None
        return self.model.prompts_gallery and everyone

    def on_train_epoch_start(self) -> None:
        """Embed the photos that steps need beside their own."""
        if self._keeps_photos:
            embed_gallery(self, "train")

    def on_validation_epoch_start(self) -> None:
        """Embed the photos by the model that is validated."""
        if self.model.prompts_gallery:
            embed_gallery(self, "val")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the epoch's photos, which a run that resumes in mid-epoch goes on with."""
        if self._keeps_photos and self.caches is not None:
            checkpoint["photos"] = self.caches.gallery["train"][0].cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the epoch's photos back."""
        if "photos" in checkpoint and self.caches is not None:
            groups = self.caches.gallery["train"][1]
            self.caches.gallery["train"] = checkpoint["photos"].to(self.device), groups

    # -- steps -----------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch of queries against the training gallery."""
        generator = self._generator()
        features, codes = self.frozen(batch, "train", generator)
        codes = self._drop_codes(codes, generator)
        if self.model.uses_tokens:
            prefix = self.model.encoder.n_prefix
            features = some_patches(features, prefix, self.patch_keep, generator)
        queries = self.model.query_from(features, codes)  # (B, E)
        gallery, groups = self.caches.gallery["train"]
        photos = None
        if self.model.prompts_gallery:
            photos = StepPhotos(partial(embed_photos, self, "train"))
        value = retrieval_loss(
            self.loss, queries, batch["group"], gallery, groups, generator, photos
        )
        if self.model.text_prompts is not None:
            moved = None if photos is None else photos.moved
            value = value + self._text_loss(batch, gallery, groups, moved)
        self.log("train/loss", value, prog_bar=True, batch_size=len(queries))
        return value

    def _text_loss(
        self,
        batch: dict[str, Tensor],
        gallery: Tensor,
        groups: Tensor,
        moved: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        captions = self.data.captions
        texts = self.model.text_from([captions[i] for i in batch["group"].tolist()])
        return gallery_cross_entropy(
            texts, batch["group"], gallery, groups, self.loss.temperature, moved=moved
        )

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Embed one batch of validation queries."""
        features, codes = self.frozen(batch, "val", None)
        queries = self.model.query_from(features, codes)
        place = torch.stack([batch["style"], batch["index"]], dim=1)  # (B, 2)
        if self.trainer.world_size > 1:
            queries = self.all_gather(queries).flatten(0, 1)
            place = self.all_gather(place).flatten(0, 1)
        self._found.append((place.cpu(), queries.float().cpu()))

    def on_validation_epoch_end(self) -> None:
        """Recall@1 per style over the whole validation gallery, their mean, and the mean MRR."""
        place = torch.cat([part[0] for part in self._found])
        queries = torch.cat([part[1] for part in self._found])
        self._found.clear()
        gallery, groups = self.caches.gallery["val"]
        recalls, reciprocals = [], []
        for number, style in enumerate(self.data.styles):
            # The last rank's tail repeats items; rows of the same item are equal.
            rows = {int(i): k for k, (s, i) in enumerate(place.tolist()) if s == number}
            if not rows:
                continue
            index = np.fromiter(rows.keys(), dtype=np.int64)
            ranks = first_relevant_ranks(
                queries[list(rows.values())],
                gallery.cpu(),
                self.data.val.queries[style].groups[index],
                groups.cpu().numpy(),
            )
            recalls.append(float((np.asarray(ranks) <= 1).mean()))
            reciprocals.append(float((1 / np.asarray(ranks)).mean()))
            self.log(f"val/R@1/{style}", recalls[-1], sync_dist=False)
        mean = float(np.mean(recalls)) if recalls else 0.0
        self.log("val/R@1", mean, prog_bar=True, sync_dist=False)
        self.log("val/MRR", float(np.mean(reciprocals)) if reciprocals else 0.0, sync_dist=False)

    # -- helpers ---------------------------------------------------------------------------

    def frozen(
        self, batch: dict[str, Tensor], which: str, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor | None]:
        """The frozen half of a batch, from the cache or computed: features and style codes.

        Args:
            batch: Of the data module's loaders.
            which: ``train`` or ``val``.
            generator: Draws random views in training; None for the pictures themselves.
        """
        codes = self.caches.codes_of(which, batch)
        if self.caches.has_features:
            return self.caches.features_of(which, batch, generator), codes
        pixels = batch["pixels"]
        if generator is not None and self.views > 1:
            pixels = augment(pixels, generator)
        return self.model.frozen_features(pixels), codes

    def _generator(self) -> torch.Generator:
        """Randomness of one step from seed, step and rank alone, so that a resume repeats it."""
        seed = (self.data.seed * 1_000_003 + self.global_step) * 4_099 + self.global_rank
        return torch.Generator().manual_seed(seed % 2**63)

    def _drop_codes(self, codes: Tensor | None, generator: torch.Generator) -> Tensor | None:
        """Replace some queries' codes by the mean code, so that prompts also work without."""
        prompts = self.model.config.prompts
        if codes is not None and prompts is not None and prompts.codes == "shuffled":
            order = torch.randperm(len(codes), generator=generator)
            codes = codes[order.to(codes.device)]
        rate = prompts.code_dropout if prompts is not None else 0.0
        if codes is None or rate == 0:
            return codes
        drop = torch.rand(len(codes), generator=generator) < rate
        return torch.where(drop.to(codes.device)[:, None], self.model.space.mean, codes)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Checkpoints hold what was trained and the style space, no frozen network."""
        return {f"model.{k}": v for k, v in own_state(self.model).items()}

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True) -> Any:
        """Load such a checkpoint; the frozen networks stay as they are."""
        return super().load_state_dict(state_dict, strict=False)
