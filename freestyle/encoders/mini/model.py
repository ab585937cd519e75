"""The built-in dual encoder: EfficientNet-Lite0 maps as tokens, transformer blocks, MiniLM text.

The image tower turns a frozen ImageNet trunk's maps (stride 16 and 32) into patch tokens and
condenses with its blocks what three EfficientNet-Lite networks know, and where in the picture it
is: 512 dimensions are shared with text, 256 more tell the layout, which texts leave empty. The text
tower is MiniLM
(arXiv 2002.10957, as all-MiniLM-L6-v2) with a small head aligned to the frozen image side (LiT,
arXiv 2111.07991). MODEL_CARD.md says what it was trained on; ``data/mini/train.py`` makes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from freestyle.encoders.base import DualEncoder, Preprocessing
from freestyle.encoders.mini.layers import SUMMARY_TOKENS, Tower, Trunk
from freestyle.encoders.mini.text import TEXT_WIDTH, MiniLM, TextHead
from freestyle.encoders.tokenizers import HubTokenizer
from freestyle.errors import UserError

WEIGHTS = Path(__file__).with_name("mini.safetensors")
IMAGE_SIZE, STRIDE = 160, 32
WIDTH, DEPTH, HEADS, HIDDEN = 256, 6, 4, 1024
SEMANTIC_DIM, LAYOUT_DIM = 512, 256
EMBED_DIM = SEMANTIC_DIM + LAYOUT_DIM


class FreestyleMini(DualEncoder):
    """The frozen mini: 160 px, 25 patch tokens of width 256, six blocks, 512 + 256 dimensions.

    Args:
        weights: The safetensors file; the committed one if left out.

    Raises:
        UserError: If the file is missing or is no mini.
    """

    def __init__(self, weights: str | Path = WEIGHTS):
        super().__init__()
        path = Path(weights)
        try:
            state = load_file(path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        except Exception as error:
            raise UserError(
                f"cannot read the mini's weights {path} ({error}): install freestyle again, or "
                "make them with python data/mini/train.py"
            ) from error
        self.name = "freestyle-mini"
        self.weights_tag = f"freestyle-mini@{digest}"
        self.preprocessing = Preprocessing(
            size=IMAGE_SIZE, resize="pad", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
        )
        self.width, self.depth, self.embed_dim = WIDTH, DEPTH, EMBED_DIM
        self.n_prefix, self.text_width = SUMMARY_TOKENS, TEXT_WIDTH
        self.trunk = Trunk()
        self.needs_all_patches = True  # the layout is read from their places
        self.tower = new_tower()
        self.text_head = TextHead(SEMANTIC_DIM)
        try:
            self.load_state_dict({k: v.float() for k, v in state.items()})
        except RuntimeError as error:
            raise UserError(f"{path} does not hold the weights of freestyle-mini") from error
        self._minilm: list[MiniLM] = []  # in a list: no submodule, loaded at the first text
        self.trunk.to(memory_format=torch.channels_last)
        self.freeze()

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The six blocks."""
        return list(self.tower.blocks)

    def patch_tokens(self, pixels: Tensor) -> Tensor:
        """RGB in [0, 1] ``(B, 3, 160, 160)`` to ``(B, 29, 256)``, summary tokens first."""
        self.check_pixels(pixels)
        pixels = self.normalise_pixels(pixels).contiguous(memory_format=torch.channels_last)
        return self.tower.tokens(*self.trunk(pixels))

    def pool(self, tokens: Tensor) -> Tensor:
        """``(B, 29, 256) -> (B, 768)``, what and where at unit norm each."""
        return self.tower.pool(tokens)

    def atoms(self, tokens: Tensor) -> Tensor:
        """``(B, 29, 256) -> (B, 25, 768)``: every patch by its part of the head, unit norm.

        The layout's dimensions are zero: a patch has no layout of its own.
        """
        return F.pad(F.normalize(self.tower.patches(tokens), dim=-1), (0, LAYOUT_DIM))

    @property
    def text_tower(self) -> MiniLM:
        """MiniLM on the encoder's device, loaded at its first use.

        Raises:
            UserError: If the package with the text tower is not installed.
        """
        if not self._minilm:
            self._minilm.append(MiniLM())
        tower, device = self._minilm[0], self.tower.positions.device
        return tower if tower.model.device == device else tower.to(device)

    @property
    def tokenizer(self) -> HubTokenizer:
        """MiniLM's, as :class:`HuggingFaceEncoder` keeps its own."""
        return HubTokenizer(self.text_tower.tokenizer)

    def tokenize(self, texts: list[str], n_prompts: int = 0) -> tuple[Tensor, Tensor]:
        """Ids and mask, each ``(B, T)`` with T at most 64, beside which prompts have room."""
        return self.text_tower.tokenize(texts)

    def embed_tokens(self, ids: Tensor, mask: Tensor, prompts: Tensor | None = None) -> Tensor:
        """``(B, T)`` to ``(B, 768)``, the layout zero; ``prompts`` ``(n, 384)`` follow [CLS]."""
        return F.pad(self.text_head(self.text_tower.embed(ids, mask, prompts)), (0, LAYOUT_DIM))


def new_tower() -> Tower:
    """The tower's architecture, with untrained weights."""
    return Tower(IMAGE_SIZE // STRIDE, WIDTH, DEPTH, HEADS, HIDDEN, SEMANTIC_DIM, LAYOUT_DIM)
