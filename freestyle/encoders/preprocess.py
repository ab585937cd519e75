"""From a picture of any shape to the square of pixels an encoder was trained on.

The steps are those of Hugging Face's image processors (resize with antialiasing, centre crop,
division by 255), so that an index made with them stays valid. Resizing is done by Pillow in two
explicit passes, columns first and rows second, with the crop folded into the resize: that is the
order torchvision's 8-bit kernel uses (Pillow 13 picks the cheaper order by itself, which clips the
overshoot of bicubic filters elsewhere), and a 3 x 1000 picture never becomes 224 x 74,666.

All but the tensor is Pillow and NumPy: processes that only decode, and exported encoders, need no
torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the square the encoder was trained on.

    Attributes:
        size: Side of the square in pixels.
        resize: ``"shortest"`` scales the shorter side to ``size`` and crops the centre (CLIP);
            ``"exact"`` scales both sides (SigLIP, BLIP); ``"pad"`` fits the longer side and pads
            with white to a square, so that nothing of a drawing is cut off (the mini).
        interpolation: Pillow resampling filter.
        mean: Channel means the encoder subtracts, for pixels in [0, 1].
        std: Channel deviations the encoder divides by.
        shorter_side: With ``"shortest"``, the length the shorter side is scaled to before the crop,
            at least ``size``; None means ``size``.
    """

    size: int
    resize: Literal["shortest", "exact", "pad"] = "shortest"
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = "bicubic"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    shorter_side: int | None = None


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """Resize, crop or pad one picture.

    Args:
        image: A picture of any size and mode; other modes than RGB are converted, transparency is
            laid on white.
        preprocessing: Size, resize rule and filter.

    Returns:
        RGB float32 pixels in [0, 1], ``(3, S, S)`` with S = ``preprocessing.size``.
    """
    return from_square(to_square(image, preprocessing))


def from_square(square: np.ndarray | Tensor) -> Tensor:
    """8-bit pixels ``(..., S, S, 3)`` to float32 in [0, 1], ``(..., 3, S, S)``."""
    import torch

    return torch.as_tensor(square).movedim(-1, -3).float() / 255


def to_array(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """:func:`to_pixels`, bit for bit, as an array ``(3, S, S)``."""
    square = to_square(image, preprocessing).transpose(2, 0, 1)
    return np.divide(square, np.float32(255), dtype=np.float32, order="C")


def to_square(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """:func:`to_pixels` before it becomes a tensor: 8-bit RGB ``(S, S, 3)``."""
    image = _to_rgb(image)
    size = preprocessing.size
    resample = _FILTERS[preprocessing.interpolation]
    if preprocessing.resize == "exact":
        square = _resize_crop(image, (size, size), (0, 0), (size, size), resample)
    elif preprocessing.resize == "pad":
        square = _fit_on_white(image, size, resample)
    else:
        width, height = _scaled_size(image.size, preprocessing.shorter_side or size)
        corner = (int((width - size) / 2), int((height - size) / 2))
        square = _resize_crop(image, (width, height), corner, (size, size), resample)
    return np.array(square, dtype=np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and image.info.get("transparency") is None:
        return image
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _scaled_size(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Width and height with the shorter side at ``shorter``, the longer one rounded down."""
    width, height = size
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _resize_crop(
    image: Image.Image,
    scaled: tuple[int, int],
    corner: tuple[int, int],
    crop: tuple[int, int],
    resample: Image.Resampling,
) -> Image.Image:
    """What ``image.resize(scaled)`` shows at ``corner``, computing nothing outside the crop.

    All sizes are (width, height). Pillow's ``box`` reads pixels beyond the box where the filter
    needs them, so cropping before scaling gives the same pixels as cropping after.
    """
    width, height = image.size
    step_x, step_y = width / scaled[0], height / scaled[1]
    left, right = corner[0] * step_x, min((corner[0] + crop[0]) * step_x, width)
    top, bottom = corner[1] * step_y, min((corner[1] + crop[1]) * step_y, height)
    columns = image.resize((crop[0], height), resample, box=(left, 0, right, height))
    return columns.resize(crop, resample, box=(0, top, crop[0], bottom))


def _fit_on_white(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    """The longer side at ``size``, centred on a white square."""
    longer = max(image.size)
    width, height = (max(1, round(side * size / longer)) for side in image.size)
    fitted = _resize_crop(image, (width, height), (0, 0), (width, height), resample)
    if width == height == size:
        return fitted
    square = Image.new("RGB", (size, size), (255, 255, 255))
    square.paste(fitted, ((size - width) // 2, (size - height) // 2))
    return square
