"""Gram transfer: the picture's Gram matrices approach the style picture's, its scene stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from freestyle.generation.engine import Item
from freestyle.generation.gram import GramSettings, GramTransfer, style_files


@pytest.fixture
def stripes(tmp_path):
    pixels = np.zeros((96, 96, 3), dtype=np.uint8)
    pixels[..., 0] = 255 * ((np.indices((96, 96)).sum(axis=0) // 6) % 2)
    pixels[..., 2] = 255 - pixels[..., 0]
    folder = tmp_path / "paintings"
    folder.mkdir()
    Image.fromarray(pixels).save(folder / "stripes.png")
    return folder


def test_gram_matrices_approach_the_style_pictures(stripes, make_photo):
    from freestyle.style.gram import gram_matrix

    engine = GramTransfer(GramSettings(styles=str(stripes), side=64, steps=25))
    photo = make_photo(2, 64, 64)
    (made,) = engine([Item("one", photo, None, seed=1)])
    (again,) = engine([Item("one", photo, None, seed=1)])
    assert made.details == {"style_picture": "stripes.png"} and made.picture.size == (64, 64)
    assert made.picture.tobytes() == again.picture.tobytes()

    def grams(picture):
        array = np.asarray(picture.resize((64, 64)), dtype=np.float32) / 255
        pixels = torch.from_numpy(array).permute(2, 0, 1)[None]
        return [gram_matrix(m) for m in engine.features(pixels)]

    target, before, after = (
        grams(p) for p in (Image.open(stripes / "stripes.png"), photo, made.picture)
    )
    for wanted, old, new in zip(target, before, after, strict=True):
        assert (new - wanted).square().mean() < 0.7 * (old - wanted).square().mean()
    small = [
        np.asarray(p.convert("L").resize((8, 8)), float).ravel() for p in (photo, made.picture)
    ]
    assert np.corrcoef(*small)[0, 1] > 0.5


def test_own_paintings_serve_where_no_style_picture_is_given(make_photo):
    engine = GramTransfer(GramSettings(side=48, steps=3))
    looks = {
        engine([Item("x", make_photo(1, 60, 48), None, seed)])[0].details["style_picture"]
        for seed in (0, 1)
    }
    assert looks == {"watercolour", "oil"}
    described = engine.describe()
    assert described["models"][0]["revision"].startswith("vgg-mini:")


def test_refusals(tmp_path, refusal):
    (tmp_path / "empty").mkdir()
    assert "no style picture" in refusal(style_files, str(tmp_path / "empty"))
    for wrong in ({"side": 512}, {"steps": 0}, {"network": "alexnet"}, {"styles": "/nowhere"}):
        refusal(GramSettings, **wrong)
