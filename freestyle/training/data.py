"""Training data for Lightning: query items of several styles over one gallery."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from freestyle.datasets.readers import open_split
from freestyle.datasets.records import QuerySet, RetrievalSplit
from freestyle.encoders.base import Preprocessing
from freestyle.errors import UserError
from freestyle.frozen import Pictures
from freestyle.synthetic import SyntheticPictures, style_name


class QueryItems(Dataset):
    """All queries of a split's picture styles as one list of items.

    An item is a dictionary: ``style`` (index into ``styles``), ``index`` (row in that style),
    ``group`` (of the relevant photos) and, with ``pictures``, ``pixels`` ``(3, S, S)`` and
    ``readable``.

    Args:
        split: The opened split.
        styles: Picture styles, in the order of the style index.
        pictures: Gives the picture files of a style, as pixels; None where items need carry no
            pixels, since the frozen half is cached.
        keep: Per style a bool mask of queries to use, or None for all.
    """

    def __init__(
        self,
        split: RetrievalSplit,
        styles: list[str],
        *,
        pictures: Callable[[str], Pictures] | None = None,
        keep: dict[str, Tensor] | None = None,
    ) -> None:
        rows, groups, numbers = [], [], []
        self.pictures: list[Pictures] = []
        for number, style in enumerate(styles):
            queries = split.queries[style]
            own = np.arange(len(queries))
            if keep is not None:
                own = own[keep[style].numpy()]
            rows.append(own)
            groups.append(queries.groups[own])
            numbers.append(np.full(len(own), number))
            if pictures is not None:
                self.pictures.append(pictures(style))
        self.rows, self.groups = np.concatenate(rows), np.concatenate(groups)
        self.numbers = np.concatenate(numbers)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> dict[str, Any]:
        number, row = int(self.numbers[item]), int(self.rows[item])
        values: dict[str, Any] = {"style": number, "index": row, "group": int(self.groups[item])}
        if self.pictures:
            values["pixels"], values["readable"] = self.pictures[number].pixels(row)
        return values


class EpochSampler(Sampler[int]):
    """A permutation per epoch that depends on seed and epoch alone, split over ranks.

    All ranks get equally many items: the tail is filled from the head of the permutation.

    Args:
        total: Number of items.
        seed: Of the permutations.
        rank: This process, of ``world_size``.
        world_size: Number of processes.
    """

    def __init__(self, total: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.total, self.seed, self.rank, self.world_size = total, seed, rank, world_size
        self.epoch = 0
        self.resume: tuple[int, int] | None = None  # epoch and items to leave out, once

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.total // self.world_size)

    def __iter__(self) -> Iterator[int]:
        # A resumed epoch is named by its checkpoint: the trainer sets it only afterwards.
        epoch, skip = self.resume or (self.epoch, 0)
        self.resume = None
        order = np.random.default_rng([self.seed, epoch]).permutation(self.total)
        order = np.resize(order, len(self) * self.world_size)
        yield from order[self.rank :: self.world_size][skip:].tolist()


class ResumableLoader(DataLoader):
    """A loader that, after a resume in mid-epoch, goes on with the first batch not yet seen."""

    _served = 0

    def __iter__(self) -> Iterator[Any]:
        self._served = self.sampler.resume[1] // self.batch_size if self.sampler.resume else 0
        for batch in super().__iter__():
            self._served += 1
            yield batch
        self._served = 0

    def state_dict(self) -> dict[str, int]:
        """Epoch and batches served in it, for the checkpoint."""
        return {"epoch": self.sampler.epoch, "served": self._served}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip what had been served when the checkpoint was written."""
        self.sampler.resume = (state["epoch"], state["served"] * self.batch_size)


class RetrievalData(L.LightningDataModule):
    """Training and validation splits of a data set.

    Args:
        root: Folder of the data set.
        styles: Picture styles to train on, validate and choose by.
        layout: ``auto``, or a layout's name.
        relevance: ``instance`` or ``class``; None takes the layout's default.
        train_split: Name of the training split.
        val_split: Name of the validation split.
        batch_size: Queries per step and device.
        num_workers: Decoding processes; 0 decodes in the main process.
        on_broken: ``stop`` at an unreadable picture, or ``skip`` and report it.
        seed: Of the order of batches.
        name: Of the data set in reports; None takes the folder's.
        synthetic: Drawings of each training photo in random synthetic styles that are trained on
            beside the given styles (:mod:`freestyle.synthetic`).
    """

    def __init__(
        self,
        root: str = "data/emoji",
        styles: list[str] = ("sketch", "art", "mosaic"),
        layout: str = "auto",
        relevance: Literal["instance", "class"] | None = None,
        train_split: str = "train",
        val_split: str = "val",
        batch_size: int = 64,
        num_workers: int = 0,
        on_broken: Literal["stop", "skip"] = "stop",
        seed: int = 0,
        name: str | None = None,
        synthetic: int = 0,
    ) -> None:
        super().__init__()
        self.name, self.synthetic = name, synthetic
        self.root, self.styles, self.layout, self.relevance = root, list(styles), layout, relevance
        self.train_split, self.val_split = train_split, val_split
        self.batch_size, self.num_workers, self.on_broken = batch_size, num_workers, on_broken
        self.seed = seed
        if "text" in self.styles:
            raise UserError(
                "data.styles lists 'text', but text does not pass through the image prompts: "
                "leave it out, and set model.prompts.text_tokens to train text prompts"
            )
        if not self.styles:
            raise UserError("data.styles is empty: name at least one style, e.g. sketch")
        if batch_size < 1:
            raise UserError(f"data.batch_size is {batch_size}: use 1 or more")
        if synthetic < 0:
            raise UserError(f"data.synthetic is {synthetic}: use 0 or more")
        self.train: RetrievalSplit | None = None
        self.val: RetrievalSplit | None = None
        # Set by the module once its frozen passes are done.
        self.preprocessing: Preprocessing | None = None
        self.decode = True
        self.keep: dict[str, dict[str, Tensor]] | None = None

    def setup(self, stage: str | None = None) -> None:
        """Open both splits (lists only, no pictures)."""
        if self.train is None:
            self.train = self.open(self.train_split, self.styles)
            self.val = self.open(self.val_split, self.styles)
            for style in self.train_styles[len(self.styles) :]:
                split = self.train
                self.train.queries[style] = QuerySet(
                    style, split.gallery, split.gallery_groups, split.gallery_ids
                )

    @property
    def train_styles(self) -> list[str]:
        """The styles trained on: the given ones, then the synthetic sets."""
        return [*self.styles, *(style_name(n) for n in range(self.synthetic))]

    def styles_of(self, which: str) -> list[str]:
        """Picture styles of ``train`` (with the synthetic ones) or ``val``."""
        return self.train_styles if which == "train" else self.styles

    def pictures(self, which: str, style: str) -> Pictures:
        """A style's query pictures; those of a synthetic style are drawn as they are read."""
        sources = getattr(self, which).queries[style].sources
        if style in self.styles:
            return Pictures(sources, self.preprocessing, self.on_broken)
        number = self.train_styles.index(style) - len(self.styles)
        return SyntheticPictures(sources, self.preprocessing, self.on_broken, seed=number)

    @cached_property
    def captions(self) -> Sequence[str]:
        """Captions of the training records, in their order; for learned text prompts.

        Raises:
            UserError: If captions cannot be paired with photos.
        """
        split = self.open(self.train_split, ["text"])
        if split.relevance != "instance":
            raise UserError(
                f"{self.root} pairs queries and photos by class, so captions cannot train text "
                "prompts: set model.prompts.text_tokens to 0"
            )
        return split.queries["text"].sources

    def open(self, split: str, styles: list[str] | None) -> RetrievalSplit:
        """Open any split of this data set."""
        options = {} if self.relevance is None else {"relevance": self.relevance}
        return open_split(self.root, split, styles, layout=self.layout, name=self.name, **options)

    def items(self, which: str) -> QueryItems:
        """Items of ``train`` or ``val``."""
        return QueryItems(
            getattr(self, which),
            self.styles_of(which),
            pictures=(lambda style: self.pictures(which, style)) if self.decode else None,
            keep=None if self.keep is None else self.keep[which],
        )

    def batches_per_epoch(self, world_size: int) -> int:
        """Training batches per device and epoch, the last one perhaps smaller."""
        share = -(-len(self.items("train")) // world_size)
        return -(-share // self.batch_size)

    def train_dataloader(self) -> DataLoader:
        """Shuffled items; the last batch may be smaller."""
        items = self.items("train")
        sampler = EpochSampler(len(items), self.seed, *self._place())
        return ResumableLoader(
            items,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=False,
        )

    def val_dataloader(self) -> DataLoader:
        """Items in order, split over ranks; repeats at the tail are dropped by their index."""
        items = self.items("val")
        rank, world_size = self._place()
        share = -(-len(items) // world_size)
        own = [i % len(items) for i in range(rank * share, (rank + 1) * share)]
        return DataLoader(
            items, batch_size=self.batch_size, sampler=own, num_workers=self.num_workers
        )

    def _place(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size


def index_tensor(batch: dict[str, Tensor]) -> Tensor:
    """Style and row of a batch's items as one ``(B, 2)`` int64 tensor."""
    return torch.stack([batch["style"], batch["index"]], dim=1)
