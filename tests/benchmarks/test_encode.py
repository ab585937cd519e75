"""The encoder benchmark: its arithmetic by hand, and a round on a tiny architecture."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parents[2] / "benchmarks" / "encode.py"
TINY = ["--encoders=random:clip-tiny", "--batch-size=2", "--repeats=2", "--warmup=0"]


@pytest.fixture(scope="module")
def encode():
    spec = importlib.util.spec_from_file_location("benchmarks_encode", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def result(encode):
    def make(name, overhead):
        return encode.Result(name, 10.0, 10 * (1 + overhead), 0, 0, 0, overhead, 0.0, 1.0)

    return make


def test_overhead_is_the_median_ratio_of_rounds_not_the_ratio_of_medians(encode):
    times = {
        "plain": [10.0, 20.0, 40.0],
        "prompted": [11.0, 21.0, 60.0],
        "reader": [0.5, 0.6, 0.7],
        "tokens": [0.1, 0.2, 0.3],
    }
    found = encode.summarise("x", times)
    assert (found.plain, found.prompted) == (20.0, 21.0)
    assert found.overhead == pytest.approx(0.1)
    assert (found.lowest, found.highest) == pytest.approx((0.05, 0.5))
    assert found.blocks == pytest.approx(21.0 - 20.0 - 0.6 - 0.2)


def test_the_limit_applies_to_the_large_encoder_where_it_is_timed(encode, result):
    small, large = result("random:clip-vit-b-32", 0.4), result(encode.REQUIRED, 0.1)
    mini = result(encode.MINI, 0.9)
    assert encode.too_slow([mini, small, large], 0.15) == []
    assert encode.too_slow([mini, small, large], 0.05) == [encode.REQUIRED]
    assert encode.too_slow([mini, small], 0.15) == ["random:clip-vit-b-32"]
    assert encode.too_slow([mini, small], None) == []


def test_the_table_shows_images_per_second_and_the_overhead(encode, result):
    line = encode.table([result("x", 0.25)]).splitlines()[-1].split()
    assert line[:5] == ["x", "10.00", "12.50", "100.0", "80.0"]
    assert line[8] == "+25.0%"


def test_both_paths_use_the_same_weights_and_the_plain_one_is_hugging_faces(encode):
    model = encode.build_model("random:clip-tiny")
    plain = encode.plain_forward(model.encoder)
    assert plain == model.encoder.model.get_image_features
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        theirs = plain(model.encoder.normalise_pixels(pixels)).pooler_output
        assert torch.allclose(theirs, model.encoder.embed_image(pixels), atol=1e-5)
        first, second = model.query_from(*model.prepare(pixels))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_writes_what_it_printed(encode, tmp_path, capsys, dtype):
    file = tmp_path / "speed.json"
    code = encode.main([*TINY, f"--dtype={dtype}", f"--json={file}", "--device=cpu"])
    assert code == 0
    assert "random:clip-tiny" in capsys.readouterr().out
    values = json.loads(file.read_text())
    assert (values["dtype"], values["threads"]) == (dtype, torch.get_num_threads())
    (found,) = values["results"]
    assert found["plain"] > 0 and found["reader"] > 0 and found["tokens"] > 0
    assert found["lowest"] <= found["overhead"] <= found["highest"]


def test_exit_codes(encode, capsys):
    assert encode.main([*TINY, "--max-overhead=-1"]) == 1
    assert encode.main(["--encoders=random:nothing"]) == 2
    assert encode.main([*TINY, "--repeats=0"]) == 2
    assert "error" in capsys.readouterr().err


def test_both_forms_of_the_mini_are_timed(encode):
    tokens, default = encode.build_model(encode.MINI), encode.build_model(encode.DEFAULT)
    assert tokens.uses_tokens and len(tokens.framings) == 1
    assert not default.uses_tokens and len(default.framings) == 2
    found = encode.measure(encode.DEFAULT, batch_size=1, repeats=1, warmup=0)
    assert found.prompted > found.reader > 0 and found.tokens > 0
