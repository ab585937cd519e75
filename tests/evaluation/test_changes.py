"""Changes of query pictures: what each does, and that photos stay."""

import pytest
import torch

from freestyle.evaluation.changes import CHANGES, parse_change
from freestyle.evaluation.embed import Embedder
from freestyle.evaluation.variants import Variant


@pytest.fixture
def stroke():
    """A vertical black stroke three pixels wide on white ``(3, 160, 160)``."""
    picture = torch.ones(3, 160, 160)
    picture[:, 40:120, 79:82] = 0
    return picture


def ink(picture):
    return (picture < 0.5).float().mean(0)


def test_strokes_grow_and_shrink_by_the_pixels_asked_for(stroke):
    assert int(ink(parse_change("thicker:2")(stroke))[80].sum()) == 3 + 4
    assert int(ink(parse_change("thinner:1")(stroke))[80].sum()) == 1


def test_a_shift_moves_right_and_down_and_white_comes_in(stroke):
    moved = ink(parse_change("shift:10")(stroke))
    rows, columns = moved.nonzero(as_tuple=True)
    assert rows.min() == 56 and columns.float().mean() == pytest.approx(80 + 16, abs=0.6)


def test_a_quarter_turn_is_exact(stroke):
    turned = parse_change("rotate:90")(stroke)
    assert torch.allclose(turned, torch.rot90(stroke, 1, (1, 2)), atol=1e-4)


def test_low_res_keeps_the_mean_and_loses_the_detail(stroke):
    low = parse_change("low-res:8")(stroke)
    assert low.mean() == pytest.approx(float(stroke.mean()), abs=2e-3)
    assert low.std() < stroke.std()


def test_a_lower_jpeg_quality_is_farther_off(stroke):
    picture = stroke * torch.rand(3, 160, 160, generator=torch.Generator().manual_seed(0))
    error = [(parse_change(f"jpeg:{q}")(picture) - picture).abs().mean() for q in (90, 5)]
    assert 0 < error[0] < error[1]


@pytest.mark.parametrize("name", [f"{key}:{example}" for key, (_, example, _) in CHANGES.items()])
def test_every_change_keeps_shape_and_range(name, stroke):
    kept = stroke.clone()
    changed = parse_change(name)(stroke)
    assert changed.shape == stroke.shape and torch.equal(stroke, kept)
    assert changed.min() >= -1e-6 and changed.max() <= 1 + 1e-6
    assert not torch.equal(changed, stroke)


@pytest.mark.parametrize("name", ["melt:3", "rotate", "rotate:0", "jpeg:99", "shift:-5"])
def test_unknown_changes(refusal, name):
    assert name in refusal(parse_change, name)


def test_queries_change_and_photos_do_not(make_model, dsr, tmp_path):
    from freestyle.datasets.readers import open_split

    split = open_split(dsr, "test", ["sketch"])
    variants = {"own": Variant(make_model())}
    plain = Embedder(variants, cache_dir=tmp_path).embed(split, ["sketch"])
    turned = Embedder(variants, cache_dir=tmp_path, change="rotate:90").embed(split, ["sketch"])
    assert torch.equal(plain.gallery, turned.gallery)
    assert not torch.allclose(
        plain.queries["own"]["sketch"], turned.queries["own"]["sketch"], atol=1e-3
    )
