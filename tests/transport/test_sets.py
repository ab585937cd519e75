"""Pictures and texts as sets."""

import numpy as np
import pytest
import torch
from PIL import Image

from freestyle.datasets.composed import Cut, load_picture
from freestyle.transport.sets import SetEncoder, Sets, ragged
from freestyle.transport.views import WHOLE, Box, Views, content, element_boxes


def test_boxes_are_inside_and_the_first_is_the_whole():
    sizes = {"whole": 1, "grid": 10, "pyramid": 11, "random": 11}
    for kind, size in sizes.items():
        boxes = Views(kind, 11).boxes()
        assert len(boxes) == size and boxes[0] == WHOLE
        for box in boxes:
            assert 0 <= box.left < box.right <= 1 + 1e-9 and 0 <= box.top < box.bottom <= 1 + 1e-9
    assert len(Views("pyramid", 6).boxes()) == 6


def test_random_views_are_seeded():
    assert Views("random", 5, seed=3).boxes() == Views("random", 5, seed=3).boxes()
    assert Views("random", 5, seed=3).boxes() != Views("random", 5, seed=4).boxes()
    flips = [box.flip for box in Views("random", 40).boxes()[1:]]
    assert 5 < sum(flips) < 35


def test_a_box_cuts_and_mirrors():
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    image = Image.fromarray(pixels)
    assert np.array_equal(np.asarray(Box(0.5, 0, 1, 0.5).cut(image)), pixels[:2, 2:])
    assert np.array_equal(np.asarray(Box(0, 0, 1, 1, True).cut(image)), pixels[:, ::-1])
    assert WHOLE.cut(image) is image
    assert Box(0.9, 0.9, 0.95, 0.95).cut(Image.new("L", (2, 2))).size == (1, 1)


def test_blank_crops_of_a_sketch_weigh_nothing(make_model):
    sketch = Image.new("RGB", (64, 64), "white")
    sketch.paste((0, 0, 0), (4, 4, 20, 20))
    assert content(sketch.crop((32, 32, 64, 64))) == 0.0
    half = Image.new("L", (8, 8))
    half.paste(255, (0, 0, 4, 8))
    assert content(half) == pytest.approx(1.0)  # two greys, equally often: one bit
    encoder = SetEncoder(make_model("zero-shot"), Views("grid", 5, weights="content"))
    found = encoder.photos([sketch, Image.new("RGB", (64, 64), "white")])
    assert found.weights[0, 0] > 0 and found.weights[0, 1] > 0
    assert found.weights[0, 2:].tolist() == [0, 0, 0]
    assert torch.allclose(found.weights.sum(dim=1), torch.ones(2))
    assert torch.allclose(found.weights[1], torch.full((5,), 0.2))  # nothing anywhere: all alike


def test_the_first_element_is_the_plain_embedding(make_model, pictures):
    model = make_model("query-adapter", query_map="linear")
    encoder = SetEncoder(model, Views("grid", 5))
    found = encoder.photos(pictures)
    assert found.atoms.shape == (8, 5, model.encoder.embed_dim)
    assert torch.allclose(found.atoms[:, 0], model.encode_gallery(pictures), atol=1e-5)
    queries = encoder.queries(pictures[:3])
    assert torch.allclose(queries.atoms[:, 0], model.encode_query(pictures[:3]), atol=1e-5)
    corner = pictures[1].crop((0, 0, 20, 20))
    assert torch.allclose(found.atoms[1, 1], model.encode_gallery([corner])[0], atol=1e-5)


def test_a_prompted_gallery_embeds_the_views_itself(make_model, pictures, refusal):
    model = make_model("freestyle", gallery="prompted")
    found = SetEncoder(model, Views("grid", 5)).photos(pictures[:3])
    assert torch.allclose(found.atoms[:, 0], model.encode_gallery(pictures[:3]), atol=1e-5)
    plain = SetEncoder(make_model("zero-shot"), Views("grid", 5)).photos(pictures[:3])
    assert not torch.allclose(found.atoms, plain.atoms, atol=1e-3)
    assert "patches" in refusal(SetEncoder, model, Views("patches"), Views("whole"))


def test_patches_are_pooled(make_model, pictures):
    model = make_model("zero-shot")
    all_patches = SetEncoder(model, Views("patches", 1000)).photos(pictures[:2])
    pooled = SetEncoder(model, Views("patches", 5)).photos(pictures[:2])
    side = round((all_patches.atoms.shape[1] - 1) ** 0.5)
    assert side * side == all_patches.atoms.shape[1] - 1 and pooled.atoms.shape[1] == 5
    assert torch.allclose(pooled.atoms[:, 0], model.encode_gallery(pictures[:2]), atol=1e-5)
    assert torch.allclose(pooled.atoms.norm(dim=-1), torch.ones(2, 5), atol=1e-5)
    assert len(element_boxes(Views("patches", 5), 5)) == 5


def test_sets_on_disk_go_on_and_know_the_content(make_model, make_picture, tmp_path, monkeypatch):
    import freestyle.transport.atom_cache as atom_cache

    monkeypatch.setattr(atom_cache, "PART", 2)
    paths = []
    for i in range(5):
        paths.append(tmp_path / f"{i}.png")
        make_picture(i).save(paths[-1])
    encoder = SetEncoder(make_model("zero-shot"), Views("grid", 5), cache=tmp_path / "sets")
    calls = []
    plain = encoder._frozen
    monkeypatch.setattr(
        encoder, "_frozen", lambda images: calls.append(len(images)) or plain(images)
    )
    first = encoder.photos(paths)
    assert sum(calls) == 25
    files = sorted((tmp_path / "sets").iterdir())
    assert len(files) == 3
    files[0].write_bytes(b"half a fi")  # a part that was cut short is embedded anew
    files[1].unlink()
    calls.clear()
    again = encoder.photos(paths)
    assert torch.equal(first.atoms, again.atoms) and 0 < sum(calls) < 25
    make_picture(9).save(paths[0])
    assert not torch.equal(encoder.photos(paths).atoms[0], first.atoms[0])


def test_half_precision_gallery(make_model, pictures):
    encoder = SetEncoder(make_model("zero-shot"), Views("grid", 5), dtype=torch.float16)
    assert encoder.photos(pictures).atoms.dtype == torch.float16


def test_ragged_sets_share_weight_among_what_is_there():
    found = ragged([torch.ones(2, 3), torch.ones(0, 3), torch.ones(1, 3)], 3)
    assert found.atoms.shape == (3, 2, 3)
    assert found.weights.tolist() == [[0.5, 0.5], [1, 0], [1, 0]]
    assert found.atoms[1].abs().sum() == 0
    with pytest.raises(ValueError, match="weights"):
        Sets(torch.zeros(2, 3, 4), torch.zeros(2, 2))


def test_cuts_are_as_genecis_makes_them(tmp_path):
    whole = np.zeros((100, 200, 3), dtype=np.uint8)
    whole[40:60, 100:140] = 200
    Image.fromarray(whole).save(tmp_path / "a.png")
    # box 40 x 20 at (100, 40), dilated by 0.7: left 72, top 26, right 72 + 68, bottom 26 + 34
    part = load_picture(Cut(tmp_path / "a.png", (100, 40, 40, 20)))
    assert part.size == (68, 68)
    values = np.asarray(part)
    assert values[:17].max() == 0 and values[-17:].max() == 0  # padded to a square
    assert values[17 + 14, 28].tolist() == [200, 200, 200]
    assert values[17 + 14, 27].tolist() == [0, 0, 0]


def test_settings_that_cannot_be(refusal, make_model):
    assert "unknown views" in refusal(Views, "spiral")
    assert "count" in refusal(Views, "grid", 0)
    assert "weights" in refusal(Views, weights="heavy")
    assert "patches" in refusal(Views, "patches", weights="content")
    encoder = SetEncoder(make_model("zero-shot"), Views("whole"))
    assert "no pictures" in refusal(encoder.photos, [])
    assert "missing.png" in refusal(encoder.photos, ["missing.png"])
