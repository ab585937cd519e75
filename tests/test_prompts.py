"""Prompt tokens: what feeds them, where they enter and leave."""

from __future__ import annotations

import pytest
import torch

from freestyle.config import PromptConfig
from freestyle.prompts import PromptTokens, TokenMaker, run_with_prompts, some_patches

WIDTH, DEPTH, DIM = 8, 4, 6


def made(batch=3, gram=None, style=None, **settings):
    torch.manual_seed(0)
    prompts = PromptTokens(PromptConfig(**settings), WIDTH, DEPTH, DIM)
    gram = torch.randn(batch, DIM) if gram is None else gram
    style = torch.randn(batch, DIM) if style is None else style
    return prompts, prompts(gram, style, batch)


@pytest.mark.parametrize("hidden", [0, 5])
def test_one_set_of_tokens_per_layer(hidden):
    _, tokens = made(n_tokens=2, hidden=hidden)
    assert [tuple(layer.shape) for layer in tokens] == [(3, 2, WIDTH)] * DEPTH
    assert len({layer.detach().numpy().tobytes() for layer in tokens}) == DEPTH


@pytest.mark.parametrize(("split", "shallow"), [(None, DEPTH // 2), (0, 0), (1, 1), (DEPTH, DEPTH)])
def test_split_divides_shallow_from_deep(split, shallow):
    prompts, tokens = made(split=split, shallow="learned", deep="none")
    assert prompts.sources == ["learned"] * shallow + ["none"] * (DEPTH - shallow)
    assert [layer is not None for layer in tokens] == [True] * shallow + [False] * (DEPTH - shallow)


@pytest.mark.parametrize("split", [-1, DEPTH + 1])
def test_split_outside_the_tower(refusal, split):
    text = refusal(PromptTokens, PromptConfig(split=split), WIDTH, DEPTH, DIM)
    assert f"prompts.split is {split}" in text and f"0 to {DEPTH}" in text


def test_style_without_a_code(refusal):
    assert "no style reader" in refusal(PromptTokens, PromptConfig(), WIDTH, DEPTH, 0)


@pytest.mark.parametrize("shallow", ["style", "gram", "learned", "none"])
@pytest.mark.parametrize("deep", ["style", "gram", "learned", "none"])
def test_sources_feed_the_right_layers(shallow, deep):
    base_gram, base_style = torch.randn(2, 3, DIM)
    settings = {"split": 1, "shallow": shallow, "deep": deep, "n_tokens": 2}
    _, base = made(gram=base_gram, style=base_style, **settings)
    _, other_gram = made(gram=base_gram + 1, style=base_style, **settings)
    _, other_style = made(gram=base_gram, style=base_style + 1, **settings)
    for layer, source in enumerate([shallow, deep, deep, deep]):
        if source == "none":
            assert base[layer] is None
            continue
        moved = {
            "gram": not torch.equal(base[layer], other_gram[layer]),
            "style": not torch.equal(base[layer], other_style[layer]),
        }
        assert moved == {"gram": source == "gram", "style": source == "style"}


def test_constants_need_no_code():
    prompts = PromptTokens(PromptConfig(shallow="learned", deep="learned"), WIDTH, DEPTH)
    tokens = prompts(None, None, 2)
    assert all(torch.equal(layer[0], layer[1]) for layer in tokens)
    assert {name.split(".")[-1] for name, _ in prompts.named_parameters()} == {"constant"}


def test_token_maker_by_hand():
    """A linear maker: constant + W code, W's rows in token order."""
    maker = TokenMaker(n_tokens=2, width=1, code_dim=2, hidden=0)
    with torch.no_grad():
        maker.constant.copy_(torch.tensor([[10.0], [20.0]]))
        maker.function[-1].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tokens = maker(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), 2)
    assert tokens.tolist() == [[[11.0], [23.0]], [[13.0], [27.0]]]


def test_first_constants_lie_in_vpts_range():
    bound = (6 / (3 * 16 * 16 + 64)) ** 0.5
    constant = TokenMaker(50, 64, 0, 0).constant.detach()
    assert constant.abs().max() <= bound < constant.abs().max() * 1.05


class Spy:
    """A block that notes its input and adds one."""

    def __init__(self):
        self.seen = None

    def __call__(self, tokens):
        self.seen = tokens.clone()
        return tokens + 1


def marked(values, batch=2):
    """Tokens ``(batch, len(values), 1)`` that carry recognisable numbers."""
    return torch.tensor(values, dtype=torch.float).view(1, -1, 1).expand(batch, -1, -1)


@pytest.mark.parametrize("n_prefix", [0, 1])
def test_deep_prompts_stand_after_the_prefix_and_leave(n_prefix):
    cls, patches = [0] * n_prefix, [100, 200, 300]
    blocks = [Spy() for _ in range(3)]
    prompts = [marked([-10, -20]), None, marked([-30])]
    out = run_with_prompts(blocks, marked(cls + patches), prompts, n_prefix)
    seen = [block.seen[0, :, 0].tolist() for block in blocks]
    assert seen[0] == [*cls, -10, -20, *patches]
    assert seen[1] == [*[c + 1 for c in cls], 101, 201, 301]
    assert seen[2] == [*[c + 2 for c in cls], -30, 102, 202, 302]
    assert out[1, :, 0].tolist() == [*[c + 3 for c in cls], 103, 203, 303]


@pytest.mark.parametrize("n_prefix", [0, 1])
def test_input_prompts_travel_through_and_leave_at_the_end(n_prefix):
    cls, patches = [0] * n_prefix, [100, 200]
    blocks = [Spy() for _ in range(3)]
    out = run_with_prompts(
        blocks, marked(cls + patches), [marked([-10, -20])], n_prefix, scope="input"
    )
    for number, block in enumerate(blocks):
        expected = [v + number for v in [*cls, -10, -20, *patches]]
        assert block.seen[0, :, 0].tolist() == expected
    assert out[0, :, 0].tolist() == [v + 3 for v in cls + patches]


def test_input_scope_makes_one_set():
    prompts, tokens = made(scope="input", shallow="learned", deep="none")
    assert len(tokens) == 1 and len(prompts.makers) == 1


@pytest.mark.parametrize("name", ["clip-tiny", "siglip-tiny", "blip-tiny"])
@torch.no_grad()
def test_no_prompts_is_the_plain_run(shared, name):
    encoder = shared(f"random:{name}")
    side = encoder.image_size
    tokens = encoder.patch_tokens(torch.rand(2, 3, side, side))
    nothing = [None] * encoder.depth
    found = run_with_prompts(encoder.blocks, tokens, nothing, encoder.n_prefix)
    assert torch.equal(found, encoder.run_blocks(tokens))
    found = run_with_prompts(encoder.blocks, tokens, [None], encoder.n_prefix, "input")
    assert torch.equal(found, encoder.run_blocks(tokens))


def test_prompts_take_the_type_of_the_tokens():
    blocks = [lambda tokens: tokens]
    out = run_with_prompts(blocks, torch.zeros(1, 2, 3).bfloat16(), [torch.ones(1, 1, 3)], 1)
    assert out.dtype == torch.bfloat16


def test_some_patches_keeps_the_prefix_and_the_order():
    tokens = torch.arange(2 * 13).view(2, 13, 1).expand(-1, -1, 4).float()
    kept = some_patches(tokens, 3, 0.5, torch.Generator().manual_seed(0))
    assert kept.shape == (2, 8, 4)
    assert torch.equal(kept[:, :3], tokens[:, :3])
    order = kept[:, :, 0]
    assert (order.diff(dim=1) > 0).all()  # drawn without repetition, in their order
    assert not torch.equal(order[0], order[1] - 13)  # each picture draws for itself
    again = some_patches(tokens, 3, 0.5, torch.Generator().manual_seed(0))
    assert torch.equal(kept, again)


def test_some_patches_of_all_and_of_few():
    tokens = torch.randn(2, 5, 3)
    generator = torch.Generator().manual_seed(0)
    assert some_patches(tokens, 1, 1.0, generator) is tokens
    assert some_patches(tokens, 0, 0.01, generator).shape == (2, 1, 3)
