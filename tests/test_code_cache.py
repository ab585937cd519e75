"""Style codes are computed once per picture and reader, and stale ones are never met."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from freestyle.code_cache import CodeCache, default_folder
from freestyle.encoders.base import Preprocessing

SIZE = Preprocessing(32)


class Counter:
    """Computes other codes at every call."""

    def __init__(self, rows=2):
        self.calls, self.rows = 0, rows

    def __call__(self):
        self.calls += 1
        return torch.full((self.rows, 3), 0.1 + self.calls)


@pytest.fixture
def paths(tmp_path):
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 10)
    return files


@pytest.fixture
def cache(tmp_path):
    return CodeCache(tmp_path / "cache")


def stored(cache):
    return [p for p in (cache.folder / "codes").iterdir() if p.suffix == ".npy"]


def test_same_pictures_are_computed_once(cache, paths):
    compute = Counter()
    first = cache.get(paths, "reader", SIZE, compute)
    again = CodeCache(cache.folder).get(paths, "reader", SIZE, compute)
    assert compute.calls == 1
    assert first.dtype == again.dtype == torch.float16
    assert torch.equal(first, again) and torch.equal(first, torch.full((2, 3), 1.1).half())
    assert len(stored(cache)) == 1


def test_names_do_not_matter_but_contents_do(cache, paths, tmp_path):
    compute = Counter()
    cache.get(paths, "reader", SIZE, compute)
    moved = [path.rename(path.with_name(f"moved-{path.name}")) for path in paths]
    cache.get(moved, "reader", SIZE, compute)
    assert compute.calls == 1
    moved[1].write_bytes(b"another picture")
    assert float(cache.get(moved, "reader", SIZE, compute)[0, 0]) == pytest.approx(2.1, abs=1e-2)
    assert compute.calls == 2


def test_order_reader_and_preprocessing_are_part_of_the_key(cache, paths):
    compute = Counter()
    cache.get(paths, "reader", SIZE, compute)
    cache.get(paths[::-1], "reader", SIZE, compute)
    cache.get(paths, "reader 2", SIZE, compute)
    cache.get(paths, "reader", replace(SIZE, resize="pad"), compute)
    cache.get(paths, "reader", replace(SIZE, size=64), compute)
    assert compute.calls == 5 and len(stored(cache)) == 5
    cache.get(paths, "reader", SIZE, compute)
    assert compute.calls == 5


def tear(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: tear(path, 0),
        lambda path: tear(path, 7),
        lambda path: tear(path, 90),
        lambda path: tear(path, -1),
        lambda path: path.write_bytes(b"PK\x03\x04 not a zip"),
        lambda path: path.write_bytes(b"text"),
        lambda path: np.save(path, np.zeros((2, 3), np.float32)),
        lambda path: np.save(path, np.zeros((5, 3), np.float16)),
        lambda path: np.save(path, np.array([{}], dtype=object), allow_pickle=True),
    ],
)
def test_torn_file_is_computed_again(cache, paths, damage):
    compute = Counter()
    cache.get(paths, "reader", SIZE, compute)
    damage(stored(cache)[0])
    codes = cache.get(paths, "reader", SIZE, compute)
    assert compute.calls == 2
    assert torch.equal(codes, torch.full((2, 3), 2.1).half())
    cache.get(paths, "reader", SIZE, compute)
    assert compute.calls == 2


def test_folder_that_cannot_be_written_only_warns(paths, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = CodeCache(tmp_path / "file")
    compute = Counter()
    with caplog.at_level(logging.WARNING):
        codes = cache.get(paths, "reader", SIZE, compute)
    assert codes.shape == (2, 3)
    assert "not cached" in caplog.text and str(tmp_path / "file") in caplog.text


def test_read_only_folder_only_warns(cache, paths, caplog, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with caplog.at_level(logging.WARNING):
        assert cache.get(paths, "reader", SIZE, Counter()).shape == (2, 3)
    assert "Permission denied" in caplog.text


def test_other_processes_do_not_write(cache, paths):
    cache.get(paths, "reader", SIZE, Counter(), write=False)
    assert not (cache.folder / "codes").exists()


def test_all_compute_or_none(cache, paths):
    """Where one process has no file, those that have one must join the computation."""
    compute, said = Counter(), []
    cache.get(paths, "reader", SIZE, compute)
    cache.get(paths, "reader", SIZE, compute, agree=lambda found: said.append(found) or False)
    assert said == [True] and compute.calls == 2
    cache.get(paths, "reader", SIZE, compute, agree=lambda found: found)
    assert compute.calls == 2


def test_unreadable_picture_keeps_its_nan(cache, paths):
    paths[0].unlink()
    codes = torch.tensor([[float("nan")] * 3, [1.0] * 3])
    cache.get(paths, "reader", SIZE, lambda: codes)
    again = cache.get(paths, "reader", SIZE, Counter())
    assert again[0].isnan().all() and again[1].isfinite().all()


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("FREESTYLE_CACHE", str(tmp_path))
    assert CodeCache().folder == default_folder() == tmp_path
    monkeypatch.delenv("FREESTYLE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_folder() == tmp_path / "home" / ".cache" / "freestyle"
