"""Prompted galleries in an evaluation: each model ranks photos as it embeds them."""

import shutil

import pytest
import torch
import torch.nn.functional as F

from freestyle import FreestyleRet
from freestyle.config import CalibrationConfig
from freestyle.datasets.readers import open_split
from freestyle.evaluation.embed import Embedder, Variant
from freestyle.evaluation.models import evaluate_models, rank_embeddings
from freestyle.frozen import shared_memory

STYLES = ["sketch", "art", "mosaic"]


@pytest.fixture
def model(make_model):
    model = make_model(query_map="linear", gallery="prompted")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def frozen(model):
    return FreestyleRet.from_encoder("random:clip-tiny", encoder=model.encoder)


@pytest.fixture(scope="module")
def split(dsr):
    return open_split(dsr, "train", [*STYLES, "text"])


def loop(model, split, name, **how):
    """Ranks by plain calls, one query at a time."""
    queries = model.encode_query(split.queries[name].sources, **how)
    photos = model.encode_gallery(split.gallery, use_map=how.get("use_map", True))
    ranks = []
    for row, query in enumerate(queries):
        scores = (photos.double() @ query.double()).tolist()
        ranks.append(1 + sum(score > scores[row] for score in scores))
    return ranks


def test_ranks_are_those_of_a_plain_loop(model, frozen, split, tmp_path):
    variants = {
        "frozen": Variant(frozen),
        "own": Variant(model),
        "mean": Variant(model, style="mean"),
        "map off": Variant(model, use_map=False),
    }
    found = evaluate_models(variants, split, STYLES, cache_dir=tmp_path / "codes")
    for style in STYLES:
        expected = {
            "frozen": loop(frozen, split, style),
            "own": loop(model, split, style),
            "mean": loop(model, split, style, style="mean"),  # of the query; photos keep theirs
            "map off": loop(model, split, style, use_map=False),
        }
        for name, ranks in expected.items():
            assert found.outcomes[name][style].ranks.values.tolist() == ranks, (name, style)
    assert loop(frozen, split, "art") != loop(model, split, "art")


def test_photos_are_embedded_once_per_model_and_map(model, frozen, split, tmp_path):
    variants = {
        "frozen": Variant(frozen),
        "own": Variant(model),
        "shuffled": Variant(model, style="shuffled"),
        "map off": Variant(model, use_map=False),
    }
    found = Embedder(variants, cache_dir=tmp_path).embed(split, ["sketch", "text"])
    assert found.photos("frozen") is found.gallery
    torch.testing.assert_close(found.gallery, frozen.encode_gallery(split.gallery))
    assert found.photos("own") is found.photos("shuffled")
    assert found.photos("own") is not found.photos("map off")
    assert (found.photos("own") - found.photos("map off")).abs().max() > 1e-3
    # Cached style codes are half precision.
    expected = model.encode_gallery(split.gallery)
    torch.testing.assert_close(found.photos("own"), expected, atol=2e-3, rtol=0)


def test_a_change_of_the_queries_leaves_photos_alone(model, split, tmp_path):
    variants = {"own": Variant(model)}
    with shared_memory():
        plain = Embedder(variants, cache_dir=tmp_path).embed(split, ["sketch"])
        turned = Embedder(variants, cache_dir=tmp_path, change="rotate:45").embed(split, ["sketch"])
    assert torch.equal(plain.photos("own"), turned.photos("own"))
    assert not torch.equal(plain.queries["own"]["sketch"], turned.queries["own"]["sketch"])


def test_calibration_lowers_the_photos_as_they_are_embedded(make_model, split, tmp_path):
    model = make_model(
        "vpt-deep", gallery="prompted", calibration=CalibrationConfig(gate="none", strength=1.0)
    )
    bank = model.encode_query(split.queries["art"].sources)
    model.calibration.fit([bank], None, None, F.normalize(bank.flip(0), dim=1))
    variants = {"own": Variant(model)}
    found = Embedder(variants, cache_dir=tmp_path).embed(split, ["sketch"])
    torch.testing.assert_close(found.photos("own"), model.encode_gallery(split.gallery))
    _, outcomes = rank_embeddings(variants, found, ["sketch"])
    assert outcomes["own"]["sketch"].ranks.values.tolist() == loop(model, split, "sketch")


def test_unreadable_photos_go_from_both_galleries(model, frozen, dsr, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(dsr, root)
    (root / "images" / "34.png").write_bytes(b"no picture")
    (root / "sketch" / "36.png").write_bytes(b"no picture")
    split = open_split(root, "test", ["sketch", "art"])
    variants = {"frozen": Variant(frozen), "own": Variant(model), "mean": Variant(model, "mean")}
    embedder = Embedder(variants, cache_dir=tmp_path / "codes", on_broken="skip")
    found = embedder.embed(split, ["sketch", "art"])
    kept = [path for path in split.gallery if path.stem not in ("34", "36")]
    assert found.split.n_gallery == len(found.gallery) == len(found.photos("own")) == 6
    assert found.photos("own") is found.photos("mean")
    expected = model.encode_gallery(kept)
    torch.testing.assert_close(found.photos("own"), expected, atol=2e-3, rtol=0)
