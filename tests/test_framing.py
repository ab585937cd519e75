"""Queries cut to their content, and the two framings joined by the query's style."""

import pytest
import torch
import torch.nn.functional as F

from freestyle.config import FreestyleConfig, PromptConfig
from freestyle.errors import UserError
from freestyle.framing import MARGIN, frame, frame_at_once, view
from freestyle.query_map import QueryMap


def drawing(top: int, left: int, size: int, side: int = 80) -> torch.Tensor:
    """A dark square with a red half on a white sheet."""
    picture = torch.ones(3, side, side)
    picture[:, top : top + size, left : left + size] = 0.1
    picture[0, top : top + size, left : left + size // 2] = 0.9
    return picture


def test_a_drawing_is_the_same_wherever_it_stands_on_the_sheet():
    near, far = drawing(4, 6, 40), drawing(36, 30, 40)
    framed = frame(torch.stack([near, far]))
    assert not torch.allclose(near, far)
    assert (framed[0] - framed[1]).abs().mean() < 0.01


def test_content_fills_the_frame_up_to_its_margin():
    framed = frame(drawing(30, 30, 20)[None])[0]
    dark = (framed.amin(dim=0) < 0.5).nonzero()
    expected = 80 / (1 + 2 * MARGIN)
    for axis in (0, 1):
        extent = int(dark[:, axis].max() - dark[:, axis].min()) + 1
        assert extent == pytest.approx(expected, abs=4)


def test_a_photograph_and_an_empty_sheet_stay_as_they_are():
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    sheet = torch.full((3, 64, 64), 0.8)
    pictures = torch.stack([noise, sheet])
    assert torch.equal(frame(pictures), pictures)
    assert view(pictures, "whole") is pictures


def test_coloured_ground_is_ground_and_reaches_outside():
    picture = torch.zeros(3, 60, 60)
    picture[2] = 0.7  # blue
    picture[:, 0:20, 20:40] = 1.0  # touches the upper edge
    framed = frame(picture[None])[0]
    assert framed.shape == picture.shape
    assert torch.allclose(framed[:, -1, -1], torch.tensor([0.0, 0.0, 0.7]), atol=0.05)
    assert framed[:, 30, 30].min() > 0.95  # the content, now in the middle


@pytest.mark.parametrize("side", [16, 33, 80])
def test_one_graph_frames_as_picture_by_picture(side):
    generator = torch.Generator().manual_seed(side)
    pictures = [torch.rand(3, side, side, generator=generator), torch.full((3, side, side), 0.4)]
    for corner in ((0, 0), (side - 1, side // 2)):
        pictures.append(torch.ones(3, side, side))
        pictures[-1][:, corner[0], corner[1]] = 0.0
    for _ in range(60):
        ground = torch.rand(3, 1, 1, generator=generator)
        picture = ground.expand(3, side, side).clone()
        ends = torch.randint(0, side + 1, (2, 2), generator=generator).sort(dim=1).values.tolist()
        (top, bottom), (left, right) = ends
        content = torch.rand(3, bottom - top, right - left, generator=generator)
        picture[:, top:bottom, left:right] = content
        pictures.append(picture)
    pictures = torch.stack(pictures)
    expected = frame(pictures)
    assert (expected != pictures).flatten(1).any(dim=1).sum() > 40
    assert (frame_at_once(pictures) - expected).abs().max() < 1e-5


def test_each_picture_depends_on_itself_alone():
    pictures = torch.stack([drawing(4, 6, 40), drawing(20, 30, 22), torch.rand(3, 80, 80)])
    together = frame(pictures)
    for row, picture in zip(together, pictures, strict=True):
        assert torch.equal(frame(picture[None])[0], row)


def test_the_map_starts_as_the_mean_of_both_framings():
    torch.manual_seed(0)
    whole, framed = F.normalize(torch.randn(2, 5, 8), dim=-1)
    made = QueryMap(8, framings=2)(torch.cat([whole, framed], dim=1))
    expected = F.normalize(whole + framed, dim=-1)
    assert torch.allclose(F.normalize(made, dim=-1), expected, atol=1e-6)


def test_every_weight_of_a_map_over_two_framings_gets_a_gradient():
    torch.manual_seed(0)
    for query_map, codes in ((QueryMap(8, framings=2), None), (QueryMap(8, 4, framings=2), 4)):
        gram = None if codes is None else torch.randn(5, codes)
        query_map(torch.randn(5, 16), gram)[:, 0].sum().backward()
        for name, parameter in query_map.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_routing_follows_the_style():
    torch.manual_seed(0)
    query_map = QueryMap(8, code_dim=4, framings=2)
    torch.nn.init.normal_(query_map.routing.weight)
    x, codes = torch.randn(2, 16), torch.eye(4)[:2]
    shares = query_map.route(x, codes)
    assert torch.allclose(shares.sum(dim=1), torch.ones(2))
    assert not torch.allclose(shares[0], shares[1])
    shares.square().sum().backward()
    assert query_map.routing.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "given",
    [
        {"framing": "half"},
        {"framing": "both"},
        {"framing": "both", "query_map": "linear", "prompts": PromptConfig(shallow="learned")},
    ],
)
def test_framings_that_nothing_joins_are_refused(given):
    if "prompts" in given:
        given["prompts"] = PromptConfig(shallow="learned", deep="learned")
    with pytest.raises(UserError, match="framing is"):
        FreestyleConfig(**given)
