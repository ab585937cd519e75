import numpy as np
import pytest

from freestyle.errors import UserError
from freestyle.evaluation.evaluate import evaluate_queries
from freestyle.evaluation.protocols import Protocol, parse_protocol


def test_names():
    assert parse_protocol("gallery") == Protocol()
    assert parse_protocol("batch:24") == Protocol(24)
    assert parse_protocol("batch:2").name == "batch:2"
    assert Protocol().name == "gallery"
    assert Protocol().gallery_size(482) == 482
    assert Protocol(24).gallery_size(482) == 24
    for text in ("batch", "batch:", "batch:-3", "batch:2.5", "batch:²", "Gallery", ""):
        with pytest.raises(UserError, match=r"use gallery, or batch:24"):
            parse_protocol(text)
    for text in ("batch:0", "batch:1"):
        with pytest.raises(UserError, match="at least 2 photos"):
            parse_protocol(text)
    with pytest.raises(UserError, match="only 10 photos, use gallery or a smaller batch"):
        Protocol(24).gallery_size(10)


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        (np.arange(100), np.arange(100)),  # one query a photo, 100 = 4 * 24 + 4
        (np.arange(96), np.arange(96)),  # no incomplete batch
        (np.arange(30), np.arange(500)),  # photos that no query asks for
        (np.arange(50) // 2, np.arange(25)),  # two queries a photo
        (np.arange(70) % 7, np.arange(90) % 7),  # classes
        (np.array([3]), np.arange(24)),  # a single query
    ],
)
def test_every_query_once_among_exactly_24_distinct_photos(asked, offered):
    batches = list(Protocol(24).batches(asked, offered, seed=5))
    assert sorted(np.concatenate([q for q, _ in batches])) == list(range(len(asked)))
    for queries, photos in batches:
        assert photos.shape == (24,)
        assert len(set(photos)) == 24
        assert photos.min() >= 0 and photos.max() < len(offered)
        assert set(asked[queries]) <= set(offered[photos])
    assert len(batches) == -(-len(asked) // 24)


def test_seeded_and_the_same_for_all_methods():
    groups = np.arange(100), np.arange(100)
    one, two, other = (
        [q.tolist() + p.tolist() for q, p in Protocol(24).batches(*groups, seed=seed)]
        for seed in (1, 1, 2)
    )
    assert one == two
    assert one != other


def test_the_fill_is_uniform():
    """One query, 3 candidates: each other photo fills in about as often."""
    counts = np.zeros(6)
    for seed in range(600):
        (_, photos), *_ = Protocol(3).batches(np.array([2]), np.arange(6), seed=seed)
        counts[photos] += 1
    assert counts[2] == 600
    assert (np.abs(np.delete(counts, 2) - 240) < 60).all()


def test_ranks_inside_batches_equal_the_slow_reference(reference, unit):
    gallery = unit(100, 8)
    queries = unit(100, 8, seed=1) + 0.8 * gallery
    groups = np.arange(100)
    outcome = evaluate_queries(queries, gallery, groups, groups, protocol=Protocol(24), seed=3)
    assert outcome.ranks.candidates == 24
    scores = reference.score_matrix(queries, gallery)
    for rows, photos in Protocol(24).batches(groups, groups, seed=3):
        part = scores[np.ix_(rows, photos)]
        expected = reference.rank_of_first(part, groups[rows], groups[photos])
        np.testing.assert_array_equal(outcome.ranks.values[rows], expected)
    whole = evaluate_queries(queries, gallery, groups, groups)
    assert whole.ranks.candidates == 100
    assert (whole.ranks.values >= outcome.ranks.values).all()


@pytest.mark.parametrize("protocol", [Protocol(), Protocol(10)])
def test_average_precision_under_a_protocol(reference, unit, protocol):
    queries, gallery = unit(33, 6), unit(40, 6, seed=1)
    asked, offered = np.arange(33) % 5, np.arange(40) % 5
    outcome = evaluate_queries(
        queries, gallery, asked, offered, protocol=protocol, map_at=(3, 10), seed=2
    )
    scores = reference.score_matrix(queries, gallery)
    for rows, photos in protocol.batches(asked, offered, seed=2):
        for q in rows:
            order = photos[np.argsort(-scores[q, photos], kind="stable")]
            good = offered[order] == asked[q]
            for k in (3, 10):
                expected = reference.average_precision(good, good.sum(), k)
                assert outcome.average_precision[k][q] == pytest.approx(expected)


def test_a_query_without_photo(unit):
    x = unit(30, 4)
    with pytest.raises(UserError, match="query number 29"):
        evaluate_queries(
            x, x, np.r_[np.arange(29), 77], np.arange(30), protocol=parse_protocol("batch:24")
        )
