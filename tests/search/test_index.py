"""What every index promises, asked of every back end."""

from __future__ import annotations

import dataclasses
import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from freestyle.errors import UserError
from freestyle.search.filters import Condition, Filter, parse_filter
from freestyle.search.records import COLUMNS, Fingerprint, PhotoRecord

made = runpy.run_path(str(Path(__file__).with_name("made_photos.py")))
ATOMS, SETTINGS, WIDTH = made["ATOMS"], made["SETTINGS"], made["WIDTH"]
BackEnd, make_photo, make_photos, unit = (
    made[name] for name in ("BackEnd", "make_photo", "make_photos", "unit")
)


@pytest.fixture(params=["exact", "lance", "qdrant"])
def back_end(request, tmp_path):
    return BackEnd(request.param, tmp_path)


@pytest.fixture
def photos():
    return make_photos(60)


def brute_force(photos, query, k, where=None):
    """Ids and scores, by the definition."""
    kept = [p for p in photos if where is None or where.matches(p.metadata())]
    scores = {
        p.id: np.float32(p.vector.astype(np.float64) @ query.astype(np.float64)) for p in kept
    }
    order = sorted(scores, key=lambda name: (-scores[name], name))[:k]
    return order, np.array([scores[name] for name in order])


def assert_same(left, right):
    """Two photos are equal in everything."""
    for field in dataclasses.fields(left):
        a, b = getattr(left, field.name), getattr(right, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b, field.name


def all_records(index, batch_size=1000):
    return [photo for batch in index.records(batch_size) for photo in batch]


def assert_holds(index, photos):
    """An index holds exactly these photos."""
    wanted = sorted(photos, key=lambda photo: photo.id)
    found = all_records(index)
    assert len(index) == len(wanted) == len(found)
    for left, right in zip(found, wanted, strict=True):
        assert_same(left, right)


QUERIES = np.random.default_rng(7).standard_normal((5, WIDTH)).astype(np.float32) * 3


def test_search_is_brute_force(back_end, photos):
    index = back_end.filled(photos)
    for k in (1, 10, 100):
        for query, hits in zip(QUERIES, index.search(QUERIES, k), strict=True):
            ids, scores = brute_force(photos, query, k)
            assert hits.ids == ids and len(hits) == min(k, 60)
            assert hits.scores.dtype == np.float32
            np.testing.assert_allclose(hits.scores, scores, rtol=1e-5, atol=1e-6)


def test_equal_scores_by_id(back_end, photos):
    same = [dataclasses.replace(p, vector=photos[0].vector) for p in photos]
    index = back_end.filled(same)
    for k in (1, 7, 60):
        hits = index.search(QUERIES[:1], k)[0]
        assert hits.ids == sorted(p.id for p in photos)[:k]
        assert len(set(hits.scores.tolist())) == 1


FILTERS = [
    ["folder under trips/2020"],
    ["folder under trips/2020/"],
    ["path under trips/2020"],
    ["folder = trips"],
    ["folder under Größe"],
    ['folder = it\'s "it"'],
    ["caption contains dog"],
    ["caption contains STRAß"],
    ["caption contains %"],
    ["caption contains _wild_ c\\"],
    ["caption = '; DROP TABLE x"],
    ['caption = ""'],
    ["caption != ''"],
    ['name in 0001.jpg,0002.jpg, "0003.jpg"'],
    ["size > 30000", "size <= 40000"],
    ["width = 50"],
    ["width in 50,51,7"],
    ["modified < 1700000003.5"],
    ["date >= 2010-03"],
    ["date < 2010"],
    ["date = 2004"],
    ["date <= 2004-05"],
    ["date != 2004"],
    ["date in 2004,2005-06,2006-07-16 10:00:06"],
    ["camera = Nikon"],
    ['camera = Nikon\'s "best"'],
    ["camera != Nikon", "folder under trips"],
    ["camera >= Nikon"],
    ["rating > 2", "camera contains canon"],
    ["rating in 1,3"],
    ["f-stop >= 5.25"],
    ["f-stop = 5.25"],
    ["f-stop != 5.25"],
    ["Flash = true"],
    ["Flash != yes"],
    ['my "column"; -- = 1'],
    ["'my \"column\"; --' in 1,3"],
    ["width = 5", "caption contains nothing of the kind"],
]


def test_filters_agree_with_the_reference(back_end, photos):
    index = back_end.filled(photos)
    sizes = []
    for texts in FILTERS:
        where = parse_filter(texts, index.columns())
        for k in (3, 60):
            ids, _ = brute_force(photos, QUERIES[0], k, where)
            assert index.search(QUERIES[:1], k, where)[0].ids == ids, texts
        sizes.append(len(ids))
    where = Filter((Condition("no such column", "=", ("x",)),))
    assert len(index.search(QUERIES[:1], 3, where)[0]) == 0
    assert sum(0 < size < 60 for size in sizes) == len(FILTERS) - 1 and sizes[-1] == 0


def test_reads_are_what_was_written(back_end, photos):
    index = back_end.filled(photos)
    assert_holds(index, photos)
    assert index.settings == SETTINGS and len(index) == 60
    some = [photos[at] for at in (5, 59, 0, 5)]
    ids = [photo.id for photo in some]
    np.testing.assert_array_equal(index.vectors(ids), np.stack([p.vector for p in some]))
    np.testing.assert_array_equal(index.atoms(ids), np.stack([p.atoms for p in some]))
    assert index.vectors(ids).dtype == np.float32 and index.atoms(ids).dtype == np.float16
    wanted = [{**p.metadata(), "origin": p.origin, "offset": p.offset} for p in some]
    assert index.metadata(ids) == wanted
    assert [index.thumbnail(p.id) for p in some] == [p.thumbnail for p in some]
    assert index.thumbnails([p.id for p in some]) == [p.thumbnail for p in some]
    assert index.fingerprints() == {p.id: Fingerprint(p.size, p.modified, p.digest) for p in photos}
    further = {"camera": str, "rating": int, "f-stop": float, "Flash": bool, 'my "column"; --': str}
    columns = index.columns()
    assert set(columns) == {*COLUMNS, *further} and further.items() <= columns.items()


def test_records_come_in_batches_by_id(back_end, photos):
    index = back_end.filled(photos)
    batches = list(index.records(25))
    assert [len(batch) for batch in batches] == [25, 25, 10]
    ids = [photo.id for batch in batches for photo in batch]
    assert ids == sorted(ids)


def test_sample_depends_on_content_and_seed(back_end, photos):
    index = back_end.filled(photos)
    other = back_end.create(name="other")
    with other.writing():
        for photo in reversed(photos):
            other.upsert([photo])
    sample = index.sample(10)
    assert len(set(sample)) == 10 and set(sample) <= {p.id for p in photos}
    assert other.sample(10) == sample == index.sample(10) and index.sample(10, seed=1) != sample
    assert sorted(index.sample(100)) == sorted(p.id for p in photos)


def test_upsert_replaces_and_delete_removes(back_end, photos):
    index = back_end.filled(photos)
    newer = make_photos(20, start=50, version=1)
    with index.writing():
        index.upsert(newer[:15])
        index.upsert(newer[10:])
        assert index.delete([photos[0].id, photos[55].id, "unknown", photos[0].id]) == 2
        assert index.delete([]) == 0 and index.delete(["unknown"]) == 0
        index.upsert([])
    wanted = {p.id: p for p in [*photos, *newer]}
    del wanted[photos[0].id], wanted[photos[55].id]
    wanted = list(wanted.values())
    assert_holds(index, wanted)
    ids, _ = brute_force(wanted, QUERIES[1], 20)
    assert index.search(QUERIES, 20)[1].ids == ids
    with index.writing():
        index.optimise()
        index.optimise()
    assert_holds(index, wanted)
    assert index.search(QUERIES, 20)[1].ids == ids
    with index.writing():
        index.upsert([photos[0]])
    assert_holds(back_end.open(), [*wanted, photos[0]])


def test_the_last_of_equal_ids_counts(back_end, photos):
    index = back_end.filled([make_photo(3, version=1), *photos, make_photo(3, version=2)])
    assert_holds(index, [*(p for p in photos if p.id != photos[3].id), make_photo(3, version=2)])


def test_columns_appear_and_keep_their_type(back_end):
    index = back_end.filled([make_photo(0, extra={"a": 1, "b": None, "c": float("nan")})])
    assert index.columns().keys() - COLUMNS == {"a"}
    with index.writing():
        index.upsert([make_photo(1, extra={"a": 2.0, "new": "x"}), make_photo(2, extra={})])
        index.upsert([make_photo(3, extra={"n": 1}), make_photo(4, extra={"n": 0.5})])
        with pytest.raises(UserError, match="column 'a' holds whole numbers, not 'x'"):
            index.upsert([make_photo(5, extra={"a": "x"})])
        with pytest.raises(UserError, match="column 'new' holds text, not 3"):
            index.upsert([make_photo(5, extra={"new": 3})])
        with pytest.raises(UserError, match="cannot be called 'path'"):
            index.upsert([make_photo(5, extra={"path": "x"})])
        with pytest.raises(UserError, match="column 'a' holds"):
            index.upsert([make_photo(5, extra={"a": [1]})])
        with pytest.raises(UserError, match="below 2"):
            index.upsert([make_photo(5, extra={"a": 2**70})])
        index.optimise()
    columns = index.columns()
    assert (columns["a"], columns["new"], columns["n"]) == (int, str, float)
    wanted = [{"a": 1}, {"a": 2, "new": "x"}, {}, {"n": 1.0}, {"n": 0.5}]
    found = index.metadata([make_photo(n).id for n in range(5)])
    assert [{k: row[k] for k in row if k in ("a", "new", "n", "b", "c")} for row in found] == wanted
    where = parse_filter(["new != y"], columns)
    assert index.search(QUERIES[:1], 9, where)[0].ids == [make_photo(1).id]


def test_an_empty_index_answers(back_end):
    index = back_end.create()
    assert len(index) == 0 and index.fingerprints() == {} and index.sample(3) == []
    assert [len(hits) for hits in index.search(QUERIES, 3)] == [0] * 5
    assert index.vectors([]).shape == (0, WIDTH) and index.atoms([]).shape == (0, ATOMS, WIDTH)
    assert index.metadata([]) == [] and list(index.records()) == []
    assert set(index.columns()) == set(COLUMNS)
    where = parse_filter(["size > 3"], index.columns())
    assert index.search(QUERIES[:0], 3) == [] and len(index.search(QUERIES[:1], 3, where)[0]) == 0
    with index.writing():
        index.optimise()
        assert index.delete(["x"]) == 0
    assert_holds(back_end.open(), [])


def test_one_photo_and_none_again(back_end, photos):
    index = back_end.filled(photos[:1])
    with index.writing():
        index.optimise()
    assert index.search(QUERIES, 10)[0].ids == [photos[0].id]
    with index.writing():
        assert index.delete([photos[0].id]) == 1
        index.optimise()
    assert_holds(index, [])
    assert len(index.search(QUERIES, 10)[0]) == 0


def test_without_sets(back_end):
    settings = dataclasses.replace(SETTINGS, views="", atoms=0)
    photos = make_photos(5, elements=0)
    index = back_end.filled(photos, settings)
    assert_holds(index, photos)
    assert index.atoms([photos[1].id, photos[2].id]).shape == (2, 0, WIDTH)


@pytest.mark.slow
def test_many_photos_are_found_by_an_index(tmp_path, monkeypatch):
    from freestyle.search import lance_vectors

    monkeypatch.setattr(lance_vectors, "INDEXED", 2000)
    monkeypatch.setattr(lance_vectors, "PROBED", 8)
    settings = dataclasses.replace(SETTINGS, width=32, views="", atoms=0)
    random = np.random.default_rng(0)
    centres = random.standard_normal((40, 32))
    vectors = unit(centres[random.integers(40, size=3000)] + random.standard_normal((3000, 32)))
    photos = [
        PhotoRecord(f"{at:05d}", f"{at % 3}/{at}.jpg", vector.astype(np.float32), size=at)
        for at, vector in enumerate(vectors)
    ]
    index = BackEnd("lance", tmp_path).filled(photos[:2500], settings)
    with index.writing():
        index.optimise()
        index.upsert(photos[2500:])  # found though the index does not hold them yet
        index.delete([photo.id for photo in photos[:100]])
    assert "ANNIvfPartition" in index._opened.search(vectors[0]).distance_type("dot").explain_plan()
    queries = (vectors[2490:2510] + 0.1 * random.standard_normal((20, 32))).astype(np.float32)
    for texts in ([], ["folder = 1"], ["size > 2900"]):
        where = parse_filter(texts, index.columns()) if texts else None
        kept = 0
        for query, hits in zip(queries, index.search(queries, 10, where), strict=True):
            ids, scores = brute_force(photos[100:], query, 10, where)
            kept += len(set(ids) & set(hits.ids))
            assert len(hits) == 10 and (np.diff(hits.scores) <= 0).all()
            assert hits.scores[0] == pytest.approx(scores[ids.index(hits.ids[0])], rel=1e-5)
        assert kept >= 0.9 * 200
    with index.writing():
        index.optimise()
    names = [i.name for i in index._opened.list_indices() if i.columns == ["vector"]]
    assert len(names) == 1 and index._opened.index_stats(names[0]).num_unindexed_rows == 0
    assert len(index) == 2900 and len(index.vectors(["00100", "02999"])) == 2
    monkeypatch.setattr(lance_vectors, "PARTITIONS", 1)
    with index.writing():
        index.optimise()  # as after much growth
    assert [i.name for i in index._opened.list_indices() if i.columns == ["vector"]] != names
    assert index.search(queries[:1], 10)[0].ids[0] in brute_force(photos[100:], queries[0], 3)[0]


def test_old_files_go_when_nobody_reads(tmp_path, photos):
    index = BackEnd("lance", tmp_path).create()
    folder = tmp_path / "my index ü"
    reader = BackEnd("lance", tmp_path).open()
    with index.writing():
        for photo in photos:
            index.upsert([photo])
        with index._folder.reading():
            index.optimise()
        assert len(list(folder.glob("photos.lance/data/*"))) > 60
        index.optimise()
    assert len(list(folder.glob("photos.lance/data/*"))) == 1
    assert_holds(reader, photos)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact", "lance"])
def test_readers_go_on_while_an_index_is_written(name, tmp_path, photos):
    index = BackEnd(name, tmp_path).filled(photos)
    stop, errors, reads = threading.Event(), [], []

    def read():
        reader = BackEnd(name, tmp_path).open()
        while not stop.is_set():
            try:
                ids = reader.search(QUERIES[:1], 100)[0].ids
                assert len(ids) == 60 and len(reader.metadata(ids)) == 60
                assert reader.atoms(ids).shape[0] == 60
                reads.append(1)
            except Exception as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for version in range(1, 8):
        with index.writing():
            for start in range(0, 60, 20):
                index.upsert(make_photos(20, start=start, version=version))
            index.optimise()
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors and len(reads) > 10
    assert_holds(index, make_photos(60, version=7))


def test_no_back_end_imports_torch(tmp_path):
    program = f"""
import pathlib, runpy, sys
made = runpy.run_path({str(Path(__file__).with_name("made_photos.py"))!r})
for name in ("exact", "lance", "qdrant"):
    folder = pathlib.Path({str(tmp_path)!r}) / name
    index = made["BackEnd"](name, folder).filled(made["make_photos"](3))
    assert len(index.search(made["np"].ones((1, 16)), 2)[0]) == 2
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_unknown_ids(back_end, photos):
    index = back_end.filled(photos)
    ids = [photos[0].id, "nothing' OR 1=1 --"]
    for read in (index.vectors, index.atoms, index.metadata):
        with pytest.raises(KeyError, match="nothing"):
            read(ids)
    with pytest.raises(KeyError, match="nothing"):
        index.thumbnail(ids[1])


def test_readers_see_new_commits(back_end, photos):
    index = back_end.filled(photos[:10])
    reader = back_end.open()
    assert_holds(reader, photos[:10])
    walk = reader.records(4)
    first = next(walk)
    with index.writing():
        index.upsert(photos[10:])
        index.delete([photos[0].id])
        assert_holds(reader, photos[1:])
        index.optimise()
    assert_holds(reader, photos[1:])
    assert reader.search(QUERIES, 5)[2].ids == brute_force(photos[1:], QUERIES[2], 5)[0]
    assert [p.id for p in first] == sorted(p.id for p in photos[:10])[:4]


def test_odd_names(back_end):
    names = ["a/🦊 ' \" \\.jpg", "\udcfcber/\udce4.jpg", "%_/[x]*?.jpg", "a\tb/ c .jpg"]
    photos = [
        make_photo(at, id=f"id'{at}\"", path=name, origin=f"/x/{name}", caption=name)
        for at, name in enumerate(names)
    ]
    index = back_end.filled(photos)
    assert_holds(index, photos)
    for photo in photos:
        for text in (f"path = {photo.path}", f'folder under "{photo.folder}"'):
            where = parse_filter([text], index.columns())
            wanted = brute_force(photos, QUERIES[0], 9, where)[0]
            assert photo.id in wanted and index.search(QUERIES[:1], 9, where)[0].ids == wanted
    with index.writing():
        assert index.delete([photos[1].id]) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vector": unit(np.ones(WIDTH + 1))}, r"vector of shape \(17,\), the index holds \(16,\)"),
        ({"vector": np.ones(WIDTH)}, "norm 4: normalise"),
        ({"vector": np.full(WIDTH, np.nan)}, "norm nan"),
        ({"atoms": None}, "set of shape None"),
        ({"atoms": np.ones((2, WIDTH), np.float16)}, "set of shape"),
        ({"atoms": np.full((ATOMS, WIDTH), np.inf, np.float16)}, "not finite"),
        ({"id": ""}, "without an id"),
    ],
)
def test_photos_that_do_not_fit_are_refused(back_end, photos, changes, message):
    index = back_end.filled(photos[:3])
    with index.writing(), pytest.raises(UserError, match=message):
        index.upsert([photos[3], make_photo(4, **changes)])
    assert_holds(index, photos[:3])


def test_queries_that_do_not_fit_are_refused(back_end, photos):
    index = back_end.filled(photos[:3])
    with pytest.raises(UserError, match="16 columns"):
        index.search(np.ones((1, WIDTH + 1)), 3)
    with pytest.raises(UserError, match="16 columns"):
        index.search(np.ones(WIDTH), 3)
    with pytest.raises(UserError, match="not finite"):
        index.search(np.full((1, WIDTH), np.nan), 3)
    with pytest.raises(UserError, match="at least 1"):
        index.search(QUERIES, 0)


def test_taken_and_missing_places(back_end, photos):
    with pytest.raises(UserError, match="there is no"):
        back_end.open()
    index = back_end.filled(photos[:2])
    with pytest.raises(UserError, match="already"):
        back_end.create()
    assert_holds(index, photos[:2])


def test_changes_need_the_right_to_write(back_end, photos):
    index = back_end.filled(photos[:2])
    for change in (lambda: index.upsert(photos), lambda: index.delete([]), index.optimise):
        with pytest.raises(RuntimeError, match="writing"):
            change()
    with index.writing(), pytest.raises(RuntimeError, match="already"), index.writing():
        pass
    with index.writing():
        index.upsert(photos)


def test_a_second_writer_is_refused(back_end, photos):
    index, other = back_end.filled(photos[:2]), back_end.open()
    with index.writing():
        with pytest.raises(UserError, match=r"another run is writing to .*: wait"), other.writing():
            pass
        index.upsert(photos[:5])
    with other.writing():
        other.upsert(photos[5:])
    assert_holds(index, photos)


def test_records_move_to_another_index(back_end, photos):
    index, other = back_end.filled(photos), back_end.create(name="other")
    with other.writing():
        for batch in index.records(7):
            other.upsert(batch)
        other.optimise()
    assert_holds(other, photos)


def test_any_number_of_commits_before_they_are_merged(tmp_path, photos):
    import resource

    index = BackEnd("exact", tmp_path).create()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, limits[1]))
        with index.writing():
            for photo in photos:
                index.upsert([photo])
            assert_holds(index, photos)
            index.optimise()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert_holds(index, photos)
