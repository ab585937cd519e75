"""What turns query pictures and texts into vectors: the interface of torch and ONNX encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, eq=False)
class Encoded:
    """B encoded pictures or texts.

    Attributes:
        rows: ``(B, E + C)`` float32: unit-norm embeddings, then the C columns of a calibration
            (0 without one). The score of a photo is the inner product with its completed row.
        styles: Per picture the probability of each trained style and of ``other``, or an empty
            dict where the model cannot tell; texts have empty ones.
        places: Per picture its weights over the K bases of the style space ``(B, K)``; None for
            texts and models without a style space.
    """

    rows: np.ndarray
    styles: tuple[dict[str, float], ...]
    places: np.ndarray | None = None


class QueryEncoder(Protocol):
    """The query side of a model.

    Attributes:
        encoder: Name of the encoder, as in :class:`~freestyle.search.records.IndexSettings`.
        weights: Weights tag, likewise.
        width: E.
        styles: Names of the trained styles that it tells apart; empty where it cannot.
    """

    encoder: str
    weights: str
    width: int

    @property
    def styles(self) -> tuple[str, ...]:
        """See the class."""

    def embed_images(self, images: Sequence[Image.Image]) -> Encoded:
        """Query pictures (upright RGB, from ``load_image``) of any size."""

    def embed_texts(self, texts: Sequence[str]) -> Encoded:
        """Query texts."""

    def complete(self, vectors: np.ndarray) -> np.ndarray:
        """Photos' embeddings ``(N, E)`` with a calibration's columns ``(N, E + C)``, float32."""
