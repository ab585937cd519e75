"""What is compared: models with the way they are used, and their embeddings of a split."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from freestyle.datasets.records import RetrievalSplit
from freestyle.model import FreestyleRet


@dataclass(frozen=True)
class Variant:
    """A model and how it is used.

    Attributes:
        model: The model.
        style: ``own`` codes; ``mean``: the training mean in place of every code; ``shuffled``:
            another query's code (drawn once over all picture queries); ``zero``: no style at all.
            A control of queries only: photos of a prompted gallery keep their own codes.
        use_map: Whether a trained query map is applied; the calibration, made with it, goes too.
        calibrate: Whether scores are calibrated, where the model has learned to.
    """

    model: FreestyleRet
    style: Literal["own", "mean", "shuffled", "zero"] = "own"
    use_map: bool = True
    calibrate: bool = True

    @property
    def calibrated(self) -> bool:
        """Whether queries ask for lowered scores."""
        return self.use_map and self.calibrate


@dataclass
class Embeddings:
    """Embedded gallery and queries of one split.

    Attributes:
        split: The split, without what could not be read.
        gallery: ``(G, E)`` unit norm, by the untouched encoder.
        queries: Per variant and style ``(Q, E)`` unit norm, with the calibration's columns.
        skipped: Unreadable files that were left out.
        terms: Per variant with calibration the photos' columns ``(G, S + 1)``.
        prompted: Per variant with a prompted gallery the photos by its own path ``(G, E)``; one
            tensor for variants that share a model and the use of its map.
    """

    split: RetrievalSplit
    gallery: Tensor
    queries: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    skipped: list[Path] = field(default_factory=list)
    terms: dict[str, Tensor] = field(default_factory=dict)
    prompted: dict[str, Tensor] = field(default_factory=dict)

    def plain_photos(self, name: str) -> Tensor:
        """One variant's photos without the calibration's columns, ``(G, E)``."""
        return self.prompted.get(name, self.gallery)

    def photos(self, name: str) -> Tensor:
        """The gallery as one variant's queries are compared with it."""
        if name not in self.terms:
            return self.plain_photos(name)
        return torch.cat([self.plain_photos(name), self.terms[name]], dim=1)
