"""A small gallery for the server's tests: real files, a real index, a real searcher.

Only the encoder is a small one of the tests' own, so that a server starts in no time: pictures are
their 4 x 4 colours, texts are the colours they name.
"""

from __future__ import annotations

import hashlib
import io
import time
from pathlib import Path

import numpy as np
from PIL import Image

from freestyle.search.index import create_index, open_index
from freestyle.search.query_encoder import Encoded
from freestyle.search.records import IndexSettings, PhotoRecord, photo_id
from freestyle.search.searcher import Searcher

COLOURS = {
    "red": (210, 30, 30),
    "green": (30, 190, 40),
    "blue": (30, 40, 220),
    "yellow": (230, 220, 30),
    "black": (10, 10, 10),
    "purple": (150, 30, 170),
}
SIDE, WIDTH = 4, 48


class ColourEncoder:
    """Pictures and texts to unit colours ``(48,)``; ``delay`` seconds a batch of texts."""

    encoder, weights, width = "colours", "colours@1", WIDTH
    styles = ("sketch", "art")

    def __init__(self, delay=0.0):
        self.delay = delay
        self.batches = []

    def embed_images(self, images):
        self.batches.append(len(images))
        rows = np.stack([embed(image) for image in images])
        return Encoded(rows, ({"sketch": 0.25, "art": 0.75},) * len(images))

    def embed_texts(self, texts):
        time.sleep(0 if texts == ["warm"] else self.delay)  # a start is not slowed
        self.batches.append(len(texts))
        rows = []
        for text in texts:
            colour = next((c for name, c in COLOURS.items() if name in text.lower()), None)
            if colour is None:
                seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
                colour = tuple(np.random.default_rng(seed).integers(0, 256, 3).tolist())
            rows.append(embed(Image.new("RGB", (8, 8), colour)))
        return Encoded(np.stack(rows), ({},) * len(rows))

    def complete(self, vectors):
        return np.asarray(vectors, np.float32)


def embed(image):
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    row = np.asarray(small, np.float32).ravel() / 255 - 0.45
    return row / np.linalg.norm(row)


def draw(colour, seed=0, side=96):
    """A picture of one colour, with some noise."""
    noise = np.random.default_rng(seed).integers(-12, 13, (side, side, 3))
    return Image.fromarray((np.array(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8))


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def fill(folder: Path, each=4) -> dict[str, str]:
    """Photos and their index below ``folder``; ids by path, as ``red/0.jpg``."""
    photos, ids = [], {}
    for colour in COLOURS:
        for number in range(each):
            path = f"{colour}/{number}.jpg"
            file = folder / "photos" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            image = draw(colour, number)
            file.write_bytes(encode(image, "JPEG"))
            status = file.stat()
            ids[path] = photo_id(path)
            photos.append(
                PhotoRecord(
                    ids[path],
                    path,
                    embed(image),
                    origin=str(file),
                    size=status.st_size,
                    modified=status.st_mtime,
                    width=image.width,
                    height=image.height,
                    date=f"202{number}-05-01T12:00:00",
                    caption=f"something {colour}",
                    thumbnail=encode(image.resize((32, 32)), "WEBP"),
                )
            )
    index = create_index(f"exact:{folder / 'index'}", IndexSettings("colours", "colours@1", WIDTH))
    with index.writing():
        index.upsert(photos)
    index.close()
    return ids


def open_searcher(folder: Path, delay=0.0) -> Searcher:
    """The searcher of :func:`fill`'s index."""
    return Searcher(open_index(f"exact:{folder / 'index'}"), ColourEncoder(delay))
