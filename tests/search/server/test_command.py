"""``freestyle serve``: its options, and the whole of it on a real index with real encoders."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from freestyle import cli
from freestyle.search.serve_command import parser, read_limits, read_token

ROOT = Path(__file__).parents[3]
EMOJI = ROOT / "data" / "emoji"
TOKEN = "correct-horse-battery"


def test_nothing_of_it_needs_torch():
    names = sorted(p.stem for p in (ROOT / "freestyle/search/server").glob("*.py"))
    modules = [f"freestyle.search.server.{n}" for n in names if n != "__init__"]
    modules += ["freestyle.search.serve_command", "freestyle.search.searcher"]
    code = f"import {', '.join(modules)}, sys; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert len(modules) > 12 and done.stdout.strip() == "False"


def test_limits():
    assert read_limits(parser().parse_args(["i"])).rate == 20
    given = ["i", "--rate", "3", "--max-body", "2", "--max-pixels", "0.5", "--timeout", "4"]
    limits = read_limits(parser().parse_args(given))
    assert (limits.rate, limits.burst, limits.seconds) == (3, 6, 4)
    assert (limits.body, limits.pixels) == (2 << 20, 500_000)
    assert read_limits(parser().parse_args(["i", "--rate", "0"])).rate == 0


def test_token(tmp_path, monkeypatch):
    read = lambda *options: read_token(parser().parse_args(["i", *options]))
    monkeypatch.delenv("FREESTYLE_TOKEN", raising=False)
    assert read() == ""
    monkeypatch.setenv("FREESTYLE_TOKEN", TOKEN)
    assert read() == TOKEN
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}-of-the-file\n\n")
    assert read("--token-file", str(file)) == f"{TOKEN}-of-the-file"
    assert read("--token", f"{TOKEN}-given") == f"{TOKEN}-given"


@pytest.mark.parametrize(
    "options, word",
    [
        (["nothing.index"], "nothing.index"),
        (["i", "--port", "99999"], "port"),
        (["i", "--port", "x"], "--port"),
        (["i", "--host", "192.0.2.1", "--port", "0"], "--host"),
        (["i", "--workers", "-1"], "--workers"),
        (["i", "--rate", "-1"], "rate"),
        (["i", "--rate", "nan"], "rate"),
        (["i", "--max-body", "0"], "body"),
        (["i", "--timeout", "-3"], "seconds"),
        (["i", "--token", "short"], "16"),
        (["i", "--token", "with a space inside it"], "without spaces"),
        (["i", "--token-file", "nothing.txt"], "nothing.txt"),
        (["i", "--timeout", "inf"], "--timeout"),
        (["i", "--max-pixels", "inf"], "--max-pixels"),
        (["i", "--certificate", "c.pem"], "--key"),
        (["i", "--certificate", "c.pem", "--key", "k.pem"], "c.pem"),
        (["i", "--cors"], "--cors"),
        (["i", "--cors", "foo"], "https://HOST"),
    ],
)
def test_bad_options(options, word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "--port" not in options:
        options = [*options, "--port", "0"]
    assert cli.main(["serve", *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and word in err and "Traceback" not in err


def test_port_that_is_taken(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["serve", "i", "--port", port]) == 2
    assert port in capsys.readouterr().err


# -- the whole of it ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def emoji_index(tmp_path_factory):
    """An index of sixty emoji, and the exported query encoder."""
    folder = tmp_path_factory.mktemp("emoji")
    (folder / "photos").mkdir()
    for entry in json.loads((EMOJI / "test.json").read_text())[:60]:
        shutil.copy(EMOJI / "images" / entry["image"], folder / "photos")
    index, exported = str(folder / "my.index"), str(folder / "exported")
    options = ["--encoder", "freestyle-mini", "--workers", "0"]
    assert cli.main(["index", str(folder / "photos"), "--out", index, *options]) == 0
    assert cli.main(["export", "--encoder", "freestyle-mini", "--out", exported]) == 0
    return index, exported


def fetch(url, body=None, token=TOKEN):
    headers = {"Authorization": f"Bearer {token}"}
    if body is not None:
        headers["Content-Type"] = body[0]
    request = urllib.request.Request(url, body and body[1], headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def sketch_form(stem):
    query = json.dumps({"parts": [{"file": "sketch"}], "top": 5})
    picture = (EMOJI / "sketch" / f"{stem}.webp").read_bytes()
    body = (
        f'--b\r\nContent-Disposition: form-data; name="request"\r\n\r\n{query}\r\n'
        '--b\r\nContent-Disposition: form-data; name="sketch"; filename="s"\r\n\r\n'
    ).encode()
    return "multipart/form-data; boundary=b", body + picture + b"\r\n--b--\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("onnx", [False, True])
def test_real_index(emoji_index, onnx, tmp_path):
    from freestyle.search.searcher import Part, Searcher

    index, exported = emoji_index
    token = tmp_path / "token"
    token.write_text(TOKEN)
    command = [sys.executable, "-m", "freestyle.cli", "serve", index, "--port", "0"]
    command += ["--token-file", str(token), *(["--onnx", exported] if onnx else [])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        line = server.stdout.readline()
        assert "60 photos at http://127.0.0.1:" in line
        url = next(word for word in line.split() if word.startswith("http"))
        stems = [p.stem for p in sorted((Path(index).parent / "photos").iterdir())][:8]
        searcher = Searcher.open(index, onnx=exported if onnx else None)
        for stem in stems:  # exactly what `freestyle search` finds
            found = json.loads(fetch(f"{url}search", sketch_form(stem)))
            own = searcher.search(Part(image=EMOJI / "sketch" / f"{stem}.webp"), top=5)
            assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in own.hits]
            for hit, other in zip(found["hits"], own.hits, strict=True):
                assert hit["score"] == pytest.approx(other.score, abs=1e-4)
        searcher.close()
        best = found["hits"][0]
        photo = fetch(f"{url}image/{best['id']}")
        assert photo == (EMOJI / "images" / best["metadata"]["name"]).read_bytes()
        assert fetch(f"{url}thumbnail/{best['id']}")[8:12] == b"WEBP"
        assert b"<html" in fetch(url, token="")
        info = json.loads(fetch(f"{url}info"))
        assert info["photos"] == 60 and info["encoder"] == "freestyle-mini" and info["token"]
        maps = Path(f"/proc/{server.pid}/maps").read_text()
        assert ("torch" not in maps) if onnx else ("torch" in maps)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    finally:
        server.kill()
