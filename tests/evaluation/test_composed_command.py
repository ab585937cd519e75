"""``freestyle eval-composed`` from a config to table, files and pictures."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from freestyle.cli import main as cli
from freestyle.evaluation.composed_command import main, parser
from freestyle.evaluation.composed_setup import collect_presets, open_composed, read_settings

WORDS = ("red cat", "blue cat", "red dog", "blue dog")


@pytest.fixture
def emoji(data):
    """The composed layout over a tiny data set: the test and validation photos as pairs."""
    root = data.parent / "composed"
    root.mkdir()
    for split in ("val", "test"):
        stems = [e["image"][:-4] for e in json.loads((data / f"{split}.json").read_text())]
        rows = [
            {"id": f"{a}:{w}", "reference": a, "text": w, "targets": [b]}
            for a, b, w in zip(stems, stems[1:], WORDS, strict=False)
        ]
        values = {
            "images": "../tiny",
            "split": split,
            "styles": ["photo", "sketch", "art"],
            "queries": rows,
        }
        (root / f"{split}.json").write_text(json.dumps(values))
    return root


@pytest.fixture
def config(emoji, data, tmp_path, make_model):
    model = make_model("zero-shot").save_pretrained(tmp_path / "model")
    values = {
        "data": {"benchmark": "emoji", "root": str(emoji), "split": "test"},
        "model": {"path": str(model)},
        "views": {"kind": "grid", "count": 5, "weights": "content", "whole": 0.4},
        "composer": {"kind": "rules", "bank": str(data), "count": 2},
        "presets": [
            "stitch",
            "pdv",
            {"name": "mine", "base": "stitch", "weights": {"target": 1.0, "reference": 0.5}},
        ],
        "tune": {"preset": "mine", "split": "val", "grid": {"temperature": [0.02, 0.1]}},
        "compare": {"preset": "mine", "single": ["mine"], "metrics": ["mAP@5", "R@10"]},
    }
    path = tmp_path / "composed.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def change(config, **sections):
    values = yaml.safe_load(config.read_text())
    values.update(sections)
    config.write_text(yaml.safe_dump(values))
    return str(config)


def test_from_config_to_report_captions_and_pictures(config, tmp_path, capsys):
    out = tmp_path / "out"
    result = main(
        [
            f"--config={config}",
            f"--json={out / 'report.json'}",
            f"--markdown={out / 'report.md'}",
            f"--save-captions={out / 'captions.json'}",
            f"--cache={tmp_path / 'sets'}",
            f"--explain={out / 'plans'}",
            "--explain-preset=mine",
            "--explain-count=2",
            "--device=cpu",
        ]
    )
    report = json.loads((out / "report.json").read_text())
    assert report["weights"].startswith("random:clip-tiny") and report["gallery_size"] == 5
    assert report["tuned"]["mine"]["temperature"] in (0.02, 0.1)
    presets = {row["preset"] for row in report["rows"]}
    assert presets >= {"image-only", "text-only", "sum", "stitch", "pdv", "mine", "mine (single)"}
    parts = {row["part"] for row in report["rows"]}
    assert parts == {"photo", "sketch", "art", "mean"}
    for row in report["rows"]:
        for name, value in row["metrics"].items():
            low, high = row["intervals"][name]
            assert 0 <= low <= value + 1e-9 and value - 1e-9 <= high <= 1
    means = {
        row["part"]: row["metrics"]["mAP@5"] for row in report["rows"] if row["preset"] == "sum"
    }
    styles = [means[part] for part in ("photo", "sketch", "art")]
    assert means["mean"] == pytest.approx(np.mean(styles))
    assert {d["other"] for d in report["differences"]} == presets - {"mine"}
    printed = capsys.readouterr().out
    assert "mine minus" in printed and "| sum |" in (out / "report.md").read_text()
    drawn = sorted((out / "plans").glob("*.png"))
    assert len(drawn) == 2
    assert np.asarray(Image.open(drawn[0]).convert("L")).std() > 5
    again = main([f"--config={config}", f"--captions={out / 'captions.json'}", "--device=cpu"])
    assert again.report.composer == "cached"
    assert [r.metrics for r in again.report.rows] == [r.metrics for r in result.report.rows]


def test_targets_leave_no_reference_in_the_ranking(config):
    result = main([f"--config={config}", "--presets=image-only", "--styles=photo", "--device=cpu"])
    split = result.prepared.split
    for query, top in zip(split.queries, result.outcomes["image-only"].top, strict=True):
        names = [split.gallery_ids[i] for i in top]
        assert query.reference_id not in names and len(names) == 4


def test_stylised_references_by_config(config, data):
    settings = yaml.safe_load(config.read_text())["data"]
    folder = {"folder": str(data / "sketch"), "style": "drawn"}
    split = open_composed({**settings, "styles": ["photo"], "references": folder})
    assert split.dataset.endswith("(drawn references)")
    assert {q.reference.parent.name for q in split.queries} == {"sketch"}


def test_a_role_that_no_query_has_is_an_empty_set(config):
    result = main([f"--config={config}", "--presets=mulvec", "--styles=photo", "--device=cpu"])
    assert not any(c.forbidden for c in result.prepared.compositions.values())
    assert result.prepared.queries.text["forbidden"].atoms.abs().sum() == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--config=nowhere.yaml"], "cannot read --config"),
        ([], "give --config"),
        (["--presets=best"], "unknown preset 'best'"),
        (["--styles=oil"], "unknown reference style 'oil'"),
        (["--split=nope"], "nope.json"),
        (["--captions=nowhere.json"], "nowhere.json"),
        (["--explain=x", "--explain-preset=nope"], "--explain-preset"),
        (["--explain=x", "--explain-count=0"], "--explain-count"),
        (["--submit=x", "--submit-preset=nope"], "--submit-preset"),
        (["--submit=x"], "no evaluation server"),
        (["--explain=x", "--explain-preset=sum"], "no plan"),
    ],
)
def test_bad_options_end_in_one_sentence(config, options, said, capsys):
    args = (
        options
        if any("--config" in o for o in options) or not options
        else [
            f"--config={config}",
            *options,
        ]
    )
    assert cli(["eval-composed", *args]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and said in error


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"data": {"benchmark": "coco", "root": ".", "split": "val"}}, "data.benchmark"),
        ({"data": {"benchmark": "emoji"}}, "data.root"),
        ({"data": {"benchmark": "cirr", "root": ".", "split": "val", "size": 3}}, "section data"),
        ({"views": {"kind": "spiral"}}, "unknown views"),
        ({"composer": {"kind": "oracle"}}, "composer.kind"),
        ({"composer": {"kind": "rules"}}, "bank"),
        ({"composer": {"kind": "endpoint", "url": "x", "model": "m"}}, "composer.url"),
        ({"composer": {"kind": "cached"}}, "section composer"),
        ({"tune": {"preset": "mine", "grid": {"colour": [1]}}}, "tune.grid"),
        ({"tune": {"preset": "mine", "grid": {"temperature": 0.1}}}, "tune.grid.temperature"),
        ({"tune": {"preset": "mine", "grid": {"temperature": []}}}, "tune.grid.temperature"),
        ({"compare": {"preset": "mine", "metrics": ["nDCG"]}}, "compare.metrics"),
        ({"compare": ["mine"]}, "compare is"),
        ({"presets": "stitch"}, "presets must be a list"),
        ({"sets": {}}, "unknown section"),
    ],
)
def test_bad_settings_end_in_one_sentence(config, sections, said, capsys):
    assert cli(["eval-composed", f"--config={change(config, **sections)}", "--device=cpu"]) == 2
    assert said in capsys.readouterr().err


def test_captions_of_two_splits_with_equal_ids_do_not_share_a_file(config, emoji, capsys):
    for split in ("val", "test"):
        path = emoji / f"{split}.json"
        values = json.loads(path.read_text())
        values["queries"] = [{**row, "id": str(n)} for n, row in enumerate(values["queries"])]
        path.write_text(json.dumps(values))
    run = ["eval-composed", f"--config={config}", "--device=cpu", "--presets=mine"]
    assert cli([*run, f"--save-captions={emoji / 'captions.json'}"]) == 2
    assert "one file" in capsys.readouterr().err
    assert not (emoji / "captions.json").exists()


def test_missing_pictures_are_named(config, data, capsys):
    (data / "images" / "12.jpg").unlink()
    assert cli(["eval-composed", f"--config={config}"]) == 2
    assert "12" in capsys.readouterr().err


def test_joint_queries_by_transport(data, make_model, tmp_path, capsys):
    """eval.py's rule ``stitch``: with one view a side it is the z-scored sum of cosines."""
    from freestyle.datasets.readers import open_split
    from freestyle.evaluation.models import evaluate_models
    from freestyle.evaluation.stitch_fusion import StitchFusion
    from freestyle.evaluation.variants import Variant
    from freestyle.transport.views import Views

    split = open_split(data, "test", ["sketch", "text"])
    variants = {"zero-shot": Variant(make_model("zero-shot"))}
    result = evaluate_models(variants, split, ["sketch+text"], fusions=["zscore", "stitch"])
    assert [row.fusion for row in result.report.rows] == ["zscore", "stitch"]
    one = StitchFusion(split, Views("whole")).outcome(
        "zero-shot", variants["zero-shot"], ["sketch", "text"]
    )
    zscore = result.outcomes["zero-shot"]["sketch+text"]
    assert one.ranks.values.tolist() == zscore.ranks.values.tolist()


def test_stitch_refuses_controls_and_batches(data, make_model, refusal):
    from freestyle.datasets.readers import open_split
    from freestyle.evaluation.models import evaluate_models
    from freestyle.evaluation.protocols import parse_protocol
    from freestyle.evaluation.variants import Variant

    split = open_split(data, "test", ["sketch", "text"])
    model = make_model("freestyle")
    options = {"fusions": ["stitch"], "styles": ["sketch+text"], "split": split}
    control = {"freestyle (mean-style)": Variant(model, style="mean")}
    assert "mean-style" in refusal(evaluate_models, control, **options)
    batches = parse_protocol("batch:4")
    assert "--protocol" in refusal(
        evaluate_models, {"x": Variant(model)}, protocol=batches, **options
    )


def test_every_shipped_config_opens():
    from pathlib import Path

    root = Path(__file__).parents[2] / "configs" / "composed"
    found = sorted(root.glob("*.yaml"))
    assert len(found) >= 5
    for path in found:
        settings = read_settings(path)
        assert collect_presets(settings, [])
        if settings["data"]["benchmark"] == "emoji":
            data = {**settings["data"], "root": str(root.parents[1] / settings["data"]["root"])}
            assert open_composed(data).public


def test_help_names_every_option(capsys):
    assert "--captions" in parser().format_help()
