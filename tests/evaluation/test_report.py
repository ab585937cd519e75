import json
import os
from dataclasses import replace

import numpy as np
import pytest

from freestyle import files
from freestyle.errors import UserError
from freestyle.evaluation.evaluate import Outcome
from freestyle.evaluation.ranks import Ranks
from freestyle.evaluation.report import Report, Row, read_report, write_markdown, write_report
from freestyle.evaluation.tables import detail_table, markdown_report, seed_summary, wide_table


def row(method="freestyle", style="sketch", r1=0.3, **changes):
    values = dict(
        method=method, style=style, n=482, r1=r1, r5=r1 + 0.2, r10=r1 + 0.3, mrr=r1 + 0.1,
        median_rank=3.5, interval=(r1 - 0.04, r1 + 0.04), seed=0,
    )  # fmt: skip
    return Row(**(values | changes))


def report(*rows, **changes):
    values = dict(
        dataset="emoji", split="test", protocol="gallery", gallery_size=482,
        encoder="freestyle-mini", weights="freestyle-mini@abc", command="python eval.py", rows=rows,
    )  # fmt: skip
    return Report(**(values | changes))


def test_json_has_exactly_the_promised_keys(tmp_path):
    rows = (
        row("zero-shot", seed=None),
        row(style="sketch+text", fusion="zscore"),
        row(style="art", map_at={5: 0.25, 10: 0.5}),
    )
    path = write_report(report(*rows), tmp_path / "deep" / "report.json")
    content = json.loads(path.read_text())
    head = ["dataset", "split", "protocol", "gallery_size", "encoder", "weights", "command"]
    assert list(content) == [*head, "rows"]
    keys = ["method", "style", "seed", "n", "R@1", "R@5", "R@10", "MRR", "median_rank"]
    keys += ["R@1_interval", "fusion"]
    assert [list(r) for r in content["rows"]] == [keys, keys, [*keys, "mAP@5", "mAP@10"]]
    assert content["rows"][0]["seed"] is None
    assert content["rows"][0]["fusion"] is None
    assert content["rows"][1]["fusion"] == "zscore"
    assert content["rows"][2]["R@1_interval"] == [0.26, 0.33999999999999997]
    assert read_report(path) == report(*rows)
    assert os.listdir(path.parent) == ["report.json"]


def test_row_from_an_outcome():
    outcome = Outcome(Ranks(np.array([1, 1, 4, 9, 30]), 482), {5: np.array([1, 0, 0.5, 0, 0])})
    made = Row.from_outcome(outcome, method="zero-shot", style="art", fusion="zscore")
    assert (made.n, made.r1, made.r5, made.r10, made.median_rank) == (5, 0.4, 0.6, 0.8, 4)
    assert made.mrr == pytest.approx((1 + 1 + 1 / 4 + 1 / 9 + 1 / 30) / 5)
    assert made.interval == (0.0, 0.8)  # of 5 queries: binom(5, 0.4) / 5
    assert made.map_at == {5: 0.3}
    assert made.fusion is None  # a single style joins nothing
    joint = Row.from_outcome(outcome, method="m", style="art+text", fusion="zscore")
    assert joint.fusion == "zscore"


@pytest.mark.parametrize(
    "changes",
    [
        {"r1": 30.0, "r5": 0.5, "r10": 0.5, "mrr": 0.5, "interval": (0.2, 0.4)},
        {"mrr": float("nan")},
        {"n": 0},
        {"r5": 0.1},
        {"interval": (0.4, 0.2)},
        {"median_rank": 0.5},
        {"median_rank": float("inf")},
        {"map_at": {5: 1.5}},
        {"style": "sketch+text"},
        {"fusion": "zscore"},
        {"method": ""},
    ],
)
def test_rows_refuse_what_cannot_be(changes):
    with pytest.raises(ValueError, match="row"):
        row(**changes)


def test_reports_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="contradicts"):
        report(protocol="batch:24", gallery_size=482)
    with pytest.raises(ValueError, match="two rows"):
        report(row(), row())
    with pytest.raises(ValueError, match="beyond"):
        report(row(median_rank=500))
    with pytest.raises(UserError, match="unknown protocol"):
        report(protocol="batch")
    assert report(row(seed=1), row(seed=2), protocol="batch:24", gallery_size=24).rows


def test_reading_what_is_no_report(tmp_path):
    path = tmp_path / "report.json"
    with pytest.raises(UserError, match="cannot read"):
        read_report(path)
    good = report(row()).to_json()
    bad_row = good["rows"][0] | {"R@1": 30}
    for content in ("{", "[]", "{}", json.dumps(good | {"rows": [bad_row]}),
                    json.dumps(good | {"rows": [{}]}), json.dumps(good | {"rows": 3}),
                    json.dumps(good | {"rows": [good["rows"][0] | {"R@2": 0.1}]})):  # fmt: skip
        path.write_text(content)
        with pytest.raises(UserError, match="is not a report"):
            read_report(path)
    del good["rows"][0]["fusion"]
    path.write_text(json.dumps(good))
    assert read_report(path).rows[0].fusion is None


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_report(report(row()), tmp_path / "report.json")
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(UserError, match="No space left"):
        write_report(report(row(r1=0.5)), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["report.json"]


def test_writing_to_an_impossible_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*report.json"):
        write_report(report(row()), tmp_path / "file" / "report.json")


def test_wide_table():
    rows = [
        row("zero-shot", "sketch", 0.05, seed=None),
        row("zero-shot", "colour", 0.2, seed=None),
        row("freestyle", "sketch", 0.35),
        row("freestyle", "sketch+text", 0.5, fusion="zscore"),
        row("freestyle (map off)", "sketch", 0.3),
    ]
    expected = """\
| R@1 / R@5 / R@10, % |             sketch |     colour (unseen) |        sketch+text |
| ------------------- | -----------------: | ------------------: | -----------------: |
| zero-shot           |  5.0 / 25.0 / 35.0 |  20.0 / 40.0 / 50.0 |                  - |
| freestyle           | 35.0 / 55.0 / 65.0 |                   - | 50.0 / 70.0 / 80.0 |
| freestyle (map off) | 30.0 / 50.0 / 60.0 |                   - |                  - |"""
    table = wide_table(rows, unseen=["colour"], output="markdown")
    assert [x.split() for x in table.splitlines()[2:]] == [
        x.split() for x in expected.splitlines()[2:]
    ]
    assert len({len(line) for line in table.splitlines()}) == 1
    assert "colour (unseen)" in wide_table(rows, unseen=["colour"])
    assert "(unseen)" not in wide_table(rows)


def test_wide_table_over_seeds_and_styles():
    rows = [row(style=s, r1=r, seed=i) for s, rs in
            {"sketch": (0.3, 0.32, 0.34), "art": (0.5, 0.5, 0.5)}.items()
            for i, r in enumerate(rs)]  # fmt: skip
    table = wide_table(rows, mean_over=["sketch", "art"])
    assert "32.0 ±2.0 / 52.0 / 62.0" in table
    assert "50.0 ±0.0 / 70.0 / 80.0" in table
    assert table.splitlines()[-1].endswith("41.0 ±1.0")
    mean, sd = seed_summary(rows)["freestyle", "sketch", None]
    assert (mean, sd) == pytest.approx((0.32, 0.02))
    assert seed_summary(rows[:1])["freestyle", "sketch", None] == (0.3, 0.0)
    assert "-" in wide_table(rows, mean_over=["sketch", "mosaic"]).splitlines()[-1]


def test_fusion_rules_get_columns_of_their_own():
    rows = [row(style="sketch+text", fusion=rule) for rule in ("zscore", "max-softmax")]
    head = wide_table(rows).splitlines()[0]
    assert "sketch+text (zscore)" in head
    assert "sketch+text (max-softmax)" in head


def test_detail_table_and_markdown(tmp_path):
    rows = row("zero-shot", seed=None), row(map_at={5: 0.25})
    lines = detail_table(rows).splitlines()
    assert lines[0].split("  ")[0] == "method"
    cells = " ".join(lines[-1].split())
    assert cells == "freestyle sketch 0 482 30.0 26.0 - 34.0 50.0 60.0 0.400 3.5 25.0"
    text = write_markdown(report(*rows), tmp_path / "report.md").read_text()
    assert "all 482 photos" in text
    assert "python eval.py" in text
    assert "freestyle-mini@abc" in text
    small = replace(report(*rows), protocol="batch:24", gallery_size=24)
    assert "not comparable" in markdown_report(small)
    assert "`batch:24`" in markdown_report(small)
