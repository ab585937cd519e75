"""Whole pictures and texts in, embeddings out: the public half of a model.

:class:`~freestyle.model.FreestyleRet` brings the parts; here they are put together, batch by batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

Images = Sequence["Image.Image | str | Path"]
StyleInput = Literal["own", "mean", "zero"]


class Encoding:
    """Verbs of a model: ``encode_query``, ``encode_gallery`` and ``encode_text``."""

    def encode_query(self, images: Images, *, batch_size: int = 32, **how: Any) -> Tensor:
        """Embed query pictures of any style.

        Args:
            images: PIL images or paths.
            batch_size: Pictures per pass; the result does not depend on it.
            **how: ``style`` and ``use_map`` of :meth:`query_from`.

        Returns:
            Float32 ``(N, E)`` on the CPU, unit norm; with calibration followed by its S + 1
            columns. The score of a photo is the inner product with its row of
            :meth:`encode_gallery`.

        Raises:
            UserError: If a file is missing or is no readable picture.
        """

        def embed(pixels: Tensor) -> Tensor:
            features, codes = self.prepare(pixels)
            rows = self.query_from(features, codes, **how)
            style, calibrate = how.get("style", "own"), how.get("use_map", True)
            return self.complete_query(rows, codes, style=style, calibrate=calibrate)

        return self._encode(images, batch_size, embed)

    def encode_gallery(
        self, images: Images, *, batch_size: int = 32, use_map: bool = True
    ) -> Tensor:
        """Embed photos: float32 ``(N, E)`` on the CPU, unit norm.

        With the untouched encoder, or with a prompted gallery as queries are embedded. With
        calibration its S + 1 columns follow; :meth:`complete_gallery` adds them to embeddings that
        are there already.

        Args:
            images: PIL images or paths.
            batch_size: Photos per pass; the result does not depend on it.
            use_map: As for :meth:`query_from`; a frozen gallery has no map to leave out.

        Raises:
            UserError: If a file is missing or is no readable picture.
        """
        return self.complete_gallery(
            self._encode(images, batch_size, lambda pixels: self.photos_from(pixels, use_map))
        )

    def photos_from(self, pixels: Tensor, use_map: bool = True) -> Tensor:
        """One batch of photos ``(B, 3, S, S)`` in [0, 1] to unit-norm float32 ``(B, E)``."""
        if self.prompts_gallery:
            return self.query_from(*self.prepare(pixels), use_map=use_map)
        return self.encoder.encode_image(pixels)

    def complete_gallery(self, embeddings: Tensor) -> Tensor:
        """Photos' embeddings ``(G, E)`` with the calibration's columns, if there are any.

        Args:
            embeddings: Frozen ones, or with a prompted gallery this model's own.
        """
        own = self.calibration
        return embeddings if own is None else own.extend_gallery(embeddings)

    def complete_query(
        self,
        embeddings: Tensor,
        codes: Tensor | None = None,
        *,
        style: StyleInput = "own",
        calibrate: bool = True,
    ) -> Tensor:
        """Embeddings of :meth:`query_from` with the calibration's columns, if there are any."""
        if self.calibration is None:
            return embeddings
        gram = self.style_inputs(codes, embeddings.shape[0], style)["gram"]
        return self.calibration.extend_queries(embeddings, gram, calibrate=calibrate)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> Tensor:
        """Embed query texts: float32 on the CPU, as :meth:`encode_query` does pictures."""
        if isinstance(texts, str):
            texts = [texts]
        texts = list(texts)
        if not texts:
            rows = torch.empty(0, self.encoder.embed_dim)
            return rows if self.calibration is None else self.calibration.extend_texts(rows)
        chunks = (texts[i : i + batch_size] for i in range(0, len(texts), batch_size))
        rows = torch.cat([self.text_from(chunk).cpu() for chunk in chunks])
        return rows if self.calibration is None else self.calibration.extend_texts(rows)

    def text_from(self, texts: list[str]) -> Tensor:
        """One batch of texts to unit-norm float32 ``(B, E)``, with gradients to text prompts."""
        return self.encoder.encode_text(texts, self.text_prompts)

    @torch.no_grad()
    def _encode(self, images: Images, batch_size: int, embed: Any) -> Tensor:
        chunks = [embed(pixels).cpu() for pixels in self._pixels(images, batch_size)]
        return torch.cat(chunks) if chunks else torch.empty(0, self.encoder.embed_dim)

    def _pixels(self, images: Images, batch_size: int) -> Iterator[Tensor]:
        """Batches of pixels ``(B, 3, S, S)`` on the model's device."""
        from PIL import Image

        from freestyle.datasets.images import load_image

        if isinstance(images, str | Path | Image.Image):
            images = [images]
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            pixels = [self.encoder.preprocess(load_image(image)) for image in batch]
            yield torch.stack(pixels).to(self.device)
