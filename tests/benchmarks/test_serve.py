"""The load test's own arithmetic, and a short run of it against a small server."""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


benchmark = load("benchmark_serve", ROOT / "benchmarks/serve.py")


def test_percentiles_and_queries():
    times = [float(n) for n in range(1, 101)]
    assert benchmark.percentiles(times) == {"p50": 50.5, "p95": 95.0, "p99": 99.0, "longest": 100.0}
    assert not any(benchmark.percentiles([]).values())
    drawn = benchmark.sketches(500, ROOT / "data/emoji", 0)
    written = benchmark.texts(1500, ROOT / "data/emoji")
    assert len(set(drawn)) == 500 and len(set(written)) > 1400
    data = benchmark.request("sketch+text", drawn[0], "a fox", "127.0.0.1:1", "secret")
    head, _, body = data.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head and b"Bearer secret" in head
    assert drawn[0] in body and b'{"text": "a fox"}' in body


def test_a_client_without_a_server_ends():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    options = benchmark.parser().parse_args(["--url", "unused"])
    client = benchmark.Client(address, [("text", b"x")], options)
    client.start()
    assert client.ready.wait(20)
    client.join(20)
    assert client.errors == ["ConnectionRefusedError"] and not client.times


@pytest.mark.slow
def test_short_run(tmp_path, capsys):
    server = ROOT / "tests/search/server"
    conftest = load("server_conftest", server / "conftest.py")
    conftest.gallery.fill(tmp_path)
    live = conftest.Live(tmp_path)
    try:
        file = tmp_path / "out.json"
        options = ["--url", live.url, "--clients", "2", "--seconds", "2", "--json", str(file)]
        assert benchmark.main([*options, "--check", "--limit", "5000"]) == 0
        result = json.loads(file.read_text())
        assert result["requests"] >= 4 and not result["errors"]
        assert 0 < result["p50"] <= result["p95"] <= result["p99"] <= result["longest"]
        assert set(result["by_kind"]) == {"sketch", "text", "sketch+text"}
        assert result["stages"]["embed"] >= 0 and result["batch"] >= 1
        assert benchmark.main([*options, "--check", "--limit", "0.001"]) == 1
    finally:
        assert live.end() == 0
