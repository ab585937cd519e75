"""The DSR layout, and what all layouts share: lists, folders, layout recognition."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from freestyle.datasets import available_styles, load_image, open_split
from freestyle.datasets.lists import in_validation, iterate_json

STYLES = ["sketch", "mosaic", "text"]


def test_opens_nested_paths(dsr):
    split = open_split(dsr, "test", STYLES)
    assert (split.dataset, split.split, split.root) == ("tiny", "test", dsr)
    assert (split.relevance, split.styles) == ("instance", tuple(STYLES))
    assert list(split.gallery_ids) == ["a/1", "a/2", "b/1.x"]
    assert list(split.gallery) == [
        dsr / "images" / name for name in ("a/1.jpg", "a/2.jpg", "b/1.x.jpg")
    ]
    assert split.queries["sketch"].sources[2] == dsr / "sketch/b/1.x.png"
    assert split.queries["mosaic"].sources[0] == dsr / "mosaic/a/1.JPG"
    assert next(iter(split.queries["text"].sources)) == "caption of a/1"
    for queries in split.queries.values():
        assert queries.groups.tolist() == [0, 1, 2]
        assert list(queries.ids) == list(split.gallery_ids)
    assert [load_image(path).size for path in split.gallery] == [(2, 2)] * 3
    assert len(split.aligned(["sketch", "text"])) == 2


def test_flat_folder_and_name(tmp_path, write):
    write.picture(tmp_path / "images/1.png")
    write.caption(tmp_path / "text/one.txt", "\ufeffa caption  \r\nsecond")
    write.caption(tmp_path / "text/1.txt", "by stem")
    write.json(tmp_path / "test.json", [{"image": "1.png", "caption": "one.txt"}])
    split = open_split(str(tmp_path), "test", name="my-set")
    assert split.dataset == "my-set" and split.styles == ("text",)
    assert list(split.queries["text"].sources) == ["a caption"]
    write.json(tmp_path / "test.json", [{"image": "1.png"}])
    assert list(open_split(tmp_path, "test").queries["text"].sources) == ["by stem"]


def test_only_requested_styles_need_files(dsr, refused):
    assert available_styles(dsr) == ["art", "mosaic", "sketch"]
    assert open_split(dsr, "test", []).styles == ()
    assert open_split(dsr, "test", ["text", "sketch", "text"]).styles == ("text", "sketch")
    text = refused(open_split, dsr, "test")  # None opens art too
    assert "2 of 3 entries" in text and "style art" in text and "'a/2'" in text
    assert str(dsr / "art/a/2") in text
    shutil.rmtree(dsr / "art")
    assert open_split(dsr, "test").styles == ("mosaic", "sketch", "text")
    shutil.rmtree(dsr / "text")
    assert open_split(dsr, "test").styles == ("mosaic", "sketch")
    assert "Unknown style 'text'" in refused(open_split, dsr, "test", ["text"])


def test_validation_is_carved_by_hash(dsr):
    stems = [f"t/{number}" for number in range(40)]
    held_out = [stem for stem in stems if in_validation(stem)]
    assert 0 < len(held_out) < 10
    assert list(open_split(dsr, "val", STYLES).gallery_ids) == held_out
    train = open_split(dsr, "train", STYLES)
    assert list(train.gallery_ids) == [stem for stem in stems if stem not in held_out]
    assert train.queries["text"].sources[0] == f"caption of {train.gallery_ids[0]}"


def test_a_validation_list_is_used_where_there_is_one(dsr, write):
    write.json(dsr / "val.json", [{"image": "a/1.jpg"}])
    assert list(open_split(dsr, "val", STYLES).gallery_ids) == ["a/1"]
    assert open_split(dsr, "train", STYLES).n_gallery == 40


def test_share_held_out():
    assert sum(in_validation(str(number)) for number in range(20_000)) == pytest.approx(
        1000, abs=100
    )


def test_split_pickles_and_subsets(dsr):
    split = pickle.loads(pickle.dumps(open_split(dsr, "test", STYLES)))
    assert split.gallery[0] == dsr / "images/a/1.jpg" and split.gallery[-1].name == "1.x.jpg"
    part = split.subset([2, 0])
    assert list(part.gallery_ids) == ["b/1.x", "a/1"]
    assert part.queries["sketch"].sources[0] == dsr / "sketch/b/1.x.png"
    assert part.queries["text"].sources[1] == "caption of a/1"
    assert list(split.gallery[1:]) == list(split.gallery)[1:]


def test_missing_folders_and_lists(dsr, tmp_path, refused):
    assert "does not exist" in refused(open_split, tmp_path / "none", "test")
    assert "is no folder" in refused(open_split, dsr / "test.json", "test")
    text = refused(open_split, tmp_path, "test")
    assert "no images/" in text and "tiny" in text
    text = refused(open_split, dsr, "extra")
    assert "extra.json" in text and "choose from test, train, val" in text
    assert "Unknown split" in refused(open_split, dsr, "../test")
    (dsr / "train.json").unlink()
    assert "train.json" in refused(open_split, dsr, "val")


def test_unknown_names(dsr, refused):
    text = refused(open_split, dsr, "test", ["oil"])
    assert "'oil'" in text and "art, mosaic, sketch, text" in text
    assert "['sketch']" in refused(open_split, dsr, "test", "sketch")
    assert "Unknown style" in refused(open_split, dsr, "test", ["../tiny/sketch"])
    assert "Unknown style" in refused(open_split, dsr, "test", ["images"])
    assert "fscoco" in refused(open_split, dsr, "test", layout="coco")
    assert "no classes" in refused(open_split, dsr, "test", relevance="class")
    assert "Unknown relevance" in refused(open_split, dsr, "test", relevance="all")


def test_unclear_layouts(dsr, refused, write):
    shutil.copy(dsr / "test.json", dsr / "images/test.json")
    text = refused(open_split, dsr, "test", STYLES)
    assert "dsr and imagenet-x" in text
    assert open_split(dsr, "test", STYLES, layout="dsr").n_gallery == 3
    for path in [*dsr.glob("*.json"), dsr / "images/test.json"]:
        path.unlink()
    assert "no known layout" in refused(open_split, dsr, "test")


def test_entries_without_photo(dsr, refused):
    (dsr / "images/a/2.jpg").unlink()
    text = refused(open_split, dsr, "test", STYLES)
    assert "1 of 3 entries" in text and str(dsr / "images/a/2.jpg") in text
    shutil.rmtree(dsr / "images/a")
    assert "2 of 3 entries" in refused(open_split, dsr, "test", STYLES)
    (dsr / "images/a/1.jpg").mkdir(parents=True)  # a folder is no file
    assert "2 of 3 entries" in refused(open_split, dsr, "test", STYLES)


def test_a_broken_link_is_no_file(dsr, refused):
    (dsr / "images/a/2.jpg").unlink()
    os.symlink(dsr / "nowhere.jpg", dsr / "images/a/2.jpg")
    assert "'a/2'" in refused(open_split, dsr, "test", STYLES)


def test_two_extensions_are_ambiguous(dsr, refused, write):
    write.picture(dsr / "sketch/a/1.webp")
    text = refused(open_split, dsr, "test", STYLES)
    assert str(dsr / "sketch/a/1") in text and "keep one" in text
    write.picture(dsr / "mosaic/t/0.png")  # no record of the test split
    assert open_split(dsr, "test", ["mosaic"]).n_gallery == 3


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("", 1, "expected '['"),
        ('{"image": "a/1.jpg"}', 1, "expected '['"),
        ('[{"image": "a/1.jpg"}\n{"image": "a/2.jpg"}]', 2, "expected ','"),
        ('[\n{"image": "a/1.jpg"},\n{"image": }]', 3, "Expecting value"),
        ('[\n\n{"image": "a/1.jp', 3, "Unterminated string"),
        ('[{"image": "a/1.jpg"}', 1, "expected ','"),
        ('[{"image": "a/1.jpg"},\n]', 2, "Expecting value"),
        ("[]\n\nmore", 3, "unexpected text"),
        ("[" * 100_000, 1, "nested"),
    ],
)
def test_malformed_lists(dsr, refused, content, line, reason):
    (dsr / "test.json").write_text(content)
    text = refused(open_split, dsr, "test", STYLES)
    assert f"{dsr / 'test.json'}, line {line} " in text and reason in text


def test_lists_longer_than_the_window(tmp_path, monkeypatch, refused):
    entries = [{"image": f"{number}.jpg", "caption": "x" * (number % 7)} for number in range(500)]
    path = tmp_path / "a.json"
    for chunk in (1, 2, 3, 17, 1000):
        monkeypatch.setattr("freestyle.datasets.lists._CHUNK", chunk)
        path.write_text(json.dumps(entries, indent=1))
        assert list(iterate_json(path)) == entries
        lines = path.read_text().splitlines()
        lines[1234] = "oops"
        path.write_text("\n".join(lines))
        assert "line 1235 " in refused(list, iterate_json(path))


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], "leaves no record"),
        (["a/1.jpg"], 'entry 1 has no text in "image"'),
        ([{"image": "a/1.jpg"}, {"caption": "a/2.txt"}], 'entry 2 has no text in "image"'),
        ([{"image": 3}], 'no text in "image"'),
        ([{"image": "a/1.jpg", "caption": None}], 'no text in "caption"'),
        ([{"image": "a/1"}], "no picture extension"),
        ([{"image": "a/.jpg"}], "no picture extension"),
        ([{"image": "../images/a/1.jpg"}], "leaves its folder"),
        ([{"image": "/etc/1.jpg"}], "leaves its folder"),
        ([{"image": "a/./1.jpg"}], "leaves its folder"),
        ([{"image": "a//1.jpg"}], "leaves its folder"),
        ([{"image": "a/1\0.jpg"}], "leaves its folder"),
        ([{"image": "a/1.jpg", "caption": "../a/1.txt"}], "leaves its folder"),
        ([{"image": "a/1.jpg"}, {"image": "a/2.jpg"}, {"image": "a/1.jpg"}], "'a/1' twice"),
        ([{"image": "\ud800.jpg"}], "1 of 1 entries"),
        ([{"image": "a/1.jpg", "caption": "none.txt"}], "none.txt does not exist"),
    ],
)
def test_unusable_entries(dsr, refused, write, entries, expected):
    write.json(dsr / "test.json", entries)
    text = refused(open_split, dsr, "test", STYLES)
    assert expected in text and (str(dsr / "test.json") in text or str(dsr / "text") in text)


def test_unusable_captions(dsr, refused):
    path = dsr / "text/a/2.txt"
    for content, expected in [
        (b"", "empty first line"),
        (b"\nsecond line", "empty first line"),
        (b"caf\xe9", "not UTF-8"),
    ]:
        path.write_bytes(content)
        text = refused(open_split, dsr, "test", STYLES)
        assert str(path) in text and expected in text
    path.unlink()
    assert "does not exist" in refused(open_split, dsr, "test", STYLES)
    assert open_split(dsr, "test", ["sketch"]).n_gallery == 3  # text was not asked for


def test_a_list_that_is_no_text(dsr, refused):
    (dsr / "test.json").write_bytes(b"[\xff\xfe]")
    assert "not UTF-8" in refused(open_split, dsr, "test")


def test_train_too_small_to_carve(tmp_path, write, refused):
    write.picture(tmp_path / "images/1.png")
    write.json(tmp_path / "train.json", [{"image": "1.png"}])
    empty = "val" if not in_validation("1") else "train"
    assert "leaves no record" in refused(open_split, tmp_path, empty)


def test_shipped_emoji():
    root = Path(__file__).parents[2] / "data" / "emoji"
    split = open_split(root, "test")
    assert split.styles == ("art", "colour", "mosaic", "sketch", "text")
    assert split.relevance == "instance" and split.n_gallery > 400
    for style in ("art", "colour", "mosaic", "sketch"):
        assert load_image(split.queries[style].sources[0]).size == (128, 128)
    assert np.array_equal(split.queries["text"].groups, split.gallery_groups)
    ids = [set(open_split(root, name, []).gallery_ids) for name in ("train", "val", "test")]
    assert not ids[0] & ids[1] and not ids[0] & ids[2] and not ids[1] & ids[2]


def test_import_is_light():
    code = "import sys, freestyle.datasets; assert 'PIL' not in sys.modules; "
    code += "from freestyle.datasets import open_split; "
    code += "assert not {'torch', 'pandas', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
