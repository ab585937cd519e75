"""Pixels equal those of Hugging Face's processors for pictures of any shape and mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from freestyle.encoders.base import Preprocessing
from freestyle.encoders.families import FAMILIES
from freestyle.encoders.preprocess import to_array, to_pixels

SHAPES = [(640, 480), (300, 1000), (30, 20), (1, 1), (3, 1000), (1000, 3), (225, 224), (64, 64)]


@pytest.mark.parametrize("family", ["clip", "siglip", "blip"])
@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_hugging_faces(family, shape, make_image, make_processor):
    image = make_image(*shape)
    expected = make_processor(family, 64)(image, return_tensors="pt").pixel_values[0]
    rule = FAMILIES[family].preprocessing
    pixels = to_pixels(image, Preprocessing(64, rule.resize))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (rule.mean, rule.std))
    ours = (pixels - mean) / std
    assert F.cosine_similarity(ours.flatten(), expected.flatten(), dim=0) >= 0.9999
    # 8-bit kernels round differently in places: two steps of 255 at most, and rarely
    steps = ((ours - expected) * std * 255).abs()
    assert steps.max() < 2.5
    assert (steps > 0.5).float().mean() < 0.02


@pytest.mark.parametrize("interpolation, resample", [("bilinear", 2), ("bicubic", 3)])
def test_filters(interpolation, resample, make_image, make_processor):
    image = make_image(200, 90)
    processor = make_processor("siglip", 48)
    expected = processor(image, resample=resample, return_tensors="pt").pixel_values[0]
    ours = to_pixels(image, Preprocessing(48, "exact", interpolation)) * 2 - 1
    assert (ours - expected).abs().max() < 2.5 * 2 / 255


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA"])
def test_modes_are_converted_and_transparency_lies_on_white(mode, make_image):
    image = make_image(50, 40).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(0)
    pixels = to_pixels(image, Preprocessing(32))
    assert pixels.shape == (3, 32, 32)
    if mode in ("LA", "RGBA"):
        assert torch.all(pixels == 1)
    else:
        assert torch.equal(pixels, to_pixels(image.convert("RGB"), Preprocessing(32)))


def test_transparent_palette_lies_on_white():
    image = Image.new("P", (8, 8), 0)
    image.info["transparency"] = 0
    assert torch.all(to_pixels(image, Preprocessing(8)) == 1)


def test_grey_picture_equals_hugging_faces(make_image, make_processor):
    image = make_image(90, 70, "L")
    expected = make_processor("clip", 32)(image, return_tensors="pt").pixel_values[0]
    rule = Preprocessing(32)
    ours = (to_pixels(image, rule) - torch.tensor(rule.mean).view(3, 1, 1)) / torch.tensor(
        rule.std
    ).view(3, 1, 1)
    assert F.cosine_similarity(ours.flatten(), expected.flatten(), dim=0) >= 0.9999


def test_crop_of_a_larger_scale(make_image, make_processor):
    image = make_image(170, 120)
    processor = make_processor("clip", 32)
    expected = processor(image, size={"shortest_edge": 40}, return_tensors="pt").pixel_values[0]
    rule = Preprocessing(32, shorter_side=40)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (rule.mean, rule.std))
    assert (((to_pixels(image, rule) - mean) / std - expected) * std * 255).abs().max() < 2.5


def test_pad_keeps_everything_on_white():
    image = Image.new("RGB", (100, 20), (0, 0, 0))
    pixels = to_pixels(image, Preprocessing(50, "pad"))
    assert torch.all(pixels[:, 20:30] == 0)  # 50 x 10, centred
    assert torch.all(pixels[:, :20] == 1) and torch.all(pixels[:, 30:] == 1)
    assert to_pixels(Image.new("RGB", (1, 2000)), Preprocessing(50, "pad")).shape == (3, 50, 50)


def test_square_of_the_right_size_is_untouched(make_image):
    image = make_image(32, 32)
    for resize in ("shortest", "exact", "pad"):
        pixels = to_pixels(image, Preprocessing(32, resize))
        assert torch.equal((pixels * 255).round().byte().permute(1, 2, 0), _bytes(image))


def _bytes(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image))


@pytest.mark.parametrize("resize", ["shortest", "exact", "pad"])
def test_arrays_are_the_tensors(make_image, resize):
    rule = Preprocessing(48, resize)
    for width, height, mode in ((1, 1, "RGB"), (7, 300, "RGBA"), (90, 61, "L"), (48, 48, "RGB")):
        image = make_image(width, height, mode)
        array = to_array(image, rule)
        assert array.dtype == np.float32 and array.flags.c_contiguous
        assert np.array_equal(array, to_pixels(image, rule).numpy())
