"""The benchmark of a real index: its counting by hand, and that nothing is embedded twice."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from freestyle.search.query_encoder import Encoded

FILE = Path(__file__).parents[2] / "benchmarks" / "search_gallery.py"


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("benchmarks_search_gallery", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_shares_by_hand(gallery):
    assert gallery.shared([{"a", "b"}, {"c"}], [{"a", "x"}, {"c"}]) == 0.75
    rows = [{"back_end": name, "photos": 1599, "kept at 50": 0.98765} for name in ("a", "b")]
    assert gallery.table(rows).splitlines() == [
        "| | a | b |",
        "|---|---:|---:|",
        "| photos | 1,599 | 1,599 |",
        "| kept at 50 | 0.988 | 0.988 |",
    ]


def test_a_check_of_nothing_is_refused(gallery, capsys):
    with pytest.raises(SystemExit):
        gallery.main(["my.index", "--candidates=20,100", "--check"])
    assert "N = 50" in capsys.readouterr().err


def test_nothing_is_embedded_twice(gallery):
    asked = []

    def embed(items):
        asked.append(len(items))
        rows = [[len(i)] if isinstance(i, str) else i.getpixel((0, 0))[:1] for i in items]
        return Encoded(np.float32(rows), ({},) * len(items))

    own = SimpleNamespace(
        encoder="e", weights="w", width=1, complete=None, embed_texts=embed, embed_images=embed
    )
    encoder = gallery.Remembered(own)
    pictures = [Image.new("RGB", (2, 2), (grey, 0, 0)) for grey in (3, 5, 3)]
    assert encoder.embed_images(pictures).rows.tolist() == [[3], [5], [3]]
    assert encoder.embed_images(pictures[1:]).rows.tolist() == [[5], [3]]
    assert encoder.embed_texts(["a", "bb"]).rows.tolist() == [[1], [2]]
    assert encoder.embed_texts(["bb", "ccc"]).rows.tolist() == [[2], [3]]
    assert asked == [2, 2, 1]
