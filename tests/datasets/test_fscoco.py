import shutil

import pytest

from freestyle.datasets import available_styles, open_split
from freestyle.datasets.lists import in_validation

HELD_OUT = ["1/000000001003", "2/000000002001", "2/000000002005"]


def test_published_splits(fscoco):
    split = open_split(fscoco, "val-normal")
    assert (split.dataset, split.relevance, split.styles) == (
        "fscoco",
        "instance",
        ("sketch", "text"),
    )
    assert list(split.gallery_ids) == HELD_OUT
    assert split.gallery[0] == fscoco / "images/1/000000001003.jpg"
    assert split.queries["sketch"].sources[1] == fscoco / "raster_sketches/2/000000002001.jpg"
    assert split.queries["text"].sources[2] == "scene 2/000000002005"
    train = open_split(fscoco, "train-normal", ["sketch"])
    assert train.n_gallery == 57 and not set(train.gallery_ids) & set(HELD_OUT)
    assert {name[0] for name in open_split(fscoco, "val-unseen", []).gallery_ids} == {"2"}
    assert {name[0] for name in open_split(fscoco, "train-unseen", []).gallery_ids} == {"1"}


def test_train_and_val_divide_the_published_training_set(fscoco):
    parts = {name: list(open_split(fscoco, name, []).gallery_ids) for name in ("train", "val")}
    assert parts["val"] and all(in_validation(name) for name in parts["val"])
    together = sorted(parts["train"] + parts["val"])
    assert together == list(open_split(fscoco, "train-normal", []).gallery_ids)
    test = open_split(fscoco, "test", []).gallery_ids
    assert list(test) == HELD_OUT
    assert open_split(fscoco, "test-unseen", []).n_gallery == 30


def test_styles(fscoco, write):
    assert available_styles(fscoco) == ["sketch"]
    for name in HELD_OUT:
        write.picture(fscoco / "art" / f"{name}.png")
    assert available_styles(fscoco) == ["art", "sketch"]
    split = open_split(fscoco, "test", ["art"])
    assert split.queries["art"].sources[0].suffix == ".png"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty"),
        ("1003\n9999\n", "line 2: '9999' has no photo"),
        ("1003\n1/1003\n", "line 2 lists '1/1003' again"),
        ("../1003\n", "line 1: '../1003' has no photo"),
    ],
)
def test_unusable_list(fscoco, refused, content, expected):
    (fscoco / "val_normal.txt").write_text(content)
    text = refused(open_split, fscoco, "test")
    assert str(fscoco / "val_normal.txt") in text and expected in text


def test_other_bad_input(fscoco, refused, write):
    assert "choose from train, val, test" in refused(open_split, fscoco, "dev")
    (fscoco / "raster_sketches/2/000000002001.jpg").unlink()
    assert "1 of 3 entries" in refused(open_split, fscoco, "test")
    write.picture(fscoco / "images/1/000000002005.jpg")
    assert "several users" in refused(open_split, fscoco, "test")
    (fscoco / "val_normal.txt").write_bytes(b"\xff")
    assert "not UTF-8" in refused(open_split, fscoco, "test")
    (fscoco / "val_normal.txt").unlink()
    assert "does not exist" in refused(open_split, fscoco, "test")
    shutil.rmtree(fscoco / "images")
    (fscoco / "images").mkdir()
    assert "holds no <user>/<id>.jpg" in refused(open_split, fscoco, "test")
