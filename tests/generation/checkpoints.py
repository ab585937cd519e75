"""Tiny checkpoints with random weights, saved in the layouts of the full ones."""

from __future__ import annotations

from pathlib import Path

import torch

WORDS = ("a", "picture", "of", "number", "cartoon", "style", "the", "red", "boat", "house")


def tokenizer():
    """A CLIP tokenizer whose vocabulary is single letters and a few words' worth of merges."""
    from transformers import CLIPTokenizer

    letters = [chr(c) for c in range(33, 127)]
    vocab = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for letter in letters:
        for token in (letter, f"{letter}</w>"):
            vocab.setdefault(token, len(vocab))
    merges = []
    for word in WORDS:
        done = word[0] if len(word) > 1 else f"{word}</w>"
        for position, letter in enumerate(word[1:], start=1):
            nextly = letter if position < len(word) - 1 else f"{letter}</w>"
            pair, done = (done, nextly), done + nextly
            if pair not in merges:
                merges.append(pair)
            vocab.setdefault(done, len(vocab))
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def save_diffusion(folder: Path) -> tuple[Path, Path, Path]:
    """Stable Diffusion of tiny size, its motion adapter and its ControlNet: three folders."""
    from diffusers import (
        AutoencoderKL,
        ControlNetModel,
        DDIMScheduler,
        MotionAdapter,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    words = tokenizer()
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=24,
            num_attention_heads=2,
            num_hidden_layers=2,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
            projection_dim=16,
        )
    )
    shared = {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "in_channels": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "cross_attention_dim": 16,
        "norm_num_groups": 2,
        "attention_head_dim": 4,
    }
    unet = UNet2DConditionModel(
        sample_size=8,
        out_channels=4,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **shared,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=16,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    model = folder / "model"
    StableDiffusionPipeline(
        vae, text, words, unet, scheduler, None, None, requires_safety_checker=False
    ).save_pretrained(model)
    (model / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# Tiny\n")
    adapter = folder / "adapter"
    MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=2,
        use_motion_mid_block=False,
    ).save_pretrained(adapter)
    control = folder / "control"
    ControlNetModel(conditioning_embedding_out_channels=(8, 8), **shared).save_pretrained(control)
    return model, adapter, control


def save_lora(folder: Path, model: Path, adapter: Path) -> Path:
    """A LoRA of rank 2 on the tiny model's attention, as a single file."""
    from diffusers import AnimateDiffPipeline, MotionAdapter
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    motion = MotionAdapter.from_pretrained(adapter)
    pipeline = AnimateDiffPipeline.from_pretrained(model, motion_adapter=motion)
    torch.manual_seed(1)
    config = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    pipeline.unet.add_adapter(config)
    AnimateDiffPipeline.save_lora_weights(
        folder, unet_lora_layers=get_peft_model_state_dict(pipeline.unet), safe_serialization=True
    )
    return folder / "pytorch_lora_weights.safetensors"


def save_captioner(folder: Path) -> Path:
    """BLIP of tiny size with its processor."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"]
    vocab = {token: number for number, token in enumerate([*special, *WORDS])}
    core = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    words = BertTokenizerFast(tokenizer_object=core, vocab=vocab)
    torch.manual_seed(2)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
    }
    config = BlipConfig(
        text_config={
            **sizes,
            "encoder_hidden_size": 16,
            "vocab_size": len(vocab),
            "max_position_embeddings": 40,
            "bos_token_id": 5,
            "pad_token_id": 0,
            "eos_token_id": 3,
            "sep_token_id": 3,
        },
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
    )
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), words).save_pretrained(
        folder
    )
    return folder
