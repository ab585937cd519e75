"""Matrices: what a file says becomes cells, and a cell's id is a hash of all its settings."""

import json
from pathlib import Path

import pytest
import yaml

from freestyle.bench.matrix import read_matrix, with_changes
from freestyle.errors import UserError

ROOT = Path(__file__).parents[2]
BASE = {
    "trainer": {"max_epochs": 1},
    "model": {"encoder": "random:clip-tiny", "learning_rate": 0.01},
    "data": {"styles": ["sketch", "art"]},
}


@pytest.fixture
def write(tmp_path, dsr):
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump(BASE | {"data": {**BASE["data"], "root": str(dsr)}}))

    def make(**values):
        path = tmp_path / "matrix.yaml"
        path.write_text(yaml.safe_dump({"config": str(base), **values}, sort_keys=False))
        return path

    return make


def test_cells_are_names_times_seeds_and_untrained_ones_come_once(write):
    matrix = read_matrix(
        write(
            title="T",
            seeds=[3, 5],
            reference="a",
            cells={"zero": {"method": "zero-shot"}, "a": {}, "b": {"seeds": [7]}},
        )
    )
    assert [(c.name, c.seed) for c in matrix.cells] == [
        ("zero", None),
        ("a", 3),
        ("a", 5),
        ("b", 7),
    ]
    assert [c.trained for c in matrix.cells] == [False, True, True, True]
    assert len({c.id for c in matrix.cells}) == 4


def test_an_id_depends_on_every_setting_and_on_nothing_else(write):
    def ids(**entry):
        return read_matrix(write(cells={"a": entry})).cells[0].id

    plain = ids()
    assert ids() == plain
    assert ids(set={"model.learning_rate": 0.02}) != plain
    assert ids(set={"model.prompts.n_tokens": 8}) != plain
    assert ids(set={"trainer.max_epochs": 2}) != plain
    assert ids(seeds=[1]) != plain
    assert ids(evaluate={"styles": ["sketch"]}) != plain
    # the default written out is no change, nor is what only the machine sees
    assert ids(set={"model.prompts.n_tokens": 4}) == plain
    assert ids(set={"data.num_workers": 2, "trainer.enable_progress_bar": False}) == plain


def test_an_id_depends_on_the_lists(write, dsr, tmp_path):
    import shutil

    from freestyle.bench import matrix as module

    copy = tmp_path / "copy"
    shutil.copytree(dsr, copy)
    entry = {"cells": {"a": {"set": {"data.root": str(copy)}}}}
    before = read_matrix(write(**entry)).cells[0].settings()["lists"]
    records = json.loads((copy / "test.json").read_text())
    (copy / "test.json").write_text(json.dumps(records[:-1]))
    module.lists_digest.cache_clear()
    assert read_matrix(write(**entry)).cells[0].settings()["lists"] != before


def test_quick_seeds_and_names_pick_cells(write):
    matrix = read_matrix(
        write(seeds=[0, 1], quick=["b"], cells={"z": {"method": "zero-shot"}, "a": {}, "b": {}})
    )
    assert [(c.name, c.seed) for c in matrix.only(quick=True, seeds=None, names=[]).cells] == [
        ("b", 0)
    ]
    assert [c.seed for c in matrix.only(quick=False, seeds=[1], names=[]).cells] == [None, 1, 1]
    assert {c.name for c in matrix.only(quick=False, seeds=None, names=["a"]).cells} == {"a"}


def test_changes_leave_the_base_alone():
    changed = with_changes(BASE, {"model.loss.name": "triplet", "data.styles": ["art"]}, "here")
    assert changed["model"]["loss"] == {"name": "triplet"}
    assert changed["data"]["styles"] == ["art"]
    assert BASE["data"]["styles"] == ["sketch", "art"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "lists no cells"),
        ({"cells": {"a": {"sets": {}}}}, "unknown key 'sets'"),
        ({"cell": {}}, "unknown key 'cell'"),
        ({"cells": {"a": {}}, "reference": "b"}, "'b', which is none"),
        ({"cells": {"a": {}}, "quick": ["c"]}, "'c', which is none"),
        ({"cells": {"a": {"set": {"optimizer.lr": 1}}}}, "must begin with model."),
        ({"cells": {"a": {"set": {"model.encoder.x": 1}}}}, "'encoder' is a value"),
        ({"cells": {"a": {}}, "seeds": ["x"]}, "no whole number"),
        ({"cells": {"a": {}}, "evaluate": {"style": []}}, "unknown setting 'style'"),
    ],
)
def test_a_bad_matrix_is_one_sentence(write, values, named):
    with pytest.raises(UserError, match=named):
        read_matrix(write(**values))


def test_an_unknown_setting_is_one_sentence(write):
    cell = read_matrix(write(cells={"a": {"set": {"model.surprise": 1}}})).cells[0]
    with pytest.raises(UserError, match="unknown setting 'surprise'"):
        cell.settings()


def test_a_setting_that_came_later_leaves_older_ids_as_they_were(write, monkeypatch):
    from freestyle.bench import matrix as module

    def ids(**entry):
        return read_matrix(write(cells={"a": entry})).cells[0].id

    frozen, prompted = {"model.gallery": "frozen"}, {"model.gallery": "prompted"}
    plain = ids()
    assert ids(set=frozen) == plain
    assert ids(set=prompted) != plain
    cell = read_matrix(write(cells={"a": {}})).cells[0]
    assert cell.settings()["model"]["gallery"] == "frozen"  # the ledger's line still says it
    later = {"model.prompts.n_tokens": 4, "model.tower.rank": 4}
    monkeypatch.setattr(module, "ADDED_LATER", later)
    assert ids(set={"model.prompts.n_tokens": 8}) != ids()
    # a setting counts as soon as it holds another value than the one recorded, default or not
    monkeypatch.setattr(module, "ADDED_LATER", {"model.prompts.n_tokens": 2})
    assert ids() not in (ids(set={"model.prompts.n_tokens": 2}), plain)


def test_ids_of_results_that_are_kept_do_not_change(monkeypatch):
    """Those of the methods' table. A changed config, data set or encoder changes them rightly."""
    monkeypatch.chdir(ROOT)
    cells = read_matrix("configs/bench/methods.yaml").cells
    found = {(cell.name, cell.seed): cell.id for cell in cells}
    assert found["zero-shot", None] == "e2d452cdc89e"
    assert found["query-adapter", 0] == "7fb94409e1d7"
    assert found["vpt-deep", 2] == "eaa371969a04"
