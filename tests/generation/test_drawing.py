"""Low resolution, sketches and classical art: what each does to a picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from freestyle.generation import strokes
from freestyle.generation.engine import Item
from freestyle.generation.lowres import LowRes, LowResSettings, lower
from freestyle.generation.npr import LOOKS, Npr, NprSettings, paint, palette, quantise
from freestyle.generation.sketch import SketchSettings, draw, edge_map, keep_some, xdog


@pytest.fixture
def square() -> np.ndarray:
    """A dark square on light ground, (128, 160, 3)."""
    pixels = np.full((128, 160, 3), 230, dtype=np.uint8)
    pixels[32:96, 48:112] = (40, 60, 90)
    return pixels


def test_mosaic_is_a_bilinear_shrink_by_16_and_nearest_back(make_photo):
    pixels = np.asarray(make_photo(3, 96, 64))
    made = lower(pixels, LowResSettings())
    assert made.shape == pixels.shape
    blocks = made.reshape(4, 16, 6, 16, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()  # one colour a block
    # without antialiasing: the mean of the four pixels around the block's centre
    centre = pixels.reshape(4, 16, 6, 16, 3)[:, 7:9, :, 7:9].astype(float).mean(axis=(1, 3))
    assert np.abs(blocks[:, 0, :, 0] - centre).max() <= 0.51


def test_other_low_resolutions(make_photo, refusal):
    pixels = np.asarray(make_photo(3, 96, 64))
    area = lower(pixels, LowResSettings(factor=8, shrink="area", keep_size=False))
    assert area.shape == (8, 12, 3)
    means = pixels.reshape(8, 8, 12, 8, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(area - means).max() <= 0.51
    noisy = LowResSettings(noise=20.0)
    assert (lower(pixels, noisy, 1) != lower(pixels, noisy, 2)).any()
    assert (lower(pixels, noisy, 1) == lower(pixels, noisy, 1)).all()
    coarse = lower(pixels, LowResSettings(factor=2, jpeg=1, keep_size=False))
    assert np.abs(coarse.astype(int) - lower(pixels, LowResSettings(2, keep_size=False))).mean() > 5
    assert lower(pixels[:5, :7], LowResSettings()).shape == (5, 7, 3)
    for wrong in ({"factor": 0}, {"shrink": "magic"}, {"noise": -1.0}, {"jpeg": 96}):
        refusal(LowResSettings, **wrong)


def test_edges_lie_on_the_square_and_strokes_follow_them(square):
    edges = edge_map(square, 1.0)
    rows, columns = np.nonzero(edges)
    near = (
        [min(abs(v - e) for e in (32, 96)) for v in rows],
        [min(abs(v - e) for e in (48, 112)) for v in columns],
    )
    assert all(min(a, b) <= 2 for a, b in zip(*near, strict=True))
    (outline,) = strokes.trace(edges, 10)
    assert 4 * 64 * 0.9 < len(outline) < 4 * 64 * 1.1
    assert np.abs(np.diff(outline, axis=0)).max() <= 1  # no jumps
    corners = strokes.simplify(outline, 3)
    assert 4 <= len(corners) <= 7
    assert len(strokes.smooth(corners)) > len(corners)


def test_branches_cut_lines_and_specks_go():
    edges = np.zeros((40, 40), dtype=bool)
    edges[20, 5:35] = edges[5:35, 20] = True
    edges[2, 2:5] = True
    arms = strokes.trace(edges, 6)
    assert 2 <= len(arms) <= 4 and 56 <= sum(len(arm) for arm in arms) <= 60
    assert all(np.abs(np.diff(arm, axis=0)).max() <= 1 for arm in arms)
    assert strokes.trace(np.zeros((9, 9), dtype=bool), 2) == []


def test_wobble_moves_and_pen_draws():
    line = np.stack([np.arange(60.0), np.full(60, 20.0)], axis=1).astype(np.float32)
    random = np.random.default_rng(0)
    moved = strokes.wobble(line, 3.0, random)
    assert moved.shape == line.shape and 0.3 < np.abs(moved - line).mean() < 12
    assert strokes.wobble(line, 0.0, random) is line
    thin, thick = (strokes.render([line], (40, 60), width) for width in (1.0, 4.0))
    assert (thick < 128).sum() > 2.5 * (thin < 128).sum() > 0
    faint = strokes.render([line], (40, 60), 4.0, [0.3])
    assert 160 < faint[20, 30] < 200


def test_sketches_are_lines_on_white(square, make_photo):
    for kind in ("lines", "canny", "xdog"):
        drawn = draw(square, SketchSettings(kind=kind))
        assert drawn.shape == square.shape[:2]
        assert drawn[:20].min() == 255 and drawn[60, 40:56].min() < 160  # ground, left edge
    whole = draw(square, SketchSettings(shortest=4.0))
    partial = draw(square, SketchSettings(drop=0.6), 1)
    assert (partial < 128).sum() <= (whole < 128).sum()
    pixels = np.asarray(make_photo(5, 256, 200))
    clumsy = [draw(pixels, SketchSettings(jitter=4.0), seed) for seed in (0, 0, 1)]
    assert (clumsy[0] == clumsy[1]).all() and (clumsy[0] != clumsy[2]).any()
    ink = xdog(pixels, 1.0)
    assert ink.dtype.kind == "f" and ink.min() >= 0 and ink.max() <= 1


def test_dropping_takes_the_asked_share_of_the_length():
    lines = [np.zeros((n, 2), dtype=np.float32) for n in (40, 30, 20, 10, 10, 10)]
    for drop in (0.25, 0.5, 0.9):
        kept = keep_some(lines, drop, np.random.default_rng(1))
        gone = 1 - sum(map(len, kept)) / 120
        assert drop <= gone < drop + 40 / 120 or len(kept) == 1
    assert keep_some(lines, 0.0, np.random.default_rng(1)) is lines


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (17, 5), (64, 48)])
def test_pictures_of_any_size(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for look in LOOKS:
        painted, _ = paint(pixels, NprSettings(looks=(look,)), 3)
        assert painted.shape == pixels.shape and painted.dtype == np.uint8
    for kind in ("lines", "canny", "xdog"):
        assert draw(pixels, SketchSettings(kind=kind)).shape == pixels.shape[:2]
    assert lower(pixels, LowResSettings()).shape == pixels.shape


@pytest.mark.parametrize("look", LOOKS)
def test_looks_change_texture_but_keep_the_scene(look, make_photo):
    pixels = np.asarray(make_photo(8, 256, 200))
    made = [paint(pixels, NprSettings(looks=(look,)), seed)[0] for seed in (5, 5)]
    assert (made[0] == made[1]).all()
    change = np.abs(made[0].astype(int) - pixels).mean()
    assert change > 4
    small = [np.asarray(Image.fromarray(p).convert("L").resize((12, 9))) for p in (pixels, made[0])]
    assert np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > 0.7


def test_palette_holds_few_colours_of_the_picture(square):
    painted = quantise(square, 2)
    colours = np.unique(painted.reshape(-1, 3), axis=0)
    assert len(colours) == 2
    assert np.abs(colours.astype(int) - [[40, 60, 90], [230] * 3]).max() <= 6
    assert palette(square, 5).shape == (5, 3)
    many = quantise(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8), 6)
    assert len(np.unique(many.reshape(-1, 3), axis=0)) <= 6


def test_seeds_choose_looks_and_engines_take_batches(make_photo, refusal):
    items = [Item(str(n), make_photo(n, 64, 48), None, n) for n in range(4)]
    made = Npr(NprSettings(looks=("oil", "tiles")))(items)
    assert [m.details["look"] for m in made] == ["oil", "tiles", "oil", "tiles"]
    assert [m.picture.size for m in LowRes(LowResSettings())(items)] == [(64, 48)] * 4
    for wrong in ({"looks": ("baroque",)}, {"looks": ()}, {"colours": 1}, {"brush": 0.0}):
        refusal(NprSettings, **wrong)
    for wrong in ({"kind": "chalk"}, {"drop": 1.0}, {"thickness": 0.0}, {"jitter": -1.0}):
        refusal(SketchSettings, **wrong)
