"""Indexing: what is stored, and what a second run does when photos have changed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from freestyle.search.index import open_index

ROOT = Path(__file__).parents[2]
made = runpy.run_path(str(Path(__file__).with_name("indexing.py")))
content, counts, draw, index, make_folder, put, same_content, touch, uri, ENCODER, NAMES = (
    made[name]
    for name in (
        "content", "counts", "draw", "index", "make_folder", "put", "same_content", "touch", "uri",
        "ENCODER", "NAMES",
    )
)  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    return make_folder(tmp_path / "photos")


def test_what_is_stored_of_a_photo(photos, tmp_path, shared):
    from freestyle import FreestyleRet
    from freestyle.transport.sets import patch_sets

    (photos / "a.txt").write_text("a thing\nmore\n")
    (photos / "trips" / "c.json").write_text(json.dumps({"caption": "the sea"}))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn to the right
    exif.get_ifd(0x8769)[0x9003] = "2021:07:04 10:20:30"
    put(photos / "turned.jpg", 9, exif=exif, quality=95)
    assert counts(index(photos, tmp_path / "out")) == {"added": 6}
    found = content(tmp_path / "out")
    assert sorted(found) == sorted([*NAMES, "turned.jpg"])
    model = FreestyleRet.from_encoder(ENCODER, encoder=shared(ENCODER))
    files = [photos / path for path in found]
    vectors = model.encode_gallery(files).numpy()
    atoms = patch_sets(shared(ENCODER), files, 10).atoms.numpy()
    for row, (path, record) in enumerate(found.items()):
        data = (photos / path).read_bytes()
        assert np.abs(record.vector - vectors[row]).max() < 1e-5
        assert np.abs(record.atoms - atoms[row]).max() < 2e-3 and record.atoms.shape[0] == 10
        assert np.abs(record.atoms[0] - record.vector).max() < 2e-3
        assert record.digest == hashlib.sha256(data).hexdigest() and record.size == len(data)
        assert record.origin == str(photos / path) and record.extra == {"source": "photos"}
    turned = found["turned.jpg"]
    assert (turned.width, turned.height, turned.date) == (40, 60, "2021-07-04T10:20:30")
    assert (found["a.jpg"].caption, found["trips/c.jpg"].caption) == ("a thing", "the sea")
    thumbnail = Image.open(io.BytesIO(turned.thumbnail))
    assert thumbnail.format == "WEBP" and thumbnail.size == (40, 60)


def test_thumbnails_are_small_or_none(tmp_path):
    put(tmp_path / "p" / "wide.png", 1)
    draw(2, 900, 300).save(tmp_path / "p" / "large.png")
    index(tmp_path / "p", tmp_path / "out", "--thumbnail", "90", "--views", "none")
    found = content(tmp_path / "out")
    assert Image.open(io.BytesIO(found["large.png"].thumbnail)).size == (90, 30)
    assert found["wide.png"].atoms is None
    index(tmp_path / "p", tmp_path / "bare", "--thumbnail", "0", "--views", "grid:5")
    found = content(tmp_path / "bare")
    assert found["large.png"].thumbnail == b"" and found["large.png"].atoms.shape[0] == 5


def test_only_new_and_changed_photos_are_embedded_and_gone_ones_go(photos, tmp_path):
    out = tmp_path / "out"
    index(photos, out)
    before = content(out)
    assert counts(index(photos, out)) == {"unchanged": 5}
    put(photos / "new.jpg", 20)
    put(photos / "a.jpg", 21)
    (photos / "b.png").unlink()
    touch(photos / "trips" / "c.jpg")
    (photos / "trips" / "sea" / "d.txt").write_text("written later")
    summary = index(photos, out)
    assert counts(summary) == {
        "added": 1,
        "changed": 1,
        "refreshed": 2,
        "deleted": 1,
        "unchanged": 1,
    }
    assert summary["embedded"] == 2 and summary["photos"] == 5
    after = content(out)
    assert after["trips/c.jpg"].modified == 1_700_000_000
    assert after["trips/sea/d.webp"].caption == "written later"
    for path in ("trips/c.jpg", "trips/sea/d.webp"):
        assert np.array_equal(after[path].vector, before[path].vector)
        assert after[path].thumbnail == before[path].thumbnail
    assert not np.allclose(after["a.jpg"].vector, before["a.jpg"].vector, atol=1e-3)
    index(photos, tmp_path / "afresh")
    assert same_content(after, content(tmp_path / "afresh"))
    (photos / "a.jpg").unlink()
    assert "deleted" not in counts(index(photos, out, "--keep-deleted"))
    assert "a.jpg" in content(out)


def test_a_run_with_nothing_to_do_finishes_what_a_killed_one_left(photos, tmp_path):
    index(photos, tmp_path / "out")
    opened = open_index(uri(tmp_path / "out"))
    record = next(opened.records())[0]
    with opened.writing():  # as one that was killed after its last commit
        opened.upsert([record])
    assert len(list((tmp_path / "out" / "parts").glob("*.vectors.npy"))) == 2
    assert counts(index(photos, tmp_path / "out")) == {"unchanged": 5}
    assert len(list((tmp_path / "out" / "parts").glob("*.vectors.npy"))) == 1


@pytest.mark.parametrize("spoilt", ["vector", "atoms"])
def test_an_embedding_that_is_not_finite_leaves_out_its_photo_alone(
    photos, tmp_path, monkeypatch, refusal, spoilt
):
    from freestyle.search.photo_encoder import PhotoEncoder

    sound = PhotoEncoder.records

    def records(self, listed, decoded):
        made = sound(self, listed, decoded)
        for record in made:
            if record.path == "b.png":
                getattr(record, spoilt)[0] = np.nan
        return made

    assert "b.png" in NAMES
    monkeypatch.setattr(PhotoEncoder, "records", records)
    summary = index(photos, tmp_path / "out")
    assert counts(summary) == {"added": len(NAMES) - 1, "broken": 1}
    assert "b.png" in summary["errors"][0]["error"] and "b.png" not in content(tmp_path / "out")
    assert "b.png" in refusal(index, photos, tmp_path / "strict", "--strict")
    monkeypatch.undo()
    assert counts(index(photos, tmp_path / "out")) == {"added": 1, "unchanged": len(NAMES) - 1}


def test_photos_of_known_bytes_do_not_pile_up():
    from freestyle.search.decode import Decoded
    from freestyle.search.fill import embed_batches

    taken = []

    def results():
        for number in range(10_000):
            taken.append(number)
            yield number, Decoded("digest", 1, 0.0, "")

    class Encoder:
        def records(self, photos, decoded):
            return []

    assert next(embed_batches(results(), Encoder(), 4))[0] == 0
    assert len(taken) < 100


def test_equal_pictures_are_two_photos(photos, tmp_path):
    shutil.copy(photos / "a.jpg", photos / "copy.jpg")
    index(photos, tmp_path / "out")
    found = content(tmp_path / "out")
    assert found["a.jpg"].digest == found["copy.jpg"].digest
    assert found["a.jpg"].id != found["copy.jpg"].id


def test_broken_photos_are_listed_or_stop_the_run(photos, tmp_path, refusal):
    out = tmp_path / "out"
    index(photos, out)
    (photos / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    assert "a.jpg" in refusal(index, photos, out, "--strict")
    (photos / "none.png").write_bytes(b"")
    (photos / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    assert "gone.jpg" in refusal(index, photos, out, "--strict")
    assert len(content(out)) == 5
    summary = index(photos, out)
    assert counts(summary) == {"deleted": 1, "unchanged": 4, "broken": 3}
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert {error["path"] for error in errors} == {"a.jpg", "none.png", "gone.jpg"}
    assert summary["errors"] == errors and all(":" in error["error"] for error in errors)
    assert "a.jpg" not in content(out)  # its picture is no longer there
    for name in ("none.png", "gone.jpg"):
        (photos / name).unlink()
    put(photos / "a.jpg", 0)
    assert counts(index(photos, out)) == {"added": 1, "unchanged": 4}
    assert not (out / "errors.jsonl").exists()


def test_a_source_that_is_missing_or_empty_deletes_nothing(photos, tmp_path, refusal):
    out = tmp_path / "out"
    index(photos, out)
    photos.rename(tmp_path / "away")
    assert "--forget photos" in refusal(index, photos, out)
    photos.mkdir()
    assert "--forget photos" in refusal(index, photos, out)
    assert len(content(out)) == 5
    assert "no photos of a source" in refusal(index, [], out, "--forget", "others")
    assert counts(index([], out, "--forget", "photos")) == {"deleted": 5}
    assert content(out) == {}


def test_sources_with_equal_paths_stay_apart(photos, tmp_path, refusal):
    out = tmp_path / "out"
    other = make_folder(tmp_path / "disk" / "photos", ["a.jpg", "z.jpg"])
    put(other / "a.jpg", 30)
    assert "another name" in refusal(index, [photos, other], out)
    assert counts(index([photos, f"disk={other}"], out)) == {"added": 7}
    assert "another name" in refusal(index, other, out)
    (other / "z.jpg").unlink()
    assert counts(index(f"disk={other}", out)) == {"unchanged": 1, "deleted": 1}
    opened = open_index(uri(out))
    assert len(opened) == 6
    rows = opened.metadata(list(opened.fingerprints()))
    assert sorted(row["source"] for row in rows if row["path"] == "a.jpg") == ["disk", "photos"]


def test_another_folder_of_the_same_name_removes_nothing(photos, tmp_path, refusal):
    out = tmp_path / "out"
    index(photos, out)
    other = make_folder(tmp_path / "disk" / "photos", ["y.jpg", "z.jpg"])  # no path in common
    assert "another name" in refusal(index, other, out)
    assert len(content(out)) == 5
    shutil.rmtree(photos)
    assert counts(index(other, out)) == {"added": 2, "deleted": 5}


def test_a_moved_folder_is_not_embedded_again(photos, tmp_path):
    out = tmp_path / "out"
    index(photos, out)
    before = content(out)
    moved = tmp_path / "new place" / "photos"
    moved.parent.mkdir()
    photos.rename(moved)
    assert counts(index(moved, out)) == {"refreshed": 5}
    after = content(out)
    assert after["a.jpg"].origin == str(moved / "a.jpg")
    assert same_content(after, before, 0, but=("origin",))


def test_other_settings_are_refused_by_name(photos, tmp_path, refusal, make_model):
    out = tmp_path / "out"
    index(photos, out)
    assert "random:siglip-tiny" in refusal(index, photos, out, "--encoder", "random:siglip-tiny")
    assert "views" in refusal(index, photos, out, "--views", "grid:5")
    assert "float32" in refusal(index, photos, out, "--precision", "bf16")
    assert "--precision" in refusal(index, photos, tmp_path / "o", "--precision", "fp8")
    assert "--views" in refusal(index, photos, tmp_path / "o", "--views", "patches:x")
    assert "--batch-size" in refusal(index, photos, tmp_path / "o", "--batch-size", "0")
    make_model("query-adapter", query_map="linear").save_pretrained(tmp_path / "model")
    assert "untouched encoder" in refusal(index, photos, out, "--model", tmp_path / "model")
    assert len(content(out)) == 5 and not (tmp_path / "o").exists()


def test_an_encoder_is_refused_by_name_before_it_is_loaded(photos, tmp_path, refusal):
    index(photos, tmp_path / "out")
    said = refusal(index, photos, tmp_path / "out", "--encoder", "nobody/nothing")
    assert ENCODER in said and "nobody/nothing" in said and "new index" in said


def test_an_encoder_in_a_folder_is_found_from_anywhere(tmp_path, monkeypatch):
    from freestyle.search.making import absolute

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert absolute("here") == str(tmp_path / "here")
    assert absolute("openai/clip-vit-base-patch32") == "openai/clip-vit-base-patch32"


def test_a_hub_model_of_a_servers_index_is_not_taken_for_another():
    from types import SimpleNamespace

    from freestyle.search import making
    from freestyle.search.records import IndexSettings

    settings = IndexSettings("freestyle-mini", "w", 8, model="somebody/model")
    held = SimpleNamespace(uri="qdrant://host:6333/photos", settings=settings)
    assert making._refuse_other_model(held, "somebody/model") is None


def test_half_precision_is_near_and_kept(photos, tmp_path):
    index(photos, tmp_path / "full")
    index(photos, tmp_path / "half", "--precision", "bf16")
    one, other = content(tmp_path / "full"), content(tmp_path / "half")
    cosines = [float(one[path].vector @ other[path].vector) for path in one]
    assert 0.99 < min(cosines) < 0.9999999
    put(photos / "new.jpg", 20)
    assert counts(index(photos, tmp_path / "half")) == {"added": 1, "unchanged": 5}
    assert open_index(uri(tmp_path / "half")).settings.precision == "bfloat16"


def test_a_model_goes_with_its_index(photos, tmp_path, make_model, refusal):
    model = make_model("query-adapter", query_map="linear")
    model.save_pretrained(tmp_path / "model")
    out = tmp_path / "out"
    index(photos, out, "--model", tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    settings = open_index(uri(out)).settings
    assert (settings.model, settings.encoder) == ("model", ENCODER)
    assert {p.name for p in (out / "model").iterdir()} >= {"config.json", "model.safetensors"}
    index(photos, tmp_path / "plain")
    assert same_content(content(out), content(tmp_path / "plain"))  # the gallery is the encoder's
    assert counts(index(photos, out)) == {"unchanged": 5}
    model.save_pretrained(tmp_path / "model")
    assert counts(index(photos, out, "--model", tmp_path / "model")) == {"unchanged": 5}
    shutil.rmtree(out / "model")  # as if the first run was killed before it had copied it
    assert "--model" in refusal(index, photos, out)
    index(photos, out, "--model", tmp_path / "model")
    assert (out / "model" / "model.safetensors").exists()
    model.query_map.linear.weight.data += 1
    model.save_pretrained(tmp_path / "model")
    assert "goes with" in refusal(index, photos, out, "--model", tmp_path / "model")


def test_a_prompted_gallery_embeds_its_own_photos(photos, tmp_path, make_model):
    model = make_model("freestyle", gallery="prompted")
    model.save_pretrained(tmp_path / "model")
    index(photos, tmp_path / "out", "--model", tmp_path / "model")
    found = content(tmp_path / "out")
    rows = model.encode_gallery([photos / path for path in found]).numpy()
    assert np.abs(np.stack([r.vector for r in found.values()]) - rows).max() < 1e-5
    settings = open_index(uri(tmp_path / "out")).settings
    assert settings.views == "grid-10-uniform"
    assert settings.weights.startswith(f"{model.encoder.weights_tag} ")
    assert counts(index(photos, tmp_path / "out")) == {"unchanged": 5}


def test_two_writers_are_one_after_the_other(photos, tmp_path, refusal):
    out = tmp_path / "out"
    index(photos, out)
    put(photos / "new.jpg", 20)
    opened = open_index(uri(out))
    with opened.writing():
        assert "another run" in refusal(index, photos, out)
    entered, leave = threading.Event(), threading.Event()

    def write():
        with opened.writing():
            entered.set()
            leave.wait(30)

    other = threading.Thread(target=write)
    other.start()
    entered.wait(30)
    threading.Timer(0.2, leave.set).start()
    assert counts(index(photos, out, "--wait")) == {"added": 1, "unchanged": 5}
    assert leave.is_set()
    other.join()


def test_the_default_is_a_lance_folder_and_workers_change_nothing(photos, tmp_path, capsys):
    from freestyle.cli import main

    out = tmp_path / "my.index"
    options = ["--encoder", ENCODER, "--workers", "2", "--batch-size", "2", "--json", "-"]
    assert main(["index", str(photos), "--out", str(out), *options]) == 0
    assert json.loads(capsys.readouterr().out)["added"] == 5
    index(photos, tmp_path / "plain")
    assert same_content(content(out, "lance"), content(tmp_path / "plain"))
    assert main(["index", str(photos), "--out", str(out)]) == 0
    assert "unchanged" in capsys.readouterr().out
    assert main(["index", str(photos)]) == 2
    assert "--out" in capsys.readouterr().err


def test_the_mini_embeds_as_in_python(tmp_path):
    from freestyle import FreestyleRet

    files = sorted((ROOT / "data" / "emoji" / "images").glob("1f98*.webp"))[:3]
    (tmp_path / "emoji").mkdir()
    for file in files:
        shutil.copy(file, tmp_path / "emoji")
    summary = index(tmp_path / "emoji", tmp_path / "out", encoder="freestyle-mini")
    found = content(tmp_path / "out")
    assert summary["added"] == 3 and list(found) != []
    rows = FreestyleRet.from_encoder("freestyle-mini").encode_gallery(
        [tmp_path / "emoji" / path for path in found]
    )
    assert np.abs(np.stack([r.vector for r in found.values()]) - rows.numpy()).max() < 1e-5
    assert next(iter(found.values())).atoms.shape == (10, 768)


FORKING = """
import json, os, sys
import freestyle.encoders.families, freestyle.search.index_command, freestyle.search.photo_encoder
from freestyle.cli import main
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os._exit(main(json.loads(line)))
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.mark.slow
def test_ten_kills_then_a_run_gives_the_content_of_an_undisturbed_one(tmp_path):
    """Random moments after some of a run's commits, so that no clock decides where.

    The runs are forked from a process that has imported everything, to save ten imports of torch.
    """
    folder, out = tmp_path / "photos", tmp_path / "killed"
    count = 400  # a hundred commits: ten runs of a few leave something to do
    for seed in range(count):
        put(folder / f"{seed % 7}" / f"{seed:03d}.jpg", seed)
    for name in ("broken.jpg", "3/other.png"):
        (folder / name).write_bytes(b"\xff\xd8 no picture")
    index(folder, tmp_path / "whole")
    command = ["index", str(folder), "--out", uri(out), "--encoder", ENCODER, "--quiet"]
    command += ["--commit", "4", "--batch-size", "4"]
    dice, seen, ends = random.Random(20261127), [0], []

    def stamp():
        commit = out / "commit.json"
        return commit.stat().st_mtime_ns if commit.exists() else None

    forking = [sys.executable, "-c", FORKING]
    with subprocess.Popen(
        forking, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        for attempt in range(10):
            workers = ["--workers", str(2 * (attempt % 3 == 0))]
            before = stamp()
            process.stdin.write(json.dumps([*command, *workers]) + "\n")
            process.stdin.flush()
            child, limit = int(process.stdout.readline()), time.monotonic() + 60
            for _ in range(dice.randint(1, 4)):
                while stamp() in (before, None) and time.monotonic() < limit:
                    time.sleep(0.001)
                before = stamp()
            time.sleep(dice.uniform(0, 0.01))
            os.kill(child, signal.SIGKILL)
            ends.append(int(process.stdout.readline()))
            seen.append(len(open_index(uri(out))) if (out / "info.json").exists() else 0)
        process.stdin.close()
    assert ends == [signal.SIGKILL] * 10
    assert seen == sorted(seen) and len({number for number in seen if number < count}) >= 6, seen
    summary = index(folder, out)
    assert summary["photos"] == count and summary["unchanged"] == seen[-1]
    assert same_content(content(out), content(tmp_path / "whole"))
    assert (out / "errors.jsonl").read_text() == (tmp_path / "whole/errors.jsonl").read_text()


@pytest.mark.slow
def test_a_ray_cluster_of_two_nodes_gives_the_same_index(photos, tmp_path):
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    (photos / "bad.jpg").write_bytes(b"\xff\xd8 no picture")
    small = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    try:
        cluster.add_node(**small)
        ray.init(address=cluster.address, log_to_driver=False)
        assert sum(node["Alive"] for node in ray.nodes()) == 2
        options = ("--engine", "ray", "--workers", "2", "--batch-size", "1")
        summary = index(photos, tmp_path / "ray", *options)
        put(photos / "new.jpg", 20)
        touch(photos / "a.jpg")
        again = index(photos, tmp_path / "ray", *options)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert counts(summary) == {"added": 5, "broken": 1}
    assert counts(again) == {"added": 1, "refreshed": 1, "unchanged": 4, "broken": 1}
    index(photos, tmp_path / "local")
    assert same_content(content(tmp_path / "ray"), content(tmp_path / "local"))
