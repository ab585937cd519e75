import numpy as np
import pytest

from freestyle.datasets import QuerySet, RetrievalSplit
from freestyle.datasets.tables import NameTable
from freestyle.errors import UserError


def ints(*values):
    return np.array(values, dtype=np.int64)


def instance_split(**changes):
    ids = NameTable.build(["a", "b", "c"])
    fields = {
        "dataset": "d",
        "split": "test",
        "root": None,
        "gallery": ["a.jpg", "b.jpg", "c.jpg"],
        "gallery_ids": ids,
        "gallery_groups": ints(0, 1, 2),
        "queries": {
            "sketch": QuerySet("sketch", ["a.png", "b.png", "c.png"], ints(0, 1, 2), ids),
            "text": QuerySet("text", ["an a", "a b", "a c"], ints(0, 1, 2), ids),
            "art": QuerySet("art", ["c.png"], ints(2), ["c"]),
        },
    }
    return RetrievalSplit(**{**fields, **changes})


def class_split():
    queries = QuerySet("sketch", ["x", "y", "z"], ints(7, 4, 7), ["x", "y", "z"])
    return RetrievalSplit(
        "d", "test", None, ["a", "b", "c"], ["a", "b", "c"], ints(4, 7, 4),
        {"sketch": queries}, "class",
    )  # fmt: skip


@pytest.mark.parametrize(
    "groups", [[0, 1], np.zeros(2, np.int32), np.zeros((2, 1), np.int64), ints(0)]
)
def test_query_set_refuses_wrong_groups(groups):
    with pytest.raises(ValueError):
        QuerySet("sketch", ["a", "b"], groups, ["a", "b"])


def test_query_set_refuses_wrong_lengths():
    with pytest.raises(ValueError, match="differ in length"):
        QuerySet("sketch", ["a", "b"], ints(0, 1), ["a"])


@pytest.mark.parametrize(
    "changes",
    [
        {"relevance": "object"},
        {"gallery": ["a"]},
        {"gallery_groups": ints(0, 2, 1)},
        {"gallery": [], "gallery_ids": [], "gallery_groups": ints(), "queries": {}},
        {"queries": {"art": QuerySet("sketch", ["a"], ints(0), ["a"])}},
        {"queries": {"art": QuerySet("art", ["a"], ints(3), ["a"])}},
    ],
)
def test_split_refuses_what_does_not_fit(changes):
    with pytest.raises(ValueError):
        instance_split(**changes)


def test_plain_facts():
    split = instance_split()
    assert (split.n_gallery, split.styles) == (3, ("sketch", "text", "art"))
    assert split.queries["text"].is_text and not split.queries["art"].is_text
    assert len(split.queries["art"]) == 1


def test_aligned():
    split = instance_split()
    assert [q.style for q in split.aligned(["text", "sketch"])] == ["text", "sketch"]
    with pytest.raises(UserError, match="different photos"):
        split.aligned(["sketch", "art"])
    with pytest.raises(UserError, match=r"'oil' .* choose from sketch, text, art"):
        split.aligned(["sketch", "oil"])
    with pytest.raises(UserError, match="relevance 'instance'"):
        class_split().aligned(["sketch"])


def test_instance_subset_renumbers_and_reorders():
    part = instance_split().subset([2, 0])
    assert list(part.gallery) == ["c.jpg", "a.jpg"]
    assert list(part.gallery_ids) == ["c", "a"]
    assert part.gallery_groups.tolist() == [0, 1]
    assert list(part.queries["sketch"].sources) == ["c.png", "a.png"]
    assert part.queries["sketch"].groups.tolist() == [0, 1]
    assert part.queries["art"].groups.tolist() == [0]
    assert len(part.aligned(["sketch", "text"])) == 2
    with pytest.raises(ValueError, match="distinct"):
        instance_split().subset([1, 1])


def test_class_subset_keeps_groups_and_drops_orphans():
    part = class_split().subset([1])
    assert part.gallery_groups.tolist() == [7]
    assert list(part.queries["sketch"].sources) == ["x", "z"]
    assert part.queries["sketch"].groups.tolist() == [7, 7]
