from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def load(name):
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


gallery = load("gallery")
load("fuzz_cases")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Folder of the gallery and the ids of its photos by path."""
    folder = tmp_path_factory.mktemp("gallery")
    return folder, gallery.fill(folder)


@pytest.fixture(scope="session")
def ids(photos):
    return photos[1]


class Live:
    """A server process."""

    def __init__(self, folder, **options):
        command = [sys.executable, str(HERE / "live.py"), str(folder), json.dumps(options)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line, "the server did not start"
        self.port = int(line)
        self.url = f"http://127.0.0.1:{self.port}"

    def end(self, number=signal.SIGTERM, seconds=30):
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.wait(seconds)


@pytest.fixture
def live(photos):
    """Start server processes: ``live(delay=0.1)``."""
    started = []

    def start(**options):
        started.append(Live(photos[0], **options))
        return started[-1]

    yield start
    for server in started:
        server.end(signal.SIGKILL)


@pytest.fixture(scope="session")
def live_server(photos):
    """A server process with default limits, but for the rate."""
    server = Live(photos[0])
    yield server
    server.end(signal.SIGKILL)


@pytest.fixture(scope="session")
def make_client(photos):
    """Clients of servers in this process: ``make_client(token="...")``."""
    from contextlib import ExitStack

    from starlette.testclient import TestClient

    from freestyle.search.server.app import create_app
    from freestyle.search.server.limits import Limits

    with ExitStack() as stack:

        def make(delay=0.0, limits=None, **options):
            searcher = gallery.open_searcher(photos[0], delay)
            limits = Limits(**{"rate": 0, **(limits or {})})
            app = create_app(searcher, limits=limits, **options)
            client = TestClient(app, base_url="http://127.0.0.1:8000")
            stack.enter_context(client)
            client.searcher = searcher
            return client

        yield make


@pytest.fixture(scope="session")
def client(make_client):
    """A client of a server with default limits, but for the rate."""
    return make_client()
