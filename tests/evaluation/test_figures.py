import csv
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from freestyle.errors import UserError
from freestyle.evaluation.figures import Case, case_grid, read_curves, training_curve


def picture(seed, size=(40, 30)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.fixture
def metrics_csv(tmp_path):
    """Two epochs of four steps, as Lightning writes them: a cell is empty where nothing was new."""
    path = tmp_path / "metrics.csv"
    names = ["epoch", "step", "train/loss", "val/R@1", "val/R@1/sketch", "val/R@1/colour"]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for step in range(8):
            writer.writerow({"epoch": step // 4, "step": step, "train/loss": 8 - step})
            if step % 4 == 3:
                values = {"val/R@1": 0.2, "val/R@1/sketch": 0.1 * step, "val/R@1/colour": 0.1}
                writer.writerow({"epoch": step // 4, "step": step} | values)
    return path


def test_curves_are_read(metrics_csv):
    (x, loss), recall = read_curves(metrics_csv)
    np.testing.assert_allclose(x, np.arange(1, 9) / 4)
    assert loss.tolist() == [8, 7, 6, 5, 4, 3, 2, 1]
    assert list(recall) == ["sketch", "colour"]
    np.testing.assert_allclose(recall["sketch"], ([1, 2], [0.3, 0.7]))


def test_training_curve(metrics_csv, tmp_path):
    paths = [
        training_curve(metrics_csv, tmp_path / f"{i}.png", unseen=["colour"], title="Run $1 of $2")
        for i in range(2)
    ]
    with Image.open(paths[0]) as image:
        assert image.format == "PNG"
        assert image.width > 1000
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_no_training_no_curve(tmp_path):
    path = tmp_path / "metrics.csv"
    with pytest.raises(UserError, match="cannot read the metrics"):
        training_curve(path, tmp_path / "x.png")
    path.write_text("epoch,step,lr\n0,0,0.1\n")
    with pytest.raises(UserError, match="train first"):
        training_curve(path, tmp_path / "x.png")
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"is not a metrics\.csv"):
        training_curve(path, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_case_grid_of_every_kind_of_query(tmp_path):
    file = tmp_path / "a.png"
    picture(0).save(file)
    gallery = [picture(i) for i in range(1, 9)] + [file]
    groups = np.arange(9)
    queries = {
        "sketch": picture(20, (10, 90)),
        "text": "a 5$ note and a 10$ note, " * 9,
        "sketch+text": [file, "coat"],
        "sketch+art+mosaic": [picture(21), picture(22), file],
    }
    cases = [
        Case.from_top_k(
            query, style, {"zero-shot": [1, 2, 3, 4, 5], "freestyle": np.array([8, 0, 1, 2, 3])},
            {"zero-shot": 9, "freestyle": 1}, gallery, 8, groups,
        )
        for style, query in queries.items()
    ]  # fmt: skip
    assert cases[0].right == {"zero-shot": [False] * 5, "freestyle": [True] + [False] * 4}
    assert cases[0].results["freestyle"][0] == file
    path = case_grid(cases, tmp_path / "grid.png", title="Wins", gallery_size=9)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    green = (np.abs(pixels - (0x00, 0x9E, 0x73)).sum(axis=2) < 6).any(axis=0)
    left, right = np.flatnonzero(green)[[0, -1]] / pixels.shape[1]
    assert 0.5 < left < right < 0.75  # only the second strip's first photo is framed


def test_cases_check_themselves(tmp_path):
    with pytest.raises(ValueError, match="same methods"):
        Case("cat", "text", {"a": []}, {"a": []}, {"b": 1})
    with pytest.raises(ValueError, match="1 photos, 2 marks"):
        Case("cat", "text", {"a": [picture(0)]}, {"a": [True, False]}, {"a": 1})
    with pytest.raises(ValueError, match="at least one case"):
        case_grid([], tmp_path / "grid.png")


def test_importing_is_light():
    """Neither the package nor its figures load torch or matplotlib before something is drawn."""
    code = (
        "import sys, freestyle.evaluation as e; dir(e); assert 'numpy' not in sys.modules; "
        "e.case_grid, e.Report, e.wide_table, e.parse_protocol; "
        "assert not {'torch', 'matplotlib', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    import freestyle.evaluation as evaluation

    for name in evaluation.__all__:
        assert getattr(evaluation, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = evaluation.nothing
