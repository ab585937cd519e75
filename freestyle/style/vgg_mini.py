"""A narrow VGG through relu4_1 for style, learned by copying an ImageNet network's maps.

Layers and tap names are VGG16's (arXiv 1409.1556) with widths 32, 64, 128 and 256; batch
normalisation of the training is folded in. ``data/mini/train.py`` makes the weights.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
WEIGHTS = Path(__file__).parents[1] / "encoders" / "mini" / "vgg.safetensors"
BLOCKS = ((32, 2), (64, 2), (128, 3), (256, 1))  # (channels, convolutions) of each block


def _layout() -> dict[str, int]:
    names, index = {}, 0
    for block, (_, count) in enumerate(BLOCKS, start=1):
        for position in range(1, count + 1):
            for kind in ("conv", "relu"):
                names[f"{kind}{block}_{position}"] = index
                index += 1
        if block < len(BLOCKS):
            names[f"pool{block}"] = index
            index += 1
    return names


TAPS: dict[str, int] = _layout()
"""Tap name to layer index: ``conv1_1`` is 0, ``relu4_1`` is 18, as in torchvision's VGG16."""


def vgg_mini(pretrained: bool = True) -> nn.Sequential:
    """The network, ``(B, 3, H, W)`` normalised pixels to ``(B, 256, H/8, W/8)``.

    Args:
        pretrained: Load the committed weights; else He-initialised from the global generator.

    Returns:
        A plain sequence of 19 layers; index it with :data:`TAPS`.

    Raises:
        UserError: If the committed weights are missing or damaged.
    """
    layers: list[nn.Module] = []
    width = 3
    for block, (channels, count) in enumerate(BLOCKS):
        if block:
            layers.append(nn.MaxPool2d(2, 2))
        for _ in range(count):
            convolution = nn.Conv2d(width, channels, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)
            layers += [convolution, nn.ReLU()]
            width = channels
    network = nn.Sequential(*layers)
    if pretrained:
        from safetensors.torch import load_file

        from freestyle.errors import UserError

        try:
            network.load_state_dict({k: v.float() for k, v in load_file(WEIGHTS).items()})
        except Exception as error:
            raise UserError(
                f"cannot read the small VGG's weights {WEIGHTS} ({error}): install freestyle "
                "again, or make them with python data/mini/train.py"
            ) from error
    return network
