"""Art by Gram statistics: a photo takes the colours and textures of a style picture.

Gatys, Ecker and Bethge (arXiv 1508.06576), with the project's own frozen VGG and Gram matrices: the
picture's pixels are moved by Adam until its Gram matrices are those of the style picture and its
deeper features those of the photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from freestyle.datasets.images import IMAGE_EXTENSIONS, load_image
from freestyle.errors import UserError
from freestyle.generation.engine import EngineError, Item, Made
from freestyle.generation.npr import NprSettings, paint

if TYPE_CHECKING:
    from torch import Tensor

STYLE_TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
CONTENT_TAP = "relu3_1"


@dataclass(frozen=True)
class GramSettings:
    """What is transferred, and how far.

    Attributes:
        styles: Folder of style pictures, or one picture; the picture's seed chooses one. Empty
            takes a watercolour and an oil painting that `freestyle.generation.npr` makes of the
            photo itself: its colours stay, its texture is a painting's.
        network: ``vgg-mini``, ``vgg16`` or ``vgg19``.
        side: Longer side of the picture in pixels, at most 256.
        steps: Of Adam.
        rate: Step size on pixels in [0, 1].
        content: Weight of the photo's features against the Gram matrices.
        smoothness: Weight of the total variation.
    """

    styles: str = ""
    network: str = "vgg-mini"
    side: int = 256
    steps: int = 60
    rate: float = 0.03
    content: float = 0.3
    smoothness: float = 0.02

    def __post_init__(self) -> None:
        if not 32 <= self.side <= 256:
            raise UserError(f"side of gram is {self.side}: use 32 to 256")
        if self.steps < 1 or self.rate <= 0 or min(self.content, self.smoothness) < 0:
            raise UserError("steps, rate or weights of gram do not fit: use positive numbers")
        if self.network not in ("vgg-mini", "vgg16", "vgg19"):
            raise UserError(f"network of gram is {self.network}: use vgg-mini, vgg16 or vgg19")
        if self.styles and not Path(self.styles).exists():
            raise UserError(f"no style pictures at {self.styles}: give a folder or a picture")


def style_files(place: str) -> list[Path]:
    """The style pictures of a folder, or the one picture, sorted by name.

    Raises:
        UserError: If there is none.
    """
    path = Path(place)
    if path.is_file():
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_EXTENSIONS)
    if not found:
        raise UserError(f"{place} holds no style picture: put pictures into it")
    return found


class GramTransfer:
    """Engine ``gram``."""

    name, batch_size, needs_caption, light = "gram", 1, False, False

    def __init__(self, settings: GramSettings, device: str = "cpu") -> None:
        from freestyle.style.features import FrozenFeatures

        self.settings, self.device = settings, device
        self.files = style_files(settings.styles) if settings.styles else []
        self.features = FrozenFeatures(settings.network, STYLE_TAPS).to(device)
        self._grams: dict[Path, list[Tensor]] = {}

    def describe(self) -> dict[str, Any]:
        """Settings, the network's tag, and what the style pictures are."""
        from freestyle.generation.checkpoints import content_hash

        models = [
            {
                "role": "style network",
                "id": self.settings.network,
                "revision": self.features.tag,
                "licence": "as the package's" if "mini" in self.settings.network else "unknown",
            }
        ]
        if self.settings.styles:
            models.append(
                {
                    "role": "style pictures",
                    "id": self.settings.styles,
                    "revision": content_hash(Path(self.settings.styles)),
                    "licence": "their own",
                }
            )
        return {"engine": self.name, "settings": asdict(self.settings), "models": models}

    def __call__(self, items: Sequence[Item]) -> list[Made]:
        """Paint each photo in a style picture's manner."""
        return [self._paint(item) for item in items]

    def _paint(self, item: Item) -> Made:
        factor = self.settings.side / max(item.picture.size)
        size = tuple(max(32, round(side * factor)) for side in item.picture.size)
        photo = item.picture.resize(size, Image.Resampling.LANCZOS)
        if self.files:
            file = self.files[item.seed % len(self.files)]
            target, name = self._target(file), file.name
        else:
            settings = NprSettings(looks=("watercolour", "oil"), brush=1.6)
            painted, name = paint(np.asarray(photo), settings, item.seed)
            target = self._read(Image.fromarray(painted))
        pixels = self._transfer(_pixels(photo, self.device), target)
        rounded = (pixels[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        return Made(Image.fromarray(rounded), details={"style_picture": name})

    def _target(self, file: Path) -> list[Tensor]:
        """Gram matrices of a style picture, read once, at the pictures' own scale."""
        if file not in self._grams:
            picture = load_image(file)
            picture.thumbnail((self.settings.side, self.settings.side), Image.Resampling.LANCZOS)
            self._grams[file] = self._read(picture)
        return self._grams[file]

    def _read(self, picture: Image.Image) -> list[Tensor]:
        from freestyle.style.gram import gram_matrix

        maps = self.features(_pixels(picture, self.device))
        return [gram_matrix(m) for m in maps]  # per tap (1, C, C)

    def _transfer(self, photo: Tensor, target: list[Tensor]) -> Tensor:
        """Move the photo's pixels ``(1, 3, H, W)`` until its Gram matrices are the target's."""
        import torch

        from freestyle.style.gram import gram_matrix

        content_at = STYLE_TAPS.index(CONTENT_TAP)
        content = self.features(photo)[content_at]
        scales = [gram.square().mean().clamp_min(1e-12) for gram in target]
        content_scale = content.square().mean().clamp_min(1e-12)
        with torch.enable_grad():
            pixels = photo.clone().requires_grad_(True)
            optimiser = torch.optim.Adam([pixels], lr=self.settings.rate)
            for _ in range(self.settings.steps):
                maps = self.features.maps(pixels)
                loss = sum(
                    (gram_matrix(m) - gram).square().mean() / scale
                    for m, gram, scale in zip(maps, target, scales, strict=True)
                )
                gap = (maps[content_at] - content).square().mean() / content_scale
                loss = loss + self.settings.content * gap
                steps = [pixels.diff(dim=dim).abs().mean() for dim in (2, 3)]
                loss = loss + self.settings.smoothness * sum(steps)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                with torch.no_grad():
                    pixels.clamp_(0, 1)
        found = pixels.detach()
        if not bool(found.isfinite().all()):
            raise EngineError("gram transfer diverged: lower art.rate")
        return found


def _pixels(picture: Image.Image, device: str) -> Tensor:
    """``(1, 3, H, W)`` float32 in [0, 1]."""
    import torch

    array = np.asarray(picture, dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1)[None].to(device)
