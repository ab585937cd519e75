"""Drawings of photos in synthetic styles: what they keep, what they change, what repeats."""

import pytest
import torch

from freestyle.synthetic import bend, draw, flat, lines, recolour


@pytest.fixture
def photo():
    """A red disc on white ``(3, 64, 64)``."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    inside = ((x - 32) ** 2 + (y - 32) ** 2 < 20**2).float()
    return torch.stack([torch.ones_like(inside), 1 - inside, 1 - inside])


def test_a_seed_gives_one_drawing_and_seeds_give_many(photo):
    assert torch.equal(draw(photo, 7), draw(photo, 7))
    drawn = torch.stack([draw(photo, seed) for seed in range(40)])
    assert drawn.shape == (40, 3, 64, 64) and drawn.min() >= 0 and drawn.max() <= 1
    assert len({picture.numpy().tobytes() for picture in drawn}) > 25
    kept = photo.clone()
    draw(photo, 3)
    assert torch.equal(photo, kept)


def test_grey_keeps_brightness_and_a_turned_hue_comes_back(photo):
    grey = recolour(photo[None], torch.zeros(()), torch.zeros(()))[0]
    luma = (torch.tensor([0.299, 0.587, 0.114])[:, None, None] * photo).sum(0)
    assert torch.allclose(grey, luma.expand(3, -1, -1), atol=1e-3)
    soft = 0.4 + 0.2 * photo[None]  # far from the limits of [0, 1]
    there = recolour(soft, torch.tensor(1.0), torch.ones(()))
    assert not torch.allclose(there, soft, atol=0.02)
    assert torch.allclose(recolour(there, torch.tensor(-1.0), torch.ones(())), soft, atol=1e-3)


def test_lines_are_dark_on_the_edge_alone(photo):
    drawn = lines(photo[None])[0]
    assert drawn[:, 32, 32].min() > 0.95 and drawn[:, 2, 2].min() > 0.95
    assert drawn[:, 32, 10:15].min() < 0.3  # the rim, left of the centre
    assert torch.equal(drawn[0], drawn[1])


def test_flat_has_few_colours(photo):
    noisy = (photo + 0.1 * torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))) / 1.1
    assert len(flat(noisy[None]).unique()) <= 5


def test_bend_moves_the_content_but_not_far(photo):
    bent = bend(photo[None], torch.Generator().manual_seed(1))[0]
    centre = lambda p: torch.nonzero(p[1] < 0.5).float().mean(0)
    assert not torch.allclose(bent, photo, atol=0.1)
    assert (centre(bent) - centre(photo)).abs().max() < 10
