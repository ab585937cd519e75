"""The ledger: a line stands for a cell that is wholly on disk."""

import json

import numpy as np
import pytest

from freestyle.bench.ledger import LINES, RANKS, Ledger
from freestyle.errors import UserError

RANK = {"own": {"sketch": [1, 2, 3]}}


def test_finished_cells_come_back(tmp_path):
    ledger = Ledger(tmp_path)
    assert ledger.rows() == {}
    ledger.finish({"id": "aa", "name": "first"}, RANK)
    ledger.finish({"id": "bb", "name": "second"}, RANK)
    assert list(ledger.rows()) == ["aa", "bb"]
    assert np.array_equal(ledger.ranks("aa")["own"]["sketch"], [1, 2, 3])


def test_a_line_cut_short_is_not_there_and_harms_no_other(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.finish({"id": "aa"}, RANK)
    ledger.finish({"id": "bb"}, RANK)
    path = tmp_path / LINES
    path.write_bytes(path.read_bytes()[:-5])
    assert list(ledger.rows()) == ["aa"]
    ledger.finish({"id": "cc"}, RANK)
    assert list(ledger.rows()) == ["aa", "cc"]


def test_a_line_without_its_ranks_is_not_there(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.finish({"id": "aa"}, RANK)
    (ledger.cell_folder("aa") / RANKS).unlink()
    assert ledger.rows() == {}


def test_broken_ranks_and_a_folder_that_takes_nothing_are_one_sentence(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.finish({"id": "aa"}, RANK)
    (ledger.cell_folder("aa") / RANKS).write_text("[1")
    with pytest.raises(UserError, match=r"ranks\.json cannot be read"):
        ledger.ranks("aa")
    (tmp_path / "file").write_text(json.dumps(1))
    with pytest.raises(UserError, match="cannot write"):
        Ledger(tmp_path / "file").finish({"id": "aa"}, RANK)
