"""With no prompts the encoders compute what Hugging Face's own models compute."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from freestyle.encoders import create

TEXTS = ["a red cat", "", "the dog runs , and runs and runs .", "word " * 200]
SHAPES = [(640, 480), (300, 1000), (20, 30), (1, 1), (3, 1000), (1000, 3)]
FULL_SIZE = ["clip-vit-b-32", "clip-vit-l-14", "siglip-base-16-224", "blip-base", "blip-large"]


def reference_images(encoder, normalised):
    """Hugging Face's image features, unit norm."""
    model = encoder.model
    if hasattr(model, "get_image_features"):
        features = model.get_image_features(normalised).pooler_output
    else:
        hidden = model.vision_model(pixel_values=normalised).last_hidden_state
        features = model.vision_proj(hidden[:, 0])
    return F.normalize(features, dim=-1)


def reference_texts(encoder, texts):
    """Hugging Face's text features, unit norm."""
    model = encoder.model
    ids, mask = encoder.tokenizer(texts, encoder.text_length)
    if encoder.name.startswith("random:siglip"):
        features = model.get_text_features(ids).pooler_output
    elif hasattr(model, "get_text_features"):
        features = model.get_text_features(ids, attention_mask=mask).pooler_output
    else:
        hidden = model.text_encoder(ids, attention_mask=mask).last_hidden_state
        features = model.text_proj(hidden[:, 0])
    return F.normalize(features, dim=-1)


def random_pixels(encoder, batch, seed=0):
    shape = (batch, 3, encoder.image_size, encoder.image_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def family(encoder):
    return encoder.name.removeprefix("random:").partition("-")[0].rstrip("2")


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_tiny_equals_hugging_face(tiny, attention):
    pixels = random_pixels(tiny, 3)
    images = reference_images(tiny, tiny.normalise_pixels(pixels))
    texts = reference_texts(tiny, TEXTS)
    tiny.attention = attention
    try:
        assert (tiny.encode_image(pixels) - images).abs().max() < 1e-5
        assert (tiny.encode_text(TEXTS) - texts).abs().max() < 1e-5
    finally:
        tiny.attention = "sdpa"


@torch.no_grad()
def test_blip_scores_equal_the_retrieval_forward():
    encoder = create("random:blip-tiny")
    pixels = random_pixels(encoder, 2)
    ids, mask = encoder.tokenizer(TEXTS, encoder.text_length)
    scores = encoder.model(
        ids, encoder.normalise_pixels(pixels), use_itm_head=False, attention_mask=mask
    ).itm_score
    ours = encoder.encode_image(pixels) @ encoder.encode_text(TEXTS).T
    assert (ours - scores).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pictures_equal_processor_and_model(tiny, shape, mode, make_image, make_processor):
    image = make_image(*shape, mode)
    values = make_processor(family(tiny), tiny.image_size)(image, return_tensors="pt").pixel_values
    ours = tiny.encode_image(tiny.preprocess(image)[None])
    assert (ours @ reference_images(tiny, values).T).item() >= 0.9999


@torch.no_grad()
def test_distinct_pictures_and_texts_differ(tiny, make_image):
    pixels = torch.stack([tiny.preprocess(make_image(60, 50, seed=s)) for s in range(4)])
    images, texts = tiny.encode_image(pixels), tiny.encode_text(["cat", "dog", "a house", ""])
    for features in (images, texts):
        assert torch.pdist(features).min() > 1e-4
        assert torch.allclose(features.norm(dim=-1), torch.ones(4))


@torch.no_grad()
def test_the_batch_does_not_matter(tiny):
    pixels = random_pixels(tiny, 5)
    together = tiny.encode_image(pixels)
    alone = torch.cat([tiny.encode_image(p[None]) for p in pixels])
    assert (together - alone).abs().max() < 1e-4
    alone = torch.cat([tiny.encode_text([text]) for text in TEXTS])
    assert (tiny.encode_text(TEXTS) - alone).abs().max() < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_request(tiny, dtype):
    pixels = random_pixels(tiny, 2)
    expected_images, expected_texts = tiny.encode_image(pixels), tiny.encode_text(TEXTS)
    half = create(tiny.name).to(dtype)
    images, texts = half.encode_image(pixels), half.encode_text(TEXTS)
    assert images.dtype == texts.dtype == torch.float32
    assert (images * expected_images).sum(-1).min() > 0.99
    assert (texts * expected_texts).sum(-1).min() > 0.99


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_autocast(tiny, attention):
    pixels = random_pixels(tiny, 2)
    expected_images, expected_texts = tiny.encode_image(pixels), tiny.encode_text(TEXTS)
    tiny.attention = attention
    try:
        with torch.autocast("cpu", torch.bfloat16):
            images, texts = tiny.encode_image(pixels), tiny.encode_text(TEXTS)
    finally:
        tiny.attention = "sdpa"
    assert images.dtype == texts.dtype == torch.float32
    assert (images * expected_images).sum(-1).min() > 0.99
    assert (texts * expected_texts).sum(-1).min() > 0.99


@torch.no_grad()
def test_no_texts_and_no_pictures(tiny):
    assert tiny.encode_text([]).shape == (0, tiny.embed_dim)
    assert tiny.encode_image(random_pixels(tiny, 0)).shape == (0, tiny.embed_dim)


@torch.no_grad()
def test_atoms(tiny):
    tokens = tiny.run_blocks(tiny.patch_tokens(random_pixels(tiny, 2)))
    n_patches = tokens.shape[1] - tiny.n_prefix
    atoms = tiny.atoms(tokens)
    assert atoms.shape == (2, n_patches, tiny.embed_dim)
    assert torch.allclose(atoms.norm(dim=-1), torch.ones(2, n_patches))
    patch = tokens[:, tiny.n_prefix + 5 : tiny.n_prefix + 6]  # pooled as if it were all there is
    assert torch.allclose(F.normalize(tiny.pool(patch), dim=-1), atoms[:, 5], atol=1e-5)


def test_shapes_and_wrong_size(tiny):
    tokens = tiny.patch_tokens(random_pixels(tiny, 2))
    assert tokens.shape == (2, tiny.n_prefix + 16, tiny.width)
    assert len(tiny.blocks) == tiny.depth
    with pytest.raises(ValueError, match="preprocess"):
        tiny.patch_tokens(torch.rand(2, 3, 40, 40))
    with pytest.raises(ValueError, match="attention"):
        tiny.attention = "flash"


def test_old_clip_configurations_end_at_the_highest_id():
    encoder = create("random:clip-tiny")
    with torch.no_grad():
        expected = encoder.encode_text(TEXTS)
        encoder.model.config.text_config.eos_token_id = 2
        assert torch.equal(encoder.encode_text(TEXTS), expected)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", FULL_SIZE)
@torch.no_grad()
def test_full_size_equals_hugging_face(architecture, make_image, make_processor):
    encoder = create(f"random:{architecture}")
    processor = make_processor(family(encoder), encoder.image_size)
    pictures = [make_image(320, 240, seed=1), make_image(100, 300, seed=2)]
    values = processor(pictures, return_tensors="pt").pixel_values
    expected = reference_images(encoder, values)
    pixels = torch.stack([encoder.preprocess(picture) for picture in pictures])

    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (processor.image_mean, processor.image_std)
    )
    same_pixels = encoder.encode_image((values * std + mean).clamp(0, 1))
    assert (same_pixels - expected).abs().max() < 1e-5
    assert (encoder.encode_image(pixels) * expected).sum(-1).min() >= 0.9999
    assert (expected[0] - expected[1]).norm() > 1e-4
    assert (encoder.encode_text(TEXTS) - reference_texts(encoder, TEXTS)).abs().max() < 1e-5
