"""The export benchmark: its recall by hand, and its table."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from freestyle.datasets.records import QuerySet

FILE = Path(__file__).parents[2] / "benchmarks" / "export.py"


@pytest.fixture(scope="module")
def export():
    spec = importlib.util.spec_from_file_location("benchmarks_export", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_a_hit_is_a_relevant_photo_above_every_other(export):
    photos = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    rows = np.array([[1.0, 0.5], [0.2, 1.0], [0.9, 0.1]])
    queries = QuerySet("sketch", ["a", "b", "c"], np.array([0, 1, 2]), ["a", "b", "c"])
    found = export.hits(rows, photos, queries, np.arange(3))
    assert found.tolist() == [True, False, False]  # the second ties with a photo of another group
    assert export.hits(rows, photos, queries, np.array([0, 1, 1])).tolist()[:2] == [True, True]


def test_the_table_tells_change_size_and_time(export):
    row = {"torch": 50.0, "onnx": 50.0, "int8": 49.0, "interval": [-2.0, 0.5], "queries": 4}
    lines = export.table(
        {
            "recall": {"val": {"sketch": row}},
            "megabytes": {"image": {"onnx": 4.0, "int8": 1.0}},
            "milliseconds": {"text": {"torch": 3.0, "onnx": 2.0, "int8": 1.0}},
        }
    ).splitlines()
    assert lines[2].split() == ["sketch", "50.0", "50.0", "49.0", "-1.0", "[-2.0,", "+0.5]"]
    assert lines[3:] == [
        "image, MB: onnx 4.0  int8 1.0",
        "text, ms per query: torch 3.0  onnx 2.0  int8 1.0",
    ]
