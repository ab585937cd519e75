"""The small VGG: VGG16's layout, sane activations, Gram matrices that tell styles apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models.vgg import cfgs, make_layers
from torchvision.transforms.functional import to_tensor

from freestyle.style.vgg_mini import MEAN, STD, TAPS, vgg_mini

EMOJI = Path(__file__).parents[2] / "data" / "emoji"
STYLES = ("sketch", "art", "mosaic", "images")


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    return vgg_mini().eval()


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """``(4, 24, 3, 128, 128)``: 24 validation concepts in four styles."""
    names = [e["image"] for e in json.loads((EMOJI / "val.json").read_text())[::6][:24]]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return torch.stack(
        [
            torch.stack(
                [(to_tensor(Image.open(EMOJI / s / n).convert("RGB")) - mean) / std for n in names]
            )
            for s in STYLES
        ]
    )


def gram(maps: torch.Tensor) -> torch.Tensor:
    """``(B, C, H, W) -> (B, C * C)``, divided by the number of positions."""
    flat = maps.flatten(2)
    return (flat @ flat.transpose(1, 2) / flat.shape[2]).flatten(1)


def test_layout_is_that_of_vgg16(network):
    reference = make_layers(cfgs["D"])[: len(network)]
    assert [type(a) for a in network] == [type(b) for b in reference]
    assert TAPS["conv1_1"] == 0 and TAPS["relu1_1"] == 1 and TAPS["pool1"] == 4
    assert TAPS["relu2_1"] == 6 and TAPS["relu3_1"] == 11 and TAPS["relu4_1"] == len(network) - 1
    assert network(torch.zeros(1, 3, 64, 48)).shape == (1, 256, 8, 6)


def test_no_dead_channels_and_sane_scale(network, pictures):
    x = pictures.flatten(0, 1)
    with torch.no_grad():
        for name, layer in zip(TAPS, network, strict=True):
            x = layer(x)
            if name.startswith("relu"):
                alive = (x.amax((0, 2, 3)) > 1e-3).float().mean()
                assert alive > 0.95, name
                assert 0.02 < x.mean() < 5, name


@pytest.mark.parametrize("tap", ["relu2_1", "relu3_1"])
def test_gram_tells_styles_apart(network, pictures, tap):
    """The nearest style mean of half of the concepts names the style of the other half."""
    with torch.no_grad():
        codes = torch.stack([gram(network[: TAPS[tap] + 1](p)) for p in pictures])
    codes = nn.functional.normalize(codes, dim=-1)  # (4, 24, C * C)
    means = codes[:, ::2].mean(1)
    distance = torch.cdist(codes[:, 1::2].flatten(0, 1), means)
    right = (distance.argmin(1).view(4, -1) == torch.arange(4)[:, None]).float().mean()
    assert right > 0.7


def test_random_weights_are_random_and_seeded():
    torch.manual_seed(0)
    first = vgg_mini(pretrained=False)[0].weight
    torch.manual_seed(0)
    assert torch.equal(first, vgg_mini(pretrained=False)[0].weight)
