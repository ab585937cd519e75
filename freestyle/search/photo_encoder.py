"""The photo side of an index: squares of pixels to pooled vectors and sets, in one pass.

Photos pass through the untouched encoder, whatever model asks later, unless the model has a
prompted gallery: then they pass through the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from freestyle.encoders.preprocess import from_square
from freestyle.errors import UserError
from freestyle.search.decode import MAX_PIXELS, Decoded, Decoder
from freestyle.search.records import IndexSettings, PhotoRecord
from freestyle.search.sources import Listed
from freestyle.search.torch_encoder import gallery_tag, placed
from freestyle.transport.sets import patch_atoms
from freestyle.transport.views import WHOLE, Views

if TYPE_CHECKING:
    from freestyle.model import FreestyleRet

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
THUMBNAIL = 256
NO_VIEWS = "none"


@dataclass(frozen=True)
class EncoderChoice:
    """What embeds photos, in words that travel to other processes.

    Attributes:
        encoder: Name for the encoder factory; where ``model`` is given, the model's is used.
        model: Folder or hub id of a trained model; empty for the untouched encoder.
        views: As for :func:`parse_views`; empty takes patches, or windows where a prompted gallery
            cannot give patches.
        precision: Key of :data:`PRECISIONS` or :data:`SHORT`; empty takes bfloat16 on a GPU and
            float32 elsewhere.
        device: As torch names it; empty takes a GPU where there is one.
    """

    encoder: str = "freestyle-mini"
    model: str = ""
    views: str = ""
    precision: str = ""
    device: str = ""

    def build(self) -> PhotoEncoder:
        """Read the model.

        Raises:
            UserError: If it cannot be read, or the settings do not fit it.
        """
        from freestyle.model import FreestyleRet

        if self.model:
            model = FreestyleRet.from_pretrained(self.model)
        else:
            model = FreestyleRet.from_encoder(self.encoder)
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = placed(model, device)
        usual = "grid:10" if model.prompts_gallery else "patches:10"
        return PhotoEncoder(
            model,
            parse_views(self.views or usual),
            self.precision or ("float32" if torch.device(device).type == "cpu" else "bfloat16"),
        )


class PhotoEncoder:
    """Embeds batches of photos.

    Args:
        model: Any FreestyleRet, on its device; only its photo side is used.
        views: What sets are made of; None keeps none.
        precision: Of the networks; vectors are float32 and atoms float16 in any case.
        thumbnail: Longer side of thumbnails in pixels; 0 for none.

    Attributes:
        atoms: M, elements of a set; 0 without sets.

    Raises:
        UserError: If the model cannot give the views, or there is no such precision.
    """

    def __init__(
        self,
        model: FreestyleRet,
        views: Views | None = None,
        precision: str = "float32",
        thumbnail: int = THUMBNAIL,
    ) -> None:
        precision = SHORT.get(precision, precision)
        if precision not in PRECISIONS:
            raise UserError(f"--precision {precision}: use {', '.join([*PRECISIONS, *SHORT])}")
        if views is not None and views.weights != "uniform":
            raise UserError("an index keeps no weights of views: set views.weights to uniform")
        if views is not None and views.kind == "patches" and model.prompts_gallery:
            raise UserError(
                "--views patches need the untouched encoder's gallery: use grid, pyramid, random "
                "or none with a prompted one"
            )
        self.model, self.views, self.precision = model.eval(), views, precision
        self.thumbnail = thumbnail
        self.atoms = 0
        size = model.encoder.image_size
        blank = np.zeros((1, len(self.boxes), size, size, 3), np.uint8)
        _, atoms = self.embed(blank)
        self.atoms = 0 if atoms is None else atoms.shape[1]

    @property
    def boxes(self) -> tuple:
        """Views that a decoder cuts."""
        return (WHOLE,) if self.views is None else tuple(self.views.boxes())

    def decoder(self, max_pixels: int = MAX_PIXELS) -> Decoder:
        """What makes this encoder's pixels."""
        return Decoder(self.model.encoder.preprocessing, self.boxes, self.thumbnail, max_pixels)

    def settings(self, model: str = "") -> IndexSettings:
        """Settings of an index that this encoder fills; ``model`` is what they say of a model."""
        encoder = self.model.encoder
        return IndexSettings(
            encoder=encoder.name,
            weights=gallery_tag(self.model),
            width=encoder.embed_dim,
            views="" if self.views is None else self.views.key,
            atoms=self.atoms,
            precision=self.precision,
            thumbnail=self.thumbnail,
            model=model,
        )

    @torch.inference_mode()
    def embed(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """One batch of photos.

        Args:
            squares: 8-bit RGB ``(B, V, S, S, 3)``, V views of each photo, the whole first.

        Returns:
            Pooled vectors ``(B, E)`` float32, unit norm, and sets ``(B, M, E)`` float16, or None.
        """
        batch, views = squares.shape[:2]
        device = self.model.device
        moved = torch.from_numpy(squares.reshape(batch * views, *squares.shape[2:])).to(device)
        pixels = from_square(moved)  # (B * V, 3, S, S)
        dtype = PRECISIONS[self.precision]
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            if self.views is not None and self.views.kind == "patches":
                sets = patch_atoms(self.model.encoder, pixels, self.views.count)  # (B, M, E)
            else:
                sets = self.model.photos_from(pixels).unflatten(0, (batch, views))
        vectors = torch.nn.functional.normalize(sets[:, 0].float(), dim=-1).cpu().numpy()
        return vectors, None if self.views is None else _half(sets)

    def records(self, photos: list[Listed], decoded: list[Decoded]) -> list[PhotoRecord]:
        """Embed decoded photos of one batch."""
        if not photos:
            return []
        vectors, atoms = self.embed(np.stack([item.squares for item in decoded]))
        return [
            PhotoRecord(
                id=photo.id,
                path=photo.path,
                vector=vectors[row],
                atoms=None if atoms is None else atoms[row],
                origin=photo.origin,
                offset=photo.offset,
                size=item.size,
                modified=item.modified,
                digest=item.digest,
                width=item.width,
                height=item.height,
                caption=photo.caption,
                date=photo.date or item.date,
                thumbnail=item.thumbnail,
                extra=photo.columns,
            )
            for row, (photo, item) in enumerate(zip(photos, decoded, strict=True))
        ]


def _half(sets: Tensor) -> np.ndarray:
    return sets.float().cpu().numpy().astype(np.float16)


def parse_views(text: str) -> Views | None:
    """``KIND``, ``KIND:COUNT`` or ``none``; also what :attr:`Views.key` says.

    Raises:
        UserError: If there are no such views.

    >>> parse_views("grid:10").key, parse_views("random-11-0-uniform").key, parse_views("none")
    ('grid-10-uniform', 'random-11-0-uniform', None)
    """
    if text in (NO_VIEWS, ""):
        return None
    kind, _, rest = text.replace("-", ":").partition(":")
    numbers = [part for part in rest.split(":") if part and part != "uniform"]
    if any(not number.isdigit() for number in numbers) or len(numbers) > 2:
        raise UserError(f"--views {text} are none: write patches:10, grid:10, random:11 or none")
    count = {"patches": 10, "grid": 10}.get(kind, 11)
    return Views(
        kind,
        int(numbers[0]) if numbers else count,
        seed=int(numbers[1]) if len(numbers) > 1 else 0,
    )
