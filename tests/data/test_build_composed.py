"""The composed benchmark is rebuilt bit for bit, and holds what it promises."""

import doctest
import importlib.util
import json
from pathlib import Path

import pytest

from freestyle.datasets.emoji_composed import open_emoji_composed

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build_composed", ROOT / "data/build_composed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_examples(build):
    assert doctest.testmod(build).failed == 0


def test_the_committed_files_are_what_the_script_makes(build, tmp_path):
    assert build.main(["--check"]) == 0
    assert build.main(["--out", str(tmp_path)]) == 0
    for split in build.SPLITS:
        committed = ROOT / "data" / "emoji_composed" / f"{split}.json"
        assert (tmp_path / f"{split}.json").read_bytes() == committed.read_bytes()
    (tmp_path / "val.json").write_text("{}")
    assert build.main(["--out", str(tmp_path), "--check"]) == 1


def test_enough_queries_and_nothing_of_other_splits():
    concepts = json.loads((ROOT / "data/emoji/concepts.json").read_text())
    of = {c["stem"]: c["split"] for c in concepts}
    for name in ("train", "val", "test"):
        values = json.loads((ROOT / "data/emoji_composed" / f"{name}.json").read_text())
        rows = values["queries"]
        for row in rows:
            assert {of[row["reference"]], *(of[t] for t in row["targets"])} == {name}
            assert row["reference"] not in row["targets"] and row["targets"]
        if name == "test":
            pairs = {(row["reference"], t) for row in rows for t in row["targets"]}
            assert len(pairs) >= 120 and len(rows) * len(values["styles"]) >= 400


def test_opens_with_every_style_and_leaves_the_reference_out():
    split = open_emoji_composed(ROOT / "data/emoji_composed", "val", ["photo", "sketch"])
    assert len(split.queries) == 280 and split.protocol.drop_reference
    photo, sketch = split.queries[0], split.queries[140]
    assert (photo.pair, photo.style, sketch.style) == (sketch.pair, "photo", "sketch")
    assert photo.reference.parent.name == "images" and sketch.reference.parent.name == "sketch"
    assert not open_emoji_composed(
        ROOT / "data/emoji_composed", "val", ["photo"], keep_reference=True
    ).protocol.drop_reference


def test_bad_files_are_named(tmp_path, refusal):
    root = ROOT / "data" / "emoji_composed"
    assert "oil" in refusal(open_emoji_composed, root, "val", ["oil"])
    assert "nope.json" in refusal(open_emoji_composed, root, "nope")
    values = json.loads((root / "val.json").read_text())
    values["images"] = str(ROOT / "data" / "emoji")
    values["queries"][0]["reference"] = "nobody"
    (tmp_path / "val.json").write_text(json.dumps(values))
    assert "nobody" in refusal(open_emoji_composed, tmp_path, "val")
    (tmp_path / "val.json").write_text("[]")
    assert "holds no" in refusal(open_emoji_composed, tmp_path, "val")
