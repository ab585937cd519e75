"""What is indexed: folders, links, lists with columns, shards; decoding, and workers that die."""

from __future__ import annotations

import io
import json
import os
import runpy
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from freestyle.encoders.preprocess import Preprocessing, to_pixels
from freestyle.search.decode import Broken, Decoded, Decoder, Job
from freestyle.search.lists import read_list
from freestyle.search.records import photo_id
from freestyle.search.sources import list_sources
from freestyle.search.workers import decode
from freestyle.transport.views import WHOLE, Views

made = runpy.run_path(str(Path(__file__).with_name("indexing.py")))
content, counts, draw, index, make_folder, put = (
    made[name] for name in ("content", "counts", "draw", "index", "make_folder", "put")
)
NAMES = ["a.jpg", "b.png", "trips/c.jpg", "trips/sea/d.webp"]


@pytest.fixture
def photos(tmp_path):
    return make_folder(tmp_path / "photos", NAMES)


def paths(*sources):
    return [photo.path for photo in list_sources([str(s) for s in sources]).photos]


def test_folders_are_walked_and_links_followed_once(photos, tmp_path):
    put(photos / ".hidden" / "x.jpg", 1)
    put(photos / ".y.jpg", 1)
    (photos / "notes.txt").write_text("no photo")
    (photos / "trips" / "loop").symlink_to(photos, target_is_directory=True)
    (photos / "best").symlink_to(photos / "trips" / "sea", target_is_directory=True)
    make_folder(tmp_path / "elsewhere", ["z.jpg"])
    (photos / "far").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (photos / "link.jpg").symlink_to(photos / "a.jpg")
    (photos / "lost.jpg").symlink_to(photos / "nothing.jpg")
    os.mkfifo(photos / "pipe.jpg")
    (photos / "linked-pipe.jpg").symlink_to(photos / "pipe.jpg")
    (photos / "circle.jpg").symlink_to(photos / "circle.jpg")
    listing = list_sources([str(photos)])
    assert [p.path for p in listing.photos] == [
        "a.jpg",
        "b.png",
        "link.jpg",
        *NAMES[2:],
        "far/z.jpg",
    ]
    assert [p.path for p in listing.broken] == ["circle.jpg", "lost.jpg"]
    assert listing.photos[0].id == photo_id("photos/a.jpg")


def test_captions_lie_beside_the_folder_images_too(tmp_path):
    for name in ("a.webp", "b.webp", "c.webp"):
        put(tmp_path / "set" / "images" / name, 1)
    (tmp_path / "set" / "text").mkdir()
    (tmp_path / "set" / "text" / "a.txt").write_text("a red kite\nanother line\n")
    (tmp_path / "set" / "text" / "b.txt").write_text("not this one\n")
    (tmp_path / "set" / "images" / "b.txt").write_text("its own\n")
    expected = ["a red kite", "its own", ""]
    for source in (tmp_path / "set" / "images", tmp_path / "set"):
        assert [photo.caption for photo in list_sources([str(source)]).photos] == expected
    listed = tmp_path / "list.txt"
    listed.write_text("set/images/a.webp\n")
    assert list_sources([str(listed)]).photos[0].caption == "a red kite"


def test_lines_that_no_file_can_be_named_by_are_broken_photos(photos, tmp_path):
    (tmp_path / "list.txt").write_text(f"photos/a.jpg\n{'word ' * 100}\n")
    listing = list_sources([str(tmp_path / "list.txt")])
    assert [p.path for p in listing.photos] == ["photos/a.jpg"] and len(listing.broken) == 1


def test_names_of_any_alphabet_and_none(photos):
    for name in ("ü.jpg", "写真 1.png", 'it\'s, "it".jpg', "UPPER.JPG"):
        draw(1).save(photos / name, "PNG" if name.endswith("png") else "JPEG")
    (photos / os.fsdecode(b"\xff\xfe.jpg")).write_bytes((photos / "a.jpg").read_bytes())
    listing = list_sources([str(photos)])
    assert {"ü.jpg", "写真 1.png", 'it\'s, "it".jpg', "UPPER.JPG"} <= {
        p.path for p in listing.photos
    }
    assert "UTF-8" in listing.broken[0].broken


def test_what_cannot_be_listed_is_not_gone(photos, tmp_path, monkeypatch):
    index(photos, tmp_path / "out")
    scan = os.scandir

    def refuse(folder):
        if str(folder).endswith("sea"):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    (photos / "trips" / "c.jpg").unlink()
    assert counts(index(photos, tmp_path / "out")) == {"unchanged": 2, "deleted": 1, "broken": 1}
    assert sorted(content(tmp_path / "out")) == ["a.jpg", "b.png", "trips/sea/d.webp"]


ROWS = [
    {"image": "photos/a.jpg", "caption": "a", "stars": 3, "taken by": "Ann", "ok": True},
    {"image": "photos/trips/c.jpg", "stars": 2.5, "date": "2020-05-01", "size": 7, "tags": ["x"]},
]


def write_list(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        import csv

        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0] | rows[1]))
            writer.writeheader()
            writer.writerows(
                {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()}
                for row in rows
            )
    else:
        import pyarrow as pa
        from pyarrow import parquet

        rows = [{**row, "stars": float(row["stars"])} for row in rows]
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = {name: [row.get(name) for row in rows] for name in names}
        parquet.write_table(pa.table(columns), path)
    return path


def test_a_photo_that_cannot_be_looked_at_is_not_gone(photos, tmp_path, monkeypatch):
    index(photos, tmp_path / "out")
    look = os.stat

    def refuse(path, *args, **options):
        if str(path).endswith("c.jpg"):
            raise PermissionError(13, "Permission denied")
        return look(path, *args, **options)

    monkeypatch.setattr(os, "stat", refuse)
    assert counts(index(photos, tmp_path / "out")) == {"unchanged": 3, "broken": 1}
    monkeypatch.undo()
    assert sorted(content(tmp_path / "out")) == NAMES


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_lists_give_captions_dates_and_columns(photos, tmp_path, ending):
    (photos / "trips" / "c.txt").write_text("from beside\n")
    path = write_list(tmp_path / f"mine{ending}", ROWS)
    one, two = list_sources([str(path)]).photos
    assert (one.source, one.path, one.origin) == ("mine", "photos/a.jpg", str(photos / "a.jpg"))
    assert (one.caption, two.caption, two.date) == ("a", "from beside", "2020-05-01T00:00:00")
    assert one.extra == {"stars": 3.0, "taken_by": "Ann", "ok": True}
    assert isinstance(one.extra["stars"], float)
    assert two.extra == {"stars": 2.5, "tags": '["x"]'} and two.size == os.path.getsize(two.origin)


def test_lists_of_paths_and_bad_lists(photos, tmp_path, refusal):
    (tmp_path / "l.txt").write_text(
        f"photos/a.jpg\n\n{photos}/b.png\nphotos/no.jpg\nphotos/a.jpg\n"
    )
    listing = list_sources([str(tmp_path / "l.txt")])
    assert [p.path for p in listing.photos] == ["photos/a.jpg", f"{photos}/b.png"[1:]]
    assert [p.path for p in listing.broken] == ["photos/no.jpg"]
    (tmp_path / "bad.jsonl").write_text('{"image": "photos/a.jpg"}\n{"image": ')
    assert "line 2" in refusal(list_sources, [str(tmp_path / "bad.jsonl")])
    (tmp_path / "none.csv").write_text("picture\nphotos/a.jpg\n")
    assert "entry 1" in refusal(list_sources, [str(tmp_path / "none.csv")])
    (tmp_path / "no.parquet").write_bytes(b"PAR1 no")
    assert "Parquet" in refusal(list_sources, [str(tmp_path / "no.parquet")])
    (tmp_path / "notes.doc").write_text("x")
    assert "no list" in refusal(list_sources, [str(tmp_path / "notes.doc")])


def test_a_columns_type_fits_all_its_values(tmp_path):
    path = tmp_path / "l.csv"
    path.write_text("image,a,b,c,d,e\n1.jpg,1,1,true,007,1\n2.jpg,2,2.5,no,8,\n")
    one, two = read_list(path)
    assert one == {"image": "1.jpg", "a": 1, "b": 1.0, "c": "true", "d": "007", "e": 1}
    assert two == {"image": "2.jpg", "a": 2, "b": 2.5, "c": "no", "d": "8"}


def test_halves_of_characters_and_endless_numbers_do_not_end_the_run(photos, tmp_path):
    lines = [
        r'{"image": "photos/a.jpg", "caption": "so \ud83d", "mood": "\udc00"}',
        f'{{"image": "photos/b.png", "number": 1{"0" * 400}}}',
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    (photos / "trips" / "c.json").write_text(r'{"caption": "half \ud83d"}')
    for _ in range(2):
        summary = index([tmp_path / "list.jsonl", photos], tmp_path / "out")
    assert counts(summary) == {"unchanged": 6}
    found = content(tmp_path / "out")
    assert found["photos/a.jpg"].caption == "so ?" and found["photos/a.jpg"].extra["mood"] == "?"
    assert found["trips/c.jpg"].caption == "half ?" and "number" not in found["photos/b.png"].extra


def test_shards_hold_photos_too(photos, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    with tarfile.open(folder / "000.tar", "w") as tar:
        for name in NAMES:
            tar.add(photos / name, Path(name).name)
        info = tarfile.TarInfo("a.json")
        text = json.dumps({"caption": "one"}).encode()
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    (folder / "001.tar").write_bytes(b"no tar")
    put(folder / "loose.jpg", 8)
    summary = index(folder, tmp_path / "out")
    assert (
        counts(summary) == {"added": 5, "broken": 1} and "001.tar" in summary["errors"][0]["error"]
    )
    found = content(tmp_path / "out")
    assert sorted(found) == ["000/a.jpg", "000/b.png", "000/c.jpg", "000/d.webp", "loose.jpg"]
    record = found["000/a.jpg"]
    with open(record.origin, "rb") as file:
        file.seek(record.offset)
        assert file.read(record.size) == (photos / "a.jpg").read_bytes()
    index(photos, tmp_path / "plain")
    plain = content(tmp_path / "plain")["a.jpg"]
    assert record.caption == "one" and np.allclose(record.vector, plain.vector, atol=1e-5)
    os.utime(folder / "000.tar", (1.6e9, 1.6e9))
    assert counts(index(folder, tmp_path / "out")) == {"refreshed": 4, "unchanged": 1, "broken": 1}
    (folder / "000.tar").write_bytes(b"lost")  # what it held is not known to be gone
    assert counts(index(folder, tmp_path / "out")) == {"unchanged": 1, "broken": 2}
    assert len(content(tmp_path / "out")) == 5
    assert counts(index(tmp_path / "photos", tmp_path / "out"))["added"] == 4


@pytest.fixture
def decoder():
    return Decoder(Preprocessing(32), (WHOLE,), thumbnail=16, max_pixels=10_000)


def test_squares_are_the_encoders_pixels(photos, decoder):
    found = decoder(Job("a", str(photos / "a.jpg")))
    pixels = to_pixels(draw(0), decoder.preprocessing).numpy()
    assert found.squares.shape == (1, 32, 32, 3) and found.squares.dtype == np.uint8
    assert np.abs(found.squares[0].transpose(2, 0, 1) / 255 - pixels).mean() < 0.05  # JPEG
    views = Decoder(decoder.preprocessing, tuple(Views("grid", 5).boxes()))
    squares = views(Job("b", str(photos / "b.png"))).squares
    corner = draw(1).crop((0, 0, 30, 20))
    expected = to_pixels(corner, decoder.preprocessing).numpy()
    assert np.allclose(squares[1].transpose(2, 0, 1) / 255, expected, atol=1e-6)


def test_what_is_wrong_with_a_photo_is_said(photos, decoder):
    big = Job("big", str(put(photos / "big.png", 1)))
    draw(1, 200, 100).save(photos / "big.png")
    assert "too large" in decoder(big).reason
    gone = decoder(Job("gone", str(photos / "gone.jpg")))
    assert isinstance(gone, Broken) and gone.unread
    (photos / "a.jpg").write_bytes((photos / "a.jpg").read_bytes()[:200])
    cut = decoder(Job("cut", str(photos / "a.jpg")))
    assert "cut short" in cut.reason and not cut.unread


def test_known_bytes_are_not_decoded(photos, decoder):
    job = Job("b", str(photos / "b.png"))
    whole = decoder(job)
    same = decoder(Job("b", job.origin, known=whole.digest))
    assert isinstance(same, Decoded) and same.squares is None and same.date == whole.date


def test_processes_give_the_same_in_order_and_survive_death(photos, decoder):
    jobs = [Job(name, str(photos / name)) for name in NAMES * 3]
    here = [found.digest for found in decode(decoder, jobs, workers=0)]
    there = [found.digest for found in decode(decoder, jobs, workers=2, ahead=4)]
    assert here == there
    # a decoder that dies: raising signals, of which one kills
    harmless, deadly = signal.Signals.SIGURG, signal.Signals.SIGKILL
    jobs = [harmless] * 3 + [deadly] + [harmless] * 6
    found = list(decode(signal.raise_signal, jobs, workers=2))
    assert [isinstance(item, Broken) for item in found] == [False] * 3 + [True] + [False] * 6
    assert "SIGKILL ended the process" in found[3].reason


def test_a_photo_that_takes_too_long_is_given_up(photos, decoder):
    os.mkfifo(photos / "stuck.jpg")  # reading it never ends
    jobs = [Job(name, str(photos / name)) for name in ("a.jpg", "stuck.jpg", "b.png")]
    found = list(decode(decoder, jobs, workers=1, patience=0.3))
    assert [isinstance(item, Broken) for item in found] == [False, True, False]
    assert "longer than 0.3 seconds" in found[1].reason


def test_a_reader_that_stops_ends_the_processes(photos, decoder):
    jobs = [Job(name, str(photos / name)) for name in NAMES * 20]
    results = decode(decoder, jobs, workers=1, ahead=4)
    next(results)
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 10


def test_a_shard_that_was_cut_off_gives_what_stands_before_the_cut(photos, tmp_path, refusal):
    whole = tmp_path / "whole.tar"
    with tarfile.open(whole, "w") as tar:
        for name in ("a.jpg", "b.png"):
            tar.add(photos / name, name)
        tar.add(photos / "trips" / "c.jpg", "c.jpg")
    with tarfile.open(whole) as tar:
        last = tar.getmembers()[-1]
    data = whole.read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: last.offset_data + 100])
    summary = index(tmp_path / "cut.tar", tmp_path / "out")
    assert sorted(content(tmp_path / "out")) == ["a.jpg", "b.png"]
    said = " ".join(error["error"] for error in summary["errors"])
    assert "is cut short: replace the shard" in said and "no readable tar shard" in said
    (tmp_path / "junk.tar").write_bytes(b"no tar")
    said = refusal(index, tmp_path / "junk.tar", tmp_path / "none")
    assert "no readable tar" in said and "--forget junk" in said
