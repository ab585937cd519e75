"""Presets are what their formulas say; every method is a setting of one scorer."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from freestyle.transport.distance import conditional_transport
from freestyle.transport.presets import CONTROLS, PRESETS, Preset, preset_from
from freestyle.transport.scorer import ComposedScorer, QueryBlocks
from freestyle.transport.scoring import SetDistance, score_sets
from freestyle.transport.sets import Sets

E = 16


def unit(*shape, seed=0):
    return F.normalize(
        torch.randn(*shape, E, generator=torch.Generator().manual_seed(seed)), dim=-1
    )


@pytest.fixture
def blocks():
    names = ("captions", "reference-caption", "desired", "preserved", "forbidden")
    text = {name: Sets(unit(4, 3, seed=i)) for i, name in enumerate(names)}
    text["modification"] = Sets(unit(4, 1, seed=20))
    return QueryBlocks(text, Sets(unit(4, 5, seed=30)))


@pytest.fixture
def gallery():
    return Sets(unit(9, 6, seed=40))


def first(a, b):
    """Cosine of the first elements, less 1."""
    return a[:, 0] @ b[:, 0].T - 1


def test_there_is_one_of_each():
    named = "cosine stitch stitch-released maxsim seize sdr-cir pdv mulvec sum image-only text-only"
    assert set(PRESETS) == set(named.split())
    assert set(CONTROLS) == {"image-only", "text-only", "sum"}


def test_controls_are_plain_cosines(blocks, gallery):
    image, text, both = (
        ComposedScorer(CONTROLS[n]).score(blocks, gallery)
        for n in ("image-only", "text-only", "sum")
    )
    assert torch.allclose(image, first(blocks.reference.atoms, gallery.atoms), atol=1e-6)
    modification = blocks.text["modification"].atoms
    assert torch.allclose(text, first(modification, gallery.atoms), atol=1e-6)
    assert torch.allclose(both, image + text, atol=1e-6)


@pytest.mark.parametrize(("name", "temperature"), [("stitch", 0.02), ("stitch-released", 0.001)])
def test_stitch_is_transport_from_moved_captions(blocks, gallery, name, temperature):
    t, m = blocks.text["captions"].atoms, blocks.text["modification"].atoms
    moved = F.normalize(0.55 * t + 0.45 * m, dim=-1)
    similarity = torch.einsum("qke,gme->qgkm", moved, gallery.atoms)
    expected = conditional_transport(similarity, temperature=temperature)
    found = ComposedScorer(PRESETS[name]).score(blocks, gallery)
    assert torch.allclose(found, expected, atol=1e-5)
    maxsim = ComposedScorer(PRESETS["maxsim"]).score(blocks, gallery)
    if name == "stitch-released":  # 0.001 on cosines ranks as MaxSim does
        assert torch.equal(found.argsort(dim=1), maxsim.argsort(dim=1))


def test_seize(blocks, gallery):
    mean = SetDistance("mean")
    d, b = (
        score_sets(blocks.text[n].atoms, gallery.atoms, mean)
        for n in ("captions", "reference-caption")
    )
    expected = d + 2.1 * (d - b).clamp(max=0) + 0.13 * (d - b).clamp(min=0)
    assert torch.allclose(
        ComposedScorer(PRESETS["seize"]).score(blocks, gallery), expected, atol=1e-5
    )


def test_sdr_cir(blocks, gallery):
    mean, text = SetDistance("mean"), blocks.text
    mixed = F.normalize(
        0.85 * text["captions"].atoms + 0.15 * blocks.reference.atoms[:, :1], dim=-1
    )
    q, d, m = (
        score_sets(atoms, gallery.atoms, mean)
        for atoms in (mixed, text["captions"].atoms, text["modification"].atoms)
    )
    expected = 1.35 * q - 0.35 * (d - m)
    found = ComposedScorer(PRESETS["sdr-cir"]).score(blocks, gallery)
    assert torch.allclose(found, expected, atol=1e-5)


def test_pdv(blocks, gallery):
    composed = F.normalize(blocks.text["captions"].atoms.mean(dim=1), dim=-1)
    caption = F.normalize(blocks.text["reference-caption"].atoms.mean(dim=1), dim=-1)
    text = F.normalize(caption + 1.4 * (composed - caption), dim=-1)
    image = F.normalize(blocks.reference.atoms[:, 0] + composed - caption, dim=-1)
    expected = 0.5 * (text + image) @ gallery.atoms[:, 0].T - 1
    found = ComposedScorer(PRESETS["pdv"]).score(blocks, gallery)
    assert torch.allclose(found, expected, atol=1e-5)


def test_mulvec_pushes_forbidden_phrases_away(blocks, gallery):
    one_way = SetDistance("transport", 0.02, mix=1.0)
    signs = {"captions": 1.0, "desired": 0.5, "preserved": 0.3, "forbidden": -0.3}
    expected = sum(
        w * score_sets(blocks.text[n].atoms, gallery.atoms, one_way) for n, w in signs.items()
    )
    found = ComposedScorer(PRESETS["mulvec"]).score(blocks, gallery)
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_medium_step_moves_drawings_and_leaves_photos(blocks, gallery):
    photo, medium = unit(4, 1, seed=50), unit(4, 2, seed=51)
    medium[1] = 0  # the second reference is a photo: no words for its medium
    blocks.text |= {"as-photo": Sets(photo), "as-medium": Sets(medium)}
    preset = Preset("moved", {"reference": 1.0}, SetDistance("single"), medium_step=0.5)
    found = ComposedScorer(preset).score(blocks, gallery)
    own = blocks.reference.atoms[:, 0]
    way = photo[:, 0] - F.normalize(medium.mean(dim=1), dim=-1)
    moved = F.normalize(own + 0.5 * way, dim=-1)
    moved[1] = own[1]
    assert torch.allclose(found, moved @ gallery.atoms[:, 0].T - 1, atol=1e-5)


def test_single_reads_first_elements_alone(blocks, gallery):
    preset = PRESETS["stitch"].single()
    alone = QueryBlocks({n: Sets(s.atoms[:, :1]) for n, s in blocks.text.items()})
    found = ComposedScorer(preset).score(blocks, gallery)
    cut = ComposedScorer(PRESETS["stitch"]).score(alone, Sets(gallery.atoms[:, :1]))
    assert torch.allclose(found, cut, atol=1e-5)


@pytest.mark.parametrize("over", ["query", "block"])
def test_standardised_blocks_do_not_know_the_scale_of_cosines(blocks, gallery, over):
    preset = Preset("both", {"modification": 1.0, "reference": 0.5}, standardise=over)
    found = ComposedScorer(preset, sample=gallery).score(blocks, gallery)
    axis = 1 if over == "query" else None
    expected = 0
    for weight, sets in ((1.0, blocks.text["modification"]), (0.5, blocks.reference)):
        scores = score_sets(sets.atoms, gallery.atoms).numpy()
        mean, deviation = scores.mean(axis=axis), scores.std(axis=axis)
        if over == "query":
            mean, deviation = mean[:, None], deviation[:, None]
        expected = expected + weight * (scores - mean) / deviation
    assert np.allclose(found.numpy(), expected, atol=1e-3)
    with pytest.raises(ValueError, match="sample"):
        ComposedScorer(preset)


def test_columns_of_a_calibration_follow_the_texts(blocks, gallery):
    lower = torch.linspace(0, 1, 9)[:, None, None].expand(9, 6, 1)
    longer = Sets(torch.cat([gallery.atoms, lower], dim=2))
    finish = lambda atoms: torch.cat([atoms, -torch.ones(*atoms.shape[:-1], 1)], dim=-1)
    plain = ComposedScorer(PRESETS["text-only"]).score(blocks, gallery)
    found = ComposedScorer(PRESETS["text-only"], finish).score(blocks, longer)
    assert torch.allclose(found, plain - torch.linspace(0, 1, 9), atol=1e-5)


def test_presets_from_yaml(blocks, gallery):
    own = preset_from(
        {
            "name": "mine",
            "base": "stitch",
            "weights": {"target": 1.0, "reference": 0.5},
            "distance": {"name": "sinkhorn", "temperature": 0.1},
            "transition": 0.2,
        }
    )
    assert (own.name, own.transition, own.distance.temperature) == ("mine", 0.2, 0.1)
    assert ComposedScorer(own).score(blocks, gallery).isfinite().all()
    scratch = preset_from({"name": "x", "weights": {"reference": 1}, "picture_distance": None})
    assert scratch.picture_distance is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"base": "nothing"}, "unknown preset"),
        ({"base": "stitch", "wieghts": {}}, "unknown field"),
        ({"base": "stitch", "weights": {"picture": 1.0}}, "unknown block"),
        ({"base": "stitch", "weights": {"target": "much"}}, "numbers by block"),
        ({"base": "stitch", "weights": {"target": 0}}, "weighs no block"),
        ({"base": "stitch", "transition": 2.0}, "transition"),
        ({"base": "stitch", "transition": "far"}, "use a number"),
        ({"base": "stitch", "standardise": "always"}, "standardise"),
        ({"base": "stitch", "distance": {"name": "far"}}, "unknown set distance"),
        ({"name": "x"}, "give weights"),
    ],
)
def test_presets_that_cannot_be(refusal, values, said):
    assert said in refusal(preset_from, values)


def test_a_preset_names_what_the_captions_lack(blocks, gallery, refusal):
    del blocks.text["forbidden"]
    assert "forbidden" in refusal(ComposedScorer(PRESETS["mulvec"]).score, blocks, gallery)
    alone = QueryBlocks(blocks.text)
    assert "reference" in refusal(ComposedScorer(PRESETS["sum"]).score, alone, gallery)
