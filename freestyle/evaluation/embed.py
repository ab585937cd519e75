"""From models and pictures to embeddings: what ranks are computed on.

All variants of one encoder share each picture's patch tokens and style codes, so that a control
costs one more pass through the blocks and no more decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from freestyle.code_cache import CodeCache
from freestyle.datasets.records import QuerySet, RetrievalSplit
from freestyle.errors import UserError
from freestyle.evaluation.changes import ChangedPictures
from freestyle.evaluation.features import Frozen, features_of, kept, needs_of, read
from freestyle.evaluation.photos import prompted_photos
from freestyle.evaluation.unreadable import without_unreadable
from freestyle.evaluation.variants import Embeddings, Variant
from freestyle.frozen import (
    FrozenRows,
    Pictures,
    frozen_key,
    frozen_pass,
    remembered,
    remembers,
)
from freestyle.model import FreestyleRet

SHARED_BYTES = 512 * 2**20  # of one style's tokens, kept while a command runs


class Embedder:
    """Embeds splits for several variants around one encoder.

    Args:
        variants: By the name they are reported under; all with the same encoder.
        device: Where to compute.
        batch_size: Pictures per pass.
        num_workers: Decoding processes.
        on_broken: ``stop`` or ``skip`` at unreadable files.
        cache_dir: Folder of style codes on disk; None for the default.
        seed: Of the shuffle of style codes.
        change: Done to every query picture, such as ``rotate:15``
            (:mod:`freestyle.evaluation.changes`); photos stay.

    Raises:
        UserError: If the variants have different encoders.
    """

    def __init__(
        self,
        variants: dict[str, Variant],
        *,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
        num_workers: int = 0,
        on_broken: str = "stop",
        cache_dir: str | Path | None = None,
        seed: int = 0,
        change: str | None = None,
    ) -> None:
        tags = {variant.model.encoder.weights_tag for variant in variants.values()}
        if len(tags) != 1:
            raise UserError(
                f"models with different encoders ({', '.join(sorted(tags))}) cannot stand in one "
                "table: evaluate them one by one"
            )
        self.variants = variants
        self.encoder = next(iter(variants.values())).model.encoder
        self.device, self.batch_size, self.num_workers = device, batch_size, num_workers
        self.on_broken, self.cache, self.seed = on_broken, CodeCache(cache_dir), seed
        self.change = change
        for variant in variants.values():
            variant.model.to(device).eval()
        self.readers = {
            v.model.reader.tag: v.model.reader
            for v in variants.values()
            if v.model.reader is not None
        }

    @torch.inference_mode()
    def embed(self, split: RetrievalSplit, styles: Sequence[str]) -> Embeddings:
        """Embed a split's gallery and the queries of some styles.

        Args:
            split: The opened split.
            styles: Single styles; ``text`` passes through the text tower.

        Returns:
            Embeddings of every variant.

        Raises:
            UserError: If a picture cannot be read and ``on_broken`` is ``stop``.
        """
        photos = remembered(
            frozen_key("photos", self.encoder.weights_tag, split.gallery, self.on_broken),
            lambda: self.run(
                lambda pixels, _: {"embedding": self.encoder.encode_image(pixels)},
                Pictures(split.gallery, self.encoder.preprocessing, self.on_broken),
                "Embedding gallery",
            ),
        )
        prompted = prompted_photos(self, split.gallery)
        codes, readable = self._codes(split, styles)
        drawn = self._shuffled(codes)
        found: dict[str, dict[str, Tensor]] = {name: {} for name in self.variants}
        for style in styles:
            queries = split.queries[style]
            if queries.is_text:
                for name, variant in self.variants.items():
                    rows = variant.model.encode_text(list(queries.sources))
                    if not variant.calibrated:  # no columns, or none that count
                        rows[:, variant.model.encoder.embed_dim :] = 0
                    found[name][style] = rows
                readable[style] = torch.ones(len(queries), dtype=torch.bool)
                continue
            rows = self._queries(queries, codes.get(style, {}), drawn.get(style, {}))
            for name in self.variants:
                found[name][style] = rows[name]
            readable[style] = rows.readable
        skipped = [split.gallery[i] for i in (~photos.readable).nonzero().flatten().tolist()]
        for style, mask in readable.items():
            sources = split.queries[style].sources
            skipped += [sources[i] for i in (~mask).nonzero().flatten().tolist()]
        if skipped:
            embeddings = without_unreadable(split, photos, found, prompted, readable, skipped)
        else:
            embeddings = Embeddings(split, photos["embedding"], found, prompted=prompted)
        for name, variant in self.variants.items():
            calibration = variant.model.calibration
            if calibration is not None and calibration.is_fitted:
                embeddings.terms[name] = calibration.photo_terms(embeddings.plain_photos(name))
        return embeddings

    def _queries(
        self, queries: QuerySet, codes: dict[str, Tensor], drawn: dict[str, Tensor]
    ) -> FrozenRows:
        """All variants' embeddings of one style's pictures."""

        def compute(frozen: Frozen, index: Tensor) -> dict[str, Tensor]:
            values, passed = {}, {}
            for name, variant in self.variants.items():
                model, how = variant.model, variant.style
                if (id(model), how) not in passed:  # variants may differ in the query map alone
                    code = None
                    if model.reader is not None:
                        source = drawn if how == "shuffled" else codes
                        code = source[model.reader.tag][index].to(self.device).float()
                    style = "own" if how == "shuffled" else how
                    before = model.before_map(features_of(model, frozen), code, style=style)
                    passed[id(model), how] = before, code, style
                before, code, style = passed[id(model), how]
                query = model.finish(before, code, style=style, use_map=variant.use_map)
                values[name] = model.complete_query(
                    query, code, style=style, calibrate=variant.calibrated
                )
            return values

        models = [variant.model for variant in self.variants.values()]
        pictures = self._pictures(queries.sources)
        return self.from_frozen(compute, pictures, models, queries.style)

    def from_frozen(
        self,
        compute: Callable[[Frozen, Tensor], dict[str, Tensor]],
        pictures: Pictures,
        models: Sequence[FreestyleRet],
        what: str,
    ) -> FrozenRows:
        """Run a function of frozen features over pictures, kept where that is asked for.

        Args:
            compute: Frozen features ``(B, ...)`` by kind and framing, for :func:`features_of`, and
                their rows ``(B,)`` to named tensors ``(B, ...)``.
            pictures: What to read.
            models: Whose features are needed.
            what: Names the pictures on progress bars.
        """
        needs = list(dict.fromkeys(need for model in models for need in needs_of(model)))
        if not self._tokens_fit(len(pictures)):
            return self.run(
                lambda pixels, index: compute(read(models[0], pixels, needs), index),
                pictures,
                f"Embedding {what}",
            )
        found = kept(self, pictures, needs, what)
        rows = FrozenRows(readable=found[needs[0]].readable)
        parts = []
        for index in torch.arange(len(pictures)).split(self.batch_size):
            batch = {need: found[need]["value"][index].to(self.device) for need in needs}
            parts.append(compute(batch, index))
        rows.values = {name: torch.cat([p[name].cpu() for p in parts]) for name in parts[0]}
        return rows

    def _tokens_fit(self, count: int) -> bool:
        """Whether several evaluations in this process may share so many pictures' tokens."""
        if not remembers():
            return False
        side = self.encoder.image_size
        probe = self.encoder.patch_tokens(torch.zeros(1, 3, side, side, device=self.device))
        return count * probe.numel() * probe.element_size() <= SHARED_BYTES

    @torch.inference_mode()
    def frozen(self, queries: QuerySet) -> tuple[Tensor, Tensor]:
        """Embeddings of one style's pictures without any prompt: ``(1, N, E)``, and readable."""
        rows = self.run(
            lambda pixels, _: {"embedding": self.encoder.embed_image(pixels)},
            self._pictures(queries.sources),
            f"Embedding {queries.style}",
        )
        return rows["embedding"][None], rows.readable

    def _codes(
        self, split: RetrievalSplit, styles: Sequence[str]
    ) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
        """Style codes by style and reader tag."""
        codes: dict[str, dict[str, Tensor]] = {}
        readable: dict[str, Tensor] = {}
        for style in styles:
            queries = split.queries[style]
            if queries.is_text:
                continue
            codes[style] = {
                tag: self.style_codes(queries.sources, tag, f"Reading {style} style codes")
                for tag in self.readers
            }
        return codes, readable

    def style_codes(self, paths: Sequence[Path], tag: str, description: str) -> Tensor:
        """Codes of query pictures ``(N, code_dim)`` float16 by one of the variants' readers."""
        return self.codes_of(self._pictures(paths), tag, description)

    def codes_of(self, pictures: Pictures, tag: str, description: str) -> Tensor:
        """Codes of any pictures ``(N, code_dim)`` float16, NaN where unreadable."""

        def compute() -> Tensor:
            rows = self.run(
                lambda pixels, _: {"code": self.readers[tag](pixels)}, pictures, description
            )
            rows["code"][~rows.readable] = float("nan")
            return rows["code"]

        return self.cache.get(
            pictures.paths, tag + pictures.tag, self.encoder.preprocessing, compute
        )

    def _shuffled(self, codes: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """The same codes, each dealt to a query of any style; unreadable ones keep their NaN."""
        if not self.readers or not codes:
            return {}
        dealt: dict[str, dict[str, Tensor]] = {style: {} for style in codes}
        for tag in self.readers:
            together = torch.cat([codes[style][tag] for style in codes])
            known = together.isfinite().all(dim=1).nonzero().flatten()
            order = torch.from_numpy(np.random.default_rng(self.seed).permutation(len(known)))
            together[known] = together[known[order]]
            sizes = [len(codes[style][tag]) for style in codes]
            for style, part in zip(codes, together.split(sizes), strict=True):
                dealt[style][tag] = part
        return dealt

    def _pictures(self, paths: Sequence[Path]) -> Pictures:
        """Query pictures, changed where that was asked for."""
        if self.change is None:
            return Pictures(paths, self.encoder.preprocessing, self.on_broken)
        return ChangedPictures(paths, self.encoder.preprocessing, self.on_broken, self.change)

    def run(
        self,
        compute: Callable[[Tensor, Tensor], dict[str, Tensor]],
        pictures: Pictures,
        description: str,
    ) -> FrozenRows:
        """One pass over pictures, see :func:`~freestyle.frozen.frozen_pass`."""
        return frozen_pass(
            compute,
            pictures,
            device=self.device,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            description=description,
        )
