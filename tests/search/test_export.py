"""Exported query encoders against the models themselves, and folders that are none."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image, ImageDraw

from freestyle.config import CalibrationConfig, FreestyleConfig, StyleConfig, TowerConfig
from freestyle.datasets.images import load_image
from freestyle.encoders import create
from freestyle.model import FreestyleRet
from freestyle.search import export, export_graphs
from freestyle.search.export import export_model, torch_graph
from freestyle.search.export_command import main
from freestyle.search.exported import Manifest, read_manifest
from freestyle.search.index import open_index
from freestyle.search.onnx_encoder import OnnxQueryEncoder
from freestyle.search.quantise import quantise
from freestyle.search.searcher import Part, Searcher
from freestyle.search.torch_encoder import TorchQueryEncoder

asking = runpy.run_path(str(Path(__file__).with_name("asking.py")))
ROOT = Path(__file__).parents[2]
TEXTS = [
    "a red boat",
    "",
    "   ",
    "UPPER, lower; don't! (x)",
    "naïve café, 東京の猫, Ünïcödé \u0130",
    "\U0001f600\u200d\ufe0f 3.5€ #tag\nand\ta tab",
    "word " * 400,
]
TOLERANCE = 1e-4


def odd_pictures():
    """Blank, one pixel, narrow, transparent, palette, grey, noise, and drawings at the margins."""
    random = np.random.default_rng(7)
    noise = random.integers(0, 256, (70, 33, 4), dtype=np.uint8)
    corner = Image.new("RGB", (90, 60), "white")
    ImageDraw.Draw(corner).line((80, 50, 89, 59), fill="black", width=2)
    inside = Image.new("L", (120, 200), 40)
    ImageDraw.Draw(inside).ellipse((30, 80, 60, 110), outline=220, width=4)
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    ImageDraw.Draw(clear).rectangle((5, 5, 20, 30), fill=(10, 120, 10, 255))
    given = [
        Image.fromarray(noise, "RGBA"),
        corner,
        inside,
        clear,
        Image.new("RGB", (1, 1), (3, 200, 90)),
        Image.new("RGB", (2, 300), "white"),
        Image.fromarray(noise[..., :3]).convert("P"),
        Image.new("RGB", (33, 17), "black"),
    ]
    return [load_image(picture) for picture in given]


def agree(model, folder, formats=("onnx",), tolerance=TOLERANCE):
    """Both sides on odd pictures and texts, in batches of 1, 3 and 7."""
    exported, eager = OnnxQueryEncoder(folder, threads=1), TorchQueryEncoder(model)
    pictures = odd_pictures()
    for own, other, given in (
        (eager.embed_images, exported.embed_images, pictures),
        (eager.embed_texts, exported.embed_texts, TEXTS),
    ):
        for batch in (given[:1], given[1:2], given[1:4], given[-7:]):
            expected, found = own(batch), other(batch)
            assert np.abs(expected.rows - found.rows).max() <= tolerance
            assert found.rows.dtype == np.float32
            for one, two in zip(expected.styles, found.styles, strict=True):
                assert one.keys() == two.keys()
                assert all(two[k] == pytest.approx(one[k], abs=tolerance) for k in one)
            assert (expected.places is None) == (found.places is None)
            if expected.places is not None:
                assert np.abs(expected.places - found.places).max() <= tolerance
    photos = torch.nn.functional.normalize(torch.randn(9, eager.width), dim=1).numpy()
    assert np.abs(eager.complete(photos) - exported.complete(photos)).max() <= 1e-5
    if "torch" in formats:
        pixels = torch.stack([model.encoder.preprocess(picture) for picture in pictures[:3]])
        rows = torch_graph(folder, "image")(pixels=pixels)[0].detach().numpy()
        assert np.abs(rows - eager.embed_images(pictures[:3]).rows).max() <= tolerance
    return exported


@pytest.fixture(scope="module")
def styled(shared, style_config, style_codes):
    """Both framings, a styled map, a calibration with a gate: the demo's kind of model.

    Around one layer of each tower, since tracing takes its time by the number of operators.
    """
    short = create("random:clip-tiny")
    for tower in (short.model.vision_model, short.model.text_model):
        tower.encoder.layers = tower.encoder.layers[:1]
    short.depth = 1
    parts = {"random:clip-tiny": short, style_config: shared(style_config)}
    return asking["make_model"](parts.__getitem__, style_config, style_codes)


@pytest.fixture(scope="module")
def exported(styled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    differences = export_model(styled, folder)
    assert differences.keys() == {"onnx"} and differences["onnx"] <= TOLERANCE
    return folder


@pytest.fixture
def copied(exported, tmp_path):
    return Path(shutil.copytree(exported, tmp_path / "copied"))


def moved(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def test_a_styled_map_over_two_framings_with_its_calibration(styled, exported):
    found = agree(styled, exported)
    assert (found.encoder, found.weights) == ("random:clip-tiny", styled.encoder.weights_tag)
    assert found.embed_images([]).rows.shape == (0, found.width + 3)
    assert found.embed_texts([]).rows.shape == (0, found.width + 3)


def test_more_pictures_and_texts_than_one_pass_takes(exported, monkeypatch, pictures):
    whole = OnnxQueryEncoder(exported, threads=1)
    rows, words = whole.embed_images(pictures).rows, whole.embed_texts(TEXTS).rows
    monkeypatch.setattr("freestyle.search.onnx_encoder.BATCH", 3)
    assert np.abs(whole.embed_images(pictures).rows - rows).max() < 1e-6
    assert np.abs(whole.embed_texts(TEXTS).rows - words).max() < 1e-6


def test_a_search_by_the_export_imports_no_torch(styled, exported, tmp_path, pictures):
    uri = f"exact:{tmp_path / 'photos.index'}"
    asking["fill"](uri, TorchQueryEncoder(styled), pictures)
    pictures[0].save(tmp_path / "query.png")
    script = f"""
import sys
from freestyle.cli import main
import freestyle.search.serve_command, freestyle.search.server.app
code = main(["search", {uri!r}, "--onnx", {str(exported)!r}, "--text", "red boat",
             "--image", {str(tmp_path / "query.png")!r}, "--json", {str(tmp_path / "out.json")!r}])
heavy = {{"torch", "transformers", "torchvision", "onnx", "timm"}} & set(sys.modules)
assert code == 0 and not heavy, (code, heavy)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())["hits"]
    expected = Searcher(open_index(uri), TorchQueryEncoder(styled)).search(
        Part(image=tmp_path / "query.png"), Part(text="red boat"), top=20
    )
    assert [hit["id"] for hit in found] == [hit.id for hit in expected.hits]
    scores = [hit.score for hit in expected.hits]
    assert [hit["score"] for hit in found] == pytest.approx(scores, abs=1e-3)


def test_int8_is_smaller_and_near(exported, copied):
    for name in ("image.onnx", "text.onnx"):
        quantise(exported / name, copied / name)
        assert (copied / name).stat().st_size < 0.8 * (exported / name).stat().st_size
    replace(read_manifest(exported), precision="int8").write(copied)
    small, whole = OnnxQueryEncoder(copied, threads=1), OnnxQueryEncoder(exported, threads=1)
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8)) for _ in range(40)]
    pictures = [picture.resize((64, 64), Image.Resampling.BICUBIC) for picture in pictures]
    ours, theirs = whole.embed_images(pictures).rows, small.embed_images(pictures).rows
    assert np.abs(ours - theirs).max() > 1e-6
    nearest = (theirs @ ours.T).argmax(axis=1)
    assert np.mean(nearest == np.arange(40)) >= 0.9  # each is still nearest to itself


@pytest.mark.slow
def test_weights_too_many_for_one_file_lie_beside_it(make_model, tmp_path, monkeypatch):
    monkeypatch.setattr(export_graphs, "ONE_FILE", 0)
    model = make_model("zero-shot")
    export_model(model, tmp_path / "out")
    assert "text.onnx.data" in read_manifest(tmp_path / "out").files
    agree(model, tmp_path / "out")
    export_model(model, tmp_path / "int8", int8=True)
    assert OnnxQueryEncoder(tmp_path / "int8").embed_texts(["red"]).rows.shape[0] == 1


def test_an_export_that_differs_from_its_model_is_not_kept(copied, styled, monkeypatch, refusal):
    before = {p.name: p.read_bytes() for p in copied.iterdir()}

    def other(model, place, formats, int8):
        shutil.copytree(copied, place, dirs_exist_ok=True)
        changed = onnx.load(place / "image.onnx")
        for weight in changed.graph.initializer:
            if "query_map.linear.weight" in weight.name:
                weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * -1).tobytes()
        onnx.save(changed, place / "image.onnx")
        read_manifest(copied).write(place)

    monkeypatch.setattr(export, "_write", other)
    assert "differ from the model" in refusal(export_model, styled, copied)
    assert {p.name: p.read_bytes() for p in copied.iterdir()} == before
    assert [p.name for p in copied.parent.iterdir()] == [copied.name]


def test_folders_that_are_no_export(copied, styled, tmp_path, refusal):
    assert "no exported model" in refusal(OnnxQueryEncoder, tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    assert "holds other files" in refusal(export_model, styled, tmp_path / "notes")
    assert "is a file" in refusal(export_model, styled, tmp_path / "notes" / "mine.txt")
    values = json.loads((copied / "manifest.json").read_text())
    damages = {
        "of format 99": {**values, "format": 99},
        "lacks settings": {k: v for k, v in values.items() if k != "tokens"},
        "outside its folder": {**values, "files": {**values["files"], "../x": "0"}},
        "holds no image.onnx": {
            **values,
            "files": {k: v for k, v in values["files"].items() if k != "image.onnx"},
        },
    }
    for expected, damaged in damages.items():
        (copied / "manifest.json").write_text(json.dumps(damaged))
        assert expected in refusal(OnnxQueryEncoder, copied)
    for content in ("{", "[1]", ""):
        (copied / "manifest.json").write_text(content)
        assert "manifest.json" in refusal(OnnxQueryEncoder, copied)


@pytest.mark.parametrize("name", ["image.onnx", "text.onnx", "calibration.safetensors"])
def test_a_damaged_or_missing_file(copied, name, refusal):
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    assert f"{name} is missing or not what was exported" in refusal(OnnxQueryEncoder, copied)
    (copied / name).unlink()
    assert f"{name} is missing" in refusal(OnnxQueryEncoder, copied)


def test_a_graph_that_cannot_run(copied, refusal):
    (copied / "image.onnx").write_bytes(b"no graph")
    values = json.loads((copied / "manifest.json").read_text())
    Manifest(**values).write(copied)
    assert "cannot be run here" in refusal(OnnxQueryEncoder.open, copied)


def test_options(tmp_path, refusal):
    out = ["--out", str(tmp_path / "out")]
    assert "--format is jpeg" in refusal(main, ["--encoder", "x", *out, "--format", "jpeg"])
    assert "--model" in refusal(main, out)
    assert "unknown encoder" in refusal(main, ["--encoder", "freestyle-mimi", *out])
    model = ["--encoder", "random:clip-tiny", *out]
    assert "--int8" in refusal(main, [*model, "--format", "torch", "--int8"])
    assert "threads is 0" in refusal(OnnxQueryEncoder, tmp_path, threads=0)


def test_an_index_of_another_encoder_is_refused(exported, tmp_path, pictures, refusal):
    model = FreestyleRet(
        FreestyleConfig(encoder="random:siglip-tiny"), create("random:siglip-tiny")
    )
    uri = f"exact:{tmp_path / 'other.index'}"
    asking["fill"](uri, TorchQueryEncoder(model), pictures)
    assert "random:siglip-tiny" in refusal(Searcher.open, uri, onnx=str(exported))


PATHS = {
    "prompt tokens": ("freestyle", "random:clip-tiny", {"text_tokens": 2}),
    "constants in every layer": ("vpt-deep", "random:siglip-tiny", {}),
    "gated adapters": (
        "freestyle",
        "random:blip-tiny",
        {"shallow": "none", "deep": "none", "tower": TowerConfig(rank=2, gate="gram", hidden=4)},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PATHS)
def test_tokens_and_adapters_in_each_family(make_model, tmp_path, name):
    method, encoder, more = PATHS[name]
    model = moved(make_model(method, encoder, **more))
    differences = export_model(model, tmp_path / "out", formats=("onnx", "torch"))
    assert max(differences.values()) <= TOLERANCE
    agree(model, tmp_path / "out", formats=("onnx", "torch"))


@pytest.mark.slow
def test_a_calibration_of_equal_shares_and_a_prompted_gallery(make_model, tmp_path):
    options = CalibrationConfig(gate="none", temperature=0.1)
    model = moved(make_model("query-adapter", calibration=options, gallery="prompted"))
    rows = torch.nn.functional.normalize(torch.randn(2, 6, model.encoder.embed_dim), dim=-1)
    model.calibration.fit(list(rows), None, None, None)
    export_model(model, tmp_path / "out")
    found = agree(model, tmp_path / "out")
    assert found.weights.startswith(f"{model.encoder.weights_tag} ")
    assert found.manifest.prompts_gallery and found.manifest.outputs == ("rows",)


@pytest.mark.slow
def test_the_mini_with_both_framings_and_the_shipped_style_reader(tmp_path):
    style = StyleConfig(network="vgg-mini", taps=("relu2_1",), resolution=96)
    model = FreestyleRet(
        FreestyleConfig(encoder="freestyle-mini", style=style, query_map="styled", framing="both")
    )
    generator = torch.Generator().manual_seed(0)
    for buffer in (model.space.axes, model.space.bases):
        buffer.copy_(torch.randn(buffer.shape, generator=generator) / 10)
    model.space.factor.fill_(1.0)
    moved(model).save_pretrained(tmp_path / "model")
    main(["--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")])
    agree(FreestyleRet.from_pretrained(tmp_path / "model"), tmp_path / "out")


def test_texts_of_any_length_where_the_examples_fill_the_tower(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(export_graphs, "EXAMPLES", ["word " * 400, "other " * 400])
    encoder = shared("random:clip-tiny")
    model = FreestyleRet.from_encoder("random:clip-tiny", encoder=encoder)
    export_model(model, tmp_path / "out")
    exported = OnnxQueryEncoder(tmp_path / "out")
    for texts in (["fox"], ["fox", "a red boat at night"], ["word " * 400]):
        rows = exported.embed_texts(texts).rows
        assert np.abs(rows - model.encode_text(texts).numpy()).max() < TOLERANCE
