"""A run that is killed, cut, or out of room leaves nothing that is taken for finished."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STYLES = "art,sketch,mosaic"


def rows(out: Path, style: str) -> list[dict]:
    lines = (out / "sidecar" / f"{style}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_runs_of_any_kind_give_equal_bytes(photos, tmp_path, generate, files_of):
    whole = files_of(generate(photos, tmp_path / "one"))
    assert files_of(generate(photos, tmp_path / "parts", "--part-size", "1")) == whole
    for number in (2, 0, 1):  # any order; only the last completes the set
        assert not (tmp_path / "shards" / "train.json").exists()
        generate(photos, tmp_path / "shards", "--shard", f"{number}/3")
    assert files_of(tmp_path / "shards") == whole
    assert not any(path.startswith(".") for path in whole)


def test_sidecars_are_sorted_and_hold_no_time(photos, tmp_path, generate):
    out = generate(photos, tmp_path / "out")
    for style in (*STYLES.split(","), "images", "text"):
        found = rows(out, style)
        ids = [row["id"] for row in found]
        assert ids == sorted(ids) and len(ids) == 10 and "trip/photo8" in ids
        for row in found:
            assert (out / row["file"]).stat().st_size == row["bytes"]
            assert not any("time" in key or "date" in key for key in row)


def test_resume_makes_only_what_is_missing_or_cut(photos, tmp_path, generate, files_of):
    out = generate(photos, tmp_path / "out")
    whole = files_of(out)
    cut, gone, kept = out / "sketch/photo1.png", out / "art/trip/photo9.jpg", out / "art/photo2.jpg"
    cut.write_bytes(cut.read_bytes()[:-5])
    gone.unlink()
    before = kept.stat().st_mtime_ns
    generate(photos, out, "--resume")
    assert files_of(out) == whole
    assert kept.stat().st_mtime_ns == before


def test_verify_finds_changed_bytes_of_equal_size(photos, tmp_path, generate, files_of):
    out = generate(photos, tmp_path / "out")
    whole = files_of(out)
    path = out / "mosaic/photo3.png"
    path.write_bytes(b"x" * path.stat().st_size)
    generate(photos, out, "--resume")
    assert path.read_bytes() != whole["mosaic/photo3.png"]
    generate(photos, out, "--resume", "--verify")
    assert files_of(out) == whole


def test_added_photos_and_styles_join_a_set(photos, tmp_path, generate, files_of, make_photo):
    out = generate(photos, tmp_path / "out", "--styles", "mosaic,text", "--splits", "50,25,25")
    lists = {split: json.loads((out / f"{split}.json").read_text()) for split in ("train", "test")}
    make_photo(77).save(photos / "a_new_one.png")
    (photos / "a_new_one.txt").write_text("new\n")
    options = ("--resume", "--splits", "50,25,25", "--styles")
    generate(photos, out, *options, "mosaic,sketch,text")
    for split, entries in lists.items():
        now = json.loads((out / f"{split}.json").read_text())
        assert [entry for entry in now if entry["image"] != "a_new_one.png"] == entries
    assert len(rows(out, "sketch")) == len(rows(out, "mosaic")) == 11
    afresh = generate(photos, tmp_path / "afresh", *options[1:], "mosaic,sketch,text")
    assert files_of(afresh).keys() == files_of(out).keys()


def test_broken_photos_are_listed_and_skipped_or_stop(photos, tmp_path, generate, refusal):
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    (photos / "photo1.png").write_bytes((photos / "photo0.jpg").read_bytes())
    for name in ("bad", "photo1"):
        (photos / f"{name}.txt").write_text("some caption\n")
    out = generate(photos, tmp_path / "out")
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert [error["id"] for error in errors] == ["bad", "photo1.png"]
    assert "damaged" in errors[0]["error"] and "rename" in errors[1]["error"]
    assert len(rows(out, "images")) == 10 and not (out / "art/bad.jpg").exists()
    assert "bad.jpg" in refusal(generate, photos, tmp_path / "strict", "--strict")
    (photos / "bad.jpg").write_bytes((photos / "photo4.jpg").read_bytes())
    generate(photos, out, "--resume")
    assert len(rows(out, "images")) == 11


def test_what_cannot_be_written_is_said(photos, tmp_path, generate, refusal):
    assert "another folder" in refusal(generate, photos, "/proc/none/here")
    (tmp_path / "file").write_text("")
    assert "another folder" in refusal(generate, photos, tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letters.txt").write_text("mine")
    assert "not empty" in refusal(generate, photos, tmp_path / "full")
    out = generate(photos, tmp_path / "out", "--styles", "mosaic")
    assert "--resume" in refusal(generate, photos, out, "--styles", "mosaic")
    changed = ("--styles", "mosaic", "--resume", "--set", "mosaic.factor=8")
    assert "other settings" in refusal(generate, photos, out, *changed)
    assert "seed" in refusal(generate, photos, out, "--resume", "--seed", "3")


def test_only_one_run_writes_a_shard(photos, tmp_path, generate, refusal):
    from freestyle.generation.journal import locked

    with locked(tmp_path / "out" / ".parts" / "shard-0-of-1.lock", wait=False):
        assert "another run" in refusal(generate, photos, tmp_path / "out")


def test_full_disk_in_the_middle_of_a_picture(photos, tmp_path, command, generate, files_of):
    """Writes that fail half-way, as at a full disk: no file may grow beyond 3,000 bytes."""
    script = (
        "import resource, sys; from freestyle.cli import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY)); "
        "raise SystemExit(main(sys.argv[1:]))"
    )
    arguments = ["generate", str(photos), "--out", str(tmp_path / "out"), "--workers", "0"]
    arguments += ["--part-size", "2", "--statistics", "0", "--sheet-rows", "0", "--photos", "copy"]
    failed = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert failed.returncode == 2 and "make room" in failed.stderr, failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "out" / "train.json").exists()
    whole = files_of(generate(photos, tmp_path / "whole", "--photos", "copy"))
    assert files_of(generate(photos, tmp_path / "out", "--resume", "--photos", "copy")) == whole


@pytest.mark.slow
def test_ten_kills_then_resume_gives_the_bytes_of_an_undisturbed_run(
    tmp_path, make_photo, command, files_of
):
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(120):
        make_photo(seed, 240, 200).save(folder / f"{seed:03d}.jpg")
    options = ("--workers", "2", "--part-size", "4", "--statistics", "0", "--sheet-rows", "4")
    start = time.monotonic()
    undisturbed = command(folder, "--out", tmp_path / "whole", *options)
    assert undisturbed.wait() == 0, undisturbed.stderr.read()
    took = time.monotonic() - start
    dice = random.Random(20261127)
    out = tmp_path / "killed"
    finished = []
    for attempt in range(10):
        resumed = ("--resume",) if (out / "recipe.json").exists() else ()
        run = command(folder, "--out", out, *options, *resumed)
        time.sleep(dice.uniform(0.3, 0.6 if attempt < 8 else 1.1) * took)
        run.kill()
        run.communicate()
        finished.append(len(list((out / ".parts").glob("0*.jsonl"))))
    last = command(folder, "--out", out, *options, "--resume")
    _, said = last.communicate()
    assert last.returncode == 0, said
    assert any(0 < number < 30 for number in finished), "no kill came in the middle"
    assert files_of(out) == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_kills_within_a_resume_never_remake_a_finished_part(tmp_path, make_photo, command):
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(40):
        make_photo(seed, 240, 200).save(folder / f"{seed:03d}.jpg")
    out = tmp_path / "out"
    options = ("--workers", "1", "--part-size", "2", "--statistics", "0", "--sheet-rows", "0")
    run = command(folder, "--out", out, *options)
    while len(list((out / ".parts").glob("0*.jsonl"))) < 4 and run.poll() is None:
        time.sleep(0.02)
    run.kill()
    run.communicate()
    time.sleep(1)  # the worker notices that its parent is gone
    lines = [p.read_text().splitlines() for p in (out / ".parts").glob("0*.jsonl")]
    made = [json.loads(line) for part in lines for line in part]
    times = {row["file"]: (out / row["file"]).stat().st_mtime_ns for row in made}
    assert len(times) >= 32
    last = command(folder, "--out", out, *options, "--resume")
    last.communicate()
    assert last.returncode == 0
    assert {file: (out / file).stat().st_mtime_ns for file in times} == times
