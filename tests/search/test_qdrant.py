"""What is Qdrant's own: its address, its options, a server that refuses or does not answer."""

from __future__ import annotations

import json
import runpy
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from qdrant_client import QdrantClient

from freestyle.errors import UserError
from freestyle.search import qdrant, server_client
from freestyle.search.index import create_index, open_index
from freestyle.search.qdrant import QdrantIndex
from freestyle.search.server_client import parse_address

made = runpy.run_path(str(Path(__file__).with_name("made_photos.py")))
SETTINGS, make_photos = made["SETTINGS"], made["make_photos"]
ROOT = Path(__file__).parents[2]


def test_addresses():
    assert parse_address("qdrant://host/photos").url == "http://host:6333"
    assert parse_address("qdrants://host:7000/photos/").url == "https://host:7000"
    assert parse_address("qdrant://[::1]:6333/a-b.c_1").url == "http://[::1]:6333"
    for uri in (
        "qdrant://host",
        "qdrant:///photos",
        "qdrant://host/a/b",
        "qdrant://host/..",
        "qdrant://host:x/photos",
        "qdrant://host/ü",
    ):
        with pytest.raises(UserError, match="write qdrant://HOST:6333/COLLECTION"):
            parse_address(uri)
    for uri in ("qdrant://user:secret@host/photos", "qdrant://host/photos?key=secret"):
        with pytest.raises(UserError, match="QDRANT_API_KEY") as caught:
            parse_address(uri)
        assert "secret" not in str(caught.value)


class Recording:
    """Passes everything on to a client, and keeps what a collection was made with."""

    def __init__(self):
        self.client = QdrantClient(":memory:")
        self.made, self.upserts = {}, []

    def __getattr__(self, name):
        return getattr(self.client, name)

    def create_collection(self, name, **arguments):
        self.made = arguments
        return self.client.create_collection(name, **arguments)

    def upsert(self, **arguments):
        self.upserts.append(len(arguments["points"]))
        return self.client.upsert(**arguments)


def test_options_reach_the_server():
    client = Recording()
    options = {"shard_number": 6, "replication_factor": 2, "write_consistency_factor": 2}
    QdrantIndex.create("qdrant://host/photos", SETTINGS, client, **options)
    assert options.items() <= client.made.items()
    for wrong, message in (({"shards": 2}, "shard_number"), ({"shard_number": 0}, "from 1")):
        with pytest.raises(UserError, match=message):
            QdrantIndex.create("qdrant://host/other", SETTINGS, client, **wrong)


def test_folders_take_no_options(tmp_path):
    with pytest.raises(UserError, match="shard_number"):
        create_index(str(tmp_path / "index"), SETTINGS, shard_number=2)


def test_large_upserts_go_in_several_requests(monkeypatch):
    client = Recording()
    index = QdrantIndex.create("qdrant://host/photos", SETTINGS, client)
    monkeypatch.setattr(qdrant, "REQUEST", 10_000)
    with index.writing():
        index.upsert(make_photos(50))
    assert len(index) == 50 == sum(client.upserts) and 2 < len(client.upserts) < 50


def test_a_collection_of_something_else():
    client = QdrantClient(":memory:")
    client.create_collection("photos", vectors_config={})
    with pytest.raises(UserError, match="no index of freestyle"):
        QdrantIndex.open("qdrant://host/photos", client)


@pytest.fixture
def server(monkeypatch):
    """A server that answers what the test says, one answer a request, the last one for ever."""
    monkeypatch.setattr(server_client, "WAITS", (0.01, 0.01))
    answers, seen = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("api-key")))
            status, body = answers.pop(0) if len(answers) > 1 else answers[0]
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"qdrant://127.0.0.1:{http.server_port}/photos", answers, seen
    http.shutdown()
    http.server_close()


def exists(answer):
    return {"time": 0.0, "status": "ok", "result": {"exists": answer}}


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure")
def test_answers_of_a_server(server, monkeypatch):
    uri, answers, seen = server
    monkeypatch.setenv("QDRANT_API_KEY", "the key")
    answers[:] = [(503, {"status": {"error": "busy"}})] * 2 + [(200, exists(False))]
    with pytest.raises(UserError, match="there is no index at qdrant://"):
        open_index(uri)
    assert seen == [("/collections/photos/exists", "the key")] * 3
    answers[:] = [(401, {"status": {"error": "Must provide an API key"}})]
    with pytest.raises(UserError, match="refuses the key: set QDRANT_API_KEY"):
        open_index(uri)
    answers[:] = [(400, {"status": {"error": "Wrong input: x"}})]
    with pytest.raises(UserError, match="400: Wrong input: x"):
        open_index(uri)
    answers[:] = [(500, {"status": {"error": "disk full"}})]
    with pytest.raises(UserError, match="500: disk full"):
        create_index(uri, SETTINGS)


def test_no_server(monkeypatch):
    monkeypatch.setattr(server_client, "WAITS", (0.01, 0.01))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=r"does not answer .*: start it, or check host and port"):
        open_index(f"qdrant://127.0.0.1:{port}/photos")


def test_the_cluster_file_joins_three_nodes():
    values = yaml.safe_load((ROOT / "deploy" / "qdrant-cluster.yml").read_text())
    nodes = values["services"]
    assert len(nodes) == 3 and set(values["volumes"]) == set(nodes)
    first, *others = nodes
    for name, node in nodes.items():
        command = node["command"]
        assert command[command.index("--uri") + 1] == f"http://{name}:6335"
        assert node["environment"]["QDRANT__CLUSTER__ENABLED"] == "true"
        assert node["volumes"] == [f"{name}:/qdrant/storage"]
        assert ("--bootstrap" in command) == (name in others)
    assert all(f"http://{first}:6335" in nodes[name]["command"] for name in others)
    assert len({port for node in nodes.values() for port in node["ports"]}) == 3
