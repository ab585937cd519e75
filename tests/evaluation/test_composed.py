"""Composed protocols on miniature layouts with worked-out answers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from freestyle.datasets.circo import open_circo
from freestyle.datasets.cirr import open_cirr
from freestyle.datasets.composed import Cut, with_references
from freestyle.datasets.fashioniq import open_fashioniq
from freestyle.datasets.genecis import open_genecis
from freestyle.evaluation.composed import (
    ComposedOutcome,
    Prepared,
    evaluate_composed,
    target_ranks,
)
from freestyle.evaluation.composed_report import paired, parts_of
from freestyle.evaluation.submissions import validate, write_submission
from freestyle.transport.presets import CONTROLS
from freestyle.transport.scorer import QueryBlocks
from freestyle.transport.sets import Sets


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    return path


def picture(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), (shade, shade, shade)).save(path)


def ranked(split, scores):
    """Outcome of given scores ``(Q, G)``: one-hot photos, queries that hold their scores."""
    scores = torch.tensor(scores, dtype=torch.float32)
    queries = QueryBlocks({}, Sets(scores[:, None]))
    photos = Sets(torch.eye(scores.shape[1])[:, None])
    prepared = Prepared(split, photos, queries, {}, lambda a: a, "none", None)
    return evaluate_composed(prepared, CONTROLS["image-only"])


# -- CIRR ----------------------------------------------------------------------------------

NAMES = [f"dev-{i}" for i in range(8)]


@pytest.fixture
def cirr(tmp_path):
    for i, name in enumerate(NAMES):
        picture(tmp_path / "dev" / f"{name}.png", i)
    rows = [
        {
            "pairid": 12,
            "reference": "dev-0",
            "target_hard": "dev-3",
            "target_soft": {"dev-3": 1.0},
            "caption": "make it red",
            "img_set": {"id": 1, "members": NAMES[:6]},
        },
        {
            "pairid": 15,
            "reference": "dev-7",
            "target_hard": "dev-6",
            "target_soft": {"dev-6": 1.0},
            "caption": "two of them",
            "img_set": {"id": 2, "members": NAMES[2:]},
        },
    ]
    write(tmp_path / "cirr/captions/cap.rc2.val.json", rows)
    hidden = [{k: v for k, v in row.items() if not k.startswith("target")} for row in rows]
    write(tmp_path / "cirr/captions/cap.rc2.test1.json", hidden)
    places = {name: f"./dev/{name}.png" for name in NAMES}
    for split in ("val", "test1"):
        write(tmp_path / f"cirr/image_splits/split.rc2.{split}.json", places)
    return tmp_path


def test_cirr_drops_the_reference_and_ranks_the_group(cirr):
    split = open_cirr(cirr, "val")
    assert split.gallery_ids == NAMES and split.queries[0].subset == tuple(NAMES[1:6])
    outcome = ranked(
        split,
        [
            # the reference is best, then 6, 7, then the target: rank 3; in the group 3 is best
            [0.9, 0.1, 0.2, 0.6, 0.3, 0.4, 0.8, 0.7],
            # a tie of target 6 with 2: both times the target comes second
            [0.1, 0.2, 0.5, 0.3, 0.4, 0.1, 0.5, 0.9],
        ],
    )
    assert [r.tolist() for r in outcome.ranks] == [[3], [2]]
    assert outcome.subset_ranks.tolist() == [1, 2]
    assert outcome.metric("R@1").tolist() == [0, 0] and outcome.metric("R@5").tolist() == [1, 1]
    assert outcome.metric("Rs@1").tolist() == [1, 0]
    assert outcome.top[0].tolist() == [6, 7, 3, 5, 4, 2, 1]  # without 0


def test_cirr_submissions(cirr, tmp_path, refusal):
    split = open_cirr(cirr, "test1")
    assert not split.public
    generator = np.random.default_rng(0)
    outcome = ranked(split, generator.random((2, 8)).tolist())
    recall, subset = write_submission(outcome, split, tmp_path / "out")
    found = json.loads(recall.read_text())
    assert (found["version"], found["metric"]) == ("rc2", "recall") and len(found["12"]) == 7
    assert "dev-0" not in found["12"]
    assert json.loads(subset.read_text())["metric"] == "recall_subset"
    assert "valid" in validate(recall, split) and "recall_subset" in validate(subset, split)
    bad = {
        "version is": {"version": "rc1"},
        "metric is": {"metric": "map"},
        "is missing": {"12": None},
        "no query": {"99": found["12"]},
        "must have 7": {"12": found["12"][:3]},
        "twice": {"12": [found["12"][0]] * 7},
        "not among the candidates": {"12": ["dev-0", *found["12"][1:]]},
        "list of str": {"12": list(range(7))},
    }
    for said, change in bad.items():
        values = {k: v for k, v in {**found, **change}.items() if v is not None}
        assert said in refusal(validate, write(tmp_path / "bad.json", values), split)


# -- CIRCO ---------------------------------------------------------------------------------


@pytest.fixture
def circo(tmp_path):
    folder = tmp_path / "COCO2017_unlabeled" / "unlabeled2017"
    for i in range(60):
        picture(folder / f"{i:012d}.jpg", i)
    query = {
        "id": 0,
        "reference_img_id": 4,
        "relative_caption": "has two dogs",
        "shared_concept": "a dog",
        "target_img_id": 7,
        "gt_img_ids": [7, 9, 50],
    }
    write(tmp_path / "annotations/val.json", [query])
    hidden = {k: v for k, v in query.items() if k not in ("target_img_id", "gt_img_ids")}
    write(tmp_path / "annotations/test.json", [hidden, {**hidden, "id": 1}])
    return tmp_path


def test_circo_keeps_the_reference_and_counts_all_targets(circo):
    split = open_circo(circo, "val")
    assert split.queries[0].targets == ("7", "9", "50") and split.queries[0].concept == "a dog"
    scores = np.zeros(60)
    scores[[4, 7, 1, 9]] = [0.9, 0.8, 0.7, 0.6]  # the reference first; 50 among the ties at 0
    outcome = ranked(split, [scores.tolist()])
    assert outcome.ranks[0].tolist() == [2, 4, 60]
    # (1/2 + 2/4) / min(3, 5)
    assert outcome.metric("mAP@5").tolist() == pytest.approx([1 / 3])
    assert outcome.metric("mAP@50").tolist() == pytest.approx([1 / 3])


def test_circo_submission(circo, tmp_path, refusal):
    split = open_circo(circo, "test")
    outcome = ranked(split, np.random.default_rng(0).random((2, 60)).tolist())
    (path,) = write_submission(outcome, split, tmp_path / "out")
    found = json.loads(path.read_text())
    assert set(found) == {"0", "1"} and len(set(found["0"])) == 50
    assert all(isinstance(v, int) for v in found["0"])
    for said, change in {
        "must have 50": {"0": found["0"][:49]},
        "list of int": {"0": [str(v) for v in found["0"]]},
        "twice": {"0": [found["0"][0]] * 50},
        "not among": {"0": [999, *found["0"][1:]]},
        "is missing": {"1": None},
    }.items():
        values = {k: v for k, v in {**found, **change}.items() if v is not None}
        assert said in refusal(validate, write(tmp_path / "bad.json", values), split)


def test_circo_reads_cocos_list_without_listing_the_folder(circo):
    info = {"images": [{"id": i, "file_name": f"{i:012d}.jpg"} for i in (4, 7, 9, 50)]}
    write(circo / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", info)
    assert list(open_circo(circo, "val").gallery_ids) == ["4", "7", "9", "50"]


# -- FashionIQ -----------------------------------------------------------------------------


@pytest.fixture
def fashioniq(tmp_path):
    for category, names in {"dress": "abcde", "shirt": "vwxyz"}.items():
        for name in names:
            picture(tmp_path / "images" / f"{name}.{'png' if name < 'm' else 'jpg'}")
        row = {"candidate": names[0], "target": names[1], "captions": ["is red.", "is longer"]}
        write(tmp_path / f"captions/cap.{category}.val.json", [row])
        write(tmp_path / f"image_splits/split.{category}.val.json", list(names))
    return tmp_path


def test_fashioniq_ranks_within_the_category(fashioniq):
    split = open_fashioniq(fashioniq, "val", ["dress", "shirt"])
    assert [q.group for q in split.queries] == ["dress", "shirt"]
    assert split.queries[0].text == "is red and is longer" and "original" in split.note
    outcome = ranked(split, [[0.5, 0.4, 0.9, 0.1, 0.2, 1, 1, 1, 1, 1]] * 2)
    assert outcome.ranks[0].tolist() == [3]  # behind c and its own candidate; shirts do not count
    assert outcome.ranks[1].tolist() == [5]  # all shirts tie: the target is last
    union = open_fashioniq(fashioniq, "val", ["dress"], gallery="val-union")
    assert list(union.gallery_ids) == ["a", "b"] and "val-union" in union.note


# -- GeneCIS -------------------------------------------------------------------------------


@pytest.fixture
def genecis(tmp_path):
    for i in range(4):
        picture(tmp_path / "val2017" / f"{i:012d}.jpg", i)
        picture(tmp_path / "VG_100K_all" / f"{i}.jpg", i)
    row = {
        "reference": {"val_image_id": 0},
        "target": {"val_image_id": 1},
        "gallery": [{"val_image_id": 2}, {"val_image_id": 3}],
        "condition": "dog",
    }
    box = {"image_id": 2, "instance_bbox": [2, 2, 8, 4]}
    cut = {
        "reference": {"image_id": 0, "instance_bbox": [0, 0, 10, 10]},
        "target": box,
        "gallery": [{"image_id": 2, "instance_bbox": [1, 1, 3, 3]}, {"image_id": 3}],
        "condition": "color",
    }
    for task in ("focus_object", "change_object"):
        write(tmp_path / f"genecis/{task}.json", [row])
    for task in ("focus_attribute", "change_attribute"):
        write(tmp_path / f"genecis/{task}.json", [cut])
    return tmp_path


def test_genecis_ties_count_against_the_target_at_position_0(genecis):
    split = open_genecis(genecis)
    assert {q.group for q in split.queries} == {
        "focus_object",
        "change_object",
        "focus_attribute",
        "change_attribute",
    }
    size = len(split.gallery)
    constant = ranked(split, [[0.5] * size] * 4)
    assert [r.tolist() for r in constant.ranks] == [[3]] * 4
    assert constant.metric("R@1").tolist() == [0] * 4 and constant.metric("R@3").tolist() == [1] * 4
    attribute = next(q for q in split.queries if q.group == "focus_attribute")
    assert isinstance(attribute.reference, Cut) and len(attribute.candidates) == 3


# -- what all share ------------------------------------------------------------------------


def test_ranks_of_several_targets_by_hand():
    scores = np.array([0.9, 0.5, 0.5, 0.3, 0.5])
    assert target_ranks(scores, np.array([1, 2])).tolist() == [3, 4]
    assert target_ranks(scores, np.array([0])).tolist() == [1]
    outcome = ComposedOutcome([np.array([1, 3]), np.array([6])], np.array([np.inf] * 2), [])
    # (1/1 + 2/3) / 2, and nothing within 5
    assert outcome.metric("mAP@5").tolist() == pytest.approx([5 / 6, 0.0])


def test_a_small_category_weighs_as_much_as_a_large_one(fashioniq):
    path = fashioniq / "captions/cap.dress.val.json"
    write(path, json.loads(path.read_text()) * 3)
    split = open_fashioniq(fashioniq, "val", ["dress", "shirt"])
    parts = parts_of(split)
    values = paired(np.array([0.0, 1.0, 1.0, 0.0]), split, parts)  # 2/3 of dresses, no shirt
    assert values.mean() == pytest.approx(1 / 3)
    same = paired(np.ones(4), split, parts)
    assert same.mean() == pytest.approx(1)


def test_stylised_parts_of_pictures_are_cut_at_the_same_place(genecis, tmp_path, refusal):
    split = open_genecis(genecis, "val", ["focus_attribute"])
    folder = tmp_path / "sketch"
    picture(folder / "VG_100K_all" / "0.png", 200)
    found = with_references(split, str(folder), root=str(genecis)).queries[0].reference
    own = split.queries[0].reference
    assert isinstance(found, Cut) and found.box == own.box
    assert found.path == folder / "VG_100K_all" / "0.png"
    assert np.asarray(found.load()).max() == 200 and found.load().size == own.load().size
    assert "does not hold" in refusal(with_references, split, str(folder), root=str(folder))


def test_genecis_shows_whole_pictures_in_the_object_tasks(genecis, refusal):
    path = genecis / "genecis/focus_object.json"
    (row,) = json.loads(path.read_text())
    row["target"]["instance_bbox"] = [0, 0, 5, 5]
    write(path, [row])
    split = open_genecis(genecis, "val", ["focus_object"])
    assert not any(isinstance(photo, Cut) for photo in split.gallery)
    for change, word in (
        ({"val_image_id": "one"}, "val_image_id"),
        ({"image_id": 2, "instance_bbox": [1, 1, "wide", 3]}, "no box"),
    ):
        task = "focus_object" if "val_image_id" in change else "focus_attribute"
        write(genecis / f"genecis/{task}.json", [{**row, "reference": change}])
        assert word in refusal(open_genecis, genecis, "val", [task])


def test_stylised_references(cirr, tmp_path, refusal):
    split = open_cirr(cirr, "val")
    folder = tmp_path / "sketch"
    picture(folder / "dev-0.webp", 200)
    assert "dev-7" in refusal(with_references, split, str(folder))
    picture(folder / "dev-7.webp", 201)
    found = with_references(split, str(folder))
    assert found.dataset == "CIRR (sketch references)"
    assert [q.style for q in found.queries] == ["sketch", "sketch"]
    assert found.queries[0].reference == folder / "dev-0.webp"
    assert found.queries[0].targets == split.queries[0].targets
    assert found.gallery == split.gallery
    nested = tmp_path / "art"
    for name in ("dev-0", "dev-7"):
        picture(nested / "dev" / f"{name}.png")
    assert with_references(split, str(nested), root=str(cirr)).queries[0].style == "art"


def test_bad_layouts_are_named(cirr, circo, fashioniq, genecis, tmp_path, refusal):
    assert "cap.rc2.nope.json" in refusal(open_cirr, cirr, "nope")
    (cirr / "dev" / "dev-5.png").unlink()
    assert "dev-5.png" in refusal(open_cirr, cirr, "val")
    write(circo / "annotations/val.json", [{"id": 0, "reference_img_id": 99}])
    assert "99" in refusal(open_circo, circo, "val")
    write(circo / "annotations/val.json", [{"id": 0, "reference_img_id": 4}])
    assert "relative_caption" in refusal(open_circo, circo, "val")
    assert "gallery" in refusal(open_fashioniq, fashioniq, "val", ["dress"], "all")
    assert "unknown category" in refusal(open_fashioniq, fashioniq, "val", ["hat"])
    (fashioniq / "images" / "c.png").unlink()
    assert "picture c is missing" in refusal(open_fashioniq, fashioniq, "val", ["dress"])
    assert "unknown task" in refusal(open_genecis, genecis, "val", ["all"])
    assert "no split" in refusal(open_genecis, genecis, "test")
    (genecis / "val2017" / "000000000003.jpg").unlink()
    assert "000000000003.jpg" in refusal(open_genecis, genecis, "val", ["focus_object"])


def test_ids_that_do_not_fit_are_named(cirr, refusal):
    split = open_cirr(cirr, "val")
    query = split.queries[0]
    wrong = replace(query, targets=("nobody",))
    assert "nobody" in refusal(replace, split, queries=[wrong])
    assert "twice" in refusal(replace, split, queries=[query, query])
    assert "no queries" in refusal(replace, split, queries=[])
