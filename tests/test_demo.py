"""The demo on the real data: its table holds what the README says."""

import json

import pytest
from PIL import Image


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_demo_trains_ranks_and_draws(demo):
    report = json.loads((demo.folder / "report.json").read_text())
    assert report["protocol"] == "gallery"
    assert report["gallery_size"] == 482
    r1 = {(row["method"], row["style"]): row["R@1"] for row in report["rows"]}
    assert {method for method, _ in r1} >= {
        "zero-shot",
        "style-centred",
        "query-adapter",
        "freestyle",
    }
    for style, margin in {"sketch": 0.15, "art": 0.05, "mosaic": 0.02}.items():
        assert r1["freestyle", style] >= r1["zero-shot", style] + margin
        assert r1["freestyle", style] >= r1["style-centred", style] + margin
    floors = {"sketch": 0.45, "art": 0.68, "mosaic": 0.88, "colour": 0.40}
    for style, floor in floors.items():
        assert r1["freestyle", style] >= floor, style
    assert r1["freestyle", "text"] >= r1["zero-shot", "text"]
    for style in ("sketch", "colour"):
        assert r1["freestyle", style] >= r1["query-adapter", style]
    for name in ("training_curve.png", "case_studies.png"):
        with Image.open(demo.folder / name) as picture:
            assert min(picture.size) > 300
    assert "colour (unseen)" in demo.printed
