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


def test_half_written_lists_of_a_killed_run_are_swept_away(photos, tmp_path, generate, files_of):
    out = generate(photos, tmp_path / "out")
    whole = files_of(out)
    (out / "train.json").unlink()
    for name in (".train-ab12cd_3.json", ".CARD-ab12cd_3.md", "sidecar/.art-ab12cd_3.jsonl"):
        (out / name).write_text('{"id": "photo1", "st')
    (out / ".mine").write_text("kept")
    generate(photos, out, "--resume")
    assert files_of(out) == whole | {".mine": b"kept"}


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


def test_added_photos_need_every_style_of_the_set(photos, tmp_path, generate, make_photo, refusal):
    out = generate(photos, tmp_path / "out", "--styles", "mosaic,text")
    lists = (out / "train.json").read_bytes()
    make_photo(77).save(photos / "new.png")
    (photos / "new.txt").write_text("new\n")
    said = refusal(generate, photos, out, "--resume", "--styles", "sketch,text")
    assert "mosaic" in said and (out / "train.json").read_bytes() == lists
    generate(photos, out, "--resume", "--styles", "mosaic,sketch,text")
    assert len(rows(out, "mosaic")) == len(rows(out, "sketch")) == 11


def test_a_caption_that_was_cut_short_is_not_read_back(photos, tmp_path, generate):
    from freestyle.datasets.photos import Photo
    from freestyle.generation.journal import Journal
    from freestyle.generation.parts import Recipe, _read

    out = generate(photos, tmp_path / "out", "--styles", "mosaic,text")
    (out / "text" / "photo1.txt").write_text("a pic")
    photo = Photo("photo1", str(photos / "photo1.jpg"), ".jpg")  # its source has no caption
    folder = tmp_path / "parts"
    folder.mkdir()
    whole = _read(photo, ("art",), Recipe({}), folder, Journal(out))
    cut = _read(photo, ("art", "text"), Recipe({}), folder, Journal(out))
    assert (whole.caption, cut.caption) == ("a pic", None)


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
    tmp_path, make_photo, generate, command, files_of
):
    """Random moments after a run's next part is there, so that no clock decides where."""
    folder, out, parts = tmp_path / "photos", tmp_path / "killed", 40
    folder.mkdir()
    for seed in range(2 * parts):
        make_photo(seed, 120, 96).save(folder / f"{seed:03d}.jpg")
    options = ("--part-size", "2", "--sheet-rows", "4")
    generate(folder, tmp_path / "whole", *options)

    def finished() -> int:
        return len(list((out / ".parts").glob("0*.jsonl")))

    dice = random.Random(20261127)
    counts = []
    for attempt in range(10):
        resumed = ("--resume",) if (out / "recipe.json").exists() else ()
        workers = (
            "--workers",
            str(2 * (attempt % 3 == 0)),
        )  # in processes, or in one
        run = command(folder, "--out", out, "--statistics", "0", *options, *workers, *resumed)
        before = finished()
        merging = attempt == 9  # the last is killed while it completes the set
        while run.poll() is None:
            if (out / "sidecar").exists() if merging else finished() != before:
                break
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.1))
        run.kill()
        run.communicate()  # until its workers, which hold the same pipes, are gone too
        counts.append(finished())
    assert sum(0 < number < parts for number in counts) >= 3, counts
    generate(folder, out, *options, "--resume")
    assert files_of(out) == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_kills_within_a_resume_never_remake_a_finished_part(tmp_path, make_photo, command):
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(40):
        make_photo(seed, 120, 96).save(folder / f"{seed:03d}.jpg")
    out = tmp_path / "out"
    options = ("--workers", "1", "--part-size", "2", "--statistics", "0", "--sheet-rows", "0")
    run = command(folder, "--out", out, *options)
    while len(list((out / ".parts").glob("0*.jsonl"))) < 4 and run.poll() is None:
        time.sleep(0.02)
    run.kill()
    run.communicate()  # until its worker, which holds the same pipes, is gone too
    lines = [p.read_text().splitlines() for p in (out / ".parts").glob("0*.jsonl")]
    made = [json.loads(line) for part in lines for line in part]
    times = {row["file"]: (out / row["file"]).stat().st_mtime_ns for row in made}
    assert len(times) >= 32
    last = command(folder, "--out", out, *options, "--resume")
    last.communicate()
    assert last.returncode == 0
    assert {file: (out / file).stat().st_mtime_ns for file in times} == times
