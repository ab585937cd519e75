"""Small galleries and models to ask, shared by the tests of the searcher and its command."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from freestyle.config import CalibrationConfig, FreestyleConfig
from freestyle.model import FreestyleRet
from freestyle.search.index import create_index
from freestyle.search.query_encoder import Encoded
from freestyle.search.records import IndexSettings, PhotoRecord, photo_id
from freestyle.style.build import fit_space

STYLES = ("sketch", "art")
COLUMNS = len(STYLES) + 1
ATOMS = 5


def make_model(shared, style_config, style_codes, calibrated=True):
    """Two framings, a styled map that does something, a fitted calibration; on a tiny CLIP."""
    torch.manual_seed(0)
    config = FreestyleConfig(
        encoder="random:clip-tiny",
        style=style_config,
        query_map="styled",
        framing="both",
        calibration=CalibrationConfig(temperature=0.1, text_strength=0.4) if calibrated else None,
        styles=STYLES,
    )
    reader = shared(style_config)
    model = FreestyleRet(config, encoder=shared("random:clip-tiny"), reader=reader)
    fitted = fit_space(style_config, style_codes, reader.tag)
    model.space.load_state_dict(fitted.state_dict())
    with torch.no_grad():
        for parameter in model.query_map.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    if calibrated:
        codes = model.space.embed(style_codes).split(4)
        rows = F.normalize(torch.randn(3, 6, model.encoder.embed_dim), dim=-1)
        model.calibration.fit(list(rows[:2]), codes[:2], codes[2], rows[2])
    return model.eval()


def fill(uri, encoder, pictures, atoms=ATOMS, model="", rows=None):
    """An index of pictures, with random sets around their vectors."""
    width = encoder.width
    if rows is None:
        rows = encoder.model.encode_gallery(pictures).numpy()[:, :width]
    random = np.random.default_rng(0)
    views = "patches-5-uniform" if atoms else ""
    index = create_index(
        uri, IndexSettings(encoder.encoder, encoder.weights, width, views, atoms, model=model)
    )
    records = []
    for number, row in enumerate(rows):
        sets = row + 0.5 * random.standard_normal((max(1, atoms), width)) / width**0.5
        sets /= np.linalg.norm(sets, axis=1, keepdims=True)
        path = f"{'trips' if number % 2 else 'home'}/{number:02d}.png"
        kept = sets.astype(np.float16) if atoms else None
        records.append(PhotoRecord(photo_id(path), path, row, kept, size=100 + number))
    with index.writing():
        index.upsert(records)
    return index, records


class WordEncoder:
    """Texts are sums of their words' random vectors; pictures the vector of their colour."""

    encoder, weights, width = "words", "words@1", 24
    styles = ("sketch",)

    def __init__(self):
        self.asked = []

    def embed_texts(self, texts):
        self.asked.append(("texts", tuple(texts)))
        rows = [sum(self.word(word.strip(",")) for word in text.split()) for text in texts]
        return Encoded(self._unit(np.stack(rows)), ({},) * len(rows))

    def embed_images(self, images):
        self.asked.append(("images", len(images)))
        rows = [self.word(str(image.getpixel((0, 0)))) for image in images]
        return Encoded(
            self._unit(np.stack(rows)), ({"sketch": 0.75, "other": 0.25},) * len(rows),
            np.tile(np.float32([0.25, 0.75]), (len(rows), 1)),
        )  # fmt: skip

    def complete(self, vectors):
        return vectors.astype(np.float32)

    def word(self, word):
        seed = list(word.encode())
        return np.random.default_rng(seed).standard_normal(self.width)

    @staticmethod
    def _unit(rows):
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
