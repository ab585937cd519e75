"""Scores in NumPy: equal to the torch transport, worked out by hand, and refused settings."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freestyle.search.scoring import (
    Asked,
    Photos,
    SetScoring,
    conditional_transport,
    score_parts,
)
from freestyle.transport.distance import conditional_transport as by_torch

FEW = settings(max_examples=60, deadline=None)


def unit(random, *shape):
    rows = random.standard_normal(shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@FEW
@given(
    seed=st.integers(0, 9999),
    k=st.integers(1, 5),
    m=st.integers(1, 6),
    temperature=st.sampled_from([0.005, 0.02, 0.1, 1.0]),
    mix=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    weighted=st.booleans(),
)
def test_equals_the_torch_transport(seed, k, m, temperature, mix, weighted):
    random = np.random.default_rng(seed)
    cosines = np.einsum("nke,nme->nkm", unit(random, 3, k, 8), unit(random, 3, m, 8))
    p = q = None
    if weighted:  # with padding, of which any value may stand in the cosines
        p, q = random.random((3, k)) + 0.05, random.random((3, m)) + 0.05
        if k > 1:
            p[:, -1] = 0
        if m > 1:
            q[:, -1] = 0
            cosines[..., -1] = 5.0
    tensors = [None if w is None else torch.from_numpy(w) for w in (p, q)]
    expected = by_torch(torch.from_numpy(cosines), *tensors, temperature, mix).numpy()
    found = conditional_transport(cosines, p, q, temperature, mix)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_worked_out_by_hand():
    # exp(s / t) with t = 1 / ln 3: powers of three. Forth (3 * 0 + 1 * 1) / 4; back (0 + 1) / 2.
    row = np.array([[1.0, 0.0]])
    assert conditional_transport(row, temperature=1 / np.log(3), mix=1) == pytest.approx(-0.25)
    assert conditional_transport(row, temperature=1 / np.log(3), mix=0) == pytest.approx(-0.5)


@pytest.mark.parametrize("shape", [(3,), (2, 0), (0, 2)])
def test_no_cosines_are_refused(shape):
    with pytest.raises(ValueError, match="cosines"):
        conditional_transport(np.zeros(shape))


@pytest.mark.parametrize("weights", [[0.0, 0.0], [-1.0, 2.0], [1.0, 1.0, 1.0]])
def test_weights_that_cannot_be(weights):
    with pytest.raises(ValueError, match="weights"):
        conditional_transport(np.zeros((2, 2)), np.array(weights))


def test_parts_of_all_sizes_against_photos():
    random = np.random.default_rng(1)
    photos = Photos(random.standard_normal((4, 10)).astype(np.float32), unit(random, 4, 3, 8))
    parts = [Asked(unit(random, 10), unit(random, size, 8)) for size in (1, 3, 2)]
    scoring = SetScoring(share=0.3, temperature=0.1, mix=0.4)
    found = score_parts(parts, photos, scoring)
    assert found.shape == (3, 4)
    for i, part in enumerate(parts):
        for j in range(4):
            cosines = torch.from_numpy(part.elements @ photos.atoms[j].T)
            sets = 1 + float(by_torch(cosines, temperature=0.1, mix=0.4))
            pooled = float(part.row @ photos.vectors[j])
            assert found[i, j] == pytest.approx(0.7 * pooled + 0.3 * sets, abs=1e-5)


def test_without_sets_or_share_the_pooled_score_stands():
    random = np.random.default_rng(2)
    vectors, part = unit(random, 4, 8), Asked(unit(random, 8), unit(random, 1, 8))
    pooled = (vectors @ part.row)[None]
    with_sets = Photos(vectors, unit(random, 4, 3, 8))
    np.testing.assert_allclose(
        score_parts([part], Photos(vectors), SetScoring()), pooled, atol=1e-6
    )
    np.testing.assert_allclose(
        score_parts([part], with_sets, SetScoring(share=0)), pooled, atol=1e-6
    )


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"share": 1.5}, "share"), ({"temperature": 0}, "temperature"), ({"mix": -0.1}, "mix")],
)
def test_settings_out_of_range(refusal, wrong, named):
    assert named in refusal(SetScoring, **wrong)
