"""A real server over a small gallery, and the page of it in a real browser."""

from __future__ import annotations

import email
import email.policy
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from PIL import Image

DATA = Path(__file__).parents[3] / "data/emoji"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
EVERY = 25  # of the emoji that are no faces: one in so many is in the small gallery
ALSO = ("automobile", "red heart", "blue heart", "house", "cat face", "pizza")
PATIENCE = 20_000  # milliseconds; the machine may be busy


def concepts() -> list[dict]:
    return json.loads((DATA / "concepts.json").read_text())


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "freestyle.cli", *arguments]


@contextmanager
def serving(index: Path):
    """``freestyle serve`` of an index; gives its address."""
    process = subprocess.Popen(
        command("serve", str(index), "--port", "0", "--rate", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        address = re.search(r"http://\S+/", line)
        assert address, process.stderr.read()
        yield address[0]
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="session")
def small_gallery(tmp_path_factory) -> str:
    """Address of a served gallery of about 90 emoji, named in words, by the untouched encoder."""
    root = tmp_path_factory.mktemp("page")
    for number, concept in enumerate(concepts()):
        face = concept["subgroup"].startswith("face-smiling")
        name = concept["annotation"]
        if face or name in ALSO or number % EVERY == 0:
            folder = root / "photos" / ("faces" if face else "things")
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / f"{re.sub(r'[^a-z0-9]+', ' ', name.lower()).strip()}.webp"
            shutil.copy(DATA / "images" / f"{concept['stem']}.webp", target)
    arguments = ("index", str(root / "photos"), "--out", str(root / "index"), "--views", "none")
    subprocess.run(command(*arguments), check=True, capture_output=True)
    with serving(root / "index") as address:
        yield address


@pytest.fixture(scope="session")
def chromium():
    """The browser; without one the tests are skipped, but fail in continuous integration."""
    path = shutil.which("chromium")
    if path is None:
        reason = "the page is tested in Chromium, which is not installed"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


class Visit:
    """One page in a context of its own, and what it asked for."""

    def __init__(self, browser, address: str, **context):
        self.address = address
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.searches: list[dict] = []
        self.expected: tuple[str, ...] = ()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._request)
        self.context.route("**/search", self._search)  # only here are the pictures' bytes seen

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _request(self, request):
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob"):
            self.hosts.add(parts.netloc)

    def _search(self, route):
        self.searches.append(form(route.request))
        route.continue_()

    def open(self, hash: str = ""):
        self.page.goto(self.address + hash)
        self.until("document.getElementById('gallery').textContent")
        return self.page

    # -- what is done --

    def draw(self, *strokes, pause: float = 0):
        """Strokes in fractions of the pad, drawn with the mouse."""
        box = self.page.locator("#canvas").bounding_box()
        for stroke in strokes:
            points = [
                (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke
            ]
            self.page.mouse.move(*points[0])
            self.page.mouse.down()
            for point in points[1:]:
                self.page.mouse.move(*point)
            self.page.mouse.up()
            if pause:
                self.page.wait_for_timeout(pause)

    # -- what is seen --

    def until(self, expression: str):
        """Wait for a JavaScript expression; Playwright's own way needs eval, which is forbidden."""
        end = time.monotonic() + PATIENCE / 1000
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"never came true: {expression}"
            self.page.wait_for_timeout(50)

    def soon(self, condition):
        """Wait for something in Python; the page goes on meanwhile."""
        end = time.monotonic() + PATIENCE / 1000
        while not condition():
            assert time.monotonic() < end
            self.page.wait_for_timeout(20)

    def settled(self):
        """Wait until every search that a change started has been answered and shown."""
        self.until("document.getElementById('working').hidden")

    def names(self) -> list[str]:
        self.settled()
        return self.page.locator(".caption").all_inner_texts()

    def parts(self) -> list[str]:
        return self.page.locator(".part-name").all_inner_texts()

    def has_parts(self, count: int):
        """Wait until the query has so many parts: pictures are read before they count."""
        self.until(f"document.querySelectorAll('.part').length === {count}")

    def close(self):
        self.context.close()
        unexpected = [c for c in self.complaints if not any(e in c for e in self.expected)]
        assert not unexpected
        assert self.hosts == {urlsplit(self.address).netloc}


def form(request) -> dict:
    """A search as it was sent: its JSON, and its pictures by the name of their field."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + request.post_data_buffer, policy=email.policy.HTTP)
    sent: dict = {"pictures": {}}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        body = part.get_payload(decode=True)
        if name == "request":
            sent.update(json.loads(body))
        else:
            # What comes from a file on the disk is not shown to an onlooker.
            sent["pictures"][name] = Image.open(io.BytesIO(body)).convert("RGB") if body else None
    return sent


@pytest.fixture
def visit(chromium, small_gallery):
    """Open pages of the small gallery: ``visit(hash, **context)``."""
    opened = []

    def start(hash: str = "", **context) -> Visit:
        visit = Visit(chromium, small_gallery, **context)
        opened.append(visit)
        visit.open(hash)
        return visit

    yield start
    for each in opened:
        each.close()


def circle(x: float, y: float, r: float, stretch: float = 1.0) -> list[tuple[float, float]]:
    """A closed stroke that overlaps its beginning a little."""
    turns = [i / 40 * 2 * math.pi * 1.02 for i in range(41)]
    return [(x + r * math.sin(t), y - r * stretch * math.cos(t)) for t in turns]


def arc(x: float, y: float, rx: float, ry: float, begin: float, end: float):
    """A curve around (x, y) between two angles in turns, clockwise from the right."""
    turns = [2 * math.pi * (begin + (end - begin) * i / 20) for i in range(21)]
    return [(x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns]


@pytest.fixture(scope="session")
def commands():
    """``commands.command``, ``commands.serving``, ``commands.Visit``, the emoji and their names."""
    return SimpleNamespace(
        command=command, serving=serving, concepts=concepts, Visit=Visit, DATA=DATA
    )


@pytest.fixture(scope="session")
def shapes():
    """Strokes: ``shapes.circle``, ``shapes.arc``."""
    return SimpleNamespace(circle=circle, arc=arc)
