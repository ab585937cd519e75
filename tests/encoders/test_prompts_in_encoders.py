"""Prompts enter between blocks and into the text; gradients reach them and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from freestyle.encoders import create


def with_prompts(encoder, pixels, prompts):
    tokens = encoder.patch_tokens(pixels)
    n, p = prompts.shape[1], encoder.n_prefix
    for block, own in zip(encoder.blocks, prompts, strict=True):
        own = own.expand(len(tokens), n, encoder.width)
        tokens = block(torch.cat([tokens[:, :p], own, tokens[:, p:]], dim=1))
        tokens = torch.cat([tokens[:, :p], tokens[:, p + n :]], dim=1)
    return encoder.pool(tokens)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_blocks_carry_gradients_to_prompts_only(tiny, attention):
    size = tiny.image_size
    pixels = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    prompts = nn.Parameter(torch.randn(tiny.depth, 4, tiny.width))
    plain = tiny.embed_image(pixels)
    tiny.attention = attention
    try:
        embedding = with_prompts(tiny, pixels, prompts)
    finally:
        tiny.attention = "sdpa"
    assert not plain.requires_grad
    assert (embedding - plain).abs().max() > 1e-3
    embedding.square().sum().backward()
    assert all(layer.abs().sum() > 0 for layer in prompts.grad)
    assert all(not p.requires_grad and p.grad is None for p in tiny.parameters())


def test_attention_kinds_agree_with_prompts(tiny):
    size = tiny.image_size
    pixels = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    prompts = torch.randn(tiny.depth, 3, tiny.width, generator=torch.Generator().manual_seed(1))
    fused = with_prompts(tiny, pixels, prompts)
    tiny.attention = "eager"
    try:
        plain = with_prompts(tiny, pixels, prompts)
    finally:
        tiny.attention = "sdpa"
    assert (fused - plain).abs().max() < 1e-4


def test_text_prompts_change_the_embedding_and_learn(tiny):
    texts = ["a red cat", "the dog runs and runs", "word " * 200]
    prompts = nn.Parameter(torch.randn(4, tiny.text_width))
    prompted = tiny.encode_text(texts, prompts)
    assert (prompted - tiny.encode_text(texts)).norm(dim=-1).min() > 1e-3
    assert torch.pdist(prompted.detach()).min() > 1e-5
    (prompted * torch.randn_like(prompted)).sum().backward()
    assert prompts.grad.abs().sum() > 0
    assert all(p.grad is None for p in tiny.parameters())


@torch.no_grad()
def test_prompts_that_are_words_read_as_words(tiny):
    """Token embeddings as prompts give what the same ids in the text give."""
    word = torch.tensor([300, 301])
    model = tiny.model
    tower = model.text_encoder if hasattr(model, "text_encoder") else model.text_model
    table = getattr(tower.embeddings, "word_embeddings", None) or tower.embeddings.token_embedding
    original = tiny.tokenizer
    expected_ids, expected_mask = original(["cat dog"], tiny.text_length - 2)
    ids = torch.cat([expected_ids[:, :1], word[None], expected_ids[:, 1:]], dim=1)
    mask = torch.cat([expected_mask[:, :1], torch.ones(1, 2).long(), expected_mask[:, 1:]], dim=1)
    prompted = tiny.encode_text(["cat dog"], table(word))
    tiny.tokenizer = lambda texts, length: (ids, mask)
    try:
        assert torch.allclose(prompted, tiny.encode_text(["cat dog"]), atol=1e-6)
    finally:
        tiny.tokenizer = original


@torch.no_grad()
def test_prompted_text_does_not_depend_on_the_batch(tiny):
    texts = ["cat", "a much longer text about a dog , a boat and a house ."]
    prompts = torch.randn(3, tiny.text_width, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([tiny.encode_text([text], prompts) for text in texts])
    assert (tiny.encode_text(texts, prompts) - alone).abs().max() < 1e-4


def test_wrong_text_prompts_are_refused(tiny):
    with pytest.raises(ValueError, match="shape"):
        tiny.embed_text(["a"], torch.zeros(2, tiny.text_width + 1))
    with pytest.raises(ValueError, match="at most"):
        tiny.embed_text(["a"], torch.zeros(tiny.text_length, tiny.text_width))


def test_train_mode_and_gradients_stay_off():
    encoder = create("random:clip-tiny")
    encoder.train()
    assert not encoder.training and not any(m.training for m in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
