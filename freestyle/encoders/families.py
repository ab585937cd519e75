"""The three families of encoders: which Hugging Face classes they use and how they prepare input.

Imported only when an encoder is built, because transformers takes seconds to import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import transformers

from freestyle.encoders.base import Preprocessing
from freestyle.encoders.blip import BlipEncoder
from freestyle.encoders.checkpoints import (
    Checkpoint,
    load_model,
    load_tokenizer,
    read_preprocessing,
)
from freestyle.encoders.clip import ClipEncoder
from freestyle.encoders.huggingface import Attention, HuggingFaceEncoder
from freestyle.encoders.siglip import SiglipEncoder
from freestyle.errors import UserError


@dataclass(frozen=True)
class Family:
    """What one ``model_type`` needs.

    Attributes:
        encoder_class: Our wrapper.
        model_class: The Hugging Face model.
        config_class: Its configuration.
        preprocessing: Defaults for keys an image processor's file leaves out.
        tokenizer: How its tokenizer pads.
    """

    encoder_class: type[HuggingFaceEncoder]
    model_class: Any
    config_class: Any
    preprocessing: Preprocessing
    tokenizer: dict[str, Any]


FAMILIES = {
    "clip": Family(
        ClipEncoder,
        transformers.CLIPModel,
        transformers.CLIPConfig,
        Preprocessing(224),
        {"padding_side": "right"},
    ),
    "siglip": Family(
        SiglipEncoder,
        transformers.SiglipModel,
        transformers.SiglipConfig,
        Preprocessing(224, "exact", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        {"pad_to_max": True},
    ),
    "blip": Family(
        BlipEncoder,
        transformers.BlipForImageTextRetrieval,
        transformers.BlipConfig,
        Preprocessing(384, "exact"),
        {"padding_side": "right"},
    ),
}


def from_checkpoint(
    checkpoint: Checkpoint, *, name: str, attention: Attention = "sdpa"
) -> HuggingFaceEncoder:
    """The encoder of an opened checkpoint.

    Raises:
        UserError: If the model is of another kind, or files are missing or damaged.
    """
    family = FAMILIES[_family_name(checkpoint)]
    values = {k: v for k, v in checkpoint.config.items() if k != "model_type"}
    try:
        config = family.config_class.from_dict(values)
    except Exception as error:
        raise UserError(
            f"{checkpoint.folder / 'config.json'}: not a configuration of "
            f"{family.model_class.__name__}; fetch it again"
        ) from error
    if not getattr(config.vision_config, "vision_use_head", True):
        raise UserError(f"{checkpoint.folder}: this SigLIP has no pooling head, hence no embedding")
    preprocessing = read_preprocessing(checkpoint, family.preprocessing)
    if preprocessing.size != config.vision_config.image_size:
        raise UserError(
            f"{checkpoint.folder}: the image processor makes {preprocessing.size} px, the model "
            f"takes {config.vision_config.image_size} px; correct preprocessor_config.json"
        )
    tokenizer = load_tokenizer(checkpoint, **family.tokenizer)
    model = load_model(checkpoint, family.model_class, config)
    return family.encoder_class(
        model,
        tokenizer,
        preprocessing,
        name=name,
        weights_tag=checkpoint.weights_tag,
        attention=attention,
    )


def _family_name(checkpoint: Checkpoint) -> str:
    """``clip``, ``siglip`` or ``blip``; a fixed-resolution SigLIP 2 is a ``siglip``."""
    family = checkpoint.family
    if family == "siglip2":
        if "image_size" in checkpoint.config.get("vision_config", {}):
            return "siglip"
        raise UserError(
            f"{checkpoint.folder}: a SigLIP 2 NaFlex model, which has no fixed input size and is "
            "not supported; use a fixed-resolution one such as google/siglip2-base-patch16-224"
        )
    if family not in FAMILIES:
        raise UserError(
            f"{checkpoint.folder}: model type {family or 'unknown'!r} is not supported; "
            "use a CLIP, SigLIP, SigLIP 2 (fixed resolution) or BLIP retrieval checkpoint"
        )
    return family
