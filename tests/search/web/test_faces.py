"""What the demo must show: `make demo`, two further commands, and a drawn face finds faces."""

import json
import subprocess

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
TOP = 10
WANTED = 7


@pytest.fixture(scope="module")
def emoji_gallery(demo, tmp_path_factory, commands):
    """Address of all 1,599 emoji, served with the demo's model."""
    index = tmp_path_factory.mktemp("faces") / "emoji.index"
    photos = commands.DATA / "images"
    make = commands.command("index", str(photos), "--out", str(index), "--model")
    subprocess.run([*make, str(demo.folder / "model")], check=True, capture_output=True)
    with commands.serving(index) as address:
        yield address


def faces(commands) -> set[str]:
    """Names, as the page shows them, of OpenMoji's face subgroups."""
    stems = [c["stem"] for c in commands.concepts() if c["subgroup"].startswith("face-")]
    texts = (commands.DATA / "text" / f"{stem}.txt" for stem in stems)
    return {text.read_text(encoding="utf-8").splitlines()[0].strip() for text in texts}


def test_circle_two_dots_and_a_curve_find_faces(chromium, emoji_gallery, commands, shapes):
    head = shapes.circle
    eyes = lambda x, y, apart: ([(x - apart, y)], [(x + apart, y)])
    drawings = {
        "smile": (
            head(0.5, 0.5, 0.37, 1.03),
            *eyes(0.5, 0.42, 0.13),
            shapes.arc(0.5, 0.54, 0.19, 0.16, 0.45, 0.05),
        ),
        "sad": (
            head(0.4, 0.45, 0.24, 0.97),
            *eyes(0.41, 0.4, 0.09),
            shapes.arc(0.4, 0.62, 0.1, 0.08, 0.56, 0.94),
        ),
        "open mouth": (
            head(0.55, 0.52, 0.33),
            *eyes(0.55, 0.45, 0.12),
            shapes.circle(0.55, 0.66, 0.07, 1.3),
        ),
    }
    known = faces(commands)
    visit = commands.Visit(chromium, emoji_gallery)
    page = visit.open()
    found = {}
    for name, strokes in drawings.items():
        visit.draw(*strokes, pause=30)
        found[name] = visit.names()[:TOP]
        assert page.locator(".part-style").inner_text() == "read as sketch"
        page.click("#clear")
        visit.settled()
    counts = {name: len(known & set(names)) for name, names in found.items()}
    assert page.locator("#gallery").inner_text() == "1,599 photos"
    assert min(counts.values()) >= WANTED, json.dumps([counts, found])
    visit.close()
