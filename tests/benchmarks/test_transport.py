"""The transport benchmark: its goals, and a round on tiny sizes."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "transport.py"
TINY = [
    "--repeats=1",
    "--pairs=100",
    "--rerank-queries=2",
    "--rerank-candidates=50",
    "--rerank-gallery=1000",
    "--large-gallery=500",
]


@pytest.fixture(scope="module")
def transport():
    spec = importlib.util.spec_from_file_location("benchmarks_transport", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_goals_count_both_ways(transport):
    good = {
        "POT's batch solver / conditional transport": 6.0,
        "conditional transport / max-mean": 1.5,
    }
    assert transport.missed(good) == []
    bad = {name: 4.0 for name in good}
    assert transport.missed(bad) == list(good)


def test_ratios_by_hand(transport):
    values = {
        "pairs": {
            "conditional transport": 2.0,
            "POT's batch solver": 20.0,
            "loop over ot.emd2": 100.0,
        },
        "gallery": {"transport": 30.0, "max-mean": 20.0, "error": 1e-6},
    }
    found = transport.ratios(values)
    assert list(found.values()) == [10.0, 50.0, 1.5, 1e-6]
    assert set(found) <= set(transport.GOALS)


def test_a_run_writes_what_it_printed(transport, tmp_path, capsys):
    file = tmp_path / "speed.json"
    assert transport.main([*TINY, f"--json={file}", "--only=rerank,large,pairs,gallery"]) == 0
    values = json.loads(file.read_text())
    assert values["gallery"]["error"] < 1e-4 and values["rerank"]["seconds"] > 0
    assert set(values["ratios"]) == set(transport.GOALS)
    assert "ot.emd2" in capsys.readouterr().out
