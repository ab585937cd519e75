"""What a training run keeps of the frozen half: gallery, style codes, features.

A prompted gallery has no frozen embeddings: of its photos the frozen half is kept, as of queries.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from freestyle.code_cache import CodeCache
from freestyle.framing import view
from freestyle.frozen import (
    FrozenRows,
    Pictures,
    augment,
    frozen_key,
    frozen_pass,
    is_remembered,
    remembered,
)
from freestyle.training.photos import FrozenPhotos

if TYPE_CHECKING:
    from freestyle.encoders.base import DualEncoder
    from freestyle.training.data import RetrievalData
    from freestyle.training.module import RetrievalModule

WHICH = ("train", "val")


@dataclass
class FrozenCaches:
    """Frozen tensors of both splits; queries of all styles stand one after the other.

    Attributes:
        gallery: Per split the photos' embeddings ``(G, E)`` and groups ``(G,)``, on the device;
            those of a prompted gallery are empty until they are embedded.
        photos: Per split the frozen half of a prompted gallery; empty for a frozen one.
        starts: Per split the first row of each style, ``(S,)``.
        codes: Per split ``(N, code_dim)`` float16 on the CPU; empty without a reader.
        features: Per split ``(V, N, ...)``, V views, on the CPU; empty where not cached.
        keep: Per split and style which queries could be read, ``(N_style,)`` bool.
    """

    gallery: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    photos: dict[str, FrozenPhotos] = field(default_factory=dict)
    starts: dict[str, Tensor] = field(default_factory=dict)
    codes: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    keep: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def has_features(self) -> bool:
        """Whether steps need no pixels."""
        return bool(self.features)

    @classmethod
    def build(cls, module: RetrievalModule, data: RetrievalData) -> FrozenCaches:
        """Run all frozen passes of a fit, split over the trainer's devices."""
        caches = cls()
        passes = _Passes(module, data)
        with_features = _features_fit(module, data)
        for which in WHICH:
            split = getattr(data, which)
            groups = caches._read_gallery(which, passes, with_features)
            styles = data.styles_of(which)
            sizes = [len(split.queries[style]) for style in styles]
            caches.starts[which] = torch.tensor([0, *sizes[:-1]]).cumsum(0)
            codes, features, caches.keep[which] = [], [], {}
            for style in styles:
                queries = split.queries[style]
                keep = torch.isin(torch.from_numpy(queries.groups), groups)
                if module.model.reader is not None:
                    name = f"Reading {which} {style} style codes"
                    codes.append(passes.codes(data.pictures(which, style), name))
                    keep &= codes[-1].isfinite().all(dim=1)
                if with_features:
                    views = module.views if which == "train" else 1
                    name = f"Reading {which} {style} features"
                    rows, readable = passes.features(data.pictures(which, style), views, name)
                    features.append(rows)
                    keep &= readable
                caches.keep[which][style] = keep
            if codes:
                caches.codes[which] = torch.cat(codes)
            if features:
                caches.features[which] = torch.cat(features, dim=1)
        return caches

    def _read_gallery(self, which: str, passes: _Passes, with_features: bool) -> Tensor:
        """Fill one split's photos; groups ``(G,)`` of those that could be read."""
        split, device = getattr(passes.data, which), passes.module.device
        groups = torch.from_numpy(split.gallery_groups)
        if not passes.model.prompts_gallery:
            photos = passes.gallery(split.gallery, f"Embedding {which} photos")
            groups, embeddings = groups[photos.readable], photos["embedding"][photos.readable]
            self.gallery[which] = embeddings.to(device), groups.to(device)
            return groups
        self.photos[which], readable = passes.photos(which, with_features)
        groups = groups[readable]
        empty = torch.empty(0, passes.model.encoder.embed_dim, device=device)
        self.gallery[which] = empty, groups.to(device)
        return groups

    def _rows(self, which: str, batch: dict[str, Tensor]) -> Tensor:
        """Positions ``(B,)`` of a batch's queries in the cached tensors."""
        return self.starts[which][batch["style"].cpu()] + batch["index"].cpu()

    def codes_of(self, which: str, batch: dict[str, Tensor]) -> Tensor | None:
        """Style codes of a batch ``(B, code_dim)`` float32, or None without a reader."""
        if not self.codes:
            return None
        rows = self.codes[which][self._rows(which, batch)]
        return rows.to(batch["group"].device).float()

    def features_of(
        self, which: str, batch: dict[str, Tensor], generator: torch.Generator | None
    ) -> Tensor:
        """Cached features of a batch, a random view of each where a generator is given."""
        features, rows = self.features[which], self._rows(which, batch)
        views = torch.zeros_like(rows)
        if generator is not None:
            views = torch.randint(len(features), rows.shape, generator=generator)
        return features[views, rows].to(batch["group"].device).float()


class _Passes:
    """Frozen passes with one run's devices and settings."""

    def __init__(self, module: RetrievalModule, data: RetrievalData) -> None:
        self.module, self.data, self.model = module, data, module.model
        self.trainer = module.trainer
        self.cache = CodeCache(module.cache_dir)

    def run(
        self,
        compute: Callable[[Tensor, Tensor], dict[str, Tensor]],
        pictures: Pictures,
        description: str,
    ) -> FrozenRows:
        """One pass over pictures."""
        # Float32, as at search time: what is cached must equal what is served.
        with torch.autocast(self.module.device.type, enabled=False):
            return frozen_pass(
                compute,
                pictures,
                device=self.module.device,
                num_workers=self.data.num_workers,
                description=description,
                rank=self.trainer.global_rank,
                world_size=self.trainer.world_size,
                gather=self.module.all_gather,
            )

    def codes(self, pictures: Pictures, description: str) -> Tensor:
        """Style codes ``(N, code_dim)`` float16, NaN where unreadable."""

        def compute() -> Tensor:
            rows = self.run(lambda p, _: {"code": self.model.reader(p)}, pictures, description)
            codes = rows["code"]
            codes[~rows.readable] = float("nan")
            return codes

        return self.cache.get(
            pictures.paths,
            self.model.reader.tag + pictures.tag,
            self.model.encoder.preprocessing,
            compute,
            write=self.trainer.is_global_zero,
            agree=self.trainer.strategy.reduce_boolean_decision
            if self.trainer.world_size > 1
            else None,
        )

    def gallery(self, paths: Sequence[Path], description: str) -> FrozenRows:
        """Embeddings of photos by the untouched encoder."""
        encoder = self.model.encoder
        pictures = Pictures(paths, encoder.preprocessing, self.data.on_broken)
        return remembered(
            self._key("gallery", pictures),
            lambda: self.run(
                lambda pixels, _: {"embedding": encoder.encode_image(pixels)},
                pictures,
                description,
            ),
        )

    def photos(self, which: str, with_features: bool) -> tuple[FrozenPhotos, Tensor]:
        """The frozen half of a prompted gallery, and which files were readable ``(N,)``.

        Photos have one view: they are trained as they will be embedded.
        """
        paths = getattr(self.data, which).gallery
        pictures = Pictures(paths, self.model.encoder.preprocessing, self.data.on_broken)
        codes, features = None, None
        readable = torch.ones(len(paths), dtype=torch.bool)
        if self.model.reader is not None:
            codes = self.codes(pictures, f"Reading {which} photos' style codes")
            readable &= codes.isfinite().all(dim=1)
        if with_features:
            rows, found = self.features(pictures, 1, f"Reading {which} photos' features")
            features, readable = rows[0], readable & found
        elif codes is None and self.data.on_broken == "skip":  # nothing has opened them yet
            readable = self.run(lambda pixels, _: {}, pictures, f"Opening {which} photos").readable
        files = readable.nonzero().flatten()
        return FrozenPhotos(pictures, files, codes, features), readable

    def features(self, pictures: Pictures, views: int, description: str) -> tuple[Tensor, Tensor]:
        """Features of all views ``(V, N, ...)`` and which files were readable ``(N,)``.

        Patch tokens in bfloat16 where prompts follow, frozen embeddings where none do, those of
        several framings one after the other.
        """
        parts = [self._framed(pictures, views, name, description) for name in self.model.framings]
        return torch.cat([rows for rows, _ in parts], dim=-1), parts[0][1]

    def _framed(
        self, pictures: Pictures, views: int, framing: str, description: str
    ) -> tuple[Tensor, Tensor]:
        """:meth:`features` of one framing."""
        rest = (views, self.data.seed if views > 1 else 0)
        if framing != "whole":
            rest = (*rest, framing)
        tokens = self._key("tokens", pictures, *rest)
        embeddings = self._key("frozen", pictures, *rest)
        if self.model.uses_tokens:
            return remembered(
                tokens, lambda: self._views(pictures, views, framing, description, False)
            )
        if is_remembered(tokens) and not is_remembered(embeddings):
            rows, readable = remembered(tokens, lambda: (torch.empty(0), torch.empty(0)))
            return remembered(embeddings, lambda: (self._finish(rows), readable))
        return remembered(
            embeddings, lambda: self._views(pictures, views, framing, description, True)
        )

    def _key(self, kind: str, pictures: Pictures, *rest: Hashable) -> tuple[Hashable, ...]:
        tag = self.model.encoder.weights_tag + pictures.tag
        return frozen_key(kind, tag, pictures.paths, self.data.on_broken, *rest)

    def _views(
        self, pictures: Pictures, views: int, framing: str, description: str, embed: bool
    ) -> tuple[Tensor, Tensor]:
        """Read every view of the pictures, up to the tokens or on to the embedding."""
        generator = torch.Generator().manual_seed(self.data.seed)
        encoder = self.model.encoder

        def compute(pixels: Tensor, _: Tensor) -> dict[str, Tensor]:
            values = {}
            for number in range(views):
                drawn = pixels if number == 0 else augment(pixels, generator)
                rows = encoder.patch_tokens(view(drawn, framing))
                if embed:
                    values[str(number)] = encoder.pool(encoder.run_blocks(rows)).float()
                else:
                    values[str(number)] = rows.to(torch.bfloat16)
            return values

        done = self.run(compute, pictures, description)
        return torch.stack([done[str(number)] for number in range(views)]), done.readable

    @torch.no_grad()
    def _finish(self, tokens: Tensor) -> Tensor:
        """Remembered tokens ``(V, N, T, D)`` on to frozen embeddings ``(V, N, E)``."""
        encoder, device = self.model.encoder, self.module.device
        flat = tokens.flatten(0, 1)
        with torch.autocast(device.type, enabled=False):
            rows = [
                encoder.pool(encoder.run_blocks(part.to(device).float())).cpu()
                for part in flat.split(64)
            ]
        return torch.cat(rows).unflatten(0, tokens.shape[:2])


def _features_fit(module: RetrievalModule, data: RetrievalData) -> bool:
    """Whether the frozen half of every query is to be kept in memory."""
    if module.cache != "auto":
        return module.cache == "features"
    encoder = module.model.encoder
    if module.model.uses_tokens:
        tokens = count_tokens(encoder)
        size = 2 * tokens * encoder.width
    else:
        size = 4 * encoder.embed_dim * len(module.model.framings)
    pictures = module.views * sum(len(data.train.queries[style]) for style in data.train_styles)
    if module.model.prompts_gallery:
        pictures += len(data.train.gallery)
    return pictures * size <= module.cache_gigabytes * 2**30


@torch.no_grad()
def count_tokens(encoder: DualEncoder) -> int:
    """Tokens of one picture, by asking the encoder once."""
    side = encoder.image_size
    device = next(encoder.parameters()).device
    return encoder.patch_tokens(torch.zeros(1, 3, side, side, device=device)).shape[1]
