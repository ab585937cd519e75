"""CIR-Style: references are drawn, everything else of a benchmark stays as it is."""

from __future__ import annotations

import json

import pytest

from freestyle.evaluation.composed_setup import open_composed
from freestyle.generation.cir import read_benchmark


def put(root, files):
    for name, values in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    return root


def cirr(root, picture):
    names = [f"dev-{n}-0-img{n % 2}" for n in range(4)]
    for n, name in enumerate(names):
        (root / "dev").mkdir(parents=True, exist_ok=True)
        picture(n).save(root / "dev" / f"{name}.png")
    query = {"target_hard": names[3], "target_soft": {names[3]: 1.0}, "img_set": {"members": names}}
    captions = [
        {"pairid": n, "reference": names[n % 2], "caption": f"make it {n}", **query}
        for n in range(3)
    ]
    split = {name: f"./dev/{name}.png" for name in names}
    files = {
        "cirr/captions/cap.rc2.val.json": captions,
        "cirr/image_splits/split.rc2.val.json": split,
    }
    return put(root, files), {names[0], names[1]}


def circo(root, picture):
    folder = root / "COCO2017_unlabeled" / "unlabeled2017"
    folder.mkdir(parents=True)
    for n in (7, 8, 9):
        picture(n).save(folder / f"{n:012d}.jpg")
    queries = [
        {"id": n, "reference_img_id": n + 7, "relative_caption": "x", "target_img_id": 9}
        for n in range(2)
    ]
    return put(root, {"annotations/val.json": queries}), {f"{n:012d}" for n in (7, 8)}


def fashion_iq(root, picture):
    (root / "images").mkdir(parents=True)
    for n in range(3):
        picture(n).save(root / "images" / f"B00{n}.png")
    queries = [{"candidate": f"B00{n}", "target": "B002", "captions": ["a", "b"]} for n in (0, 1)]
    files = {
        "captions/cap.dress.val.json": queries,
        "image_splits/split.dress.val.json": [f"B00{n}" for n in range(3)],
    }
    return put(root, files), {"B000", "B001"}


def genecis(root, picture):
    for folder, n in (("val2017", 1), ("VG_100K", 2)):
        (root / folder).mkdir(parents=True)
        picture(n).save(root / folder / (f"{n:012d}.jpg" if n == 1 else f"{n}.jpg"))
    gallery = {"gallery": [], "condition": "red"}
    files = {
        "genecis/change_object.json": [{"reference": {"val_image_id": 1}, **gallery}],
        "genecis/focus_attribute.json": [
            {"reference": {"image_id": 2, "instance_bbox": [0, 0, 5, 5]}, **gallery}
        ],
    }
    return put(root, files), {"000000000001", "2"}


@pytest.mark.parametrize("make", [cirr, circo, fashion_iq, genecis])
def test_references_of_every_benchmark(make, tmp_path, make_photo, generate, files_of):
    root, wanted = make(tmp_path / "source", make_photo)
    before = files_of(root)
    out = generate(root, tmp_path / "out", "--cir", "--styles", "sketch,mosaic")
    assert files_of(root) == before
    values = json.loads((out / "references.json").read_text())
    assert set(values["references"]) == wanted and values["styles"] == ["mosaic", "sketch"]
    for files in values["references"].values():
        from PIL import Image

        sizes = {Image.open(out / file).size for file in files.values()}
        assert sizes == {(96, 80)}  # boxes in the annotations still fit
    for name, data in before.items():
        if name.endswith(".json"):
            assert (out / name).read_bytes() == data
    assert not (out / "train.json").exists()


@pytest.mark.parametrize(
    ("make", "benchmark"), [(cirr, "cirr"), (circo, "circo"), (fashion_iq, "fashioniq")]
)
def test_composed_evaluation_reads_what_was_drawn(make, benchmark, tmp_path, make_photo, generate):
    root, wanted = make(tmp_path / "source", make_photo)
    out = generate(root, tmp_path / "out", "--cir", "--styles", "sketch")
    settings = {"benchmark": benchmark, "root": str(root), "split": "val"}
    if benchmark == "fashioniq":
        settings["categories"] = ["dress"]
    drawn = {"folder": str(out / "sketch"), "root": str(root), "style": "sketch"}
    split = open_composed({**settings, "references": drawn})
    plain = open_composed(settings)
    assert {query.reference.stem for query in split.queries} == wanted
    for query, before in zip(split.queries, plain.queries, strict=True):
        assert query.reference.is_relative_to(out) and query.reference.stem == before.reference.stem
        assert (query.id, query.text, query.targets) == (before.id, before.text, before.targets)


def test_missing_reference_is_listed_and_other_folders_refused(
    tmp_path, make_photo, generate, refusal
):
    root, _ = cirr(tmp_path / "source", make_photo)
    (root / "dev" / "dev-1-0-img1.png").unlink()
    out = generate(root, tmp_path / "out", "--cir", "--styles", "mosaic")
    assert "dev-1-0-img1" in (out / "errors.jsonl").read_text()
    assert len(json.loads((out / "references.json").read_text())["references"]) == 1
    refusal(read_benchmark, tmp_path)
    (root / "cirr" / "captions" / "cap.rc2.val.json").write_text("{")
    assert "readable JSON" in refusal(read_benchmark, root)
