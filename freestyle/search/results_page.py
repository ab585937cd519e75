"""Results as one HTML file that needs nothing else: pictures inside, light and dark."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from freestyle.datasets.images import load_image
from freestyle.errors import UserError
from freestyle.files import write_text
from freestyle.search.query import Hit, Part, PartReading, Query, SearchResult, signed

if TYPE_CHECKING:
    from PIL import Image

    from freestyle.search.index import Index

SIDE = 256  # pixels of pictures that have no thumbnail
KINDS = {
    ("text", False): "words",
    ("text", True): "not these words",
    ("image", False): "picture",
    ("image", True): "not this picture",
    ("photo", False): "photo of the gallery",
    ("photo", True): "not this photo of the gallery",
}
FULL = 6.0  # deviations above an ordinary photo that fill a bar

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --muted: #5c636b; --line: #d0d7de;
  --card: #f6f8fa; --ground: #ffffff; --bar: #0072b2; --not: #b3450a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --muted: #9aa4ae; --line: #3d444d;
  --card: #161b22; --ground: #0d1117; --bar: #56b4e9; --not: #e69f00; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 75rem; padding: 1.25rem; background: var(--ground);
  color: var(--ink); font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.25rem; margin: 0 0 1rem; }
ul, ol { list-style: none; margin: 0; padding: 0; display: grid; gap: 1rem; }
.query { grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); margin-bottom: 1.5rem; }
.hits { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
li { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .75rem; min-width: 0; }
.query li { display: flex; gap: .75rem; align-items: flex-start; }
.query img, .query .none { width: 5.5rem; height: 5.5rem; flex: none; }
img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #fff;
  border-radius: .25rem; }
.none { display: grid; place-items: center; aspect-ratio: 1; width: 100%; color: var(--muted);
  border: 1px dashed var(--line); border-radius: .25rem; font-size: .8rem; }
p { margin: 0; overflow-wrap: anywhere; }
.name { font-weight: 600; }
.muted { color: var(--muted); font-size: .875rem; }
.hits .name { margin-top: .5rem; font-size: .9rem; }
.grow { min-width: 0; flex: 1; }
.bar { display: grid; grid-template-columns: 1fr auto; gap: 0 .5rem; font-size: .8rem;
  margin-top: .25rem; }
.bar span:first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bar i { grid-column: 1 / -1; height: .3rem; border-radius: .15rem; background: var(--line); }
.bar b { display: block; height: 100%; border-radius: .15rem; background: var(--bar); }
.not b { background: var(--not); }
.best span:first-child { font-weight: 600; }
"""


def write_page(path: str | Path, query: Query, result: SearchResult, index: Index) -> Path:
    """Write the page atomically.

    Args:
        path: The HTML file.
        query: As asked.
        result: What was found.
        index: Gives the thumbnails.

    Raises:
        UserError: If the file cannot be written.
    """
    return write_text(path, page(query, result, index))


def page(query: Query, result: SearchResult, index: Index) -> str:
    """The page's HTML; every text from outside is escaped."""
    asked = zip(query.parts, result.parts, strict=True)
    parts = "\n".join(_part(part, reading, index) for part, reading in asked)
    hits = "\n".join(
        _hit(place, hit, query, result, index) for place, hit in enumerate(result.hits, start=1)
    )
    where = f"<p class=muted>{escape(str(query.where))}</p>\n" if query.where else ""
    title = escape(", ".join(reading.name for reading in result.parts))
    return (
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; "
        "img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f"<title>{title} - freestyle search</title>\n<style>{STYLE}</style>\n"
        f"<h1>{len(result.hits):,} of {result.photos:,} photos</h1>\n"
        f"<ul class=query>\n{parts}\n</ul>\n{where}<ol class=hits>\n{hits}\n</ol>\n</html>\n"
    )


def _part(part: Part, reading: PartReading, index: Index) -> str:
    picture = ""
    if part.photo is not None:
        picture = _picture(_thumbnail(index, part.photo), reading.name)
    elif part.image is not None:
        picture = _picture(_shrunk(load_image(part.image)), reading.name)
    kind = KINDS[reading.kind, part.exclude]
    if part.weight != 1:
        kind += f", weight {part.weight:g}"
    styles = "".join(
        _bar(style, f"{100 * p:.0f} %", p)
        for style, p in sorted(reading.styles.items(), key=lambda item: -item[1])
        if p >= 0.01
    )
    place = ""
    if reading.place is not None:
        shares = " · ".join(f"{100 * weight:.0f}" for weight in reading.place)
        place = f"<p class=muted>style space: {shares} %</p>"
    return (
        f"<li>{picture}<div class=grow><p class=name>{escape(reading.name)}</p>"
        f"<p class=muted>{kind}</p>{styles}{place}</div></li>"
    )


def _hit(place: int, hit: Hit, query: Query, result: SearchResult, index: Index) -> str:
    name = str(hit.metadata.get("path") or hit.id)
    caption = str(hit.metadata.get("caption") or "")
    about = f"<p class=muted>{escape(caption)}</p>" if caption else ""
    bars = ""
    for part, reading, value in zip(query.parts, result.parts, hit.parts, strict=True):
        marks = ("not " if part.exclude else "") + ("best" if reading.name == hit.reason else "")
        label = ("not " if part.exclude else "") + reading.name
        bars += _bar(label, signed(value), value / FULL, marks.strip())
    return (
        f"<li>{_picture(_thumbnail(index, hit.id), caption or name)}"
        f"<p class=name>{place}. {escape(name)}</p>{about}"
        f"<p class=muted>score {hit.score:.3f}</p>{bars}</li>"
    )


def _bar(label: str, value: str, share: float, marks: str = "") -> str:
    width = 100 * min(1.0, max(0.0, share))
    return (
        f'<div class="bar {marks}"><span>{escape(label)}</span><span>{value}</span>'
        f"<i><b style=width:{width:.0f}%></b></i></div>"
    )


def _picture(data: bytes, name: str) -> str:
    if not data:
        return "<div class=none>no picture</div>"
    code = base64.b64encode(data).decode()
    return f'<img alt="{escape(name)}" src="data:image/webp;base64,{code}">'


def _thumbnail(index: Index, photo: str) -> bytes:
    """The stored one, or one made from the photo where it is a file at hand."""
    try:
        stored = index.thumbnail(photo)
        if stored:
            return stored
        told = index.metadata([photo])[0]
    except KeyError:  # deleted meanwhile
        return b""
    if not told.get("origin") or told.get("offset", -1) >= 0:
        return b""
    try:
        return _shrunk(load_image(told["origin"]))
    except UserError:
        return b""


def _shrunk(image: Image.Image) -> bytes:
    image = image.copy()
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
