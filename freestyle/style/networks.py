"""CNNs by name, cut off after the deepest layer asked for; see :mod:`freestyle.style.features`."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from freestyle.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
VGG_CONFIGS = {"vgg16": "D", "vgg19": "E"}  # torchvision's names for the two layouts
NETWORKS = (*VGG_CONFIGS, "vgg-mini", "timm:<name>")


class Network(NamedTuple):
    """A truncated CNN and what its user needs to know about it.

    Attributes:
        network: A sequence of layers, or a timm network that returns a list of maps.
        indices: Layer, or place in that list, of each tap.
        channels: Channels of each tap.
        smallest: Side in pixels of the smallest picture it can read.
        mean: Channel means it expects subtracted from RGB in [0, 1].
        std: Channel deviations it expects divided by.
    """

    network: nn.Module
    indices: list[int]
    channels: tuple[int, ...]
    smallest: int
    mean: Sequence[float]
    std: Sequence[float]


def build(network: str, taps: Sequence[str], weights: str) -> Network:
    """Builds a network through its deepest tap.

    Args:
        network: ``vgg16``, ``vgg19``, ``vgg-mini`` or ``timm:<name>``.
        taps: Layer names (VGG) or stage indices (timm).
        weights: ``pretrained``, ``random`` (from the global generator) or a ``.safetensors`` path.

    Raises:
        UserError: Unknown network or tap, or weights that cannot be had or read.
    """
    if network.startswith("timm:"):
        return _build_timm(network, taps, weights)
    return _build_vgg(network, taps, weights)


def vgg_taps(network: str) -> dict[str, int]:
    """Tap names of a torchvision VGG and their layer indices: ``{"relu1_1": 1, ...}``."""
    from torchvision.models.vgg import cfgs

    taps: dict[str, int] = {}
    block, position, index = 1, 1, 0
    for item in cfgs[VGG_CONFIGS[network]]:
        if item == "M":
            block, position, index = block + 1, 1, index + 1
        else:
            taps[f"relu{block}_{position}"] = index + 1
            position, index = position + 1, index + 2
    return taps


def _build_vgg(network: str, taps: Sequence[str], weights: str) -> Network:
    """A VGG-like ``nn.Sequential`` through the last tap, with the numbers that go with it."""
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if network in VGG_CONFIGS:
        layout = vgg_taps(network)
    elif network == "vgg-mini":
        from freestyle.style import vgg_mini as mini

        layout = mini.TAPS
        mean, std = getattr(mini, "MEAN", mean), getattr(mini, "STD", std)
    else:
        raise UserError(f"Unknown style network {network!r}: use one of {', '.join(NETWORKS)}.")
    for tap in taps:
        if tap not in layout:
            raise UserError(f"{network} has no tap {tap!r}: use one of {', '.join(layout)}.")
    indices = [layout[tap] for tap in taps]
    length = max(indices) + 1
    if network == "vgg-mini":
        layers = mini.vgg_mini(pretrained=weights == "pretrained")[:length]
    else:
        layers = _torchvision_layers(network, length)
        if weights == "pretrained":
            _load(layers, _torchvision_state(network), f"torchvision's {network} weights")
    if weights not in ("pretrained", "random"):
        _load(layers, _file_state(weights), weights)
    channels, current = {}, 0
    for index, layer in enumerate(layers):
        current = layer.out_channels if isinstance(layer, nn.Conv2d) else current
        channels[index] = current
    halvings = sum(isinstance(layer, nn.MaxPool2d) for layer in layers)
    widths = tuple(channels[i] for i in indices)
    return Network(layers, indices, widths, 2**halvings, mean, std)


def _torchvision_layers(network: str, length: int) -> nn.Sequential:
    """The first ``length`` layers of a torchvision VGG, initialised as torchvision does."""
    from torchvision.models.vgg import cfgs, make_layers

    kept, count = [], 0
    for item in cfgs[VGG_CONFIGS[network]]:
        if count >= length:
            break
        kept.append(item)
        count += 1 if item == "M" else 2
    layers = make_layers(kept)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return layers


def _torchvision_state(network: str) -> dict[str, Tensor]:
    """ImageNet weights of a VGG from torchvision's cache, downloaded on first use."""
    from torchvision import models

    source = getattr(models, f"{network.upper()}_Weights").IMAGENET1K_V1
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(source.url).name
    try:
        return source.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(
            f"The {network} weights at {cached} are damaged: delete the file and start again."
        ) from error
    except OSError as error:
        raise UserError(
            f"The {network} weights could not be downloaded from {source.url} ({error}): put the "
            f"file at {cached}, or choose another style network such as vgg-mini."
        ) from error


def _file_state(path: str) -> dict[str, Tensor]:
    """Tensors of a local safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if Path(path).suffix != ".safetensors":
        raise UserError(f"Style weights {path!r}: use pretrained, random or a .safetensors file.")
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"Style weights {path} do not exist: correct the path.") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"Style weights {path} are not a readable safetensors file.") from error


def _load(layers: nn.Sequential, state: dict[str, Tensor], source: str) -> None:
    """Copies what the truncated network needs; keys may carry torchvision's ``features.``."""
    state = {key.removeprefix("features."): value for key, value in state.items()}
    try:
        layers.load_state_dict({key: state[key] for key in layers.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"Style weights {source} do not fit the network: use weights of the same layout."
        ) from error


def _build_timm(network: str, taps: Sequence[str], weights: str) -> Network:
    """A timm network through the last stage asked for; see :func:`_build_vgg`."""
    import timm

    name = network.removeprefix("timm:")
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:5])
        hint = f" (near: {near})" if near else ""
        raise UserError(f"timm has no network {name!r}: see timm.list_models(){hint}.")
    options: dict[str, Any] = {"pretrained": weights != "random"}
    if weights not in ("pretrained", "random"):
        _file_state(weights)
        options["pretrained_cfg_overlay"] = {"file": weights}
    count = _timm_stages(name)
    if not all(tap.isdecimal() and int(tap) < count for tap in taps):
        stages = ", ".join(str(stage) for stage in range(count))
        raise UserError(f"{network} has no stage among {list(taps)}: use some of {stages}.")
    stages = sorted(int(tap) for tap in taps)
    try:
        body = timm.create_model(name, features_only=True, out_indices=stages, **options)
    except Exception as error:  # whatever the hub, the file or the architecture raises
        raise UserError(
            f"Weights {weights!r} of {network} could not be loaded ({type(error).__name__}): go "
            "online once, give a .safetensors file, or choose another style network."
        ) from error
    if isinstance(getattr(body, "_stage_out_idx", None), dict):  # timm keeps all stages of these
        body.blocks = body.blocks[: max(body._stage_out_idx)]
    order = [stages.index(int(tap)) for tap in taps]
    channels = body.feature_info.channels()
    settings = getattr(body, "pretrained_cfg", None) or getattr(body, "default_cfg", {})
    mean = settings.get("mean", IMAGENET_MEAN)
    std = settings.get("std", IMAGENET_STD)
    return Network(body, order, tuple(channels[i] for i in order), 1, mean, std)


def _timm_stages(name: str) -> int:
    """Number of feature stages of a timm network, without giving it memory."""
    import timm

    with torch.device("meta"):
        return len(timm.create_model(name, pretrained=False).feature_info)
