"""The endpoint client against a real HTTP server: slow, busy, broken, lying."""

import base64
import io
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from freestyle.errors import UserError
from freestyle.transport.endpoint import EndpointComposer

GOOD = {
    "captions": ["a thing with a hat", "a hatted thing"],
    "reference": ["a thing"],
    "desired": ["a hat"],
    "preserved": ["thing"],
    "forbidden": [],
}


class Server(ThreadingHTTPServer):
    """Plays a script of behaviours, then keeps to the last; remembers what it was asked."""

    daemon_threads = True

    def __init__(self, *script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.asked, self.now, self.most = list(script), [], 0, 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def next(self):
        with self.lock:
            return self.script.pop(0) if len(self.script) > 1 else self.script[0]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.asked.append((self.path, dict(self.headers), body))
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            self.play(server.next())
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with server.lock:
                server.now -= 1

    def play(self, what):
        if what == "hang":
            time.sleep(5)
            return
        if what == "slow":
            time.sleep(0.15)
            what = GOOD
        if what == "drop":
            self.connection.close()
            return
        if isinstance(what, int):
            headers = {"Retry-After": "0.05"} if what == 429 else {}
            return self.send(what, b'{"error": "not now"}', headers)
        if isinstance(what, bytes):
            return self.send(200, what)
        content = what if isinstance(what, str) else "Sure:\n```json\n" + json.dumps(what) + "\n```"
        answer = {"choices": [{"message": {"role": "assistant", "content": content}}]}
        self.send(200, json.dumps(answer).encode())

    def send(self, status, body, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def serve():
    servers = []

    def start(*script):
        servers.append(Server(*script))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def composer(tmp_path):
    def make(server, **options):
        settings = {"timeout": 30, "retries": 3, "back_off": 0.01, "cache": tmp_path / "cache"}
        return EndpointComposer(server.url, "tiny-vl", "emoji", **{**settings, **options})

    return make


def test_asks_with_picture_text_and_key_and_reads_the_answer(serve, composer, asked, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-word")
    server = serve(GOOD)
    found = composer(server, count=2).compose(asked[:1])["q0"]
    assert found.captions == ("a thing with a hat", "a hatted thing")
    assert (found.modification, found.desired) == ("with a hat", ("a hat",))
    (path, headers, body) = server.asked[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret-word"
    assert body["model"] == "tiny-vl" and body["temperature"] == 0.7
    picture, text = body["messages"][1]["content"]
    assert "with a hat" in text["text"] and "2 different" in text["text"]
    assert "Never name the medium" in body["messages"][0]["content"]
    data = picture["image_url"]["url"].removeprefix("data:image/png;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (40, 40)


@pytest.mark.parametrize(
    "trouble",
    ["hang", "drop", 429, 500, 503, b"no json", b'{"choices": []}', "no object", {"captions": []}],
)
def test_trouble_is_tried_again(serve, composer, asked, trouble):
    server = serve(trouble, GOOD)
    timeout = 1.5 if trouble == "hang" else 30  # a busy machine is no trouble of the server's
    found = composer(server, timeout=timeout).compose(asked[:1])
    assert found["q0"].captions == tuple(GOOD["captions"])
    assert len(server.asked) == 2


def test_a_server_that_keeps_lying_ends_in_one_sentence_and_the_cache_stays(
    serve, composer, asked, tmp_path
):
    server = serve(GOOD, {"captions": "not a list"})
    with pytest.raises(UserError, match="in 4 tries") as caught:
        composer(server, concurrency=1).compose(asked)
    assert "\n" not in str(caught.value) and "captions" in str(caught.value)
    kept = list((tmp_path / "cache").glob("*.json"))
    assert len(kept) == 1 and json.loads(kept[0].read_text())["captions"] == GOOD["captions"]
    again = serve(GOOD)
    found = composer(again).compose(asked)
    assert len(found) == 3 and len(again.asked) == 2  # the first was not asked for again


def test_a_key_that_is_refused_is_not_tried_again(serve, composer, asked):
    server = serve(401)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        composer(server).compose(asked[:1])
    assert len(server.asked) == 1


def test_nobody_listens(serve, composer, asked):
    server = serve(GOOD)
    made = composer(server, retries=1)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="in 2 tries"):
        made.compose(asked[:1])


def test_concurrency_is_bounded(serve, composer, asked, tmp_path, make_picture):
    from dataclasses import replace

    many = [replace(asked[i % 3], id=f"{i}", text=f"number {i}") for i in range(8)]
    server = serve("slow")
    found = composer(server, concurrency=3, timeout=5).compose(many)
    assert len(found) == 8 and 2 <= server.most <= 3


def test_half_a_cache_file_is_written_anew(serve, composer, asked, tmp_path):
    server = serve(GOOD)
    composer(server).compose(asked[:1])
    (kept,) = (tmp_path / "cache").glob("*.json")
    kept.write_text('{"captions": ["a th')
    assert composer(server).compose(asked[:1])["q0"].captions == tuple(GOOD["captions"])
    assert len(server.asked) == 2


def test_the_cache_knows_model_prompt_picture_and_text(serve, composer, asked, make_picture):
    from dataclasses import replace

    server = serve(GOOD)
    composer(server).compose(asked[:1])
    composer(server).compose(asked[:1])
    assert len(server.asked) == 1
    composer(server, count=3).compose(asked[:1])
    composer(server).compose([replace(asked[0], text="red")])
    make_picture(9).save(asked[0].reference)
    composer(server).compose(asked[:1])
    assert len(server.asked) == 4
    assert Counter(path for path, _, _ in server.asked) == {"/v1/chat/completions": 4}


def test_settings_that_cannot_be(refusal):
    assert "composer.url" in refusal(EndpointComposer, "localhost:8000", "m")
    assert "concurrency" in refusal(EndpointComposer, "http://x", "m", concurrency=0)
    assert "prompts" in refusal(EndpointComposer, "http://x", "m", "no-benchmark")
