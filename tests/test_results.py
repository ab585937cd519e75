"""The comparison of all methods over seeds, on made-up ranks."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from freestyle.evaluation.evaluate import Outcome
from freestyle.evaluation.ranks import Ranks
from freestyle.results import compare, difference_table


def evaluation(hits_by_method):
    outcomes = {
        method: {
            style: Outcome(Ranks(np.where(np.array(hits) == 1, 1, 7), 10))
            for style, hits in by_style.items()
        }
        for method, by_style in hits_by_method.items()
    }
    return SimpleNamespace(outcomes=outcomes)


@pytest.fixture
def entries():
    better, worse = [1] * 40, [1] * 20 + [0] * 20
    seeds = {
        seed: evaluation(
            {
                "zero-shot": {"sketch": worse, "art": worse, "colour": worse, "text": worse},
                "freestyle": {"sketch": better, "art": worse, "colour": worse, "text": worse},
            }
        )
        for seed in (0, 1, 2)
    }
    return compare(seeds, ["sketch", "art"], ["colour"])


def test_differences_are_means_over_styles_and_seeds_paired_by_query(entries):
    found = {entry["scope"]: entry for entry in entries}
    assert found["mean of sketch, art"]["difference"] == pytest.approx(0.25)  # 50 points on one
    assert found["mean of sketch, art"]["excludes_zero"]
    assert found["colour (unseen)"]["difference"] == 0
    assert not found["colour (unseen)"]["excludes_zero"]


def test_the_table_shows_points_and_intervals(entries):
    lines = difference_table(entries).splitlines()
    assert lines[0].startswith("| freestyle minus | mean of sketch, art | colour (unseen) | text |")
    assert re.match(r"\| zero-shot \| \+25\.0 \[\+\d+\.\d, \+\d+\.\d\] \| \+0\.0", lines[2])


def test_every_seed_is_trained_once_and_evaluated(tmp_path, monkeypatch):
    from freestyle import results

    trained = []

    def train(config, out, overrides=()):
        trained.append((out.name, *overrides))
        (out / "model").mkdir(parents=True)
        (out / "model" / "model.safetensors").touch()

    def evaluate(config, models, command, style_controls):
        assert all((model / "model.safetensors").is_file() for model in models)
        return [model.parent.name for model in models], ["sketch"], ["colour"]

    monkeypatch.setattr(results, "train", train)
    monkeypatch.setattr(results, "evaluate", evaluate)
    for _ in range(2):  # a second call finds everything trained
        found, styles, unseen = results.run_seeds(tmp_path, [3, 5], "freestyle results")
    assert (styles, unseen) == (["sketch"], ["colour"])
    assert found[5] == [f"{method}-seed5" for method in results.TRAINED]
    assert len(trained) == 2 * len(results.TRAINED)
    assert ("freestyle-seed3", "--seed_everything=3") in trained
