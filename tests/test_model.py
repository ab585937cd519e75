"""The model keeps its promises: a still gallery, a style that reaches the output."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from freestyle.config import LossConfig, TowerConfig
from freestyle.model import FreestyleRet
from freestyle.training.losses import retrieval_loss

TRAINED = {
    "query-adapter": {},
    "vpt-shallow": {},
    "vpt-deep": {},
    "lora": {"tower": TowerConfig(rank=2)},
    "fine-tune": {},
    "freestyle": {},
    "freestyle + map": {"query_map": "linear"},
    "freestyle + styled map": {"query_map": "styled"},
    "freestyle + styled map alone": {"query_map": "styled", "shallow": "none", "deep": "none"},
    "freestyle + gated adapters": {"tower": TowerConfig(rank=2, gate="gram", hidden=4)},
    "freestyle + text": {"text_tokens": 2},
    "freestyle, linear": {"hidden": 0},
    "freestyle, gram only": {"shallow": "none", "deep": "gram"},
    "freestyle, input": {"scope": "input", "deep": "none"},
}


def fit(model, pixels, steps=10, rate=0.05):
    """A few steps of AdamW towards shifted photos; which parameters ever had a gradient."""
    trained = model.trained_parameters()
    optimizer = torch.optim.AdamW(trained.values(), lr=rate)
    groups = torch.arange(len(pixels))
    gallery = model.encoder.encode_image(pixels.flip(0))
    features, codes = model.prepare(pixels)
    moved = set()
    losses = []
    for _ in range(steps):
        queries = model.query_from(features, codes)
        loss = retrieval_loss(LossConfig(), queries, groups, gallery, groups)
        if model.text_prompts is not None:
            texts = model.text_from([f"picture {i}" for i in groups.tolist()])
            loss = loss + retrieval_loss(LossConfig(), texts, groups, gallery, groups)
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in trained.items():
            if parameter.grad is not None and parameter.grad.abs().sum() > 0:
                moved.add(name)
        optimizer.step()
        losses.append(loss.item())
    return moved, losses


@pytest.mark.parametrize("name", TRAINED)
def test_training_moves_all_that_is_trained_and_nothing_else(name, make_model, pixels):
    model = make_model(name.split(" ")[0].rstrip(","), **TRAINED[name])
    model.train()
    trained = model.trained_parameters()
    assert trained
    frozen = {k: v.clone() for k, v in model.state_dict().items() if k not in trained}
    assert any(k.startswith("encoder.") for k in frozen)
    before = {k: v.detach().clone() for k, v in trained.items()}
    moved, losses = fit(model, pixels)
    assert moved == set(trained)
    assert losses[-1] < losses[0]
    assert all(not torch.equal(before[k], trained[k]) for k in trained)
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in frozen.items())
    assert all(p.grad is None for k, p in model.named_parameters() if k not in trained)


@pytest.mark.parametrize("name", ["random:siglip-tiny", "random:blip-tiny"])
def test_other_families_train_too(name, make_model, shared, pictures):
    model = make_model(encoder=name)
    pixels = torch.stack([model.encoder.preprocess(image) for image in pictures[:3]])
    before = {k: v.clone() for k, v in model.encoder.state_dict().items()}
    moved, losses = fit(model, pixels, steps=4)
    assert moved == set(model.trained_parameters())
    assert losses[-1] < losses[0]
    assert all(torch.equal(before[k], v) for k, v in model.encoder.state_dict().items())


@torch.no_grad()
def test_two_styles_give_two_prompts_and_two_embeddings(make_model, style_codes, pixels):
    model = make_model()
    sketch, mosaic = style_codes[:1], style_codes[-1:]
    for one, other in zip(
        model.prompt_tokens(sketch, 1), model.prompt_tokens(mosaic, 1), strict=True
    ):
        assert one.shape == (1, 2, model.encoder.width)
        assert (one - other).abs().max() > 1e-3
    features, _ = model.prepare(pixels[:1])
    one, other = model.query_from(features, sketch), model.query_from(features, mosaic)
    assert (one - other).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("style", ["zero", "mean"])
def test_taking_the_style_away_changes_the_embedding(make_model, pixels, style):
    model = make_model()
    features, codes = model.prepare(pixels)
    own = model.query_from(features, codes)
    other = model.query_from(features, codes, style=style)
    assert (own - other).abs().amax(dim=1).min() > 1e-5
    if style == "mean":
        mean = model.space.mean.expand_as(codes)
        assert torch.equal(other, model.query_from(features, mean))
    else:  # without a style only the learned constants are left
        shuffled = model.query_from(features, codes.flip(0), style="zero")
        assert torch.equal(other, shuffled)


@torch.no_grad()
def test_constants_do_not_see_the_style(make_model, pixels, style_codes):
    model = make_model("vpt-deep")
    features, codes = model.prepare(pixels)
    assert codes is None and model.reader is None and model.space is None
    assert torch.equal(
        model.query_from(features, style_codes[:8]), model.query_from(features, None)
    )


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("zero-shot", {}),
        ("style-centred", {}),
        ("query-adapter", {}),
        ("vpt-shallow", {}),
        ("vpt-deep", {}),
        ("freestyle", {"query_map": "linear"}),
    ],
)
@torch.no_grad()
def test_embeddings_do_not_depend_on_the_batch(make_model, pictures, method, more):
    model = make_model(method, **more)
    alone = model.encode_query(pictures, batch_size=1)
    for size in (3, 8, 100):
        assert (model.encode_query(pictures, batch_size=size) - alone).abs().max() < 1e-4
    gallery = model.encode_gallery(pictures, batch_size=3)
    assert (gallery - model.encode_gallery(pictures, batch_size=1)).abs().max() < 1e-4
    texts = [f"number {i}" for i in range(5)]
    by_two = model.encode_text(texts, batch_size=2)
    assert (by_two - model.encode_text(texts)).abs().max() < 1e-4


def test_bf16_autocast(make_model, pixels):
    model = make_model()
    features, codes = model.prepare(pixels)
    plain = model.query_from(features, codes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.query_from(features, codes)
    assert mixed.dtype == torch.float32
    assert (mixed * plain).sum(dim=1).min() > 0.995
    assert (mixed - plain).abs().max() > 0  # it did compute in bf16
    assert (mixed.norm(dim=1) - 1).abs().max() < 1e-5
    (mixed * torch.linspace(-1, 1, 40)).sum().backward()
    grads = [p.grad for p in model.trained_parameters().values()]
    assert all(g is not None and g.isfinite().all() for g in grads)


@pytest.mark.parametrize("name", ["clip-tiny", "siglip-tiny", "blip-tiny"])
@torch.no_grad()
def test_gallery_and_text_are_the_frozen_encoders(make_model, pictures, name):
    model = make_model(encoder=f"random:{name}", query_map="linear")
    encoder = model.encoder
    pixels = torch.stack([encoder.preprocess(image) for image in pictures])
    assert torch.equal(model.encode_gallery(pictures), encoder.encode_image(pixels))
    texts = ["a red cat", "a boat"]
    assert torch.equal(model.encode_text(texts), encoder.encode_text(texts))
    own = F.normalize(encoder.embed_image(pixels), dim=-1)
    assert torch.equal(model.encode_gallery(pictures), own)
    assert not torch.equal(model.encode_query(pictures), own)


@torch.no_grad()
def test_zero_shot_queries_are_the_frozen_encoders(make_model, pictures):
    model = make_model("zero-shot")
    assert torch.equal(model.encode_query(pictures), model.encode_gallery(pictures))


@torch.no_grad()
def test_text_prompts_change_the_texts(make_model):
    model = make_model(text_tokens=3)
    texts = ["a red cat", "a boat"]
    found = model.encode_text(texts)
    assert (found - model.encoder.encode_text(texts)).abs().max() > 1e-5
    assert torch.equal(found, model.encoder.encode_text(texts, model.text_prompts))


def test_what_comes_out(make_model, pictures, tmp_path):
    model = make_model()
    width = model.encoder.embed_dim
    paths = []
    for number, image in enumerate(pictures[:3]):
        paths.append(tmp_path / f"{number}.png")
        image.save(paths[-1])
    found = model.encode_query(pictures[:3])
    assert found.shape == (3, width) and found.dtype == torch.float32
    assert found.device.type == "cpu" and not found.requires_grad
    assert (found.norm(dim=1) - 1).abs().max() < 1e-5
    assert torch.pdist(found).min() > 1e-3
    assert torch.equal(model.encode_query(paths), found)
    assert torch.equal(model.encode_query([str(path) for path in paths]), found)
    assert torch.allclose(model.encode_query(paths[0]), found[:1], atol=1e-5)
    assert torch.allclose(model.encode_query(pictures[0]), found[:1], atol=1e-5)
    assert torch.allclose(model.encode_text("a cat"), model.encode_text(["a cat"]))
    for encode in (model.encode_query, model.encode_gallery, model.encode_text):
        nothing = encode([])
        assert nothing.shape == (0, width) and nothing.dtype == torch.float32


def test_distinct_images_give_distinct_features(make_model, pictures):
    model = make_model()
    for found in (model.encode_query(pictures), model.encode_gallery(pictures)):
        assert torch.pdist(found).min() > 1e-3


def test_odd_pictures_are_embedded(make_model):
    model = make_model()
    odd = [Image.new("CMYK", (9, 30)), Image.new("L", (1, 1)), Image.new("RGBA", (50, 8))]
    found = model.encode_query(odd)
    assert found.shape == (3, 40) and found.isfinite().all()


def test_missing_picture(make_model, refusal):
    assert "nowhere.png" in refusal(make_model().encode_query, ["nowhere.png"])


@torch.no_grad()
def test_query_map_by_hand(make_model, pixels):
    """The map starts as the identity, is applied to unit-norm embeddings and can be left out."""
    model = make_model("query-adapter")
    features, codes = model.prepare(pixels)
    assert features.shape == (8, 40)
    plain = F.normalize(features, dim=-1)
    assert torch.allclose(model.query_from(features, codes), plain, atol=1e-6)
    torch.nn.init.normal_(model.query_map.linear.weight)
    torch.nn.init.normal_(model.query_map.linear.bias)
    mapped = plain @ model.query_map.linear.weight.T + model.query_map.linear.bias
    assert torch.allclose(model.query_from(features, codes), F.normalize(mapped, dim=-1), atol=1e-5)
    assert torch.allclose(model.query_from(features, codes, use_map=False), plain, atol=1e-6)


def test_train_mode_leaves_frozen_parts_alone(make_model):
    model = make_model().train()
    parts = [*model.encoder.modules(), *model.reader.modules()]
    assert not any(part.training for part in parts)
    assert not any(p.requires_grad for part in parts for p in part.parameters())


# -- saving ------------------------------------------------------------------------------------


def trained_model(make_model, pixels, method="freestyle", **more):
    model = make_model(method, **more)
    fit(model, pixels, steps=2)
    return model.eval()


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("freestyle", {"query_map": "linear", "text_tokens": 2, "split": 1}),
        ("vpt-shallow", {}),
        ("query-adapter", {}),
    ],
)
def test_round_trip_gives_the_same_embeddings(tmp_path, make_model, pixels, pictures, method, more):
    model = trained_model(make_model, pixels, method, **more)
    loaded = FreestyleRet.from_pretrained(model.save_pretrained(tmp_path / "m"))
    assert loaded.config == model.config
    assert not loaded.training
    assert torch.equal(loaded.encode_query(pictures), model.encode_query(pictures))
    assert torch.equal(loaded.encode_gallery(pictures), model.encode_gallery(pictures))
    assert torch.equal(loaded.encode_text(["a cat"]), model.encode_text(["a cat"]))


def test_style_centred_round_trip(tmp_path, make_model, pictures):
    model = make_model("style-centred")
    model.style_means.normal_()
    loaded = FreestyleRet.from_pretrained(model.save_pretrained(tmp_path / "m"))
    assert torch.equal(loaded.encode_query(pictures), model.encode_query(pictures))


def test_folder_holds_what_was_trained_and_no_backbone(tmp_path, make_model):
    from safetensors import safe_open

    model = make_model(query_map="linear")
    folder = model.save_pretrained(tmp_path / "m")
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert {name.split(".")[0] for name in names} == {"prompts", "query_map", "space"}
    assert names == set(model.trained_parameters()) | {
        f"space.{n}" for n in model.space.state_dict()
    }
    own = sum(math.prod(model.state_dict()[name].shape) for name in names)
    size = (folder / "model.safetensors").stat().st_size
    assert 4 * own < size < 4 * own + 8_000
    backbone = sum(p.numel() for p in model.encoder.parameters())
    assert size < backbone  # bytes against numbers: a quarter even of this tiny one
    readme = (folder / "README.md").read_text()
    assert "random:clip-tiny@seed0" in readme and readme.startswith("---\n")


def test_push_to_hub_uploads_the_folder(monkeypatch, make_model):
    import huggingface_hub

    calls = []

    class FakeApi:
        def __init__(self, token=None):
            calls.append(("token", token))

        def create_repo(self, repo_id, private, exist_ok):
            calls.append(("create", repo_id, private, exist_ok))
            return f"https://hub.example/{repo_id}"

        def upload_folder(self, repo_id, folder_path):
            from pathlib import Path

            names = sorted(p.name for p in Path(folder_path).iterdir())
            loaded = FreestyleRet.from_pretrained(folder_path)
            calls.append(("upload", repo_id, names, loaded.config.method))

    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    url = make_model().push_to_hub("me/mine", private=True, token="t")
    assert url == "https://hub.example/me/mine"
    assert calls == [
        ("token", "t"),
        ("create", "me/mine", True, True),
        ("upload", "me/mine", ["README.md", "config.json", "model.safetensors"], "freestyle"),
    ]


@torch.no_grad()
def test_untrained_adapters_and_copies_change_nothing(make_model, pixels):
    plain = make_model("zero-shot")
    expected = plain.query_from(*plain.prepare(pixels))
    for method, more in (("lora", {"tower": TowerConfig(rank=2)}), ("fine-tune", {})):
        model = make_model(method, **more)
        found = model.query_from(*model.prepare(pixels))
        assert torch.allclose(found, expected, atol=1e-5), method


def test_gates_make_the_adapters_depend_on_the_style(make_model, style_codes, pixels):
    gated = TowerConfig(rank=2, gate="gram", hidden=4)
    model = make_model(shallow="none", deep="none", tower=gated)
    fit(model, pixels, steps=3)
    features, _ = model.prepare(pixels[:1])
    with torch.no_grad():
        one, other = (model.query_from(features, c) for c in (style_codes[:1], style_codes[-1:]))
    assert (one - other).abs().max() > 1e-4


def test_a_tuned_tower_is_saved_without_the_encoders_weights(make_model, pixels, tmp_path):
    model = make_model("lora", tower=TowerConfig(rank=2))
    fit(model, pixels, steps=3)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 100_000
    again = FreestyleRet.from_pretrained(tmp_path, encoder=model.encoder)
    with torch.no_grad():
        expected = model.query_from(*model.prepare(pixels))
        assert torch.allclose(again.query_from(*again.prepare(pixels)), expected, atol=1e-6)
