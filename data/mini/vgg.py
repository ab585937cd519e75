"""Train the small VGG to predict the trunk's stride-16 map of the same view, then fold it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from augment import augment
from teachers import BATCH, SIZE
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from freestyle.encoders.mini.layers import MIDDLE_WIDTH
from freestyle.style.vgg_mini import MEAN, STD, vgg_mini


def with_norms(plain: nn.Sequential) -> nn.Sequential:
    """Batch normalisation after every convolution."""
    layers: list[nn.Module] = []
    for layer in plain:
        layers.append(layer)
        if isinstance(layer, nn.Conv2d):
            layers.append(nn.BatchNorm2d(layer.out_channels, momentum=0.05))
    return nn.Sequential(*layers)


def fold(trained: nn.Sequential) -> dict[str, Tensor]:
    """State of the plain network that computes the same in evaluation mode."""
    state: dict[str, Tensor] = {}
    layers = list(trained.eval())
    index = 0
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            fused = fuse_conv_bn_eval(layer.eval(), layers[i + 1])
            state[f"{index}.weight"] = fused.weight.detach()
            state[f"{index}.bias"] = fused.bias.detach()
        if not isinstance(layer, nn.BatchNorm2d):
            index += 1
    return state


def normalise(pixels: Tensor) -> Tensor:
    """RGB in [0, 1] by ImageNet's statistics, ``(B, 3, S, S)``."""
    mean, std = (pixels.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (pixels - mean) / std


def train_vgg(
    pixels: np.ndarray, cache: Path, passes: int = 2, lr: float = 2e-3, seed: int = 0
) -> dict[str, Tensor]:
    """One pass per cached view; returns the folded state dict (float32).

    Resumes from ``vgg.pt`` after an interruption, at the beginning of a pass.
    """
    torch.manual_seed(seed)
    network = with_norms(vgg_mini(pretrained=False)).to(memory_format=torch.channels_last)
    reader = nn.Conv2d(256, MIDDLE_WIDTH, 1)
    views = sorted(p.name[:7] for p in (cache / "views").glob("view_*.middle.npy"))
    sample = np.load(cache / "views" / f"{views[0]}.middle.npy", mmap_mode="r")[::9]
    sample = torch.from_numpy(np.array(sample)).float()
    mean = sample.mean((0, 2, 3)).view(1, -1, 1, 1)
    std = sample.std((0, 2, 3)).view(1, -1, 1, 1)
    parameters = [*network.parameters(), *reader.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=1e-4)
    starts = np.arange(0, len(pixels), BATCH)
    steps = passes * len(starts)
    path, settings, first = cache / "vgg.pt", repr((passes, lr, seed, len(pixels), views)), 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        if saved["settings"] == settings:
            network.load_state_dict(saved["network"])
            reader.load_state_dict(saved["reader"])
            optimiser.load_state_dict(saved["optimiser"])
            first = saved["pass"]
    step = first * len(starts)
    for number in range(first, passes):
        view = number % len(views)
        maps = np.load(cache / "views" / f"{views[view]}.middle.npy", mmap_mode="r")
        order = np.random.default_rng([seed, number]).permutation(starts)
        progress = tqdm(order, desc=f"vgg {number + 1}/{passes}", mininterval=5)
        for start in progress:
            batch = torch.from_numpy(np.array(pixels[start : start + BATCH]))
            batch = batch.permute(0, 3, 1, 2).float() / 255
            if view:
                random = torch.Generator().manual_seed(view * 1_000_003 + int(start))
                batch = augment(batch, random)
            batch = F.interpolate(batch, size=SIZE, mode="bilinear", antialias=True)
            target = torch.from_numpy(np.array(maps[start : start + BATCH])).float()
            target = (target - mean) / std
            for group in optimiser.param_groups:
                rise = min(1.0, (step + 1) / 30)
                group["lr"] = lr * rise * 0.5 * (1 + math.cos(math.pi * step / steps))
            network.train()
            with torch.autocast("cpu", torch.bfloat16):
                features = network(normalise(batch).contiguous(memory_format=torch.channels_last))
                output = reader(F.avg_pool2d(features, 2))
            loss = F.mse_loss(output.float(), target)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            step += 1
            progress.set_postfix(loss=f"{float(loss):.3f}")
        content = {
            "settings": settings, "pass": number + 1, "network": network.state_dict(),
            "reader": reader.state_dict(), "optimiser": optimiser.state_dict(),
        }  # fmt: skip
        torch.save(content, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
    return fold(network)
