"""The shipped matrices of DSR, FS-COCO and ImageNet-X on folders in their layouts, fit to report.

Each matrix is the real file; a written copy changes only the data's root, the encoder, what would
be downloaded, and sizes.
"""

import json
from pathlib import Path

import pytest
import yaml

from freestyle.bench.command import main
from freestyle.bench.compare import collect, difference, scopes
from freestyle.bench.ledger import Ledger
from freestyle.bench.matrix import read_matrix, with_defaults
from freestyle.datasets import open_split
from freestyle.datasets.lists import in_validation
from freestyle.evaluation.command import read_config
from freestyle.training.module import RetrievalModule

ROOT = Path(__file__).parents[2]
NAMES = ("dsr", "fscoco", "fscoco_unseen", "imagenet_x", "imagenet_x_instance")
CELLS = {"zero-shot", "query-adapter", "vpt-deep", "prompt tokens", "freestyle"}
TEST = 26  # a batch of 24 must fit into the gallery


def stems(folder, training, validation=3):
    """Record ids of which the hash sends so many to training and so many to validation."""
    found = {False: [], True: []}
    number = 0
    while len(found[False]) < training or len(found[True]) < validation:
        number += 1
        found[in_validation(f"{folder}/{number:06d}")].append(f"{folder}/{number:06d}")
    return found[False][:training] + found[True][:validation]


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def save(make_picture):
    """Draw a picture and write it: ``save(path, seed, style)``."""

    def write(path, seed, style="images"):
        path.parent.mkdir(parents=True, exist_ok=True)
        make_picture(seed, style).save(path)

    return write


@pytest.fixture(scope="module")
def dsr(save, tmp_path_factory):
    """DSR: nested ids, two lists, no val.json."""
    root = tmp_path_factory.mktemp("dsr")
    lists = {"train": stems("a", 12), "test": [f"b/{n:06d}" for n in range(TEST)]}
    for split, names in lists.items():
        for seed, name in enumerate(names):
            for style in ("images", "sketch", "art", "mosaic"):
                save(root / style / f"{name}.jpg", seed + 100 * len(split), style)
            write_text(root / "text" / f"{name}.txt", f"{split} caption {seed}\nsecond line")
        entries = [{"image": f"{name}.jpg", "caption": f"{name}.txt"} for name in names]
        write_text(root / f"{split}.json", json.dumps(entries))
    return root


@pytest.fixture(scope="module")
def fscoco(save, tmp_path_factory):
    """FS-COCO: users 1 and 2; some of both held out by the normal list, user 2 by the other."""
    root = tmp_path_factory.mktemp("fscoco")
    names = [*stems("1", 30), *stems("2", TEST + 1, 2)]
    for seed, name in enumerate(names):
        save(root / "images" / f"{name}.jpg", seed)
        save(root / "raster_sketches" / f"{name}.jpg", seed, "sketch")
        write_text(root / "text" / f"{name}.txt", f"scene {seed}")
    normal = [*names[:14], *names[33:47]]
    write_text(root / "val_normal.txt", "\n".join(normal))
    write_text(root / "val_unseen_user.txt", "\n".join(n for n in names if n[0] == "2"))
    return root


@pytest.fixture(scope="module")
def imagenet_x(save, tmp_path_factory):
    """ImageNet-X: two classes; sketch and art with lists of their own lengths, mosaic by photo."""
    root = tmp_path_factory.mktemp("imagenet-x")
    sizes = {"images": TEST // 2, "sketch": 5, "art": 4}  # test pictures of a class
    lists = {(style, split): [] for style in sizes for split in ("train", "test")}
    for classname, folder in (("tench", "n01"), ("hen", "n02")):
        training = stems(folder, 5)
        for style, count in sizes.items():
            chosen = {"train": training, "test": [f"{folder}/t{n}" for n in range(count)]}
            for split, names in chosen.items():
                for seed, name in enumerate(names):
                    save(root / style / f"{name}.JPEG", seed + len(classname) * 100, style)
                    entry = {"image": f"{name}.JPEG", "classname": classname}
                    lists[style, split].append(entry)
                    if style == "images":
                        save(root / "mosaic" / f"{name}.png", seed + len(classname) * 100, "mosaic")
                        write_text(root / "text" / f"{name}.txt", f"a {classname} {seed}")
    for (style, split), entries in lists.items():
        write_text(root / style / f"{split}.json", json.dumps(entries))
    return root


def tiny_copy(name, root, folder):
    """The shipped matrix ``name`` and its config, written anew with tiny sizes."""
    matrix = yaml.safe_load((ROOT / "configs" / "bench" / f"{name}.yaml").read_text())
    config = yaml.safe_load((ROOT / matrix["config"]).read_text())
    config["trainer"] |= {
        "accelerator": "cpu",
        "max_epochs": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    config["model"]["encoder"] = "random:clip-tiny"
    config["model"]["style"] |= {"weights": "random", "resolution": 32, "n_components": 6}
    config["data"] |= {"root": str(root), "batch_size": 16, "num_workers": 0}
    config["model"]["cache_dir"] = str(folder / "cache")
    for cell in matrix["cells"].values():
        if "trainer.max_epochs" in cell.get("set", {}):
            cell["set"]["trainer.max_epochs"] = 1
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    path = folder / f"{name}.yaml"
    matrix |= {"config": str(folder / "config.yaml"), "seeds": [0]}
    path.write_text(yaml.safe_dump(matrix, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a shipped matrix on a folder: ``run(name, root)`` gives the copy and the results."""

    def bench(name, root):
        folder = tmp_path_factory.mktemp(name)
        path = tiny_copy(name, root, folder)
        main([str(path), "--out", str(folder / "out")])
        return path, folder / "out"

    return bench


def rows_of(out):
    """Rows of every cell's own results by cell, protocol and style."""
    return {
        (cell["name"], r["protocol"], r["style"]): r
        for cell in Ledger(out).rows().values()
        for r in cell["results"]
        if r["variant"] == "own"
    }


def check_complete(path, out, capsys):
    """Every cell, both protocols, a whole report, and nothing left for a second call."""
    matrix = read_matrix(path)
    rows = rows_of(out)
    styles = matrix.cells[0].evaluate.styles
    assert set(rows) == {(c, p, s) for c in CELLS for p in ("gallery", "batch:24") for s in styles}
    for cell in CELLS:
        for style in (s for s in styles if "+" not in s):  # fewer photos are never harder
            assert rows[cell, "batch:24", style]["R@10"] >= rows[cell, "gallery", style]["R@10"]
    folder = out / path.stem
    report = (folder / "report.md").read_text()
    assert report.startswith(f"# {matrix.title}\n")
    for cell in CELLS:
        assert f"\n| {cell} | " in report
    summary = json.loads((folder / "summary.json").read_text())
    assert {row["name"] for row in summary["rows"]} >= CELLS | {"freestyle (calibration off)"}
    assert all(set(row["R@1"]) == set(styles) for row in summary["rows"])
    controls = {gap["control"] for gap in summary["differences"]}
    assert controls >= CELLS - {"freestyle"}
    assert (folder / "recall.png").stat().st_size > 5000
    capsys.readouterr()
    before = (out / "cells.jsonl").read_bytes()
    main([str(path), "--out", str(out)])
    assert "5 cells, 5 finished before; about 0 s" in capsys.readouterr().out
    assert (out / "cells.jsonl").read_bytes() == before
    return rows, report, summary


@pytest.mark.parametrize("name", NAMES)
def test_shipped_matrices_have_every_control_both_protocols_and_three_seeds(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    matrix = read_matrix(f"configs/bench/{name}.yaml")
    assert set(matrix.names) == CELLS and matrix.reference == "freestyle"
    assert {c.seed for c in matrix.cells} == {None, 0, 1, 2}
    for cell in matrix.cells:
        assert cell.evaluate.protocols == ("gallery", "batch:24")
        assert cell.config["model"]["encoder"] == "openai/clip-vit-large-patch14"
    ours = next(c.config for c in matrix.cells if c.name == "freestyle")
    default = read_config("configs/emoji_mini_freestyle.yaml")
    form, wanted = (with_defaults(RetrievalModule, c["model"]) for c in (ours, default))
    for setting in ("query_map", "framing", "calibration", "loss", "learning_rate"):
        assert form[setting] == wanted[setting], setting
    for setting in ("shallow", "deep", "code_dropout"):
        assert form["prompts"][setting] == wanted["prompts"][setting], setting
    few = "imagenet_x" in name  # a set of drawings costs hours there
    assert ours["data"]["synthetic"] == (1 if few else default["data"]["synthetic"])
    text = (ROOT / "configs" / "bench" / f"{name}.yaml").read_text()
    assert "estimates, not measured" in text and "on validation" in text


@pytest.mark.slow
def test_dsr_from_fit_to_report(dsr, run, capsys):
    path, out = run("dsr", dsr)
    rows, report, _ = check_complete(path, out, capsys)
    assert all(row["n"] == TEST for row in rows.values())
    assert ("freestyle", "gallery", "sketch+text") in rows
    assert "prompt tokens (mean style)" in report


@pytest.mark.slow
def test_fscoco_normal_and_unseen_users_from_fit_to_report(fscoco, run, capsys):
    found = {}
    for name, split in (("fscoco", "test"), ("fscoco_unseen", "test-unseen")):
        path, out = run(name, fscoco)
        rows, _, _ = check_complete(path, out, capsys)
        tested = open_split(fscoco, split, [])
        assert {row["n"] for row in rows.values()} == {tested.n_gallery}
        cell = next(c for c in read_matrix(path).cells if c.name == "freestyle")
        data = cell.config["data"]
        used = {
            part: set(open_split(fscoco, data.get(f"{part}_split") or part, []).gallery_ids)
            for part in ("train", "val")
        }
        assert used["train"] and used["val"] and not used["train"] & used["val"]
        assert not (used["train"] | used["val"]) & set(tested.gallery_ids)
        found[name] = used, set(tested.gallery_ids), cell.id
    assert found["fscoco"][1] != found["fscoco_unseen"][1]
    assert found["fscoco"][2] != found["fscoco_unseen"][2]
    seen = {name[0] for name in found["fscoco_unseen"][0]["train"]}
    assert seen == {"1"} and {name[0] for name in found["fscoco_unseen"][1]} == {"2"}
    assert {name[0] for name in found["fscoco"][0]["train"]} == {"1", "2"}


@pytest.mark.slow
def test_imagenet_x_by_class_from_fit_to_report(imagenet_x, run, capsys):
    (imagenet_x / "sketch" / "n01" / "t0.JPEG").write_bytes(b"broken: the config skips it")
    path, out = run("imagenet_x", imagenet_x)
    rows, report, summary = check_complete(path, out, capsys)
    counts = [rows["freestyle", "gallery", s]["n"] for s in ("sketch", "art", "mosaic")]
    assert counts == [9, 8, TEST]
    assert all(0 <= row["mAP@10"] <= 1 and "mAP@50" in row for row in rows.values())
    assert "| mAP@10 / mAP@50, % | sketch | art | mosaic | text |" in report
    assert set(summary["rows"][0]["mAP@10"]) == {"sketch", "art", "mosaic", "text"}
    results = collect(read_matrix(path), Ledger(out))
    # lists of their own: no query of one style is another's, so each style is compared alone
    assert list(scopes(results["freestyle"])) == ["sketch", "art", "mosaic", "text"]
    assert difference(results["freestyle"], results["vpt-deep"], ["sketch", "art"]) is None
    mean, _ = results["zero-shot"].mean_over(["sketch", "art"])
    recalls = [rows["zero-shot", "gallery", style]["R@1"] for style in ("sketch", "art")]
    assert mean == pytest.approx(sum(recalls) / 2)


def test_imagenet_x_by_photo_from_fit_to_report(imagenet_x, run, capsys):
    path, out = run("imagenet_x_instance", imagenet_x)
    rows, report, _ = check_complete(path, out, capsys)
    assert all(row["n"] == TEST for row in rows.values())
    assert not any(key.startswith("mAP") for row in rows.values() for key in row)
    assert "mAP" not in report


def test_a_changed_list_of_a_style_is_another_cell(imagenet_x, tmp_path):
    from freestyle.bench.matrix import lists_digest

    path = tiny_copy("imagenet_x", imagenet_x, tmp_path)
    cell = next(c for c in read_matrix(path).cells if c.name == "vpt-deep")
    before = cell.id
    listed = imagenet_x / "sketch" / "train.json"
    text = listed.read_text()
    try:
        listed.write_text(json.dumps(json.loads(text)[:-1]))
        lists_digest.cache_clear()
        assert cell.id != before
    finally:
        listed.write_text(text)
        lists_digest.cache_clear()
    assert cell.id == before
