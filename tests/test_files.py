"""A written file is the old one or the whole new one."""

from __future__ import annotations

import json
import os

import pytest

from freestyle.files import write_atomically, write_json, write_text


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
