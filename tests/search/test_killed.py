"""A writer that is killed, and files that are damaged."""

from __future__ import annotations

import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from freestyle.errors import UserError
from freestyle.search.index import open_index

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
made = runpy.run_path(str(HERE / "made_photos.py"))
BackEnd, SETTINGS, make_photo, make_photos = (
    made[name] for name in ("BackEnd", "SETTINGS", "make_photo", "make_photos")
)
SIZE, GROUPS = 20, 10
WRITER = f"""
import runpy, sys
from freestyle.search.index import open_index
made = runpy.run_path({str(HERE / "made_photos.py")!r})
index = open_index(sys.argv[1])
version = int(sys.argv[2])
with index.writing(wait=True):
    print("writing", flush=True)
    for group in range({GROUPS}):
        index.upsert(made["make_photos"]({SIZE}, start=group * {SIZE}, version=version))
        print(group, flush=True)
        if group % 3 == 2:
            index.optimise()
    index.optimise()
print("end", flush=True)
"""


def start_writer(uri, version):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, uri, str(version)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def versions_by_group(index):
    """Which version each group of photos has; every group must be whole."""
    found = {}
    for batch in index.records():
        for photo in batch:
            number = int(photo.name.split(".")[0])
            version = photo.size - 1000 * number
            np.testing.assert_array_equal(photo.vector, make_photo(number, version=version).vector)
            found.setdefault(number // SIZE, []).append(version)
    assert all(len(group) == SIZE and len(set(group)) == 1 for group in found.values())
    return {group: versions[0] for group, versions in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact", "lance"])
def test_every_commit_is_whole_after_kill_9(name, tmp_path):
    back_end = BackEnd(name, tmp_path)
    index = back_end.create()
    chance = random.Random(0)
    killed = 0
    for version in range(1, 5):
        writer = start_writer(back_end.uri(), version)
        assert writer.stdout.readline() == "writing\n"
        time.sleep(chance.uniform(0, 0.5))
        killed += writer.poll() is None
        writer.send_signal(signal.SIGKILL)
        said = [line.strip() for line in writer.stdout]
        writer.wait()
        written = versions_by_group(back_end.open())
        committed = {int(word) for word in said if word.isdigit()}
        assert all(written[group] == version for group in committed)
        with index.writing():  # the dead process holds no lock
            index.upsert([])
    assert killed >= 2
    writer = start_writer(back_end.uri(), 9)
    assert writer.communicate(timeout=120)[0].endswith("end\n") and writer.returncode == 0
    assert versions_by_group(index) == dict.fromkeys(range(GROUPS), 9)
    if name == "exact":  # what killed writers left is gone
        assert len(list((tmp_path / "my index ü" / "parts").iterdir())) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact", "lance"])
def test_a_second_writer_waits(name, tmp_path):
    back_end = BackEnd(name, tmp_path)
    index = back_end.create()
    with index.writing():
        writer = start_writer(back_end.uri(), 1)
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(timeout=4)
        assert len(index) == 0
    assert writer.communicate(timeout=120)[0].endswith("end\n")
    assert versions_by_group(index) == dict.fromkeys(range(GROUPS), 1)


def damage(path, how):
    content = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "noise":
        path.write_bytes(bytes(random.Random(0).randbytes(len(content))))
    else:
        path.unlink()


def use(uri):
    """Everything that reads."""
    index = open_index(uri)
    index.search(np.ones((1, made["WIDTH"])), 5)
    ids = list(index.fingerprints())
    if not ids:
        return 0
    for read in (index.vectors, index.atoms, index.metadata):
        read(ids)
    index.thumbnail(ids[0])
    return len(ids)


@pytest.mark.parametrize("name", ["exact", "lance"])
def test_damaged_files_are_named_in_a_sentence(name, tmp_path):
    back_end = BackEnd(name, tmp_path)
    photos = make_photos(40)
    index = back_end.filled(photos)
    with index.writing():
        index.optimise()
    index.close()
    root = tmp_path / "my index ü"
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    used = ("info.json", "commit.json", ".npy", ".arrow", ".lance", ".manifest")
    files = [p for p in root.rglob("*") if p.is_file() and p.name.endswith(used)]
    assert len(files) >= 3
    refused = 0
    for file in files:
        for how in ("empty", "cut", "noise", "gone"):
            damage(file, how)
            try:
                assert use(back_end.uri()) in (0, 40)  # an older version, or a file not in use
            except UserError as error:
                refused += 1
                assert "damaged" in str(error) or "no index" in str(error)
                assert "\n" not in str(error)
            shutil.rmtree(root)
            shutil.copytree(copy, root)
    assert refused >= 2 * len(files)
    assert use(back_end.uri()) == 40


def test_folders_that_are_no_index(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    back_end = BackEnd("exact", tmp_path)
    with pytest.raises(UserError, match=r"holds 'a.jpg' and no index: choose a new or empty"):
        back_end.create(name="photos")
    with pytest.raises(UserError, match="there is no index at"):
        back_end.open("photos")
    with pytest.raises(UserError, match="no index"):
        open_index(str(tmp_path / "photos" / "a.jpg"))
    with pytest.raises(UserError, match="choose a folder"):
        back_end.create(name="photos/a.jpg")
    with pytest.raises(UserError, match="is no index: write a folder"):
        open_index("s3://bucket/index")
    with pytest.raises(UserError, match="names no place"):
        open_index("exact:")


def test_creation_cut_short_is_begun_again(tmp_path):
    for name in ("exact", "lance"):
        back_end = BackEnd(name, tmp_path)
        back_end.create(name=name).close()
        (tmp_path / name / "info.json").unlink()
        assert len(back_end.create(name=name)) == 0


def test_a_plain_path_is_what_it_is(tmp_path):
    BackEnd("exact", tmp_path).filled(make_photos(3), name="a")
    BackEnd("lance", tmp_path).filled(make_photos(4), name="b")
    assert len(open_index(str(tmp_path / "a"))) == 3 and len(open_index(str(tmp_path / "b"))) == 4
    with pytest.raises(UserError, match="is of the back end 'exact': open it as exact:"):
        open_index(f"lance:{tmp_path / 'a'}")


def test_indexes_of_other_versions_are_refused(tmp_path):
    back_end = BackEnd("exact", tmp_path)
    back_end.create(name="a")
    file = tmp_path / "a" / "info.json"
    info = json.loads(file.read_text())
    for change, message in (
        ({"settings": {**info["settings"], "format": 99}}, "format 99, needed is 1"),
        ({"back_end": "faiss"}, "unknown back end 'faiss': update freestyle"),
        ({"settings": 3}, "damaged"),
    ):
        file.write_text(json.dumps({**info, **change}))
        with pytest.raises(UserError, match=message):
            open_index(str(tmp_path / "a"))


def test_lance_refuses_use_after_a_fork(tmp_path):
    index = BackEnd("lance", tmp_path).filled(make_photos(3))
    index._process += 1  # as it would be in the child
    with pytest.raises(RuntimeError, match="opened before a fork"):
        len(index)
