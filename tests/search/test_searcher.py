"""The searcher against brute force, and what it refuses."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from freestyle.errors import UserError
from freestyle.evaluation.fusion import fuse
from freestyle.search.embed_parts import elements_of
from freestyle.search.filters import parse_filter
from freestyle.search.opening import open_encoder
from freestyle.search.query import MAX_PARTS, MAX_TEXT
from freestyle.search.records import IndexSettings, photo_id
from freestyle.search.scoring import SetScoring, conditional_transport
from freestyle.search.searcher import Part, Query, Searcher
from freestyle.search.torch_encoder import TorchQueryEncoder

asking = runpy.run_path(str(Path(__file__).with_name("asking.py")))
ATOMS, COLUMNS, STYLES = asking["ATOMS"], asking["COLUMNS"], asking["STYLES"]
WordEncoder, fill = asking["WordEncoder"], asking["fill"]
EMOJI = Path(__file__).parents[2] / "data" / "emoji"
PLAIN = SetScoring(share=0)


@pytest.fixture(scope="module")
def encoder(shared, style_config, style_codes):
    return TorchQueryEncoder(asking["make_model"](shared, style_config, style_codes))


@pytest.fixture(scope="module")
def photos(make_picture):
    return [make_picture(seed) for seed in range(40)]


@pytest.fixture(scope="module")
def gallery(encoder, photos, tmp_path_factory):
    return fill(f"exact:{tmp_path_factory.mktemp('gallery')}/photos.index", encoder, photos)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Photos of two words each: ``0`` to ``9`` with ``red`` or ``blue``."""
    encoder = WordEncoder()
    texts = [f"{n} {colour}" for n in range(10) for colour in ("red", "blue")]
    rows = encoder.embed_texts(texts).rows
    uri = f"exact:{tmp_path_factory.mktemp('words')}/words.index"
    index, records = fill(uri, encoder, texts, rows=rows)
    return index, {text: record.id for text, record in zip(texts, records, strict=True)}


def ids(result):
    return [hit.id for hit in result.hits]


def ranked(scores, records):
    """Ids by a score per record, the best first, ties by id."""
    return [
        r.id for _, r in sorted(zip(-scores, records, strict=True), key=lambda x: (x[0], x[1].id))
    ]


# -- the encoder ---------------------------------------------------------------------------------


def test_the_encoder_equals_the_model(encoder, make_picture):
    pictures = [make_picture(seed, style, side=side) for seed, (style, side) in enumerate(
        [("images", 40), ("sketch", 64), ("art", 33), ("mosaic", 90)] * 5
    )]  # fmt: skip
    found = encoder.embed_images(pictures)
    expected = encoder.model.encode_query(pictures).numpy()
    assert found.rows.dtype == np.float32 and found.rows.shape == (20, encoder.width + COLUMNS)
    np.testing.assert_allclose(found.rows, expected, atol=1e-5)
    np.testing.assert_allclose(encoder.embed_images(pictures[:1]).rows, expected[:1], atol=1e-5)
    texts = encoder.embed_texts(["a red cat", "two dogs"])
    assert texts.places is None and texts.styles == ({}, {})
    np.testing.assert_allclose(
        texts.rows, encoder.model.encode_text(["a red cat", "two dogs"]).numpy(), atol=1e-6
    )
    assert encoder.embed_images([]).rows.shape == (0, encoder.width + COLUMNS)


def test_pictures_with_and_without_margins(encoder, make_picture):
    """Those that fill their sheet have one framing, others two."""
    full, sheet = make_picture(1, side=30), Image.new("RGB", (90, 90), "white")
    sheet.paste(make_picture(2, side=30), (20, 45))
    pictures = [full, sheet, full, sheet, sheet]
    expected = encoder.model.encode_query(pictures).numpy()
    np.testing.assert_allclose(encoder.embed_images(pictures).rows, expected, atol=1e-5)
    np.testing.assert_allclose(encoder.embed_images([full]).rows, expected[:1], atol=1e-5)


def test_styles_are_the_gates_shares_and_places_the_spaces_weights(encoder, pictures):
    found, model = encoder.embed_images(pictures), encoder.model
    with torch.no_grad():
        pixels = torch.stack([model.encoder.preprocess(picture) for picture in pictures])
        codes = model.reader(pixels)
        shares = model.calibration.shares(model.space.embed(codes), len(pictures)).numpy()
        places = model.space.weights(codes).numpy()
    for styles, own in zip(found.styles, shares, strict=True):
        assert list(styles) == [*STYLES, "other"]
        assert sum(styles.values()) == pytest.approx(1)
        assert [styles[name] for name in STYLES] == pytest.approx(own.tolist(), abs=1e-5)
    np.testing.assert_allclose(found.places, places, atol=1e-5)


def test_a_model_that_cannot_tell_names_no_style(make_model, pictures):
    plain = TorchQueryEncoder(make_model("zero-shot")).embed_images(pictures)
    assert plain.styles == ({},) * len(pictures) and plain.places is None
    space = TorchQueryEncoder(make_model("freestyle")).embed_images(pictures)
    assert space.styles == ({},) * len(pictures) and space.places.shape == (len(pictures), 2)


def test_completing_adds_the_calibrations_columns(encoder, photos):
    vectors = encoder.model.encode_gallery(photos).numpy()
    found = encoder.complete(vectors[:, : encoder.width].astype(np.float16))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vectors, atol=2e-2)
    np.testing.assert_allclose(encoder.complete(vectors[:, : encoder.width]), vectors, atol=1e-5)


# -- both stages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["images", "sketch", "art"])
def test_equals_brute_force_with_calibration(gallery, encoder, photos, make_picture, style):
    index, records = gallery
    model, picture = encoder.model, make_picture(3, style)
    exact = (model.encode_query([picture]) @ model.encode_gallery(photos).T)[0].numpy()
    result = Searcher(index, encoder, scoring=PLAIN, rerank=40).search(Part(image=picture), top=10)
    assert ids(result) == ranked(exact, records)[:10]
    np.testing.assert_allclose([h.score for h in result.hits], np.sort(-exact)[:10] * -1, atol=1e-5)
    frozen = (model.encode_query([picture])[:, : encoder.width]
              @ model.encode_gallery(photos)[:, : encoder.width].T)[0].numpy()  # fmt: skip
    assert ranked(frozen, records) != ranked(exact, records)  # the columns matter
    first = Searcher(index, encoder, rerank=0).search(Part(image=picture), top=10)
    assert ids(first) == ranked(frozen, records)[:10]


@pytest.mark.parametrize("fusion", ["sum", "zscore"])
def test_joint_queries_equal_the_evaluations_fusion(gallery, encoder, photos, pictures, fusion):
    index, records = gallery
    model, full = encoder.model, encoder.model.encode_gallery(photos)
    terms = [model.encode_query(pictures[:1]) @ full.T, model.encode_text(["a red cat"]) @ full.T]
    expected = fuse(terms, fusion)[0].numpy()
    searcher = Searcher(index, encoder, fusion=fusion, scoring=PLAIN, sample=40)
    result = searcher.search(Part(image=pictures[0]), Part(text="a red cat"), top=40)
    assert ids(result) == ranked(expected, records)


def test_weights_and_sets(gallery, encoder, photos, pictures):
    index, records = gallery
    scoring = SetScoring(share=0.4, temperature=0.1)
    model, width = encoder.model, encoder.width
    full, atoms = model.encode_gallery(photos).numpy(), np.stack([r.atoms for r in records])
    text = "a red cat, two dogs"
    rows = [model.encode_query(pictures[:1]).numpy(), model.encode_text(elements_of(text)).numpy()]
    total = 0
    for row, weight in zip(rows, (0.3, 1.5), strict=True):
        cosines = np.einsum("ke,nme->nkm", row[:, :width], atoms.astype(np.float32))
        sets = 1 + conditional_transport(cosines, temperature=0.1)
        total = total + weight * (0.6 * full @ row[0] + 0.4 * sets)
    parts = Part(image=pictures[0], weight=0.3), Part(text=text, weight=1.5)
    result = Searcher(index, encoder, scoring=scoring).search(*parts, top=40)
    assert ids(result) == ranked(total, records)
    assert result.hits[0].score == pytest.approx(total.max(), abs=1e-5)


def test_standardised_parts_and_the_reason(gallery, encoder, photos, pictures):
    index, records = gallery
    searcher = Searcher(index, encoder, scoring=PLAIN, sample=40)
    result = searcher.search(Part(image=pictures[2]), Part(text="two dogs", weight=0.5), top=40)
    model, full = encoder.model, encoder.model.encode_gallery(photos)
    scores = torch.cat(
        [model.encode_query(pictures[2:3]) @ full.T, model.encode_text(["two dogs"]) @ full.T]
    ).numpy()
    standard = (scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)
    place = {record.id: row for row, record in enumerate(records)}
    for hit in result.hits:
        own = standard[:, place[hit.id]]
        np.testing.assert_allclose(hit.parts, own, atol=1e-3)
        assert hit.reason == ("picture" if own[0] > 0.5 * own[1] else "two dogs")
    assert {hit.reason for hit in result.hits} == {"picture", "two dogs"}


def test_an_excluded_part_lowers_what_is_like_it_and_nothing_else(words):
    index, named = words
    searcher = Searcher(index, WordEncoder(), scoring=PLAIN, rerank=20)
    wanted = searcher.search(Part(text="3"), top=20)
    assert set(ids(wanted)[:2]) == {named["3 red"], named["3 blue"]}
    without = searcher.search(Part(text="3"), Part(text="red", exclude=True), top=20)
    scores = {hit.id: hit.score for hit in wanted.hits}
    assert ids(without)[0] == named["3 blue"]
    for hit in without.hits:
        lowered = scores[hit.id] - hit.score
        assert lowered == pytest.approx(0, abs=1e-6) if hit.parts[1] <= 0.5 else lowered > 0
    assert [hit.reason for hit in without.hits] == ["3"] * 20


def test_more_like_a_photo_leaves_the_photo_out(words):
    index, named = words
    searcher = Searcher(index, WordEncoder(), rerank=20)
    result = searcher.search(Part(photo=named["3 red"]), top=20)
    assert len(result.hits) == 19 and named["3 red"] not in ids(result)
    assert result.parts[0].kind == "photo" and result.parts[0].name.endswith(".png")
    others = {named[f"{n} red"] for n in range(10)} | {named["3 blue"]}
    assert ids(result)[0] in others
    short = searcher.search(Part(photo=named["3 red"]), top=3, rerank=0)
    assert len(short.hits) == 3


def test_the_second_stage_keeps_what_exhaustive_scoring_finds(gallery, encoder, pictures):
    index, records = gallery
    queries = [Query((Part(image=picture),), top=5) for picture in pictures]
    exhaustive = Searcher(index, encoder, rerank=len(records)).search_many(queries)
    some = Searcher(index, encoder, rerank=20).search_many(queries)
    kept = [len(set(ids(a)) & set(ids(b))) / 5 for a, b in zip(some, exhaustive, strict=True)]
    assert np.mean(kept) >= 0.9
    for few, all_of in zip(some, exhaustive, strict=True):
        known = {hit.id: hit.score for hit in all_of.hits}
        for hit in few.hits:
            assert hit.score == pytest.approx(known.get(hit.id, hit.score), abs=1e-6)


def test_filters_pass_through(words):
    index, _ = words
    where = parse_filter(["folder = trips"], index.columns())
    result = Searcher(index, WordEncoder()).search(Part(text="3"), top=20, where=where)
    assert len(result.hits) == 10
    assert {hit.metadata["folder"] for hit in result.hits} == {"trips"}
    nowhere = parse_filter(["size > 5000"], index.columns())
    assert Searcher(index, WordEncoder()).search(Part(text="3"), where=nowhere).hits == ()


def test_an_index_without_sets(encoder, photos, pictures, tmp_path):
    index, records = fill(f"exact:{tmp_path}/plain.index", encoder, photos, atoms=0)
    model = encoder.model
    exact = (model.encode_query(pictures[:1]) @ model.encode_gallery(photos).T)[0].numpy()
    searcher = Searcher(index, encoder)
    assert ids(searcher.search(Part(image=pictures[0]), top=9)) == ranked(exact, records)[:9]
    assert len(searcher.search(Part(photo=records[0].id), top=9).hits) == 9


def test_one_photo_is_a_gallery_too(encoder, photos, pictures, tmp_path):
    index, records = fill(f"exact:{tmp_path}/one.index", encoder, photos[:1])
    for fusion in ("sum", "zscore"):
        result = Searcher(index, encoder, fusion=fusion).search(Part(image=pictures[0]))
        assert ids(result) == [records[0].id] and result.hits[0].parts == (0.0,)


# -- many queries --------------------------------------------------------------------------------


def test_many_queries_equal_single_ones_in_one_batch(words):
    index, named = words
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    queries = [
        Query((Part(text="3 red"), Part(image=red)), top=4),
        Query((Part(text="3 red, blue"),), top=7, rerank=9),
        Query((Part(image=blue), Part(photo=named["1 red"], weight=0.5)), top=4),
        Query((Part(image=blue, exclude=True), Part(text="7")), top=4),
    ]
    encoder = WordEncoder()
    together = Searcher(index, encoder).search_many(queries)
    assert [what for what in encoder.asked if what[0] == "images"] == [("images", 2)]
    texts = [texts for what, texts in encoder.asked if what == "texts"]
    assert texts == [("3 red", "3 red, blue", "blue", "7")]
    for query, result in zip(queries, together, strict=True):
        alone = Searcher(index, WordEncoder()).search(query)
        assert ids(result) == ids(alone) and result.parts == alone.parts
        np.testing.assert_allclose(
            [hit.score for hit in result.hits], [hit.score for hit in alone.hits], atol=1e-6
        )


def test_a_bad_query_does_not_spoil_the_others(words, tmp_path):
    index, _ = words
    (tmp_path / "no.png").write_bytes(b"no picture")
    good = Query((Part(text="3"),), top=2)
    queries = [
        good,
        Query((Part(text="3"), Part(photo="0" * 20))),
        Query((Part(image=tmp_path / "no.png"),)),
        good,
    ]
    searcher = Searcher(index, WordEncoder())
    results = searcher.search_many(queries, keep_errors=True)
    assert ids(results[0]) == ids(results[3]) and len(results[0].hits) == 2
    assert "0" * 20 in str(results[1]) and "no.png" in str(results[2])
    with pytest.raises(UserError, match="0000"):
        searcher.search_many(queries)


def test_a_searcher_is_closed_behind_a_with_block(words, monkeypatch):
    index, _ = words
    closed = []
    monkeypatch.setattr(index, "close", lambda: closed.append(True))
    with Searcher(index, WordEncoder()) as searcher:
        assert len(searcher.search(Part(text="3 red"), top=2).hits) == 2 and not closed
    assert closed == [True]


def test_a_model_that_is_gone_from_its_index_is_missed_by_name(refusal, tmp_path):
    from freestyle.search.index import create_index

    settings = IndexSettings("freestyle-mini", "w", 8, model="model")
    index = create_index(f"exact:{tmp_path / 'x.index'}", settings)
    said = refusal(open_encoder, index)
    assert str(tmp_path / "x.index" / "model") in said and "--model" in said


def test_warming_up_leaves_nothing_for_the_first_query(words):
    index, _ = words
    encoder = WordEncoder()
    searcher = Searcher(index, encoder)
    searcher.warm_up()
    assert [what for what, _ in encoder.asked] == ["images", "texts"]
    assert searcher.gallery.count == 20 and len(searcher.gallery.sample) == 20


def test_what_was_embedded_lately_is_remembered(words):
    index, _ = words
    encoder = WordEncoder()
    searcher = Searcher(index, encoder, remember=2)
    picture = Image.new("RGB", (4, 4), "red")
    first = searcher.search(Part(text="3"), Part(image=picture))
    again = searcher.search(Part(text="3", weight=2.0), Part(image=picture.copy()))
    assert len(encoder.asked) == 2 and again.parts == first.parts
    searcher.search(Part(text="4"))
    searcher.search(Part(text="5"))
    searcher.search(Part(text="3"))
    assert [texts for what, texts in encoder.asked if what == "texts"][1:] == [
        ("4",),
        ("5",),
        ("3",),
    ]


def test_threads_may_share_a_searcher(words):
    from concurrent.futures import ThreadPoolExecutor

    index, _ = words
    searcher = Searcher(index, WordEncoder(), remember=3)
    red = Part(text="red", weight=0.2)
    queries = [Query((Part(text=f"{n % 10}"), red), top=5) for n in range(40)]
    expected = [ids(Searcher(index, WordEncoder()).search(query)) for query in queries[:10]]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(searcher.search, queries))
    assert [ids(result) for result in found] == expected * 4


def test_photos_that_vanish_between_the_stages(words):
    index, _ = words

    class Vanishing:
        def __init__(self):
            self.left = 1

        def __getattr__(self, name):
            return getattr(index, name)

        def __len__(self):
            return len(index)

        def vectors(self, wanted):
            if self.left and len(wanted) < 20:
                self.left -= 1
                raise KeyError(wanted[0])
            return index.vectors(wanted)

    once = Vanishing()
    assert len(Searcher(once, WordEncoder(), rerank=5).search(Part(text="3"), top=5).hits) == 5
    once.left = 99
    with pytest.raises(UserError, match="try again"):
        Searcher(once, WordEncoder(), rerank=5).search(Part(text="3"), top=5)


def test_a_gallery_that_changes_is_seen(encoder, photos, pictures, tmp_path):
    index, records = fill(f"exact:{tmp_path}/changes.index", encoder, photos[:10])
    searcher = Searcher(index, encoder)
    assert searcher.search(Part(image=pictures[0])).photos == 10
    with index.writing():
        index.delete([record.id for record in records[:5]])
    result = searcher.search(Part(image=pictures[0]))
    assert result.photos == 5 and len(result.hits) == 5
    assert set(ids(result)) == {record.id for record in records[5:]}


# -- values and refusals -------------------------------------------------------------------------


def test_the_answer_as_plain_values(words):
    index, _ = words
    picture = Image.new("RGB", (4, 4), "red")
    result = Searcher(index, WordEncoder()).search(Part(image=picture, name="s.png"), top=2)
    values = result.to_dict()
    assert set(values) == {"hits", "parts", "milliseconds", "photos"} and values["photos"] == 20
    assert values["parts"] == [
        {"kind": "image", "name": "s.png", "styles": {"sketch": 0.75, "other": 0.25},
         "place": [0.25, 0.75]}
    ]  # fmt: skip
    assert set(values["milliseconds"]) == {"embed", "nearest", "rerank", "total"}
    hit = values["hits"][0]
    assert set(hit) == {"id", "score", "parts", "reason", "metadata"}
    assert hit["reason"] == "s.png" and hit["metadata"]["path"].endswith(".png")


def test_parts_of_one_name_are_told_apart(words):
    index, _ = words
    parts = [Part(image=Image.new("RGB", (4, 4), colour)) for colour in ("red", "blue")]
    result = Searcher(index, WordEncoder()).search(*parts)
    assert [part.name for part in result.parts] == ["picture", "picture 2"]


@pytest.mark.parametrize(
    ("values", "named"),
    [({}, "0 of"), ({"text": "a", "photo": "b"}, "2 of"), ({"text": " "}, "empty"),
     ({"text": "a" * (MAX_TEXT + 1)}, "1,001 characters"), ({"photo": ""}, "id"),
     ({"text": "a", "weight": -1.0}, "weight"), ({"text": "a", "weight": float("nan")}, "weight")],
)  # fmt: skip
def test_parts_that_cannot_be(refusal, values, named):
    assert named in refusal(Part, **values)


@pytest.mark.parametrize(
    ("parts", "values", "named"),
    [((), {}, "empty"), ((Part(text="a"),) * (MAX_PARTS + 1), {}, "17 parts"),
     ((Part(text="a", exclude=True),), {}, "only excludes"),
     ((Part(text="a", weight=0), Part(text="b", exclude=True)), {}, "weights are 0"),
     ((Part(text="a"),), {"top": 0}, "top"), ((Part(text="a"),), {"rerank": -1}, "rerank")],
)  # fmt: skip
def test_queries_that_cannot_be(refusal, parts, values, named):
    assert named in refusal(Query, parts, **values)


def test_searches_that_cannot_be(refusal, words, encoder, tmp_path):
    index, named = words
    searcher = Searcher(index, WordEncoder())
    assert "no photo 'abc'" in refusal(searcher.search, Part(photo="abc"))
    photo = named["1 red"]
    both = Part(photo=photo), Part(photo=photo, exclude=True, weight=4.0)
    assert "cancel" in refusal(searcher.search, *both)
    assert "fusion" in refusal(Searcher, index, WordEncoder(), fusion="max")
    assert "rerank" in refusal(Searcher, index, WordEncoder(), rerank=-1)
    assert "words@1" in refusal(Searcher, index, encoder)
    empty, _ = fill(f"exact:{tmp_path}/empty.index", WordEncoder(), [], rows=[])
    assert "empty" in refusal(Searcher(empty, WordEncoder()).search, Part(text="a"))
    assert "leave one out" in refusal(open_encoder, index, "a", "b")


def test_open_takes_the_model_inside_the_index(encoder, photos, pictures, tmp_path, monkeypatch):
    uri = f"exact:{tmp_path}/own.index"
    index, _ = fill(uri, encoder, photos[:12], model="model")
    encoder.model.save_pretrained(tmp_path / "own.index" / "model")
    opened = []
    real = TorchQueryEncoder.open.__func__

    def open_with_parts(cls, source, **options):
        opened.append(Path(source))
        return real(cls, source, encoder=encoder.model.encoder, **options)

    monkeypatch.setattr(TorchQueryEncoder, "open", classmethod(open_with_parts))
    expected = Searcher(index, encoder).search(Part(image=pictures[0]))
    found = Searcher.open(uri).search(Part(image=pictures[0]))
    assert opened == [tmp_path / "own.index" / "model"] and ids(found) == ids(expected)
    with pytest.raises(UserError, match="elsewhere"):
        Searcher.open(uri, model=str(tmp_path / "elsewhere"))


def test_without_a_model_the_untouched_encoder_asks(make_model, photos, tmp_path):
    frozen = TorchQueryEncoder(make_model("zero-shot"))
    _, records = fill(f"exact:{tmp_path}/frozen.index", frozen, photos[:6])
    searcher = Searcher.open(f"exact:{tmp_path}/frozen.index")
    assert isinstance(searcher.encoder, TorchQueryEncoder)
    result = searcher.search(Part(image=photos[4]), top=1)
    assert ids(result) == [records[4].id]


def test_the_back_ends_searcher_needs_no_torch():
    import subprocess
    import sys

    code = (
        "import sys, freestyle.search.searcher, freestyle.search.exact, "
        "freestyle.search.results_page; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_real_sketches_are_read_as_sketches():
    """A gate learned from 40 training pictures of each style, asked about test pictures."""
    import json

    from freestyle.config import CalibrationConfig, FreestyleConfig, StyleConfig
    from freestyle.datasets.images import load_image
    from freestyle.model import FreestyleRet
    from freestyle.style.build import fit_space

    stems = {
        split: [Path(entry["image"]).stem for entry in json.loads(file.read_text())]
        for split in ("train", "test")
        for file in [EMOJI / f"{split}.json"]
    }
    names = ("sketch", "art", "mosaic")
    config = FreestyleConfig(
        style=StyleConfig(n_components=32), query_map="styled", framing="both",
        calibration=CalibrationConfig(), styles=names,
    )  # fmt: skip
    model = FreestyleRet(config)

    def codes_of(style, split, count):
        pictures = [load_image(EMOJI / style / f"{s}.webp") for s in stems[split][:count]]
        return model.reader(torch.stack([model.encoder.preprocess(p) for p in pictures]))

    codes = [codes_of(style, "train", 40) for style in names]
    fitted = fit_space(config.style, torch.cat(codes), model.reader.tag)
    model.space.load_state_dict(fitted.state_dict())
    rows = [torch.nn.functional.normalize(torch.randn(8, 768), dim=1) for _ in names]
    others = model.space.embed(codes_of("images", "train", 40))
    model.calibration.fit(rows, [model.space.embed(own) for own in codes], others, None)
    encoder = TorchQueryEncoder(model)
    for style in names:
        pictures = [load_image(EMOJI / style / f"{s}.webp") for s in stems["test"][:8]]
        found = encoder.embed_images(pictures)
        right = [max(styles, key=styles.get) == style for styles in found.styles]
        assert sum(right) >= 7, (style, found.styles)
        np.testing.assert_allclose(
            found.rows, encoder.model.encode_query(pictures).numpy(), atol=1e-5
        )


def test_ids_are_those_of_the_index(words):
    _, named = words
    assert named["0 red"] == photo_id("home/00.png")


def test_texts_and_conditions_as_they_are_typed(words):
    index, by_text = words
    searcher = Searcher(index, WordEncoder(), scoring=PLAIN)
    assert ids(searcher.search("3 red", top=1)) == [by_text["3 red"]]
    typed = searcher.search("3 red", where="size > 0", top=5)
    parsed = parse_filter(["size > 0"], index.columns())
    assert ids(typed) == ids(searcher.search(Part(text="3 red"), where=parsed, top=5))
    assert ids(typed) == ids(searcher.search("3 red", where=["size > 0"], top=5))
    with pytest.raises(UserError, match="colour"):
        searcher.search("3 red", where="colour = red")
