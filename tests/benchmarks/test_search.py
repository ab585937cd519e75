"""The search benchmark: its gallery, its truth by hand, and a round on tiny sizes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "search.py"


@pytest.fixture(scope="module")
def search():
    spec = importlib.util.spec_from_file_location("benchmarks_search", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_galleries_are_clustered_cones_and_repeatable(search):
    gallery = search.Gallery(2000)
    first, second = gallery.blocks()
    assert first.shape == (1000, 512) and first.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(first, next(search.Gallery(2000).blocks()))
    assert not np.array_equal(first, second)
    cosines = first @ second.T
    assert 0.4 < cosines.mean() < 0.6 and cosines.max() > 0.8
    near, moved = np.split(gallery.queries(20), 2)
    assert (near @ first.T).max(axis=1).mean() > (moved @ first.T).max(axis=1).mean() + 0.05


def test_truth_is_brute_force(search):
    gallery = search.Gallery(3000)
    queries = gallery.queries(4)
    scores = queries @ np.concatenate(list(gallery.blocks())).T
    wanted = [{search.identity(n) for n in row} for row in np.argsort(-scores)[:, :10].tolist()]
    assert search.truth(gallery, queries) == wanted
    only = np.where(np.arange(3000) % 10 == 3, scores, -9)
    wanted = [{search.identity(n) for n in row} for row in np.argsort(-only)[:, :10].tolist()]
    assert search.truth(gallery, queries, 3) == wanted
    assert search.recalls([["a", "b"], ["c"]], [{"a", "x"}, {"c"}]).tolist() == [0.5, 1.0]


def test_goals_count_both_ways(search):
    good = {"back_end": "lance", "photos": 100_000, "p95_ms": 20.0, "recall": 0.97}
    assert search.missed([good, {**good, "back_end": "exact", "p95_ms": 90.0}]) == []
    assert len(search.missed([{**good, "p95_ms": 25.0, "recall": 0.9}])) == 2
    skipped = {"back_end": "lance", "photos": 100_000, "skipped": "needs disk"}
    assert "needs disk" in search.missed([skipped])[0]
    with pytest.raises(SystemExit):  # nothing would be checked
        search.parse(["--sizes=1000", "--check"])


def test_the_memory_mode_goes_to_ten_thousand(search):
    options = search.parse(["--queries=4"])
    row = search.measure("qdrant", search.Gallery(11_000), options, {11_000: ([], [])})
    assert row["skipped"].startswith("its memory mode goes to 10,000")
    assert "qdrant-client in memory, 11,000: its memory mode" in search.table([row])


@pytest.mark.slow
def test_a_run_writes_what_it_printed(tmp_path):
    file = tmp_path / "speed.json"
    options = ["--sizes=1000", "--queries=20", "--threads=2", f"--folder={tmp_path / 'i'}"]
    done = subprocess.run(
        [sys.executable, FILE, *options, f"--json={file}"],
        env={**os.environ, "PYTHONPATH": str(FILE.parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = {row["back_end"]: row for row in json.loads(file.read_text())["rows"]}
    assert set(rows) == {"exact", "lance", "qdrant-client in memory"}
    for row in rows.values():
        assert row["recall"] == row["filtered_recall"] == 1 and row["p50_ms"] <= row["p99_ms"]
        assert 0.01 < row["build_gib"] < 4 and row["queries_per_s"] > 0
    assert "| lance | 1,000 |" in done.stdout
    assert not list((tmp_path / "i").iterdir())
