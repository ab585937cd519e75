"""Photos of a prompted gallery, by each model's own path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from freestyle.evaluation.features import Frozen, features_of
from freestyle.frozen import Pictures

if TYPE_CHECKING:
    from freestyle.evaluation.embed import Embedder


def prompted_photos(embedder: Embedder, photos: Sequence[Path]) -> dict[str, Tensor]:
    """Embed photos for the variants whose model has a prompted gallery.

    Photos keep their own style codes, whatever a variant does to those of its queries, and are not
    changed where queries are; a variant without its query map leaves it out for photos too.

    Args:
        embedder: Its variants, encoder and settings.
        photos: G photos.

    Returns:
        Unit-norm ``(G, E)`` by variant name, one tensor for variants that share it. Rows of
        unreadable photos hold no meaning.
    """
    ways = {
        name: (id(variant.model), variant.use_map)
        for name, variant in embedder.variants.items()
        if variant.model.prompts_gallery
    }
    if not ways:
        return {}
    models = {ways[name]: embedder.variants[name].model for name in ways}
    pictures = Pictures(photos, embedder.encoder.preprocessing, embedder.on_broken)
    tags = {model.reader.tag for model in models.values() if model.reader is not None}
    codes = {
        tag: embedder.codes_of(pictures, tag, "Reading photos' style codes") for tag in sorted(tags)
    }

    def compute(frozen: Frozen, index: Tensor) -> dict[str, Tensor]:
        values = {}
        for (number, use_map), model in models.items():
            code = None
            if model.reader is not None:
                code = codes[model.reader.tag][index].to(embedder.device).float()
            features = features_of(model, frozen)
            values[f"{number} {use_map}"] = model.query_from(features, code, use_map=use_map)
        return values

    rows = embedder.from_frozen(compute, pictures, list(models.values()), "prompted gallery")
    return {name: rows[f"{number} {use_map}"] for name, (number, use_map) in ways.items()}
