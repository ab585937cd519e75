"""The bench on a tiny data set: it runs, resumes, repeats itself, and its tables say what ran."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from freestyle import FreestyleRet
from freestyle.bench.command import main
from freestyle.bench.compare import collect, difference
from freestyle.bench.ledger import LINES, Ledger
from freestyle.bench.matrix import read_matrix
from freestyle.cli import main as cli
from freestyle.datasets.readers import open_split
from freestyle.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def matrix(dsr, tmp_path_factory):
    folder = tmp_path_factory.mktemp("matrix")
    style = {"network": "vgg16", "weights": "random", "taps": ["relu1_2"], "resolution": 32}
    base = {
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
        "model": {
            "encoder": "random:clip-tiny",
            "style": {**style, "n_components": 8},
            "prompts": {"hidden": 8},
            "query_map": "linear",
            "cache_dir": str(folder / "cache"),
        },
        "data": {"root": str(dsr), "styles": ["sketch", "art"], "batch_size": 12},
    }
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    path = folder / "tiny.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "title": "Tiny",
                "config": str(folder / "base.yaml"),
                "seeds": [0, 1],
                "reference": "ours",
                "quick": ["frozen"],
                "evaluate": {
                    "styles": ["sketch", "art", "mosaic", "sketch+art"],
                    "protocols": ["gallery", "batch:4"],
                    "style_controls": True,
                },
                "cells": {
                    "frozen": {"method": "zero-shot"},
                    "ours": {},
                    "constant": {"set": {"model.prompts.codes": "mean"}, "seeds": [0]},
                    "dealt": {"set": {"model.prompts.codes": "shuffled"}, "seeds": [0]},
                    "lora": {
                        "set": {"model.method": "lora", "model.tower": {"kind": "lora", "rank": 2}},
                        "seeds": [0],
                    },
                },
            }
        )
    )
    return path


@pytest.fixture(scope="module")
def finished(matrix, tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    main([str(matrix), "--out", str(out)])
    return out


def test_every_cell_has_a_line_with_all_its_numbers(matrix, finished):
    rows = Ledger(finished).rows()
    assert set(rows) == {cell.id for cell in read_matrix(matrix).cells}
    row = next(r for r in rows.values() if r["name"] == "ours" and r["seed"] == 1)
    found = {(r["protocol"], r["variant"], r["style"]) for r in row["results"]}
    for variant in ("own", "map off", "mean style", "shuffled style"):
        for protocol in ("gallery", "batch:4"):
            assert {(protocol, variant, s) for s in ("sketch", "mosaic", "sketch+art")} <= found
    assert row["trained_parameters"] > 0
    assert row["settings"]["model"]["prompts"]["n_tokens"] == 4  # a default, written out
    assert not list(finished.glob("cells/*/checkpoints"))


def test_constant_style_is_blind_to_the_code(matrix, finished):
    cell = next(c for c in read_matrix(matrix).cells if c.name == "constant")
    ranks = Ledger(finished).ranks(cell.id)
    for style, values in ranks["own"].items():
        assert (values == ranks["mean style"][style]).all()
        assert (values == ranks["shuffled style"][style]).all()


def test_tables_hold_the_ledgers_numbers(matrix, finished):
    report = (finished / "tiny" / "report.md").read_text()
    rows = Ledger(finished).rows().values()
    recalls = [
        r["R@1"]
        for row in rows
        if row["name"] == "ours"
        for r in row["results"]
        if (r["protocol"], r["variant"], r["style"]) == ("gallery", "own", "sketch")
    ]
    assert len(recalls) == 2
    line = next(line for line in report.splitlines() if line.startswith("| ours |"))
    assert line.split("|")[2].split()[0] == f"{50 * sum(recalls):.1f}"
    assert "±" in line
    assert re.search(r"\| frozen \| [+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]", report)
    summary = json.loads((finished / "tiny" / "summary.json").read_text())
    assert {d["control"] for d in summary["differences"]} >= {"frozen", "constant", "lora"}
    assert (finished / "tiny" / "recall.png").stat().st_size > 10_000


def test_differences_are_paired_over_queries_and_zero_with_oneself(matrix, finished):
    found = collect(read_matrix(matrix), Ledger(finished))
    gap = difference(found["ours"], found["ours"], ["sketch", "art"])
    assert gap == (0, 0, 0)


def test_finished_cells_are_not_run_again(matrix, finished, capsys, monkeypatch):
    import freestyle.bench.cell as module

    monkeypatch.setattr(module, "run_cell", lambda *args: pytest.fail("ran again"))
    before = (finished / LINES).read_bytes()
    main([str(matrix), "--out", str(finished)])
    assert "6 cells, 6 finished before; about 0 s" in capsys.readouterr().out
    assert (finished / LINES).read_bytes() == before


def test_a_cell_run_twice_gives_the_same_ranks(matrix, finished, tmp_path):
    out = tmp_path / "again"
    main([str(matrix), "--out", str(out), "--only", "ours", "--seeds", "1"])
    (cell_id,) = Ledger(out).rows()
    assert (out / "cells" / cell_id / "ranks.json").read_bytes() == (
        finished / "cells" / cell_id / "ranks.json"
    ).read_bytes()


def test_a_model_that_was_trained_is_only_evaluated(matrix, finished, tmp_path, monkeypatch):
    import freestyle.training.cli as training

    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    lines = (out / LINES).read_text().splitlines(keepends=True)
    (out / LINES).write_text("".join(line for line in lines if '"name": "lora"' not in line))
    monkeypatch.setattr(training, "main", lambda *args: pytest.fail("trained again"))
    main([str(matrix), "--out", str(out)])
    assert set(Ledger(out).rows()) == set(Ledger(finished).rows())


def test_plan_runs_nothing(matrix, tmp_path, capsys):
    main([str(matrix), "--out", str(tmp_path / "none"), "--plan"])
    out = capsys.readouterr().out
    assert "6 cells, 0 finished before; about 18 min" in out
    assert "Tiny / ours, seed 1: about 3 min" in out
    assert not (tmp_path / "none").exists()


def test_a_matrix_that_cannot_run_here_does_not_stop_the_others(
    matrix, finished, tmp_path, capsys, monkeypatch
):
    lacking = {"root": ("data.root", "data/nowhere"), "hub": ("model.encoder", "nobody/nothing")}
    for name, (setting, value) in lacking.items():
        values = yaml.safe_load(matrix.read_text())
        values["title"] = name
        values["cells"] = {c: {**(e or {}), "set": {**(e or {}).get("set", {}), setting: value}}
                           for c, e in values["cells"].items()}  # fmt: skip
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    files = [str(tmp_path / "root.yaml"), str(matrix), str(tmp_path / "hub.yaml")]
    main([*files, "--out", str(finished), "--plan"])
    planned = capsys.readouterr().out
    assert "6 cells, 6 finished before" in planned and "data/nowhere" in planned
    assert "hub / ours, seed 1: about 3 min" in planned
    monkeypatch.setattr("freestyle.bench.cell.run_cell", lambda *args: pytest.fail("ran again"))
    with pytest.raises(UserError, match=r"2 of 3 matrices cannot run here.*nobody/nothing"):
        main([*files, "--out", str(finished)])
    assert "# Tiny" in capsys.readouterr().out


def test_what_is_written_is_json(matrix, finished):
    def refuse(name):
        raise ValueError(name)

    text = (finished / matrix.stem / "summary.json").read_text()
    rows = json.loads(text, parse_constant=refuse)["rows"]  # no NaN
    assert any(value is None for row in rows for value in row["R@1_deviation"].values())


def test_bad_options_are_one_sentence(matrix, tmp_path, capsys):
    with pytest.raises(UserError, match="--only nobody"):
        main([str(matrix), "--only", "nobody", "--out", str(tmp_path)])
    with pytest.raises(UserError, match="--seeds one"):
        main([str(matrix), "--seeds", "one", "--out", str(tmp_path)])
    assert cli(["bench", "nowhere.yaml"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err


def test_prompted_and_frozen_galleries_stand_in_one_table(matrix, tmp_path):
    path = tmp_path / "galleries.yaml"
    loss = {"model.loss.name": "in-batch"}
    path.write_text(
        yaml.safe_dump(
            {
                "config": str(matrix.parent / "base.yaml"),
                "evaluate": {"styles": ["sketch", "art", "sketch+art"], "style_controls": True},
                "cells": {
                    "frozen": {"set": loss},
                    "prompted": {"set": {**loss, "model.gallery": "prompted"}},
                },
            }
        )
    )
    out = tmp_path / "out"
    main([str(path), "--out", str(out)])
    rows = {row["name"]: row for row in Ledger(out).rows().values()}
    assert rows["frozen"]["trained_parameters"] == rows["prompted"]["trained_parameters"]
    assert rows["prompted"]["settings"]["model"]["gallery"] == "prompted"
    variants = {result["variant"] for result in rows["prompted"]["results"]}
    assert variants == {"own", "map off", "mean style", "shuffled style"}
    ranks = Ledger(out).ranks(rows["prompted"]["id"])["own"]
    folder = out / "cells" / rows["prompted"]["id"] / "model"
    model = FreestyleRet.from_pretrained(folder)
    root = rows["prompted"]["settings"]["data"]["root"]
    split = open_split(root, "test", ["sketch", "art"])
    photos = model.encode_gallery(split.gallery)
    for style in ("sketch", "art"):
        scores = model.encode_query(split.queries[style].sources) @ photos.T
        expected = 1 + (scores > scores.diag()[:, None]).sum(dim=1)
        assert list(ranks[style]) == expected.tolist()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_the_bench_goes_on_without_redoing_finished_cells(matrix, finished, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "freestyle", "bench", str(matrix), "--out", str(out)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=env)
    deadline = time.monotonic() + 300
    while len(Ledger(out).rows()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = Ledger(out).rows()
    assert 2 <= len(done) < 6
    ranks = {i: (out / "cells" / i / "ranks.json").stat().st_mtime_ns for i in done}
    subprocess.run(command, cwd=ROOT, env=env, check=True)
    lines = (out / LINES).read_text().splitlines()
    assert len(lines) == 6
    assert set(Ledger(out).rows()) == set(Ledger(finished).rows())
    assert ranks == {i: (out / "cells" / i / "ranks.json").stat().st_mtime_ns for i in done}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_row_of_the_published_table_can_be_made_again(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    stored = json.loads((ROOT / "docs" / "bench" / "methods.json").read_text())
    published = next(row for row in stored["rows"] if row["name"] == "query-adapter")["R@1"]
    path = "configs/bench/methods.yaml"
    main([path, "--out", str(tmp_path), "--only", "query-adapter", "--seeds", "0"])
    (row,) = Ledger(tmp_path).rows().values()
    found = {
        r["style"]: r for r in row["results"] if (r["variant"], r["protocol"]) == ("own", "gallery")
    }
    for style, value in published.items():
        low, high = found[style]["R@1_interval"]
        assert low <= value <= high, style
        assert abs(found[style]["R@1"] - value) < 0.02, style
