"""A written file is the old one or the whole new one."""

from __future__ import annotations

import json
import os

import pytest

from freestyle.files import (
    write_atomically,
    write_folder_atomically,
    write_json,
    write_text,
)


def test_text_and_json(tmp_path):
    path = write_text(tmp_path / "new" / "folder" / "a.txt", "grün\n")
    assert path.read_bytes() == "grün\n".encode()
    values = {"a": [1, 2.5, None], "ü": "é"}
    text = write_json(tmp_path / "b.json", values).read_text(encoding="utf-8")
    assert json.loads(text) == values and text.endswith("}\n") and "ü" in text


def test_failure_leaves_the_old_file_and_no_litter(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_interruption_leaves_no_litter(tmp_path):
    def stop(temporary):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.txt", stop)
    assert not list(tmp_path.iterdir())


def test_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")

    def write(temporary):
        temporary.write_text("new")
        assert temporary.parent == path.parent and temporary.suffix == ".txt"
        assert path.read_text() == "old"

    write_atomically(path, write)
    assert path.read_text() == "new"


def test_permissions_are_the_users(tmp_path):
    mask = os.umask(0o027)
    try:
        path = write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o640


def test_place_that_cannot_be_written(tmp_path, refusal):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "a.txt"
    text = refusal(write_text, path, "x")
    assert str(path) in text and "choose another place" in text


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    def write(place, text):
        (place / "deep").mkdir()
        (place / "deep" / "a.txt").write_text(text)
        (place / "deep" / "a.txt").chmod(0o600)

    path = write_folder_atomically(tmp_path / "new" / "folder", lambda p: write(p, "old"))
    assert (path / "deep" / "a.txt").read_text() == "old"

    def fail(place):
        write(place, "half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        write_folder_atomically(path, fail)
    assert (path / "deep" / "a.txt").read_text() == "old"
    (path / "extra.txt").write_text("goes with the old one")
    write_folder_atomically(path, lambda p: write(p, "new"))
    assert [p.name for p in path.iterdir()] == ["deep"]
    assert (path / "deep" / "a.txt").read_text() == "new"
    mask = os.umask(0)
    os.umask(mask)
    assert (path / "deep" / "a.txt").stat().st_mode & 0o777 == 0o666 & ~mask
    assert [p.name for p in path.parent.iterdir()] == ["folder"]


def test_a_folder_that_cannot_be_written(tmp_path, refusal):
    (tmp_path / "file").write_text("x")
    message = refusal(write_folder_atomically, tmp_path / "file" / "folder", lambda p: None)
    assert "cannot write" in message
