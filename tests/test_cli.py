"""Bad input from outside: one sentence that names it, exit code 2, no traceback. Odd is not bad."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from freestyle import cli

ROOT = Path(__file__).parents[1]
TINY = ["--encoder", "random:clip-tiny"]


@pytest.fixture(scope="session", autouse=True)
def loggers_of_the_session():
    """Lightning keeps the stderr of its import: not one that a single test closes again."""
    import lightning.pytorch  # noqa: F401


@pytest.fixture
def evaluate(capsys):
    """``evaluate(*options) -> (exit code, stdout, stderr)``."""

    def call(*options):
        code = cli.main(["eval", *[str(o) for o in options]])
        done = capsys.readouterr()
        return code, done.out, done.err

    return call


@pytest.fixture
def train(capsys, tmp_path, data, style_config):
    """The same for a training run of one epoch on the tiny data set."""
    settings = {
        "trainer": {
            "default_root_dir": str(tmp_path / "run"),
            "max_epochs": 1,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
        "model": {
            "encoder": "random:clip-tiny",
            "style": {
                "network": "vgg16",
                "weights": "random",
                "taps": ["relu1_2"],
                "resolution": 32,
                "channels": 8,
                "n_bases": 2,
                "n_components": 6,
            },
        },
        "data": {"root": str(data), "styles": ["sketch", "art"], "batch_size": 8},
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings))

    def call(*options, command="fit"):
        code = cli.main(["train", command, "--config", str(config), *[str(o) for o in options]])
        return code, "", capsys.readouterr().err

    return call


def refused(answer, *named) -> str:
    """Check the form of an error: the last line is a sentence with a remedy."""
    code, _, err = answer
    assert code == 2, err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and err.rstrip().endswith(lines[0]), err
    message = lines[0].removeprefix("error: ")
    assert ":" in message or "," in message
    for name in named:
        assert str(name) in message, message
    return message


# -- the data set ------------------------------------------------------------------------------


def test_missing_folder(evaluate, tmp_path):
    refused(
        evaluate("--data", tmp_path / "nowhere", *TINY), tmp_path / "nowhere", "give the folder"
    )


def test_no_data_named(evaluate):
    refused(evaluate(*TINY), "--data")


def test_empty_split(evaluate, data):
    (data / "test.json").write_text("[]")
    refused(evaluate("--data", data, *TINY), data / "test.json")


def test_missing_split(evaluate, data):
    refused(evaluate("--data", data, "--split", "dev", *TINY), "dev", "test")


@pytest.mark.parametrize("style", ["images", "sketch"])
def test_list_entry_without_file(evaluate, data, style):
    next((data / style).glob("10.*")).unlink()
    refused(evaluate("--data", data, *TINY), "10", "test.json")


def test_unknown_style(evaluate, data):
    refused(evaluate("--data", data, "--styles", "sketch,crayon", *TINY), "crayon", "sketch")


def test_joint_style_of_one(evaluate, data):
    refused(evaluate("--data", data, "--styles", "sketch+sketch", *TINY), "sketch+sketch")


def break_picture(path: Path, how: str) -> None:
    if how == "truncated JPEG":
        image = Image.effect_noise((64, 64), 90)
        image.save(path, "JPEG")
        path.write_bytes(path.read_bytes()[:700])
    elif how == "text":
        path.write_text("this is no picture")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "huge PNG":  # 20,000 x 20,000 in the header, a few bytes on disk
        header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
        chunks = b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"0")), (b"IEND", b""))
        )
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


BROKEN = ("truncated JPEG", "text", "empty", "huge PNG")


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("style", ["images", "sketch"])
def test_broken_picture_stops(evaluate, data, how, style):
    path = next((data / style).glob("11.*"))
    break_picture(path, how)
    refused(evaluate("--data", data, "--styles", "sketch", *TINY), path)


def test_broken_picture_in_a_decoding_process(evaluate, data):
    path = data / "images" / "12.jpg"
    path.write_text("no picture")
    answer = evaluate("--data", data, "--styles", "sketch", "--num-workers", 1, *TINY)
    refused(answer, path)


def test_broken_pictures_are_skipped_and_reported(evaluate, data, tmp_path, caplog):
    sketch, photo = data / "sketch" / "11.png", data / "images" / "13.jpg"
    break_picture(sketch, "text")
    break_picture(photo, "huge PNG")
    report = tmp_path / "r.json"
    options = ["--styles", "sketch,art,text", "--on-broken", "skip", "--json", report]
    code, out, err = evaluate("--data", data, *options, *TINY)
    assert code == 0, err
    assert "left out 2 unreadable files" in out
    assert f"skipped {sketch}" in caplog.text and f"skipped {photo}" in caplog.text
    values = json.loads(report.read_text())
    assert values["gallery_size"] == 3
    assert {row["style"]: row["n"] for row in values["rows"]} == dict.fromkeys(
        ("sketch", "art", "text"), 3
    )


def test_nothing_left_after_skipping(evaluate, data):
    for path in (data / "images").iterdir():
        path.write_text("no picture")
    refused(evaluate("--data", data, "--on-broken", "skip", *TINY), data.name)


def odd_pictures() -> dict[str, tuple[Image.Image, dict]]:
    """Pictures that are unusual but fine, by file name."""
    noise = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8), "RGB"
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70)
    frames = {"save_all": True, "append_images": [noise.rotate(90)]}
    return {
        "cmyk.jpg": (noise.convert("CMYK"), {}),
        "deep.png": (deep, {}),
        "palette.png": (noise.convert("P"), {"transparency": 3}),
        "alpha.png": (Image.merge("RGBA", [*noise.split(), noise.split()[0]]), {}),
        "moving.gif": (noise, frames),
        "moving.webp": (noise, frames),
        "turned.jpg": (noise, {"exif": exif}),
        "dot.png": (Image.new("RGB", (1, 1), "red"), {}),
        "ink.png": (noise.convert("1"), {}),
        "line.png": (noise.resize((300, 1)), {}),
    }


def test_odd_pictures_are_evaluated(evaluate, tmp_path):
    """As photos and as queries: each finds itself, so both sides saw the same pixels."""
    root, report = tmp_path / "odd", tmp_path / "r.json"
    pictures = odd_pictures()
    entries = []
    for name, (image, options) in pictures.items():
        for folder in ("images", "copy"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            image.save(root / folder / name.replace(".", "_.", 1), **options)
        entries.append({"image": name.replace(".", "_.", 1)})
    for number, entry in enumerate(entries):  # stems must differ beyond the extension
        old = entry["image"]
        entry["image"] = f"{number}{old}"
        for folder in ("images", "copy"):
            (root / folder / old).rename(root / folder / entry["image"])
    (root / "test.json").write_text(json.dumps(entries))
    code, _, err = evaluate("--data", root, "--json", report, *TINY)
    assert code == 0, err
    (row,) = json.loads(report.read_text())["rows"]  # no captions, so no row for text
    assert (row["style"], row["n"]) == ("copy", len(pictures))
    assert row["R@1"] >= 0.7  # moving.gif and moving.webp, say, show one and the same picture


# -- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--encoder", "random:clip-giant"], ["random:clip-giant", "random:clip-tiny"]),
        (["--encoder", "freestyle-mni"], ["freestyle-mni", "freestyle-mini"]),
        (["--encoder", "./no/folder"], ["./no/folder"]),
        (["--methods", "coop", *TINY], ["'coop'", "--methods", "style-centred"]),
        (["--methods", "vpt-deep", *TINY], ["'vpt-deep'", "train.py", "--model"]),
        (["--methods", "mean-style", *TINY], ["mean-style", "--model"]),
        (["--protocol", "galery", *TINY], ["'galery'", "batch:24"]),
        (["--protocol", "batch:1", *TINY], ["batch:1"]),
        (["--protocol", "batch:24", *TINY], ["batch:24", "5 photos"]),
        (["--fusion", "mean", *TINY], ["'mean'", "--fusion", "zscore"]),
        (["--layout", "coco", *TINY], ["'coco'", "dsr"]),
        (["--relevance", "class", *TINY], ["class", "instance"]),
        (["--relevance", "some", *TINY], ["--relevance", "instance"]),
        (["--batch-size", "0", *TINY], ["--batch-size is 0"]),
        (["--batch-size", "many", *TINY], ["--batch-size", "many"]),
        (["--num-workers", "-1", *TINY], ["--num-workers is -1"]),
        (["--device", "abacus", *TINY], ["--device abacus"]),
        (["--grid", "grid.png", *TINY], ["--grid", "--model"]),
        (["--on-broken", "ignore", *TINY], ["--on-broken", "skip"]),
        (["--surprise", "1", *TINY], ["--surprise"]),
        (["--model", "no/such/folder"], ["no/such/folder"]),
        (["--config", "no.yaml", *TINY], ["--config no.yaml"]),
    ],
)
def test_bad_option(evaluate, data, options, named):
    refused(evaluate("--data", data, *options), *named)


@pytest.mark.parametrize(
    "content",
    [b"a: [1\n b: }", b"- 1\n- 2\n", b"", b"\xff\xfe\xff", b"data: folder\n", b"model: 3"],
)
def test_bad_yaml(evaluate, tmp_path, data, content):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    refused(evaluate("--config", path, "--data", data, *TINY), path)


def test_bad_style_settings_in_the_config(evaluate, tmp_path, data):
    path = tmp_path / "c.yaml"
    path.write_text("model:\n  style:\n    layers: 3\n")
    answer = evaluate("--config", path, "--data", data, "--methods", "style-centred", *TINY)
    refused(answer, "'layers'")


def test_wrong_image_size(shared):
    """A library call, since the command line always resizes."""
    with pytest.raises(ValueError, match=r"\(B, 3, 32, 32\), got \(1, 3, 31, 40\): pass"):
        shared("random:clip-tiny").check_pixels(torch.zeros(1, 3, 31, 40))


def test_report_that_cannot_be_written(evaluate, data, tmp_path):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "r.json"
    refused(evaluate("--data", data, "--styles", "sketch", "--json", path, *TINY), path)


def test_corrupt_model_folder(evaluate, data, make_model, tmp_path):
    folder = make_model().save_pretrained(tmp_path / "m")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    refused(evaluate("--data", data, "--model", folder), path, "save the model again")
    path.unlink()
    refused(evaluate("--data", data, "--model", folder), path, "missing")
    (folder / "config.json").write_text("{")
    refused(evaluate("--data", data, "--model", folder), folder / "config.json")


def test_model_with_another_encoder_than_asked_for(evaluate, data, make_model, tmp_path):
    folder = make_model().save_pretrained(tmp_path / "m")
    answer = evaluate("--data", data, "--model", folder, "--encoder", "random:blip-tiny")
    refused(answer, "--encoder random:blip-tiny", "leave --encoder out")


def test_model_and_controls_end_to_end(evaluate, data, make_model, tmp_path):
    folder = make_model().save_pretrained(tmp_path / "m")
    break_picture(data / "sketch" / "11.png", "text")
    options = ["--styles", "sketch,art,sketch+text", "--methods", "mean-style,shuffled-style"]
    report = tmp_path / "r.json"
    options += ["--on-broken", "skip", "--json", report, "--fusion", "zscore,max-softmax"]
    code, out, err = evaluate("--data", data, "--model", folder, *options)
    assert code == 0, err
    values = json.loads(report.read_text())
    assert values["protocol"] == "gallery" and values["gallery_size"] == 4
    methods = ["zero-shot", "freestyle", "freestyle (mean-style)", "freestyle (shuffled-style)"]
    assert list(dict.fromkeys(row["method"] for row in values["rows"])) == methods
    joint = [r["fusion"] for r in values["rows"] if r["style"] == "sketch+text"]
    assert joint == ["zscore", "max-softmax"] * 4
    assert all(row["n"] == 4 and 0 <= row["R@1"] <= 1 for row in values["rows"])
    assert "random:clip-tiny@seed0" in out


# -- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--data.root", "nowhere"], ["nowhere"]),
        (["--data.styles", "[sketch,crayon]"], ["crayon", "sketch"]),
        (["--data.styles", "[text]"], ["data.styles", "text_tokens"]),
        (["--data.train_split", "dev"], ["dev"]),
        (["--model.encoder", "random:clip-giant"], ["random:clip-giant"]),
        (["--model.method", "coop"], ["'coop'", "vpt-deep"]),
        (["--model.method", "zero-shot"], ["'zero-shot'", "trains nothing"]),
        (["--model.prompts.split", "9"], ["prompts.split is 9", "0 to 3"]),
        (["--model.prompts.shallow", "text"], ["model.prompts.shallow", "text"]),
        (["--model.loss.temperature", "0"], ["loss.temperature"]),
        (["--model.surprise", "1"], ["model.surprise"]),
        (["--trainer.precision", "8-mixed"], ["trainer.precision", "8-mixed"]),
        (["--trainer.devices", "0"], ["devices"]),
        (["--model.space", "nowhere.safetensors"], ["nowhere.safetensors"]),
        (["--ckpt_path", "nowhere.ckpt"], ["--ckpt_path nowhere.ckpt"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
    ],
)
def test_bad_training_option(train, options, named):
    refused(train(*options), *named)


def test_bad_training_yaml(train, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("a: [1\n b: }")
    refused(train("--config", path), "config")
    refused(train(command="fitt"), "fitt")


@pytest.mark.parametrize("how", ["junk", "cut short", "no checkpoint", "another model"])
def test_bad_checkpoint(train, tmp_path, how):
    path = tmp_path / "c.ckpt"
    weights = {"model.query_map.weight": torch.zeros(2, 2)}
    torch.save({"state_dict": weights, "global_step": 3}, path)
    if how == "junk":
        path.write_bytes(b"junk" * 100)
    elif how == "cut short":
        path.write_bytes(path.read_bytes()[:500])
    elif how == "no checkpoint":
        torch.save([1, 2], path)
    message = refused(train("--ckpt_path", path), f"--ckpt_path {path}")
    assert ("other settings" in message) == (how == "another model")


def test_corrupt_last_checkpoint(train, tmp_path):
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    refused(train("--ckpt_path", "last"), path)


def test_broken_training_picture(train, data):
    path = data / "art" / "02.png"
    break_picture(path, "text")
    refused(train(), path)
    refused(train("--data.num_workers", 1), path)


# -- the programs ------------------------------------------------------------------------------


def program(name, *options):
    return subprocess.run(
        [sys.executable, ROOT / name, *[str(o) for o in options]],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_eval_program(tmp_path):
    done = program("eval.py", "--data", tmp_path / "nowhere", *TINY)
    refused((done.returncode, done.stdout, done.stderr), tmp_path / "nowhere")
    assert done.stderr.count("\n") == 1 and done.stdout == ""


def test_train_program(tmp_path):
    path = tmp_path / "none.yaml"
    done = program("train.py", "fit", "--config", path)
    refused((done.returncode, done.stdout, done.stderr), path)


def test_commands(capsys):
    assert cli.main([]) == 0
    assert "eval" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("freestyle ")
    refused((cli.main(["evaluate"]), "", capsys.readouterr().err), "'evaluate'", "eval")


def test_interruption_says_how_to_go_on(capsys):
    def command(args):
        raise KeyboardInterrupt

    assert cli.run(command, []) == 130
    assert "--ckpt_path last" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error():
    """``freestyle bench ... --plan | head -1``."""
    command = [sys.executable, "-m", "freestyle", "bench", "configs/bench/style.yaml", "--plan"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        errors = process.stderr.read()
        assert (process.wait(), errors) == (141, b"")


def test_a_package_that_is_not_installed_is_named(capsys):
    def command(args):
        raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")

    assert cli.run(command, []) == 2
    said = capsys.readouterr().err
    assert "pip install torch" in said and "--onnx" in said

    def broken(args):
        raise ModuleNotFoundError("a mistake of ours", name="freestyle.nowhere")

    with pytest.raises(ModuleNotFoundError):
        cli.run(broken, [])
