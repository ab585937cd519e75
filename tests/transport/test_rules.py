"""The rule composer, and the files of captions."""

import doctest
import json

import pytest
import torch

import freestyle.transport.rules as rules
import freestyle.transport.transition as transition
from freestyle.transport.captions import (
    CachedCaptions,
    Composition,
    read_compositions,
    write_compositions,
)
from freestyle.transport.rules import RuleComposer
from freestyle.transport.sets import SetEncoder
from freestyle.transport.views import Views


@pytest.mark.parametrize("module", [rules, transition])
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted >= 1 and not result.failed


def test_nearest_captions_of_the_bank_are_changed(asked, make_model, make_picture):
    encoder = SetEncoder(make_model("zero-shot"), Views("whole"))
    bank = ["a red cat", "two dogs", "a blue cat", "the boat"]
    photos = [make_picture(i) for i in (0, 5, 6, 7)]  # the first is the first query's reference
    found = RuleComposer(encoder, bank, photos, count=2).compose(asked)
    assert found["q0"].reference[0] == "a red cat"
    assert found["q0"].captions[0] == "a red cat with a hat"
    assert all(len(own.captions) <= 2 for own in found.values())
    assert found["q2"].forbidden == ("wheels",) and found["q2"].desired == ()
    by_caption = RuleComposer(encoder, bank, count=2).compose(asked)
    scores = encoder.queries([asked[0].reference]).atoms[0, 0] @ encoder.texts(bank).T
    assert by_caption["q0"].reference[0] == bank[int(torch.argmax(scores))]


def test_words_that_stand_in_each_others_place_are_replaced(make_model):
    encoder = SetEncoder(make_model("zero-shot"), Views("whole"))
    bank = ["man golfing", "woman golfing", "red heart", "blue heart"]
    found = RuleComposer(encoder, bank).merged(["woman running", "blue car"], "man")
    assert found.captions == ("man running", "man blue car")
    assert found.preserved[0] == "running"


def test_an_empty_bank_is_refused(make_model, refusal):
    encoder = SetEncoder(make_model("zero-shot"), Views("whole"))
    assert "bank" in refusal(RuleComposer, encoder, [])
    assert "count" in refusal(RuleComposer, encoder, ["a"], count=0)


def test_captions_survive_the_file(tmp_path, asked):
    written = {
        "q0": Composition(("a", "b"), "with a hat", ("c",), ("hat",), ("d",), ("e",)),
        "p1": Composition(("one",), "blue"),
        "q2": Composition(("two",), "without wheels"),
    }
    path = write_compositions(tmp_path / "captions.json", written)
    assert json.loads(path.read_text())["p1"] == {"captions": ["one"], "modification": "blue"}
    assert read_compositions(path) == written
    found = CachedCaptions(path).compose(asked)
    assert found["q1"] == written["p1"]  # one entry may serve a pair in every style


def test_annotation_files_of_ldre_and_seize(tmp_path):
    rows = [
        {
            "id": 7,
            "relative_caption": "is red",
            "multi_caption_opt": ["a car", "the car"],
            "multi_gpt-3.5_opt": ["a red car", "the red car"],
        },
        {"pairid": 9, "caption": "two of them", "multi_gpt_opt": ["two cats"]},
    ]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(rows))
    found = read_compositions(path)
    assert found["7"] == Composition(("a red car", "the red car"), "is red", ("a car", "the car"))
    assert found["9"] == Composition(("two cats",), "two of them")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("3", "holds no"),
        ('{"q0": []}', "no object"),
        ('{"q0": {"modification": "x"}}', "'captions' is empty"),
        ('{"q0": {"captions": "one", "modification": "x"}}', "list of texts"),
        ('{"q0": {"captions": ["one", " "], "modification": "x"}}', "list of texts"),
        ('{"q0": {"captions": ["one"]}}', "'modification' must be a text"),
        ('[{"id": 1, "relative_caption": "x"}]', "'captions' is empty"),
        ('{"other": {"captions": ["one"], "modification": "x"}}', "no captions for query 'q0'"),
    ],
)
def test_bad_caption_files_are_named(tmp_path, asked, refusal, text, said):
    path = tmp_path / "bad.json"
    path.write_text(text)
    message = refusal(CachedCaptions(path).compose, asked)
    assert said in message and "bad.json" in message


def test_a_missing_caption_file(tmp_path, asked, refusal):
    assert "cannot read" in refusal(CachedCaptions(tmp_path / "none.json").compose, asked)
