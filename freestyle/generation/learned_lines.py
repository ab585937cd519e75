"""Line drawings by a trained network: Informative Drawings (Chan, Durand and Isola, CVPR 2022).

The generator's architecture is built here and its weights are read from safetensors only: a local
file, or ``OWNER/NAME/FILE.safetensors`` on the model hub. Released ``.pth`` files are pickles and
have to be converted once, on a machine that trusts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from freestyle.errors import UserError
from freestyle.generation.engine import EngineError, Item, Made


@dataclass(frozen=True)
class LearnedLinesSettings:
    """Which network, and how large a picture it sees.

    Attributes:
        weights: A ``.safetensors`` file, or ``OWNER/NAME/FILE.safetensors`` on the hub.
        revision: Of the hub's; None takes the newest.
        blocks: Residual blocks of the network.
        side: Longer side in pixels of what the network sees; the drawing has the photo's size.
    """

    weights: str = ""
    revision: str | None = None
    blocks: int = 3
    side: int = 512

    def __post_init__(self) -> None:
        if not self.weights.endswith(".safetensors"):
            raise UserError(
                "learned lines need weights: set sketch-learned.weights to a .safetensors file of "
                "the generator of Informative Drawings"
            )
        if self.blocks < 1 or self.side < 16:
            raise UserError("blocks or side of learned lines is too small: use 1, and 16, or more")


def line_generator(blocks: int = 3) -> Any:
    """The generator: ``(B, 3, H, W)`` RGB in [0, 1] to lines ``(B, 1, H, W)`` in [0, 1], 1 paper.

    H and W must be multiples of 4. Names of weights are those of the released code.
    """
    from torch import nn

    def stage(convolution: nn.Module, width: int) -> list[nn.Module]:
        return [convolution, nn.InstanceNorm2d(width), nn.ReLU()]

    class Residual(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv_block = nn.Sequential(
                nn.ReflectionPad2d(1),
                *stage(nn.Conv2d(width, width, 3), width),
                nn.ReflectionPad2d(1),
                nn.Conv2d(width, width, 3),
                nn.InstanceNorm2d(width),
            )

        def forward(self, x: Any) -> Any:
            return x + self.conv_block(x)

    def up(before: int, after: int) -> nn.Module:
        return nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)

    return nn.Sequential(
        *[
            nn.Sequential(*layers)
            for layers in (
                [nn.ReflectionPad2d(3), *stage(nn.Conv2d(3, 64, 7), 64)],
                [
                    *stage(nn.Conv2d(64, 128, 3, stride=2, padding=1), 128),
                    *stage(nn.Conv2d(128, 256, 3, stride=2, padding=1), 256),
                ],
                [Residual(256) for _ in range(blocks)],
                [*stage(up(256, 128), 128), *stage(up(128, 64), 64)],
                [nn.ReflectionPad2d(3), nn.Conv2d(64, 1, 7), nn.Sigmoid()],
            )
        ]
    )


class LearnedLines:
    """Engine ``learned-lines``."""

    name, batch_size, needs_caption, light = "learned-lines", 1, False, False

    def __init__(self, settings: LearnedLinesSettings, device: str = "cpu") -> None:
        from freestyle.generation.checkpoints import content_hash

        self.settings, self.device = settings, device
        path = self._file()
        self.network = self._load(path)
        self.models = [
            {
                "role": "line drawing",
                "id": settings.weights,
                "revision": content_hash(path),
                "licence": "unknown",
            }
        ]

    def describe(self) -> dict[str, Any]:
        """Settings and a hash of the weights."""
        return {"engine": self.name, "settings": asdict(self.settings), "models": self.models}

    def __call__(self, items: Sequence[Item]) -> list[Made]:
        """Draw each photo."""
        return [Made(self._draw(item.picture)) for item in items]

    def _draw(self, picture: Image.Image) -> Image.Image:
        import torch

        factor = self.settings.side / max(picture.size)
        size = tuple(max(16, round(side * factor / 4) * 4) for side in picture.size)
        array = np.asarray(picture.resize(size, Image.Resampling.BICUBIC), dtype=np.float32) / 255
        pixels = torch.from_numpy(array).permute(2, 0, 1)[None].to(self.device)  # (1, 3, H, W)
        with torch.inference_mode():
            lines = self.network(pixels)[0, 0].clamp(0, 1)  # (H, W)
        drawn = Image.fromarray((lines * 255).round().byte().cpu().numpy())
        return drawn.resize(picture.size, Image.Resampling.BICUBIC)

    def _file(self) -> Path:
        path = Path(self.settings.weights)
        if path.is_file():
            return path
        owner, _, file = self.settings.weights.rpartition("/")
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(owner, file, revision=self.settings.revision))
        except Exception as error:  # no such name, no network, no permission: all end here
            raise EngineError(
                f"weights {self.settings.weights} are neither a file nor on the model hub: give a "
                ".safetensors file"
            ) from error

    def _load(self, path: Path) -> Any:
        from safetensors.torch import load_file

        network = line_generator(self.settings.blocks)
        try:
            found = load_file(path)
            # The released code calls the five stages model0 to model4.
            network.load_state_dict({key.removeprefix("model"): v for key, v in found.items()})
        except Exception as error:  # safetensors and torch raise several kinds
            reason = " ".join(str(error).split())[:160]
            raise EngineError(
                f"{path} does not fit the line-drawing network ({reason}): give weights of the "
                "generator of Informative Drawings, or other blocks"
            ) from error
        return network.to(self.device).eval()
