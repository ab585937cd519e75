"""The query side of a :class:`~freestyle.model.FreestyleRet` for the searcher: NumPy in and out.

Style codes, all framings' patch tokens and blocks are computed once for a batch; row, style
probabilities and place in the style space are read from them. Equal to ``model.encode_query`` and
``model.encode_text`` up to the rounding of another batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from freestyle.errors import UserError
from freestyle.framing import view
from freestyle.model import FreestyleRet
from freestyle.search.query_encoder import Encoded

if TYPE_CHECKING:
    from PIL import Image

    from freestyle.encoders.base import DualEncoder

OTHER = "other"
BATCH = 16  # pictures per pass: bounds the memory of a large batch of queries


class TorchQueryEncoder:
    """A query encoder by torch, in float32.

    Args:
        model: Any FreestyleRet; it is put into evaluation mode on its device.
        source: Folder or hub id the model was read from; empty for the untouched encoder.

    Attributes:
        encoder: Name of the encoder.
        weights: Its weights tag; with a prompted gallery the model's own tag follows, since photos
            embedded by one model do not fit another's queries.
        width: E.
        model: The model.
        source: As given.
    """

    def __init__(self, model: FreestyleRet, source: str = "") -> None:
        # convolutions run faster so on CPUs; the numbers stay
        self.model = model.eval().to(memory_format=torch.channels_last)
        self.source = source
        self.encoder, self.weights = model.encoder.name, gallery_tag(model)
        self.width = model.encoder.embed_dim

    @classmethod
    def open(
        cls, source: str | Path, *, device: str | torch.device = "cpu", **options: object
    ) -> TorchQueryEncoder:
        """Read a trained model.

        Args:
            source: Folder of ``save_pretrained``, or hub id.
            device: Where it computes.
            **options: ``encoder`` and ``revision`` of ``FreestyleRet.from_pretrained``.

        Raises:
            UserError: If it cannot be read.
        """
        model = FreestyleRet.from_pretrained(source, **options)
        return cls(placed(model, device), str(source))

    @classmethod
    def from_encoder(
        cls, encoder: str | DualEncoder, *, device: str | torch.device = "cpu"
    ) -> TorchQueryEncoder:
        """The untouched encoder: queries are embedded as photos are.

        Args:
            encoder: A name for the encoder factory, or a ready encoder.
            device: Where it computes.

        Raises:
            UserError: If there is no such encoder.
        """
        if isinstance(encoder, str):
            model = FreestyleRet.from_encoder(encoder)
        else:
            model = FreestyleRet.from_encoder(encoder.name, encoder=encoder)
        return cls(placed(model, device))

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image]) -> Encoded:
        """Query pictures (upright RGB, from ``load_image``) of any size."""
        starts = range(0, len(images), BATCH)
        parts = [self._batch(images[start : start + BATCH]) for start in starts]
        if not parts:
            return Encoded(np.zeros((0, self.columns), np.float32), ())
        return Encoded(
            rows=np.concatenate([part.rows for part in parts]),
            styles=tuple(style for part in parts for style in part.styles),
            places=None
            if parts[0].places is None
            else np.concatenate([part.places for part in parts]),
        )

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Encoded:
        """Query texts; what goes beyond the tower's tokens is cut."""
        rows = self.model.encode_text(list(texts)).numpy()
        return Encoded(rows, ({},) * len(rows))

    @torch.inference_mode()
    def complete(self, vectors: np.ndarray) -> np.ndarray:
        """Photos' embeddings ``(N, E)`` with a calibration's columns ``(N, E + C)``, float32."""
        rows = torch.from_numpy(np.array(vectors, dtype=np.float32)).to(self.model.device)
        return self.model.complete_gallery(rows).cpu().numpy()

    @property
    def columns(self) -> int:
        """E + C."""
        own = self.model.calibration
        return self.width + (own.n_styles + 1 if own is not None and own.is_fitted else 0)

    @property
    def styles(self) -> tuple[str, ...]:
        """Names of the trained styles that the calibration's gate tells apart."""
        own, names = self.model.calibration, tuple(self.model.config.styles or ())
        gated = own is not None and own.is_fitted and own.gate_weight.shape[1] > 0
        return names if gated and len(names) == own.n_styles else ()

    def _batch(self, images: Sequence[Image.Image]) -> Encoded:
        model = self.model
        pixels = torch.stack([model.encoder.preprocess(image) for image in images])
        features, codes = prepare(model, pixels.to(model.device), once=True)
        rows = model.complete_query(model.query_from(features, codes), codes)
        return Encoded(
            rows=rows.float().cpu().numpy(),
            styles=self._styles(codes, len(images)),
            places=None if codes is None else model.space.weights(codes).cpu().numpy(),
        )

    def _styles(self, codes: Tensor | None, batch: int) -> tuple[dict[str, float], ...]:
        """Probabilities by the calibration's gate, which alone knows the styles by name."""
        names = self.styles
        if not names or codes is None:
            return ({},) * batch
        gram = self.model.style_inputs(codes, batch)["gram"]
        shares = self.model.calibration.shares(gram, batch).double().cpu().tolist()  # (B, S)
        return tuple(
            {**dict(zip(names, row, strict=True)), OTHER: max(0.0, 1.0 - sum(row))}
            for row in shares
        )


def placed(model: FreestyleRet, device: str | torch.device) -> FreestyleRet:
    """A model on its device.

    Raises:
        UserError: If there is no such device here.
    """
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {device} cannot be used ({reason}): use cpu or cuda") from error


def prepare(
    model: FreestyleRet, pixels: Tensor, *, once: bool = False
) -> tuple[Tensor, Tensor | None]:
    """``model.prepare`` with all framings in one pass: ``(B, F * E)`` and codes.

    Args:
        model: Any FreestyleRet.
        pixels: ``(B, 3, S, S)``.
        once: Whether a picture that fills its sheet, whose framings are all alike, passes once; a
            graph that is to be exported cannot depend on the picture so.
    """
    if model.uses_tokens or len(model.framings) == 1:
        return model.prepare(pixels)
    codes = model.reader(pixels) if model.reader is not None else None
    views = torch.stack([view(pixels, framing) for framing in model.framings])  # (F, B, 3, S, S)
    if not once:
        rows = model.encoder.embed_image(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        return rows.transpose(0, 1).flatten(1), codes
    new = (views[1:] != views[:1]).flatten(2).any(dim=2)  # (F - 1, B)
    rows = model.encoder.embed_image(torch.cat([views[0], views[1:][new]]))
    parts = rows[: len(pixels)].repeat(len(views), 1, 1)  # (F, B, E)
    parts[1:][new] = rows[len(pixels) :]
    return parts.transpose(0, 1).flatten(1), codes


def gallery_tag(model: FreestyleRet) -> str:
    """What :attr:`IndexSettings.weights` says of photos embedded for this model."""
    if not model.prompts_gallery:
        return model.encoder.weights_tag
    from freestyle.transport.sets import model_tag

    return f"{model.encoder.weights_tag} {model_tag(model)}"
