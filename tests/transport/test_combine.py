"""Any number of pictures and texts, each with its role."""

import pytest
import torch

from freestyle.transport.combine import ROLES, Combiner, Term
from freestyle.transport.sets import SetEncoder
from freestyle.transport.views import Views


@pytest.fixture
def combiner(make_model, pictures):
    encoder = SetEncoder(make_model("zero-shot"), Views("grid", 5))
    return Combiner(encoder, encoder.photos(pictures))


def test_a_picture_finds_itself(combiner, pictures):
    for place in (0, 3, 7):
        found = combiner.rank([Term("target", image=pictures[place])], k=3)
        assert found.positions[0] == place and len(found.positions) == 3
        assert (found.scores.diff() <= 0).all()


def test_terms_add_up_whatever_their_order(combiner, pictures):
    terms = [
        Term("target", image=pictures[1]),
        Term("target", text="two dogs", weight=0.5),
        Term("forbidden", image=pictures[2]),
        Term("reference", image=pictures[3]),
        Term("change", text="in red"),
    ]
    scores = combiner.scores(terms)
    assert torch.allclose(scores, combiner.scores(terms[::-1]), atol=1e-5)
    parts = [
        combiner.scores(terms[:1]),
        combiner.scores([Term("target", text="two dogs")]) * 0.5,
        -combiner.scores([Term("target", image=pictures[2])]),
        combiner.scores(terms[3:]),
    ]
    assert torch.allclose(scores, sum(parts), atol=1e-4)


def test_two_halves_find_what_both_describe(combiner, pictures):
    """Joint queries: each picture alone finds itself; forbidding one leaves the other."""
    both = [Term("target", image=pictures[1]), Term("target", image=pictures[4])]
    assert set(combiner.rank(both, k=2).positions.tolist()) == {1, 4}
    without = [*both, Term("forbidden", image=pictures[4], weight=2.0)]
    assert combiner.rank(without, k=1).positions.tolist() == [1]


def test_a_change_moves_the_ranking_of_a_reference(combiner, pictures):
    alone = combiner.scores([Term("reference", image=pictures[2])])
    changed = combiner.scores(
        [Term("reference", image=pictures[2]), Term("change", text="a house on a hill")]
    )
    assert not torch.allclose(alone, changed)
    texts = [Term("reference", text="a cat"), Term("change", text="in red")]
    assert combiner.scores(texts).isfinite().all()


def test_the_composer_writes_the_captions(make_model, pictures):
    from freestyle.transport.captions import Composition

    asked = []

    class Composer:
        name = "fixed"

        def compose(self, queries):
            asked.extend(queries)
            return {q.id: Composition(("two dogs", "one tree"), q.text) for q in queries}

    encoder = SetEncoder(make_model("zero-shot"), Views("whole"))
    gallery = encoder.photos(pictures)
    terms = [
        Term("reference", image=pictures[0]),
        Term("change", text="bigger"),
        Term("change", text="red"),
    ]
    found = Combiner(encoder, gallery, Composer()).scores(terms)
    assert asked[0].text == "bigger and red"
    assert not torch.allclose(found, Combiner(encoder, gallery).scores(terms))


def test_refusals(combiner, refusal, pictures):
    assert "role" in refusal(Term, "wish", text="a")
    assert "text or an image" in refusal(Term, "target")
    assert "text or an image" in refusal(Term, "target", text="a", image=pictures[0])
    assert "a change is a text" in refusal(Term, "change", image=pictures[0])
    assert "empty" in refusal(Term, "target", text=" ")
    assert "weight" in refusal(Term, "target", text="a", weight=0)
    assert "reference" in refusal(combiner.scores, [Term("change", text="red")])
    assert "nothing" in refusal(combiner.scores, [Term("forbidden", text="red")])
    assert "nothing" in refusal(combiner.scores, [])
    assert len(ROLES) == 4
