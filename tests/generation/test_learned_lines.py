"""Line drawings by a trained network: names of the released weights, sizes, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from freestyle.generation.engine import Item
from freestyle.generation.learned_lines import LearnedLines, LearnedLinesSettings, line_generator


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    state = line_generator(1).state_dict()
    path = tmp_path_factory.mktemp("lines") / "lines.safetensors"
    save_file({f"model{key}": value for key, value in state.items()}, path)
    return path


def test_weights_have_the_names_of_the_released_generator():
    names = set(line_generator(3).state_dict())
    assert {"0.1.weight", "1.0.weight", "1.3.bias", "2.2.conv_block.5.weight"} <= names
    assert {"3.0.weight", "3.3.weight", "4.1.weight"} <= names and len(names) == 24


def test_drawing_has_the_photos_size_and_is_what_the_network_says(weights, make_photo):
    settings = LearnedLinesSettings(weights=str(weights), blocks=1, side=64)
    engine = LearnedLines(settings)
    photo = make_photo(1, 64, 48)
    (made,) = engine([Item("x", photo, None, 0)])
    assert made.picture.size == (64, 48) and made.picture.mode == "L"
    pixels = torch.from_numpy(np.asarray(photo, np.float32) / 255).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = engine.network(pixels)[0, 0] * 255
    assert np.abs(np.asarray(made.picture) - expected.numpy()).max() <= 0.51
    assert engine.describe()["models"][0]["revision"].startswith("sha256:")
    assert engine([Item("x", make_photo(2, 91, 33), None, 0)])[0].picture.size == (91, 33)


def test_refusals(weights, tmp_path, refusal):
    refusal(LearnedLinesSettings)
    refusal(LearnedLinesSettings, weights="a.pth")
    refusal(LearnedLines, LearnedLinesSettings(weights=str(weights), blocks=2))
    refusal(LearnedLines, LearnedLinesSettings(weights="no/such/file.safetensors"))
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    refusal(LearnedLines, LearnedLinesSettings(weights=str(tmp_path / "damaged.safetensors")))
