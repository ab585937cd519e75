"""Small Hugging Face models and folders for the encoder tests; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from freestyle.encoders import create
from freestyle.encoders.random_weights import ARCHITECTURES, build_model

WORDS = ["a", "photo", "of", "the", "red", "cat", "dog", "house", "boat", "runs", "and", ",", "."]


@pytest.fixture(scope="session", params=["clip-tiny", "siglip-tiny", "blip-tiny"])
def tiny(request: pytest.FixtureRequest):
    """A small encoder of each family."""
    return create(f"random:{request.param}")


@pytest.fixture(scope="session")
def make_image():
    """Pictures with structure and noise: ``make_image(width, height, mode, seed)``."""

    def make(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(1, 4, 4, 4, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
        noisy = smooth + 0.1 * torch.randn(4, height, width, generator=generator)
        array = (noisy.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
        return Image.fromarray(array, "RGBA").convert(mode)

    return make


@pytest.fixture(scope="session")
def make_processor():
    """Hugging Face's default image processor for a family and size."""

    def make(family: str, size: int):
        import transformers

        square = {"height": size, "width": size}
        if family == "clip":
            return transformers.CLIPImageProcessor(size={"shortest_edge": size}, crop_size=square)
        if family == "siglip":
            return transformers.SiglipImageProcessor(size=square)
        return transformers.BlipImageProcessor(size=square)

    return make


@pytest.fixture(scope="session")
def save_checkpoint(make_processor, tmp_path_factory):
    """Save a tiny model with processor and tokenizer: ``save_checkpoint("clip") -> folder``."""

    def save(family: str) -> Path:
        folder = tmp_path_factory.mktemp(f"my-{family}")
        architecture = ARCHITECTURES[f"{family}-tiny"]
        model = build_model(f"{family}-tiny", seed=3)
        model.save_pretrained(folder)
        make_processor(family, architecture.vision["image_size"]).save_pretrained(folder)
        _tokenizer(family, architecture).save_pretrained(folder)
        return folder

    return save


def _tokenizer(family: str, architecture):
    """A word-level tokenizer with the special ids the architecture expects."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {architecture.end: "<end>"}
    if architecture.start is not None:
        special[architecture.start] = "<start>"
    special.setdefault(architecture.pad, "<pad>")
    vocab = {token: i for i, token in special.items()}
    vocab |= {word: 200 + i for i, word in enumerate(WORDS)} | {"<unk>": 199}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    start = "<start> " if architecture.start is not None else ""
    core.post_processor = processors.TemplateProcessing(
        single=f"{start}$A <end>",
        special_tokens=[(t, i) for i, t in special.items() if t in ("<start>", "<end>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        eos_token="<end>",
        pad_token=special[architecture.pad],
        model_max_length=64,
    )
