"""Photos that take the queries' path: a setting of the model, saved with it."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from freestyle import FreestyleRet
from freestyle.config import CalibrationConfig, FreestyleConfig, TowerConfig

PATHS = {
    "tokens": ("freestyle", {}),
    "tokens and map": ("freestyle", {"query_map": "styled"}),
    "map": ("query-adapter", {}),
    "gated adapters": (
        "freestyle",
        {"shallow": "none", "deep": "none", "tower": TowerConfig(rank=2, gate="gram", hidden=4)},
    ),
    "full tower": ("fine-tune", {}),
}


def moved(model):
    """The same model with every trained number a little elsewhere."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("name", PATHS)
def test_photos_are_embedded_as_queries_are(make_model, pictures, name):
    method, more = PATHS[name]
    model = moved(make_model(method, gallery="prompted", **more))
    photos = model.encode_gallery(pictures)
    assert torch.equal(photos, model.encode_query(pictures))
    frozen = moved(make_model(method, **more))
    assert torch.equal(frozen.encode_query(pictures), photos)
    untouched = FreestyleRet.from_encoder("random:clip-tiny", encoder=model.encoder)
    assert torch.equal(frozen.encode_gallery(pictures), untouched.encode_gallery(pictures))
    assert (photos - frozen.encode_gallery(pictures)).abs().amax(dim=1).min() > 1e-3


def test_a_photos_embedding_depends_on_its_style(make_model, pictures):
    own, mean = (
        moved(make_model(gallery="prompted", codes=codes)).encode_gallery(pictures)
        for codes in ("own", "mean")
    )
    assert (own - mean).abs().amax(dim=1).min() > 1e-5


def test_the_map_can_be_left_out_for_photos_too(make_model, pictures):
    model = moved(make_model("freestyle", query_map="linear", gallery="prompted"))
    plain = model.encode_gallery(pictures, use_map=False)
    assert torch.equal(plain, model.encode_query(pictures, use_map=False))
    assert (plain - model.encode_gallery(pictures)).abs().max() > 1e-3


@pytest.mark.parametrize("name", PATHS)
def test_gradients_arrive_through_photos_alone(make_model, pixels, name):
    method, more = PATHS[name]
    model = moved(make_model(method, gallery="prompted", **more))
    photos = model.photos_from(pixels)
    (photos * F.normalize(torch.linspace(-1, 1, 40), dim=0)).sum().backward()
    gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    assert set(gradients) == set(model.trained_parameters())
    assert all(g.abs().sum() > 0 for g in gradients.values())


def test_the_calibration_reads_the_photos_as_they_are_embedded(make_model, pictures):
    model = moved(
        make_model("vpt-deep", gallery="prompted", calibration=CalibrationConfig(gate="none"))
    )
    plain = model.encode_gallery(pictures)
    model.calibration.fit([F.normalize(torch.randn(9, 40), dim=1)], None, None, None)
    found = model.encode_gallery(pictures)
    assert torch.equal(found[:, :40], plain)
    assert torch.equal(found[:, 40:], model.calibration.photo_terms(plain))


def test_texts_stay(make_model):
    model = moved(make_model(gallery="prompted"))
    texts = ["a red cat", "a boat"]
    assert torch.equal(model.encode_text(texts), model.encoder.encode_text(texts))


def test_it_is_saved_and_folders_without_the_setting_are_frozen(make_model, pictures, tmp_path):
    model = moved(make_model(gallery="prompted"))
    folder = model.save_pretrained(tmp_path)
    again = FreestyleRet.from_pretrained(folder)
    assert again.config.gallery == "prompted"
    assert torch.equal(again.encode_gallery(pictures), model.encode_gallery(pictures))
    assert "does not fit" in (folder / "README.md").read_text()
    path = folder / "config.json"
    values = json.loads(path.read_text())
    del values["gallery"]
    path.write_text(json.dumps(values))
    old = FreestyleRet.from_pretrained(folder)
    assert old.config.gallery == "frozen"
    assert torch.equal(old.encode_query(pictures), model.encode_query(pictures))
    frozen = make_model().encode_gallery(pictures)
    assert torch.equal(old.encode_gallery(pictures), frozen)


@pytest.mark.parametrize(
    ("method", "more", "named"),
    [
        ("zero-shot", {}, "trains nothing that a photo passes through"),
        ("style-centred", {}, "trains nothing that a photo passes through"),
        ("freestyle", {"shallow": "none", "deep": "none", "text_tokens": 2}, "trains nothing"),
        ("freestyle", {"codes": "shuffled"}, "prompts.codes to 'mean'"),
    ],
)
def test_what_makes_no_sense_is_refused(make_model, refusal, method, more, named):
    assert named in refusal(make_model, method, gallery="prompted", **more)


def test_an_unknown_gallery_is_refused(refusal):
    assert "frozen, prompted" in refusal(FreestyleConfig, gallery="warm")
