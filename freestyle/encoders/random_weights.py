"""Architectures built from their configuration with seeded random weights.

For tests, benchmarks and dry runs of configs where downloading is not possible. The full-size ones
have the shapes of ``openai/clip-vit-base-patch32``, ``openai/clip-vit-large-patch14``,
``google/siglip-base-patch16-224``, ``google/siglip2-base-patch16-224``,
``Salesforce/blip-itm-base-coco`` and ``Salesforce/blip-itm-large-coco``. Their texts go through a
stand-in tokenizer, :class:`freestyle.encoders.tokenizers.WordHashTokenizer`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freestyle.encoders.huggingface import Attention, HuggingFaceEncoder


def _tower(width: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        **more,
    }


@dataclass(frozen=True)
class Architecture:
    """Configuration values of one model.

    Attributes:
        family: Key of :data:`freestyle.encoders.families.FAMILIES`.
        vision: ``vision_config``.
        text: ``text_config``.
        top: Values beside the two towers.
        start: Id of the tokenizer's start token, or None.
        end: Id of its end token.
        pad: Id of its padding.
    """

    family: str
    vision: dict[str, Any]
    text: dict[str, Any]
    top: dict[str, Any] = field(default_factory=dict)
    start: int | None = None
    end: int = 1
    pad: int = 1


def _clip(vision: dict, text: dict, projection: int, vocab: int = 49408) -> Architecture:
    start, end = vocab - 2, vocab - 1
    text = {**text, "vocab_size": vocab, "bos_token_id": start, "eos_token_id": end}
    return Architecture("clip", vision, text, {"projection_dim": projection}, start, end, end)


def _siglip(vision: dict, text: dict, vocab: int, pad: int = 1) -> Architecture:
    text = {**text, "vocab_size": vocab, "bos_token_id": None, "eos_token_id": 1}
    return Architecture("siglip", vision, {**text, "pad_token_id": pad}, end=1, pad=pad)


def _blip(
    vision: dict, text: dict, shared: int = 256, vocab: int = 30524, spread: float = 0.02
) -> Architecture:
    # the library's default spread of the vision weights, 1e-10, would make every picture the same
    vision = {**vision, "initializer_range": spread}
    text = {**text, "initializer_range": spread}
    text = {**text, "vocab_size": vocab, "bos_token_id": vocab - 2, "sep_token_id": 102}
    top = {"image_text_hidden_size": shared, "initializer_range": spread}
    return Architecture("blip", vision, text, top, start=101, end=102, pad=0)


_TINY = _tower(64, 3, 4)
_TINY_EYE = {**_TINY, "image_size": 32, "patch_size": 8}

ARCHITECTURES: dict[str, Architecture] = {
    "clip-vit-b-32": _clip(
        _tower(768, 12, 12, image_size=224, patch_size=32), _tower(512, 12, 8), 512
    ),
    "clip-vit-l-14": _clip(
        _tower(1024, 24, 16, image_size=224, patch_size=14), _tower(768, 12, 12), 768
    ),
    "siglip-base-16-224": _siglip(
        _tower(768, 12, 12, image_size=224, patch_size=16), _tower(768, 12, 12), vocab=32000
    ),
    "siglip2-base-16-224": _siglip(
        _tower(768, 12, 12, image_size=224, patch_size=16), _tower(768, 12, 12), 256000, pad=0
    ),
    "blip-base": _blip(_tower(768, 12, 12, image_size=384, patch_size=16), _tower(768, 12, 12)),
    "blip-large": _blip(_tower(1024, 24, 16, image_size=384, patch_size=16), _tower(768, 12, 12)),
    "clip-tiny": _clip(_TINY_EYE, _tower(48, 2, 4), 40, vocab=1000),
    "siglip-tiny": _siglip(_TINY_EYE, _TINY, vocab=1000),
    "blip-tiny": _blip(_TINY_EYE, _tower(48, 2, 4), shared=40, vocab=1000, spread=0.1),
}


def build_model(architecture: str, seed: int = 0) -> Any:
    """The Hugging Face model of an architecture, on the CPU in float32.

    Args:
        architecture: A key of :data:`ARCHITECTURES`.
        seed: Same seed, same weights; the global random state is left as it was.
    """
    import torch

    from freestyle.encoders.families import FAMILIES

    arch = ARCHITECTURES[architecture]
    family = FAMILIES[arch.family]
    config = family.config_class(
        vision_config=dict(arch.vision), text_config=dict(arch.text), **arch.top
    )
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.random.default_generator.manual_seed(seed)
        return family.model_class(config).float()


def build_random(
    architecture: str, *, seed: int = 0, attention: Attention = "sdpa"
) -> HuggingFaceEncoder:
    """The encoder ``random:<architecture>``; see :func:`build_model`."""
    from freestyle.encoders.families import FAMILIES
    from freestyle.encoders.tokenizers import WordHashTokenizer

    arch = ARCHITECTURES[architecture]
    family = FAMILIES[arch.family]
    tokenizer = WordHashTokenizer(
        arch.text["vocab_size"],
        start=arch.start,
        end=arch.end,
        pad=arch.pad,
        pad_to_max=arch.family == "siglip",
    )
    name = f"random:{architecture}"
    return family.encoder_class(
        build_model(architecture, seed),
        tokenizer,
        replace(family.preprocessing, size=arch.vision["image_size"]),
        name=name,
        weights_tag=f"{name}@seed{seed}",
        attention=attention,
    )
