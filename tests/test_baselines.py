"""The controls are the same class with other settings."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from freestyle import baselines
from freestyle.config import PromptConfig, StyleConfig
from freestyle.model import FreestyleRet

# The tiny CLIP: tokens of width 64, 3 blocks, embeddings of 40; 2 tokens, codes of 6, hidden 5.
TOKENS, HIDDEN = 2 * 64, 5
STYLED = TOKENS + 6 * HIDDEN + HIDDEN + HIDDEN * TOKENS


def count(model: FreestyleRet) -> int:
    return sum(p.numel() for p in model.trained_parameters().values())


@pytest.mark.parametrize(
    ("method", "more", "expected"),
    [
        ("zero-shot", {}, 0),
        ("style-centred", {}, 0),
        ("query-adapter", {}, 40 * 40 + 40),
        ("vpt-shallow", {}, TOKENS),
        ("vpt-deep", {}, 3 * TOKENS),
        ("freestyle", {}, 3 * STYLED),
        ("freestyle", {"hidden": 0}, 3 * (TOKENS + 6 * TOKENS)),
        ("freestyle", {"query_map": "linear"}, 3 * STYLED + 40 * 40 + 40),
        ("freestyle", {"query_map": "styled"}, 3 * STYLED + 40 * 41 + 7 * 64 + 65 * 80),
        ("freestyle", {"text_tokens": 4}, 3 * STYLED + 4 * 48),
        ("freestyle", {"shallow": "learned"}, TOKENS + 2 * STYLED),
        ("freestyle", {"shallow": "none"}, 2 * STYLED),
        ("freestyle", {"deep": "none", "split": 2}, 2 * STYLED),
    ],
)
def test_trained_numbers_by_hand(make_model, method, more, expected):
    assert count(make_model(method, **more)) == expected


def test_settings_by_method():
    style, prompts = StyleConfig(n_bases=3), PromptConfig(n_tokens=7, code_dropout=0.1, split=1)
    made = {
        method: baselines.settings(method, "enc", revision="r", style=style, prompts=prompts)
        for method in baselines.METHODS
    }
    assert all(c.method == m and c.encoder == "enc" for m, c in made.items())
    assert all(c.revision == "r" for c in made.values())
    assert {m for m, c in made.items() if c.needs_style} == {"style-centred", "freestyle"}
    assert {m for m, c in made.items() if c.prompts} == {"vpt-shallow", "vpt-deep", "freestyle"}
    assert {m for m, c in made.items() if c.query_map == "linear"} == {"query-adapter"}
    assert {m for m, c in made.items() if c.centred} == {"style-centred"}
    assert made["freestyle"].prompts == prompts and made["freestyle"].style == style
    shallow, deep = made["vpt-shallow"].prompts, made["vpt-deep"].prompts
    assert (shallow.scope, shallow.shallow, shallow.deep) == ("input", "learned", "none")
    assert (deep.scope, deep.shallow, deep.deep) == ("deep", "learned", "learned")
    assert shallow.n_tokens == deep.n_tokens == 7
    assert shallow.code_dropout == deep.code_dropout == 0


def test_unknown_method(refusal):
    text = refusal(baselines.settings, "coop")
    assert "'coop'" in text and all(method in text for method in baselines.METHODS)


def test_learned_prompts_need_no_style_reader():
    prompts = PromptConfig(shallow="learned", deep="learned")
    assert baselines.settings("freestyle", prompts=prompts).style is None


@torch.no_grad()
@pytest.mark.parametrize("method", ["vpt-shallow", "vpt-deep", "freestyle"])
def test_vpt_has_the_methods_token_count(make_model, pixels, monkeypatch, method):
    """Each block sees 1 CLS, n prompts, 16 patches: as many for all three methods."""
    model = make_model(method)
    features, codes = model.prepare(pixels[:2])
    seen = []

    def watched(block):
        def call(tokens):
            seen.append(tokens.shape[1])
            return block(tokens)

        return call

    blocks = [watched(block) for block in model.encoder.blocks]
    monkeypatch.setattr(type(model.encoder), "blocks", blocks)
    model.query_from(features, codes)
    assert seen == [1 + 2 + 16] * 3


@torch.no_grad()
def test_style_centred_by_hand(make_model, pixels):
    """Two bases, weights given: means are weighted means, and are mixed by the same weights."""
    model = make_model("style-centred")
    weights = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    model.space.weights = lambda codes: weights[: len(codes)]
    embeddings = torch.zeros(3, 40)
    embeddings[0, 0] = embeddings[1, 1] = embeddings[2, 2] = 1.0
    baselines.fit_style_means(model, embeddings, torch.zeros(3, model.reader.code_dim))
    expected = torch.zeros(2, 40)
    expected[0, :2] = torch.tensor([2 / 3, 1 / 3])  # (1 e0 + .5 e1) / 1.5
    expected[1, 1:3] = torch.tensor([1 / 3, 2 / 3])
    assert torch.allclose(model.style_means, expected)
    features = F.normalize(torch.randn(2, 40), dim=1)
    found = model.query_from(features * 3, torch.zeros(2, model.reader.code_dim))
    mixed = torch.stack([expected[0], expected.mean(dim=0)])
    assert torch.allclose(found, F.normalize(features - mixed, dim=1), atol=1e-6)


@torch.no_grad()
def test_base_without_queries_has_no_mean(make_model):
    model = make_model("style-centred")
    model.space.weights = lambda codes: torch.tensor([[1.0, 0.0]])
    baselines.fit_style_means(model, torch.ones(1, 40), torch.zeros(1, model.reader.code_dim))
    assert model.style_means.isfinite().all() and not model.style_means[1].any()
