"""The benchmark of the two stages: its measures by hand, and a round on few pictures."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "rerank.py"


@pytest.fixture(scope="module")
def rerank():
    spec = importlib.util.spec_from_file_location("benchmarks_rerank", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_ties_count_against_the_wanted_photo(rerank):
    scores = np.array([[0.0, 0.9, 0.5], [0.7, 0.7, 0.7]])  # wanted are photos 1 and 2
    assert rerank.reciprocal_rank(scores, 1) == pytest.approx((1 + 1 / 3) / 2)


def test_a_check_of_nothing_is_refused(rerank, capsys):
    for options in (["--candidates=20"], ["--only=choice"]):
        with pytest.raises(SystemExit):
            rerank.main([*options, "--check"])
        assert "N = 50" in capsys.readouterr().err


def test_rules_of_exclusion(rerank):
    wanted, excluded = np.zeros((1, 4)), np.array([[1.0, 1.0, 1.0, 5.0]])  # mean 2, deviation 1.73
    rules = dict(rerank.excluding(wanted, excluded))
    assert rules["plain minus"].tolist() == [[-1, -1, -1, -5]]
    own = next(total for name, total in rules.items() if "searcher" in name)
    assert own[0, :3].tolist() == [0, 0, 0]
    assert own[0, 3] == pytest.approx(-(3 - rerank.planning.ORDINARY * np.sqrt(3)))


@pytest.mark.slow
def test_a_run_writes_what_it_printed(rerank, dsr, make_model, style_codes, tmp_path, capsys):
    model = make_model("zero-shot")
    model.save_pretrained(tmp_path / "model")
    options = [f"--data={dsr}", f"--model={tmp_path / 'model'}", "--candidates=10,40", "--limit=20"]
    assert rerank.main([*options, f"--json={tmp_path / 'out.json'}"]) == 0
    values = json.loads((tmp_path / "out.json").read_text())
    assert values["kept"][1] == {"candidates": 40, **dict.fromkeys(
        ["sketch", "art", "mosaic", "text", "sketch+text"], 1.0)}  # fmt: skip
    assert values["kept without"][0]["kept"] == 1
    first, scored = values["choice"][:2]  # one part is ranked as before, z-scored or not
    assert [first["parts"], scored["parts"]] == ["sum", "z-scored"]
    assert first["sketch"] == scored["sketch"] != 1
    assert len(values["choice"]) == 18 and len(values["exclusion"]) == 10
    assert "keep" in capsys.readouterr().out
