"""The process that decodes strangers' pictures: bounded memory, nothing to write, no secrets.

It is started by :mod:`freestyle.search.server.decoding` with an empty environment and speaks over
its standard input and output:

    request   8 bytes: number of bytes, then the picture's bytes
    answer    13 bytes: kind, width, height, number of bytes, then RGB bytes or a sentence

It lives until its input ends, or a picture has taken it to the end of its memory.
"""

from __future__ import annotations

import struct
import sys
import warnings
from io import BytesIO
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from freestyle.datasets.images import load_image
from freestyle.errors import UserError
from freestyle.search.server.limits import FORMATS, READABLE

REQUEST = struct.Struct("<Q")
ANSWER = struct.Struct("<BIII")
PICTURE, REFUSED, TOO_LARGE, OUT_OF_MEMORY, UNKNOWN_FORMAT, READY = range(6)
NAME = "the picture"  # in sentences: what clients call their files is no business of ours


def decode(data: bytes, pixels: int, longest_side: int) -> Image.Image:
    """Bytes to upright RGB of at most ``longest_side``.

    Pictures up to that size come out as :func:`~freestyle.datasets.images.load_image` reads their
    file, pixel for pixel. Larger ones are shrunk, JPEGs partly by their decoder (a half, quarter
    or eighth of each side at once, which is what makes a phone's photo cheap).

    Raises:
        UserError: No picture of an allowed format, damaged, or of more than ``pixels``.
    """
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise NotAPicture(f"{NAME} is not readable: send {READABLE}") from error
    except Image.DecompressionBombError as error:
        raise TooLarge(_too_large("more", pixels)) from error
    except (SyntaxError, ValueError, OSError, OverflowError, struct.error) as error:
        raise UserError(f"{NAME} is damaged: send an intact copy") from error
    width, height = image.size
    if width * height > pixels:
        raise TooLarge(_too_large(f"{width} x {height}", pixels))
    image.filename = NAME
    if image.format == "JPEG" and max(width, height) > 2 * longest_side:
        image.draft(None, (min(width, 2 * longest_side), min(height, 2 * longest_side)))
    upright = load_image(image, max_pixels=pixels)
    if max(upright.size) > longest_side:
        upright.thumbnail((longest_side, longest_side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return upright


class TooLarge(UserError):
    """More pixels than allowed."""


class NotAPicture(UserError):
    """No picture of an allowed format."""


def _too_large(size: str, pixels: int) -> str:
    return f"{NAME} has {size} pixels, {pixels:,} in all are allowed: shrink it"


def answer(data: bytes, pixels: int, longest_side: int) -> tuple[int, tuple[int, int], bytes]:
    """What is sent back: kind, size, and RGB bytes or a sentence."""
    try:
        image = decode(data, pixels, longest_side)
        return PICTURE, image.size, image.tobytes()
    except MemoryError:
        sentence = f"{NAME} takes too much memory to decode: shrink it, or save it as JPEG"
        return OUT_OF_MEMORY, (0, 0), sentence.encode()
    except TooLarge as error:
        return TOO_LARGE, (0, 0), str(error).encode()
    except NotAPicture as error:
        return UNKNOWN_FORMAT, (0, 0), str(error).encode()
    except UserError as error:
        if isinstance(error.__cause__, MemoryError):
            return OUT_OF_MEMORY, (0, 0), f"{NAME} takes too much memory: shrink it".encode()
        return REFUSED, (0, 0), str(error).encode("utf-8", "replace")[:1000]
    except Exception as error:  # decoders raise anything
        return REFUSED, (0, 0), f"{NAME} is damaged ({type(error).__name__}): send another".encode()


def confine(memory: int) -> None:
    """Bound this process: ``memory`` bytes above what it has, no file to write, no core dump."""
    try:
        import resource
    except ImportError:  # no such limits on Windows: the time limit stays
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # elsewhere than on Linux: a generous guess
        taken = 1 << 30
    try:
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    except (OSError, ValueError):  # macOS refuses: the time limit stays
        return


def serve(source: BinaryIO, sink: BinaryIO, pixels: int, longest_side: int) -> None:
    """Answer until the input ends."""
    _send(sink, READY, (0, 0), b"")
    while len(head := source.read(REQUEST.size)) == REQUEST.size:
        (length,) = REQUEST.unpack(head)
        data = source.read(length)
        if len(data) < length:
            return
        kind, size, body = answer(data, pixels, longest_side)
        del data
        _send(sink, kind, size, body)
        if kind == OUT_OF_MEMORY:
            return  # a fresh process takes over


def _send(sink: BinaryIO, kind: int, size: tuple[int, int], body: bytes) -> None:
    sink.write(ANSWER.pack(kind, *size, len(body)))
    sink.write(body)
    sink.flush()


def main(arguments: list[str]) -> None:
    """Entry point: ``pixels longest_side memory``."""
    pixels, longest_side, memory = (int(argument) for argument in arguments)
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = (pixels + 1) // 2  # Pillow raises above twice this
    confine(memory)
    serve(sys.stdin.buffer, sys.stdout.buffer, pixels, longest_side)


if __name__ == "__main__":
    main(sys.argv[1:])
