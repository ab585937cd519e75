"""Embeddings that are there already become an index, and an index becomes files."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from freestyle.search.clip_retrieval import export_vectors, open_embeddings
from freestyle.search.index import open_index
from freestyle.search.index_command import main

made = runpy.run_path(str(Path(__file__).with_name("indexing.py")))
content, counts, index, make_folder, put, same_content, uri, ENCODER = (
    made[name]
    for name in (
        "content", "counts", "index", "make_folder", "put", "same_content", "uri", "ENCODER"
    )
)  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    folder = make_folder(tmp_path / "photos")
    (folder / "a.txt").write_text("a thing")
    return folder


def write_clip_retrieval(folder, paths, vectors, parts=2, **columns):
    """What clip-retrieval's writer leaves, in some parts."""
    import pyarrow as pa
    from pyarrow import parquet

    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for number, rows in enumerate(np.array_split(np.arange(len(paths)), parts)):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", vectors[rows].astype(np.float16))
        table = {"image_path": [str(paths[at]) for at in rows]}
        table |= {name: [values[at] for at in rows] for name, values in columns.items()}
        parquet.write_table(pa.table(table), folder / "metadata" / f"metadata_{number}.parquet")
    return folder


@pytest.fixture
def embedded(photos, shared):
    """Paths and embeddings as somebody else has made them."""
    from freestyle import FreestyleRet

    paths = sorted(photos.rglob("*.*g")) + sorted(photos.rglob("*.webp"))
    model = FreestyleRet.from_encoder(ENCODER, encoder=shared(ENCODER))
    return paths, model.encode_gallery(paths).numpy()


def bring(folder, out, *options):
    return index([], out, "--import", folder, *options)


def test_clip_retrieval_is_imported_without_the_photos(embedded, tmp_path):
    paths, vectors = embedded
    names = [f"far/away/{path.name}" for path in paths]
    captions = ["one", None, "three", "", "five"]
    keys = [f"{at:09d}" for at in range(5)]
    folder = write_clip_retrieval(
        tmp_path / "laion", names, vectors, caption=captions, key=keys, width=[60] * 5
    )
    summary = bring(folder, tmp_path / "out")
    assert counts(summary) == {"added": 5} and summary["imported"] == 5
    found = content(tmp_path / "out")
    for name, vector, key in zip(names, vectors, keys, strict=True):
        record = found[name]
        assert np.abs(record.vector - vector).max() < 1e-3
        assert abs(np.linalg.norm(record.vector) - 1) < 1e-6
        assert record.extra == {"key": key, "source": "laion"} and record.width == 60
        assert record.origin == "" and record.size == -1 and record.atoms is None
    assert {record.caption for record in found.values()} == {"one", "", "three", "five"}
    assert counts(bring(folder, tmp_path / "out")) == {"unchanged": 5}


def test_imported_photos_that_are_at_hand_are_compared(embedded, photos, tmp_path, refusal):
    paths, vectors = embedded
    folder = write_clip_retrieval(tmp_path / "good", paths, vectors)
    bring(folder, tmp_path / "out")
    assert content(tmp_path / "out")[str(paths[0])[1:]].origin == str(paths[0])
    turned = write_clip_retrieval(tmp_path / "mixed", paths, vectors[::-1])
    assert "--trust" in refusal(bring, turned, tmp_path / "no")
    assert not (tmp_path / "no").exists()
    assert counts(bring(turned, tmp_path / "no", "--trust")) == {"added": 5}
    wrong = ("--encoder", "random:siglip-tiny")
    assert "numbers" in refusal(index, [], tmp_path / "n", "--import", folder, *wrong)


def test_an_import_over_its_photos_is_kept_up_to_date(embedded, photos, tmp_path):
    paths, vectors = embedded
    names = [path.relative_to(photos).as_posix() for path in paths]
    folder = write_clip_retrieval(tmp_path / "made", names, vectors)
    out = tmp_path / "out"
    index(photos, out, "--import", folder)
    assert content(out)["a.jpg"].origin == str(photos / "a.jpg")
    put(photos / "new.jpg", 20)
    assert counts(index(photos, out)) == {"added": 1, "refreshed": 1, "unchanged": 4}
    found = content(out)
    assert found["a.jpg"].caption == "a thing"
    index(photos, tmp_path / "afresh", "--views", "none")
    fresh = content(tmp_path / "afresh")
    assert all(np.abs(found[p].vector - fresh[p].vector).max() < 1e-3 for p in fresh)


def test_a_folder_of_vectors_and_lists(embedded, tmp_path, refusal):
    paths, vectors = embedded
    folder = tmp_path / "vectors"
    folder.mkdir()
    np.save(folder / "x_0.npy", 3 * vectors[:2])
    np.save(folder / "x_1.npy", vectors[2:])
    assert "list of names" in refusal(bring, folder, tmp_path / "out")
    names = [f"p/{path.name}" for path in paths]
    (folder / "names.txt").write_text("\n".join(names))
    bring(folder, tmp_path / "out")
    found = content(tmp_path / "out")
    assert np.allclose([found[name].vector for name in names], vectors, atol=1e-6)
    (folder / "names.txt").write_text("\n".join(names[:4]))
    assert "fewer entries" in refusal(bring, folder, tmp_path / "o2")
    (folder / "names.txt").write_text("\n".join([*names, "more"]))
    assert "more entries" in refusal(bring, folder, tmp_path / "o3")
    vectors[1] = 0
    vectors[3] = np.nan
    np.save(folder / "x_0.npy", vectors[:2])
    np.save(folder / "x_1.npy", vectors[2:])
    (folder / "names.txt").write_text("\n".join(names))
    assert counts(bring(folder, tmp_path / "o4")) == {"added": 3, "broken": 2}


def test_what_is_no_array_is_refused(tmp_path, refusal):
    folder = tmp_path / "v"
    folder.mkdir()
    assert ".npy" in refusal(open_embeddings, folder)
    (folder / "n.txt").write_text("a\n")
    for wrong in (np.zeros(3), np.zeros((1, 2), int), np.array([{"a": 1}], dtype=object)):
        np.save(folder / "a.npy", wrong, allow_pickle=True)
        assert "a.npy" in refusal(open_embeddings, folder)
    assert "no folder" in refusal(open_embeddings, tmp_path / "none")


def test_an_export_reads_back_equal(photos, tmp_path, refusal):
    index(photos, tmp_path / "out")
    export = tmp_path / "export"
    main([uri(tmp_path / "out"), "--export", str(export), "--quiet"])
    vectors = np.load(export / "img_emb" / "img_emb_0.npy")
    assert vectors.shape == (5, 40) and vectors.dtype == np.float32
    assert json.loads((export / "freestyle.json").read_text())["encoder"] == ENCODER
    assert counts(bring(export, tmp_path / "again")) == {"added": 5}
    assert same_content(
        content(tmp_path / "out"), content(tmp_path / "again"), 0, but=("thumbnail",)
    )
    assert open_index(uri(tmp_path / "again")).settings.views == "patches-10-uniform"
    assert counts(index(photos, tmp_path / "again")) == {"unchanged": 5}
    again = [uri(tmp_path / "out"), "--export", str(export)]
    assert "exists already" in refusal(main, again)


def test_exports_come_in_parts_and_halves(photos, tmp_path):
    for seed in range(20):
        put(photos / "more" / f"{seed}.jpg", seed)
    index(photos, tmp_path / "out", "--views", "none")
    opened = open_index(uri(tmp_path / "out"))
    assert export_vectors(opened, tmp_path / "e", half=True, quiet=True, part=2) == 25
    files = sorted(p.name for p in (tmp_path / "e" / "img_emb").iterdir())
    assert files[0] == "img_emb_00.npy" and len(files) == 13
    assert np.load(tmp_path / "e" / "img_emb" / files[0]).dtype == np.float16
    assert not any(p.name.startswith(".") for p in tmp_path.iterdir())
    bring(tmp_path / "e", tmp_path / "again")
    one, other = content(tmp_path / "out"), content(tmp_path / "again")
    assert same_content(one, other, 1e-3, but=("thumbnail",))
