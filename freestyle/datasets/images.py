"""One way to read a picture: any common mode and format in, upright 8-bit RGB out.

Pictures come from strangers, so the size is checked in the header before anything is decoded, only
the formats named here are tried, and whatever goes wrong becomes a `UserError` naming the file.
No setting of Pillow is changed: two threads may read pictures with different limits.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from datetime import datetime
from pathlib import Path
from typing import IO

import numpy as np
from PIL import (
    BmpImagePlugin,  # noqa: F401 - importing a plugin registers its format
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from freestyle.errors import UserError

IMAGE_EXTENSIONS: tuple[str, ...] = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
)
"""Extensions that readers take for pictures, in lower case; the case in a file name is free."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF or PPM"
_ORIENTATION_TAG = 0x0112
_EXIF_IFD, _DATE_TAG, _ORIGINAL_DATE_TAG = 0x8769, 0x0132, 0x9003
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(source: str | Path | Image.Image, *, max_pixels: int = 200_000_000) -> Image.Image:
    """Read a picture as upright 8-bit RGB.

    EXIF rotation is applied, transparency is laid on white, 16-bit grey is scaled (not clipped) to
    8 bits, an animation gives its first frame. A picture already in memory is left as it was.

    Args:
        source: A file (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM) or a Pillow image in any mode.
        max_pixels: Largest width times height, checked before decoding.

    Returns:
        A new image of mode ``"RGB"``.

    Raises:
        UserError: The file is missing, unreadable, damaged, no picture, or too large.
    """
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or "the given image")
        return _decode(source, name, max_pixels)
    if not isinstance(source, str | os.PathLike):
        raise UserError(
            f"A picture must be a file path or a Pillow image, not {type(source).__name__}: "
            "turn arrays into images with PIL.Image.fromarray."
        )
    name = os.fsdecode(source)
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):
            kind = "a folder" if os.path.isdir(name) else "no regular file"
            raise UserError(f"{name} is {kind}: give the path of one picture.")
        with open(name, "rb") as file:
            return _decode(_open(file, name), name, max_pixels)
    except FileNotFoundError as error:
        raise UserError(f"{name} does not exist: check the path of the picture.") from error
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{name} cannot be opened ({reason}): check the path and its permissions."
        ) from error


def load_bytes(data: bytes, name: str, *, max_pixels: int = 200_000_000) -> Image.Image:
    """:func:`load_image` of a file's bytes.

    Args:
        data: The whole file.
        name: What errors call it.
        max_pixels: Largest width times height, checked before decoding.

    Raises:
        UserError: The picture is damaged, none, or too large.
    """
    return _decode(_open(io.BytesIO(data), name), name, max_pixels)


def date_taken(data: bytes) -> str:
    """When a photo was taken by its EXIF data, as an ISO date and time; empty where it is silent.

    Args:
        data: The whole file, or enough of it to hold the header.
    """
    try:
        exif = _open(io.BytesIO(data), "").getexif()
        text = exif.get_ifd(_EXIF_IFD).get(_ORIGINAL_DATE_TAG) or exif.get(_DATE_TAG) or ""
        return datetime.strptime(str(text).strip("\0 ")[:19], "%Y:%m:%d %H:%M:%S").isoformat()
    except Exception:  # damaged EXIF says nothing about the pixels
        return ""


def _open(file: IO[bytes], name: str) -> Image.Image:
    """Parse the header with the first format that accepts it; no pixel is decoded.

    `Image.open` is not used, because its size limit is a module-wide setting that warns or raises
    at other sizes than ours.
    """
    prefix = file.read(512)
    for kind in _FORMATS:
        factory, accepts = Image.OPEN[kind]
        if accepts is not None and accepts(prefix[:16]) is not True:
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except Image.DecompressionBombError as error:
            raise _too_large(name, str(error)) from error
        except (SyntaxError, IndexError, TypeError, struct.error):
            break
        except Exception as error:  # decoders raise anything on damaged headers
            raise _damaged(name, error) from error
    raise UserError(_not_a_picture(name, prefix))


def _decode(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    width, height = image.size
    if width < 1 or height < 1:
        raise UserError(
            f"{name} has no pixels ({width} x {height}): give a picture of 1 x 1 or more."
        )
    if width * height > max_pixels:
        raise _too_large(name, f"{width} x {height} pixels, {max_pixels:,} in all are allowed")
    try:
        image.load()
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error)) from error
    except Exception as error:  # decoders raise anything on damaged data
        raise _damaged(name, error) from error
    turn = _UPRIGHT.get(_orientation(image))
    rgb = _to_rgb(image, name)
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_integers(image, name).convert("RGB")
    if image.mode == "F":
        return _from_floats(image, name).convert("RGB")
    keyed = image.mode in ("1", "L", "P", "RGB") and "transparency" in image.info
    if keyed or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        if image.mode in ("RGBa", "La"):
            image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
        return _on_white(image.convert("RGBA"))
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise UserError(
            f"{name} has colour mode {image.mode}, which is not read: save it as RGB."
        ) from error


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB")


def _from_integers(image: Image.Image, name: str) -> Image.Image:
    """Modes ``I;16*`` and ``I``: 16-bit samples to 8 bits, v / 257 to the nearest integer."""
    values = np.asarray(image).astype(np.int64)
    tags = getattr(image, "tag_v2", {})
    peak = 4095 if tags.get(258) == (12,) else 65535  # 258: bits per sample
    if values.min() < 0 or values.max() > peak:
        raise UserError(
            f"{name} has grey values outside 0 to {peak}: save it with 8 or 16 bits a sample."
        )
    grey = (values * 255 + peak // 2) // peak
    if tags.get(262) == 0:  # photometric interpretation: zero is white
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey.astype(np.uint8))


def _from_floats(image: Image.Image, name: str) -> Image.Image:
    """Mode ``F``: grey in [0, 1]."""
    values = np.asarray(image)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise UserError(
            f"{name} has floating-point grey values outside 0 to 1: save it with 8 or 16 bits."
        )
    return Image.fromarray(np.rint(values * 255).astype(np.uint8))


def _damaged(name: str, error: Exception) -> UserError:
    reason = str(error).strip().rstrip(".") or type(error).__name__
    return UserError(f"{name} is cut short or damaged ({reason}): replace it by an intact copy.")


def _too_large(name: str, what: str) -> UserError:
    what = what.strip().rstrip(".")
    return UserError(f"{name} is too large to decode ({what}): shrink it, or raise max_pixels.")


def _not_a_picture(name: str, prefix: bytes) -> str:
    if not prefix:
        return f"{name} is empty: replace it by a picture."
    kind = None
    if prefix[4:8] == b"ftyp":
        kind = "an AVIF" if prefix[8:12] in (b"avif", b"avis") else "a HEIC"
    elif b"<svg" in prefix.lower():
        kind = "an SVG"
    elif prefix.startswith(b"%PDF"):
        kind = "a PDF"
    if kind:
        return f"{name} is {kind} file, which is not read: save it as PNG or JPEG."
    return f"{name} is not a readable picture: give a {_READABLE} file."
