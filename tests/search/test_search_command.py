"""``freestyle search``: the table, JSON and page it writes, and what it refuses."""

from __future__ import annotations

import io
import json
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from freestyle import cli
from freestyle.search.query import Hit, Part, PartReading, Query, SearchResult
from freestyle.search.records import PhotoRecord, photo_id
from freestyle.search.results_page import page
from freestyle.search.search_command import plain, style_line, table
from freestyle.search.torch_encoder import TorchQueryEncoder

asking = runpy.run_path(str(Path(__file__).with_name("asking.py")))
EMOJI = Path(__file__).parents[2] / "data" / "emoji"
STEMS = ("1f98a", "1f697", "1f34e", "1f419", "2615", "1f3e0", "1f408", "1f6b2", "1f335", "1f4f7")


@pytest.fixture(scope="module")
def tiny(make_model, make_picture, tmp_path_factory):
    """Twelve pictures under a tiny CLIP: index and picture files."""
    root = tmp_path_factory.mktemp("tiny")
    pictures = [make_picture(seed) for seed in range(12)]
    for number, picture in enumerate(pictures):
        picture.save(root / f"{number}.png")
    encoder = TorchQueryEncoder(make_model("zero-shot"))
    asking["fill"](f"exact:{root}/my.index", encoder, pictures)
    return root


@pytest.fixture
def search(capsys, tiny):
    """``search(*options) -> (exit code, stdout, stderr)``."""

    def call(*options, index=None):
        where = index or f"exact:{tiny}/my.index"
        code = cli.main(["search", where, *[str(option) for option in options]])
        done = capsys.readouterr()
        return code, done.out, done.err

    return call


class Seen(HTMLParser):
    """Tags, texts and addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_a_table_json_and_a_page(search, tiny, tmp_path):
    code, out, err = search(
        "--image", tiny / "3.png", "--text", "a red cat, two dogs", "--weight", 0.25,
        "--not", "the boat", "--top", 4, "--json", tmp_path / "out.json",
        "--html", tmp_path / "out.html",
    )  # fmt: skip
    assert code == 0, err
    lines = out.splitlines()
    head = next(line for line in lines if "score" in line)
    assert "3.png" in head and "a red cat, two…" in head and "not the boat" in head
    first = lines[lines.index(head) + 1]
    assert re.match(r" +1 +\S+ +trips/03\.png +\+\d\.\d<", first)
    assert "4 of 12 photos" in out and str(tmp_path / "out.html") in out
    values = json.loads((tmp_path / "out.json").read_text())
    assert [part["name"] for part in values["parts"]] == [
        "3.png",
        "a red cat, two dogs",
        "the boat",
    ]
    assert values["hits"][0]["metadata"]["path"] == "trips/03.png" and len(values["hits"]) == 4
    seen = Seen((tmp_path / "out.html").read_text())
    assert seen.tags.count("li") == 3 + 4 and "script" not in seen.tags
    assert all(link.startswith("data:image/webp;base64,") for link in seen.links)
    assert "a red cat, two dogs" in seen.texts and "not these words" in seen.texts


def test_photos_are_named_by_the_path_that_results_show(capsys, make_picture, tmp_path):
    from freestyle.search.index_command import main

    for name, seed in (("one/a.png", 1), ("one/b.png", 2), ("two/a.png", 3)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_picture(seed).save(tmp_path / name)
    folders, place = [str(tmp_path / "one"), str(tmp_path / "two")], f"exact:{tmp_path}/i"
    main([*folders, "--out", place, "--encoder", "random:clip-tiny", "--workers", "0", "--quiet"])

    def found(photo):
        code = cli.main(["search", place, "--photo", photo])
        done = capsys.readouterr()
        return code, done.out + done.err

    code, said = found("b.png")
    assert code == 0 and "2 of 3 photos" in said
    assert found("two/a.png")[0] == 0  # with the source's name
    code, said = found("a.png")
    assert code == 2 and "2 photos" in said and photo_id("two/a.png") in said
    code, said = found("c.png")
    assert code == 2 and "'c.png'" in said


def test_photos_filters_and_excluded_pictures(search, tiny):
    code, out, err = search(
        "--photo", "trips/03.png", "--not-image", tiny / "0.png", "--not-photo",
        photo_id("home/02.png"), "--where", "folder under trips", "--fusion", "zscore",
        "--rerank", 6,
    )  # fmt: skip
    assert code == 0, err
    assert "home/" not in out and "5 of 12 photos" in out
    assert "not 02.png" in out and "trips/03.png" not in out.split("score")[1].split("\n", 1)[1]
    code, out, _ = search("--photo", photo_id("trips/03.png"), "--where", "size > 5000")
    assert code == 0 and "no photo matches" in out


@pytest.mark.parametrize(
    ("options", "named"),
    [((), "empty"), (("--not", "a dog"), "only excludes"),
     (("--weight", "2", "--text", "a"), "--weight 2 comes first"),
     (("--text", "a", "--weight", "2", "--weight", "3"), "--weight 3"),
     (("--text", "a", "--weight", "-1"), "weight"), (("--text", "a", "--top", "0"), "top"),
     (("--image", "none.png"), "none.png"), (("--photo", "none.png"), "no photo"),
     (("--text", "a", "--where", "shutter > 3"), "shutter"),
     (("--text", "a", "--model", "nowhere/at/all"), "nowhere/at/all"),
     (("--text", "a", "--fusion", "max"), "--fusion"),
     (("--text", "a", "--model", "x", "--onnx", "y"), "leave one out")],
)  # fmt: skip
def test_bad_options_are_one_sentence(search, options, named):
    code, _, err = search(*options)
    assert code == 2 and err.startswith("error: ") and named in err
    assert err.count("\n") == 1 and ":" in err.removeprefix("error: ")


def test_there_is_no_index(search, tmp_path):
    code, _, err = search("--text", "a", index=str(tmp_path / "none.index"))
    assert code == 2 and "none.index" in err and "freestyle index" in err


def test_styles_as_a_line():
    styles = {"sketch": 0.86, "art": 0.01, "other": 0.13}
    assert style_line(PartReading("image", "s.png", styles)) == "s.png: sketch 86 %, other 13 %"
    assert style_line(PartReading("text", "red")) == ""
    assert plain("a\x1b[31m\nb") == "a?[31m?b"


class OneThumbnail:
    """An index that has one thumbnail and one photo whose file is gone."""

    def __init__(self, data):
        self.data = data

    def thumbnail(self, photo):
        if photo == "gone":
            raise KeyError(photo)
        return self.data if photo == "kept" else b""

    def metadata(self, ids):
        return [{"origin": "/nowhere/x.png", "offset": -1}]


def test_a_page_says_everything_escaped():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "WEBP")
    evil = '<img src=x onerror=alert(1)>"&'
    query = Query((Part(text=evil), Part(photo="kept", exclude=True, weight=0.5)))
    readings = PartReading("text", evil), PartReading("photo", "kept", place=(0.25, 0.75))
    hits = tuple(
        Hit(name, 0.5, (1.0, -2.0), evil, {"path": evil, "caption": evil})
        for name in ("kept", "gone", "lost")
    )
    result = SearchResult(hits, readings, {"total": 1.0}, 9)
    text = page(query, result, OneThumbnail(buffer.getvalue()))
    assert "<img src=x" not in text
    seen = Seen(text)
    assert seen.tags.count("img") == 2 and seen.texts.count("no picture") == 2
    assert evil in seen.texts and "not this photo of the gallery, weight 0.5" in seen.texts
    assert "style space: 25 · 75 %" in seen.texts and "-2.0" in seen.texts
    assert "no photo" not in table(query, result)


def mini_index(folder):
    """Ten photos of DSR-Emoji under the mini, as ``exact:`` folder."""
    encoder = TorchQueryEncoder.from_encoder("freestyle-mini")
    files = [EMOJI / "images" / f"{stem}.webp" for stem in STEMS]
    rows = encoder.model.encode_gallery(files).numpy()
    index, records = asking["fill"](
        f"exact:{folder}/emoji.index", encoder, files, atoms=0, rows=rows
    )
    with index.writing():
        index.delete([record.id for record in records])
        index.upsert([
            PhotoRecord(photo_id(file.name), file.name, row, origin=str(file))
            for file, row in zip(files, rows, strict=True)
        ])  # fmt: skip
    return f"exact:{folder}/emoji.index"


def test_the_mini_finds_the_flat_drawing(search, tmp_path):
    index = mini_index(tmp_path)
    for stem in ("1f697", "1f34e"):
        code, out, err = search(
            "--image", EMOJI / "art" / f"{stem}.webp", "--html", tmp_path / "out.html", index=index
        )
        assert code == 0, err
        assert re.search(rf"^ +1 +\S+ +{stem}\.webp", out, re.MULTILINE), out
    seen = Seen((tmp_path / "out.html").read_text())
    assert seen.tags.count("img") == 11 and "no picture" not in seen.texts


@pytest.mark.slow
def test_the_mini_understands_words(search, tmp_path):
    code, out, err = search("--text", "a red apple", "--top", 3, index=mini_index(tmp_path))
    assert code == 0, err
    assert re.search(r"^ +1 +\S+ +1f34e\.webp", out, re.MULTILINE), out


def test_json_on_the_screen_is_all_that_is_there(search, tiny):
    code, out, err = search("--image", tiny / "3.png", "--json", "-")
    assert code == 0 and json.loads(out)["hits"], err


def test_the_place_in_the_style_space_is_told():
    read = PartReading("image", "a.png", {"sketch": 0.9, "other": 0.1}, (0.75, 0.25, 0.0))
    assert style_line(read) == "a.png: sketch 90 %, other 10 %; style space .75 .25 .00"
    assert (
        style_line(PartReading("image", "a.png", {}, (1.0, 0.0))) == "a.png: style space 1.00 .00"
    )
    assert style_line(PartReading("text", "a", {}, None)) == ""


@pytest.mark.parametrize("device", ["cuda:77", "nowhere"])
def test_a_device_that_is_not_there_is_one_sentence(search, tiny, device):
    code, _, err = search("--image", tiny / "3.png", "--device", device)
    assert code == 2 and f"--device {device}" in err and "Traceback" not in err
