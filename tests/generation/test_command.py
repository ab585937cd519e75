"""The command: sets that train and evaluate unchanged, styles, statistics, card, Ray."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from freestyle.generation import catalogue
from freestyle.generation.command import main


def test_generated_set_trains_and_evaluates_unchanged(photos, tmp_path, generate, capsys):
    from freestyle.cli import run
    from freestyle.evaluation.command import main as evaluate
    from freestyle.training.cli import main as train

    out = generate(photos, tmp_path / "set", "--splits", "60,10,30")
    found = {s: (out / f"{s}.json").exists() for s in ("train", "val", "test")}
    assert found["train"] and found["test"]
    lists = {s: json.loads((out / f"{s}.json").read_text()) for s in ("train", "test")}
    (out / "val.json").write_text(json.dumps(lists["test"]))  # ten photos leave none
    options = [
        "fit",
        "--config=configs/stamps_mini_query_adapter.yaml",
        f"--data.root={out}",
        "--data.styles=[sketch,art,mosaic]",
        "--model.encoder=random:clip-tiny",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
        "--trainer.precision=32",
        "--trainer.enable_progress_bar=false",
        f"--trainer.default_root_dir={tmp_path / 'run'}",
        "--data.num_workers=0",
    ]
    assert run(train, options) == 0
    command = ["--data", str(out), "--model", str(tmp_path / "run" / "model"), "--device", "cpu"]
    report = evaluate([*command, "--styles", "sketch,art,mosaic,text"]).report
    assert report.gallery_size == len(lists["test"])
    assert {row.style for row in report.rows} == {"sketch", "art", "mosaic", "text"}


def test_every_named_style_draws(photos, tmp_path, generate):
    names = [
        name
        for name, spec in catalogue.named_styles().items()
        if spec["engine"] in catalogue.LIGHT_ENGINES
    ]
    out = generate(photos, tmp_path / "out", "--styles", ",".join(names), "--sheet-rows", "2")
    pictures = {
        name: np.asarray(Image.open(next((out / name).glob("photo3.*"))).convert("RGB"))
        for name in names
    }
    assert len({p.tobytes() for p in pictures.values()}) == len(names)
    assert pictures["thumbnail"].shape == (10, 12, 3)
    sheet = Image.open(out / "contact_sheet.png")
    assert sheet.width > 190 * (len(names) + 1) and sheet.height > 2 * 192


def test_own_styles_and_changed_settings(photos, tmp_path, generate, refusal):
    own = tmp_path / "own.yaml"
    own.write_text("blurry: {engine: lowres, factor: 4, shrink: area, enlarge: bilinear}\n")
    more = ("--styles", "blurry,art", "--styles-file", str(own))
    out = generate(photos, tmp_path / "out", *more, "--set", "art.looks=[tiles]", "--set=factor=5")
    row = json.loads((out / "sidecar" / "blurry.jsonl").read_text().splitlines()[0])
    assert row["made_by"]["settings"]["factor"] == 5
    row = json.loads((out / "sidecar" / "art.jsonl").read_text().splitlines()[0])
    assert row["look"] == "tiles"
    for wrong, word in (
        (("--styles", "baroque"), "baroque"),
        (("--styles", ","), "empty"),
        (("--set", "sketch.nothing=1"), "nothing"),
        (("--set", "sketch.drop=2"), "drop"),
        (("--set", "cartoon.ink=2"), "fits none"),
        (("--set", "drop"), "changes nothing"),
        (("--art", "nothing"), "--art"),
        (("--workers", "-1"), "--workers"),
        (("--part-size", "0"), "--part-size"),
        (("--near", "40"), "--near"),
        (("--splits", "1,2,3"), "--splits"),
        (("--shard", "x"), "--shard"),
        (("--styles-file", "/nowhere.yaml"), "nowhere"),
    ):
        assert word in refusal(generate, photos, tmp_path / "wrong", *wrong)
    assert not (tmp_path / "wrong" / "train.json").exists()


def test_rows_of_every_light_engine_make_their_pictures_again(photos, tmp_path, generate):
    from freestyle.datasets.photos import read_photos
    from freestyle.generation.remaking import remake

    out = generate(photos, tmp_path / "out", "--styles", "art,sketch-clumsy,lowres-jpeg,text")
    sources = {photo.id: photo for photo in read_photos(photos)}
    for style in ("art", "sketch-clumsy", "lowres-jpeg"):
        for line in (out / "sidecar" / f"{style}.jsonl").read_text().splitlines():
            row = json.loads(line)
            assert remake(row, sources[row["id"]]) == (out / row["file"]).read_bytes()


def test_statistics_tell_sets_apart_and_card_says_so(photos, tmp_path, generate):
    out = generate(photos, tmp_path / "out", "--styles", "sketch,mosaic", "--statistics", "10")
    values = json.loads((out / "statistics.json").read_text())
    assert values["distance"]["images"]["sketch"] == values["distance"]["sketch"]["images"] > 0.5
    assert values["distance"]["images"]["images"] == 0
    assert values["recognised"]["sketch"] > 0.8
    page, card = (out / "statistics.md").read_text(), (out / "CARD.md").read_text()
    assert "| sketch |" in page and "recognised" in page
    assert "10 photos" in card and "| mosaic | lowres |" in card and "statistics.md" in card


def test_equal_sets_are_not_told_apart():
    from freestyle.generation.statistics import compare

    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(200, 12, generator=generator)
    shifted = torch.randn(100, 12, generator=generator) + 4
    values = compare({"a": codes[:100], "b": codes[100:], "c": shifted})
    assert values["distance"]["a"]["b"] < 0.5 < 1.5 < values["distance"]["a"]["c"]
    assert values["recognised"]["a"] < 0.75 and values["recognised"]["c"] > 0.95
    assert np.allclose([sum(w) for w in values["weights"].values()], 1, atol=1e-3)


def test_missing_captions_leave_text_out(photos, tmp_path, generate):
    (photos / "photo4.txt").unlink()
    out = generate(photos, tmp_path / "out", "--styles", "mosaic")
    assert not (out / "text").exists()
    out = generate(photos, tmp_path / "asked", "--styles", "mosaic,text")
    assert "photo4" in (out / "errors.jsonl").read_text()
    assert len(list((out / "text").rglob("*.txt"))) == 9


def test_list_of_styles(capsys):
    main(["--list-styles"])
    shown = capsys.readouterr().out
    assert "sketch-clumsy" in shown and "watercolour" in shown


def test_processes_give_the_same_set(photos, tmp_path, generate, files_of):
    one = files_of(generate(photos, tmp_path / "one"))
    assert files_of(generate(photos, tmp_path / "two", "--workers", "2")) == one


@pytest.mark.slow
def test_ray_data_gives_the_same_set(photos, tmp_path, generate, files_of):
    pytest.importorskip("ray")
    import ray

    one = files_of(generate(photos, tmp_path / "one"))
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,  # the parts are small, and so is many a CI's /dev/shm
    )
    try:
        more = ("--engine", "ray", "--workers", "1", "--part-size", "5")
        made = generate(photos, tmp_path / "ray", *more)
    finally:
        ray.shutdown()
    assert files_of(made) == one
