"""Filters: how they are read, what they mean, and that all back ends mean the same."""

from __future__ import annotations

import dataclasses
import itertools
import runpy
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from freestyle.errors import UserError
from freestyle.search.columns import OWN
from freestyle.search.filters import Condition, Filter, parse_filter

made = runpy.run_path(str(Path(__file__).with_name("made_photos.py")))
COLUMNS = {
    **OWN,
    "camera": str,
    "camera model": str,
    "f-stop": float,
    "flash": bool,
    "rating": int,
    "a>b": str,
}


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("folder under trips/2020/", ("folder", "under", ("trips/2020",))),
        ("date>=2024-01-01", ("date", ">=", ("2024-01-01",))),
        ("date = 2024-01-01 10:00", ("date", "=", ("2024-01-01T10:00",))),
        ("size > 100_000", ("size", ">", (100000,))),
        ("camera = Canon", ("camera", "=", ("Canon",))),
        ("camera == Canon", ("camera", "=", ("Canon",))),
        ("camera model = Canon 5", ("camera model", "=", ("Canon 5",))),
        ("'camera model'='Canon 5'", ("camera model", "=", ("Canon 5",))),
        ("  camera   !=  in in  ", ("camera", "!=", ("in in",))),
        ("camera contains = x", ("camera", "contains", ("= x",))),
        ('caption = ""', ("caption", "=", ("",))),
        ('name in a.jpg,b.jpg, "c, d.jpg"', ("name", "in", ("a.jpg", "b.jpg", "c, d.jpg"))),
        ("f-stop <= -2.8e3", ("f-stop", "<=", (-2800.0,))),
        ("flash = Yes", ("flash", "=", (True,))),
        ("a>b = 3", ("a>b", "=", ("3",))),
        ("rating in 1, 2", ("rating", "in", (1, 2))),
    ],
)
def test_conditions_are_read(text, condition):
    assert parse_filter([text], COLUMNS) == Filter((Condition(*condition),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = red", "there is no column 'colour'; there are a>b, camera, camera model"),
        ("Camera = x", "there is no column 'Camera'"),
        ("nothing", "is no condition: write it like"),
        ("", "is no condition"),
        ("= 3", "is no condition"),
        ("size > big", "size is a whole number, not 'big'"),
        ("size > 1.5", "size is a whole number"),
        (f"size > {2**63}", "size is a whole number"),
        ("f-stop > inf", "f-stop is a number"),
        ("f-stop > nan", "f-stop is a number"),
        ("flash = 1", "flash is true or false"),
        ("flash < true", "flash takes no '<'; use =, !="),
        ("size contains 3", "size takes no 'contains'; use =, !="),
        ("camera under x", "camera takes no 'under'"),
        ("date > yesterday", "is no date: write 2024"),
        ("date > 24-1-1", "is no date"),
        ("camera =", "no value behind '='"),
        ("name in ", "no value behind 'in'"),
    ],
)
def test_what_is_no_condition_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_filter(["size > 1", text], COLUMNS)


def matches(text, **metadata):
    return parse_filter([text], COLUMNS).matches(metadata)


def test_meanings_by_hand():
    assert matches("folder under trips", folder="trips/2020")
    assert matches("folder under trips", folder="trips")
    assert not matches("folder under trips", folder="trips2")
    assert not matches("folder under trips", folder="old/trips")
    assert matches('folder under ""', folder="anything")
    assert matches("date <= 2024-01-31", date="2024-01-31T23:59:59")
    assert not matches("date > 2024-01", date="2024-01-31T23:59:59")
    assert matches("date > 2024-01", date="2024-02-01T00:00:00")
    assert matches("date = 2024", date="2024-12-31T23:59:59+02:00")
    assert matches("date < 2024", date="2023-12-31") and not matches("date < 2024", date="")
    assert not matches("date != 2024", date="") and matches("date != 2024", date="2023")
    assert matches("caption contains dOG", caption="HotDogs") and matches(
        "caption = ''", caption=""
    )
    assert not matches("camera != Canon") and matches("camera != Canon", camera="Nikon")
    assert not matches("camera = canon", camera="Canon")
    assert matches("flash != true", flash=False)
    both = parse_filter(["size > 1", "size < 3"], COLUMNS)
    assert both.matches({"size": 2}) and not both.matches({"size": 3})
    assert str(both) == "size > 1 and size < 3" and both and not Filter(())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(some.text(max_size=30))
def test_any_text_is_read_or_refused_in_a_sentence(text):
    try:
        parse_filter([text, f"camera {text}", f"name in {text}", f"date > {text}"], COLUMNS)
    except UserError as error:
        assert str(error)


WORDS = some.sampled_from(
    [
        "",
        "a",
        "A b",
        "it's",
        '"',
        "\\",
        "%",
        "_",
        "ß",
        "STRASSE",
        "é",
        "a/b",
        "a/b/c",
        "a/bc",
        "\udcff",
    ]
)
NUMBERS = some.sampled_from([-3, 0, 1, 2, 7, 10**12])
FRACTIONS = some.sampled_from([-2.5, 0.0, 0.1, 1.0, 2.5, 1e30])
SHORT = ["2020", "2020-02", "2020-02-03", "2020-02-03T04:05:06"]
DATES = some.sampled_from(["", *SHORT, "2020-02-03T04:05:06+01:00", "2021-12-31T23:59:59"])
TEXTUAL = some.sampled_from(["=", "!=", "<", "<=", ">", ">=", "in", "contains"])
ORDERED = some.sampled_from(["=", "!=", "<", "<=", ">", ">=", "in"])


KINDS = some.sampled_from(["caption", "folder", "word", "size", "number", "share", "yes", "date"])


@some.composite
def condition(draw):
    kind = draw(KINDS)
    if kind in ("caption", "word"):
        operator, values = draw(TEXTUAL), WORDS
    elif kind == "folder":
        operator = draw(some.sampled_from(["under", "=", "contains"]))
        values = some.sampled_from(["", "a", "a/b", "a/b/c", "it's", "ß"])
    elif kind in ("size", "number"):
        operator, values = draw(ORDERED), NUMBERS
    elif kind == "share":
        operator, values = draw(ORDERED), FRACTIONS
    elif kind == "yes":
        operator, values = draw(some.sampled_from(["=", "!="])), some.booleans()
    else:
        operator = draw(ORDERED)
        values = some.sampled_from([*SHORT, "2021"])
    several = some.lists(values, min_size=1, max_size=3 if operator == "in" else 1)
    return Condition(kind, operator, tuple(draw(several)))


@some.composite
def photo(draw, number):
    folder = draw(some.sampled_from(["", "a", "a/b", "a/b/c", "a/bc", "ab", "it's/x", "ß/é"]))
    extra = {
        "word": draw(WORDS | some.none()),
        "number": draw(NUMBERS | some.none()),
        "share": draw(FRACTIONS | some.none()),
        "yes": draw(some.booleans() | some.none()),
    }
    own = {"caption": draw(WORDS), "size": draw(NUMBERS), "date": draw(DATES), "extra": extra}
    path = f"{folder}/{number}.jpg".lstrip("/")
    return dataclasses.replace(made["make_photo"](number), path=path, **own)


@pytest.mark.parametrize("name", ["exact", "lance", "qdrant"])
@settings(max_examples=5, deadline=None, derandomize=True)
@given(data=some.data())
def test_back_ends_mean_the_same(name, data):
    folder = tempfile.mkdtemp()
    try:
        back_end = made["BackEnd"](name, Path(folder))
        typed = made["make_photo"](9, extra={"word": "x", "number": 1, "share": 0.5, "yes": True})
        photos = [typed, *(data.draw(photo(number)) for number in range(8))]
        index = back_end.filled(photos)
        filters = [Filter((data.draw(condition()),)) for _ in range(12)]
        pairs = [Filter(a.conditions + b.conditions) for a, b in itertools.pairwise(filters)]
        filters += pairs
        for where in filters:
            wanted = {p.id for p in photos if where.matches(p.metadata())}
            hits = index.search(np.ones((1, made["WIDTH"])), 20, where)[0]
            assert set(hits.ids) == wanted, where
        index.close()
    finally:
        shutil.rmtree(folder)
