import subprocess
import sys

import numpy as np
import pytest

from freestyle.datasets import available_styles, open_split
from freestyle.datasets.lists import in_validation
from freestyle.datasets.tables import NameTable


def test_by_class(imagenet_x):
    split = open_split(imagenet_x, "test")
    assert (split.relevance, split.styles) == ("class", ("mosaic", "sketch", "text"))
    assert split.gallery[3] == imagenet_x / "images/n02/n02_0.JPEG"
    assert split.gallery_groups.tolist() == [0, 0, 0, 1, 1, 1]
    sketch = split.queries["sketch"]
    assert list(sketch.ids) == ["n02/s1", "n01/s2", "n02/s3", "n02/s4"]
    assert sketch.groups.tolist() == [1, 0, 1, 1]
    assert sketch.sources[1] == imagenet_x / "sketch/n01/s2.png"
    assert split.queries["mosaic"].groups.tolist() == [0, 0, 0, 1, 1, 1]
    assert split.queries["text"].sources[4] == "a hen 1"
    assert available_styles(imagenet_x) == ["mosaic", "sketch"]


def test_by_photo(imagenet_x, refused):
    split = open_split(imagenet_x, "test", ["mosaic", "text"], relevance="instance")
    assert split.gallery_groups.tolist() == list(range(6))
    assert split.queries["mosaic"].sources[5] == imagenet_x / "mosaic/n02/n02_2.png"
    pair = split.subset([4, 1]).aligned(["mosaic", "text"])
    assert [pair[0].sources[0].stem, pair[1].sources[0]] == ["n02_1", "a hen 1"]
    assert list(pair[1].sources[:1]) == ["a hen 1"]
    text = refused(open_split, imagenet_x, "test", relevance="instance")
    assert "6 of 6 entries" in text and "style sketch" in text


def test_captions_are_read_when_asked_for(imagenet_x, refused):
    path = imagenet_x / "text/n01/n01_1.txt"
    path.unlink()
    sources = open_split(imagenet_x, "test", ["text"]).queries["text"].sources
    assert sources[0] == "a tench 0"
    assert str(path) in refused(lambda: sources[1])


def test_carved_validation(imagenet_x, write):
    for folder in ("images", "sketch"):
        entries = []
        for number in range(60):
            write.picture(imagenet_x / folder / f"n01/{folder}{number}.png")
            entries.append({"image": f"n01/{folder}{number}.png", "classname": "tench"})
        write.picture(imagenet_x / folder / f"n03/{folder}.png")
        entries.append({"image": f"n03/{folder}.png", "classname": "rare"})
        write.json(imagenet_x / folder / "train.json", entries)
    train = open_split(imagenet_x, "train", ["sketch"])
    val = open_split(imagenet_x, "val", ["sketch"])
    assert train.n_gallery + val.n_gallery == 61
    assert all(in_validation(name) for name in [*val.gallery_ids, *val.queries["sketch"].ids])
    for split in (train, val):
        assert set(split.queries["sketch"].groups) <= set(split.gallery_groups)


def test_bad_input(imagenet_x, refused, write):
    text = refused(open_split, imagenet_x, "train")
    assert str(imagenet_x / "images/train.json") in text and "choose from test" in text
    (imagenet_x / "sketch/n01/s2.png").unlink()
    text = refused(open_split, imagenet_x, "test")
    assert "1 of 4 entries" in text and str(imagenet_x / "sketch/n01/s2.png") in text
    write.json(imagenet_x / "sketch/test.json", [{"image": "n02/s1.png", "classname": "cat"}])
    assert "the first is 'cat'" in refused(open_split, imagenet_x, "test")
    write.json(imagenet_x / "sketch/test.json", [{"image": "n02/s1.png"}])
    assert 'no text in "classname"' in refused(open_split, imagenet_x, "test")
    entry = {"image": "n02/s1.png", "classname": "hen"}
    write.json(imagenet_x / "sketch/test.json", [entry, entry])
    assert "twice for sketch" in refused(open_split, imagenet_x, "test")
    write.json(imagenet_x / "sketch/test.json", [])
    assert "leaves no record" in refused(open_split, imagenet_x, "test")


def test_name_table():
    table = NameTable.build(["a/x", "", "b/ü", "a/z", "top"])
    assert list(table) == ["a/x", "", "b/ü", "a/z", "top"]
    assert [table[2], table[-1], list(table[1:3])] == ["b/ü", "top", ["", "b/ü"]]
    assert list(table.take(np.array([3, 0]))) == ["a/z", "a/x"]
    groups = {folder: positions.tolist() for folder, positions in table.by_folder()}
    assert groups == {"a": [0, 3], "": [1, 4], "b": [2]}
    assert len(NameTable.build([])) == 0 and "b/ü" in table
    with pytest.raises(IndexError):
        table[5]


def test_long_lists_stay_small(tmp_path):
    """200,000 entries: parsed and kept in less than 200 bytes each, far below a list of paths."""
    path = tmp_path / "test.json"
    entries = (
        f'{{"image": "n{number % 997:08d}/n{number:012d}.JPEG", "classname": "thing"}}'
        for number in range(200_000)
    )
    path.write_text(f"[{', '.join(entries)}]")
    code = f"""
import resource
from pathlib import Path
from freestyle.datasets.lists import find_split, read_entries
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
entries = read_entries(find_split(Path({str(tmp_path)!r}), "test"), "classname", required=True)
assert len(entries.stems) == 200_000 and entries.stems[199_999] == "n00000599/n000000199999"
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(run.stdout) * 1024 < 200 * 200_000
