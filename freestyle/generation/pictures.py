"""Pictures in and out: working size, file formats, perceptual hashes."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from PIL import Image

_SAVE: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG", "compress_level": 6},
    "jpg": {"format": "JPEG", "quality": 92, "subsampling": 0},
    "webp": {"format": "WEBP", "quality": 90, "method": 4},
}


def shrunk(picture: Image.Image, max_side: int | None) -> Image.Image:
    """The picture, no longer than ``max_side``."""
    longer = max(picture.size)
    if max_side is None or longer <= max_side:
        return picture
    size = tuple(max(1, round(side * max_side / longer)) for side in picture.size)
    return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def encode(picture: Image.Image, form: str) -> bytes:
    """A picture as the bytes of its file."""
    buffer = io.BytesIO()
    picture.save(buffer, **_SAVE[form])
    return buffer.getvalue()


def perceptual_hash(picture: Image.Image) -> str:
    """64 bits as hexadecimal: signs of the lowest frequencies of the picture's cosine transform.

    Near duplicates differ in few bits (pHash; Zauner, 2010).
    """
    grey = cv2.resize(np.asarray(picture.convert("L")), (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(grey.astype(np.float32))[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return np.packbits(bits).tobytes().hex()
