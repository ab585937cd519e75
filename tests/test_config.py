"""Settings refuse bad combinations in one sentence and survive JSON."""

from __future__ import annotations

import json

import pytest

from freestyle.config import FreestyleConfig, LossConfig, PromptConfig, StyleConfig


@pytest.mark.parametrize(
    ("kind", "values", "named"),
    [
        (StyleConfig, {"taps": ()}, "style.taps"),
        (StyleConfig, {"n_bases": 0}, "style.n_bases is 0"),
        (StyleConfig, {"temperature": 0.0}, "style.temperature is 0.0"),
        (StyleConfig, {"power": 1.5}, "style.power is 1.5"),
        (StyleConfig, {"power": 0.0}, "style.power is 0.0"),
        (PromptConfig, {"shallow": "text"}, "prompts.shallow is 'text'"),
        (PromptConfig, {"deep": "codes"}, "prompts.deep is 'codes'"),
        (PromptConfig, {"n_tokens": 0}, "prompts.n_tokens is 0"),
        (PromptConfig, {"hidden": -1}, "prompts.hidden is -1"),
        (PromptConfig, {"scope": "shallow"}, "prompts.scope is 'shallow'"),
        (PromptConfig, {"code_dropout": 1.0}, "prompts.code_dropout is 1.0"),
        (PromptConfig, {"text_tokens": -1}, "prompts.text_tokens is -1"),
        (FreestyleConfig, {"query_map": "mlp"}, "query_map is 'mlp'"),
        (FreestyleConfig, {"prompts": PromptConfig()}, "no 'style' settings"),
        (FreestyleConfig, {"centred": True}, "no 'style' settings"),
        (LossConfig, {"name": "arcface"}, "loss.name is 'arcface'"),
        (LossConfig, {"temperature": 0.0}, "loss.temperature is 0.0"),
        (LossConfig, {"label_smoothing": 1.0}, "loss.label_smoothing is 1.0"),
    ],
)
def test_bad_values_are_refused_by_name(refusal, kind, values, named):
    assert named in refusal(kind, **values)


@pytest.mark.parametrize(
    "config",
    [
        FreestyleConfig(),
        FreestyleConfig(
            encoder="random:clip-tiny",
            revision="main",
            method="freestyle",
            style=StyleConfig(network="vgg16", taps=("relu1_2", "relu2_1"), n_components=None),
            prompts=PromptConfig(n_tokens=3, shallow="gram", deep="none", split=2, text_tokens=1),
            query_map="linear",
            seed=4,
            styles=("sketch", "art"),
        ),
        FreestyleConfig(style=StyleConfig(center=False, resolution=64), centred=True),
    ],
)
def test_round_trip_through_json(config):
    restored = FreestyleConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert restored == config
    assert restored.style is None or isinstance(restored.style.taps, tuple)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"encodr": "x"}, "'encodr' in FreestyleConfig"),
        ({"prompts": {"tokens": 4}}, "'tokens' in PromptConfig"),
        ({"style": {"layers": 4}}, "'layers' in StyleConfig"),
        ({"style": "vgg16"}, "StyleConfig"),
        ({"style": 5}, "StyleConfig"),
        ({"prompts": {"n_tokens": "four"}}, "n_tokens"),
        ({"prompts": {"n_tokens": 2.5}}, "n_tokens"),
        ({"prompts": {"n_tokens": True}}, "n_tokens"),
        ({"style": {"taps": 5}}, "taps"),
        ({"style": {"taps": "relu1_2"}}, "taps"),
        ({"encoder": 7}, "encoder"),
        ({"seed": "one"}, "seed"),
    ],
)
def test_what_is_no_setting_is_refused(refusal, values, named):
    assert named in refusal(FreestyleConfig.from_dict, values)


def test_whole_numbers_pass_for_fractions():
    assert FreestyleConfig.from_dict({"style": {"temperature": 1}}).style.temperature == 1


def test_what_reads_the_style():
    assert PromptConfig().reads_style and PromptConfig().has_tokens
    assert PromptConfig(shallow="none", deep="gram").reads_style
    constant = PromptConfig(shallow="learned", deep="none")
    assert constant.has_tokens and not constant.reads_style
    assert not PromptConfig(shallow="none", deep="none").has_tokens
    assert not FreestyleConfig(prompts=constant).needs_style
    assert FreestyleConfig(style=StyleConfig(), centred=True).needs_style
