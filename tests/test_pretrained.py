"""Saved models that are missing, damaged or do not fit: one sentence with file and remedy."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from freestyle.model import FreestyleRet
from freestyle.pretrained import named_encoder


@pytest.fixture
def folder(tmp_path, make_model):
    return make_model().save_pretrained(tmp_path / "saved")


@pytest.fixture
def edit(folder):
    """Change values of the configuration: ``edit(weights=None)``; Ellipsis removes one."""

    def change(**values):
        path = folder / "config.json"
        config = {**json.loads(path.read_text()), **values}
        path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))

    return change


def loading(refusal, folder, **options):
    return refusal(FreestyleRet.from_pretrained, folder, **options)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_weights_cut_short(refusal, folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    text = loading(refusal, folder)
    assert f"{path} is corrupt" in text and "save the model again" in text


def test_weights_are_something_else(refusal, folder):
    path = folder / "model.safetensors"
    path.write_bytes(b"\x80\x02}q\x00." * 100)
    assert f"{path} is corrupt" in loading(refusal, folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file(refusal, folder, name):
    (folder / name).unlink()
    text = loading(refusal, folder)
    assert f"{folder / name} is missing" in text


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_folder_in_place_of_a_file(refusal, folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    assert str(folder / name) in loading(refusal, folder)


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00", b"[1, 2]", b"null"])
def test_config_is_no_json_object(refusal, folder, content):
    (folder / "config.json").write_bytes(content)
    text = loading(refusal, folder)
    assert str(folder / "config.json") in text and "save the model again" in text


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"surprise": 1}, "surprise"),
        ({"prompts": {"n_tokens": 0}}, "n_tokens"),
        ({"prompts": {"n_tokens": "two"}}, "n_tokens"),
        ({"prompts": [1]}, "PromptConfig"),
        ({"query_map": "mlp"}, "query_map"),
        ({"style": None}, "style"),
        ({"encoder": None}, "encoder"),
    ],
)
def test_config_with_bad_settings(refusal, folder, edit, values, named):
    edit(**values)
    text = loading(refusal, folder)
    assert str(folder / "config.json") in text and named in text


def test_config_that_names_no_encoder_there_is(refusal, folder, edit):
    edit(encoder="random:clip-giant")
    assert "random:clip-giant" in loading(refusal, folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s | {"space.bases": torch.zeros(3, 6)}, "'space.bases' has shape (3, 6)"),
        (lambda s: s | {"extra": torch.zeros(1)}, "'extra' is not of this model"),
        (lambda s: {k: v for k, v in s.items() if k != "space.mean"}, "'space.mean' is missing"),
        (lambda s: {}, "is missing"),
    ],
)
def test_weights_of_other_shapes(refusal, folder, change, named):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)
    text = loading(refusal, folder)
    assert f"{path} does not fit its config.json" in text and named in text


def test_encoder_with_other_weights(refusal, folder, edit, shared):
    edit(weights="random:clip-tiny@seed1")
    text = loading(refusal, folder)
    assert "'random:clip-tiny@seed1'" in text and "'random:clip-tiny@seed0'" in text
    other = shared("random:blip-tiny")
    assert "random:blip-tiny@seed0" in loading(refusal, folder, encoder=other)


def test_style_reader_with_other_weights(refusal, folder, edit):
    edit(style_reader="vgg19:relu2_1@112#0")
    assert "style reader 'vgg19:relu2_1@112#0'" in loading(refusal, folder)


def test_configs_without_tags_still_load(folder, edit):
    """Folders written by hand need not know the tags."""
    edit(weights=..., style_reader=..., freestyle_version=...)
    assert FreestyleRet.from_pretrained(folder).config.method == "freestyle"


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "nowhere", "a/b/c", "~/nowhere"])
def test_missing_folder(refusal, name):
    text = loading(refusal, name)
    assert f"model folder '{name}' does not exist" in text and "check the path" in text


def test_file_in_place_of_the_folder(refusal, folder):
    text = loading(refusal, folder / "config.json")
    assert str(folder / "config.json") in text and "folder" in text


def test_hub_that_cannot_be_reached(refusal):
    text = loading(refusal, "someone/something")
    assert "'someone/something'" in text and "network" in text


def test_hub_folder_is_fetched(monkeypatch, folder, pictures):
    import huggingface_hub

    asked = []

    def fake(repo, **options):
        asked.append((repo, options["revision"], sorted(options["allow_patterns"])))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    model = FreestyleRet.from_pretrained("someone/something", revision="v1")
    assert model.encode_query(pictures[:1]).shape == (1, 40)
    assert asked == [("someone/something", "v1", ["config.json", "model.safetensors"])]


def test_encoder_at_hand_is_used(folder, shared):
    encoder = shared("random:clip-tiny")
    assert FreestyleRet.from_pretrained(folder, encoder=encoder).encoder is encoder
    assert named_encoder(folder) == "random:clip-tiny"
