import math

import pytest
import torch
import torch.nn.functional as F

from freestyle.config import LossConfig
from freestyle.training.losses import (
    StepPhotos,
    gallery_cross_entropy,
    in_batch_info_nce,
    retrieval_loss,
    triplet,
)


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_gallery_cross_entropy_by_hand():
    # Cosines 1 and 0 at temperature 1: -log(e / (e + 1)).
    value = gallery_cross_entropy(
        torch.tensor([[1.0, 0.0]]), torch.tensor([7]), torch.eye(2), torch.tensor([7, 8]), 1.0
    )
    assert value.item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_gallery_cross_entropy_equals_torch_with_one_relevant_photo():
    queries, gallery = unit(5, 8), unit(9, 8, seed=1)
    target = torch.tensor([3, 0, 8, 3, 2])
    ours = gallery_cross_entropy(queries, target, gallery, torch.arange(9), 0.1, 0.2)
    theirs = F.cross_entropy(queries @ gallery.T / 0.1, target, label_smoothing=0.2)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_several_relevant_photos_share_the_target():
    # Both photos of the class are equally near: the best possible loss is log 2.
    gallery = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    value = gallery_cross_entropy(
        torch.tensor([[1.0, 0.0]]), torch.tensor([4]), gallery, torch.tensor([4, 4, 5]), 0.05
    )
    assert value.item() == pytest.approx(math.log(2), abs=1e-4)


def test_info_nce_is_symmetric_and_equals_torch_on_distinct_photos():
    queries, photos = unit(6, 8), unit(6, 8, seed=1)
    groups = torch.arange(6)
    ours = in_batch_info_nce(queries, photos, groups, 0.07, 0.1)
    logits = queries @ photos.T / 0.07
    theirs = (
        F.cross_entropy(logits, groups, label_smoothing=0.1)
        + F.cross_entropy(logits.T, groups, label_smoothing=0.1)
    ) / 2
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    swapped = in_batch_info_nce(photos, queries, groups, 0.07, 0.1)
    assert swapped.item() == pytest.approx(ours.item(), rel=1e-5)


def test_info_nce_does_not_push_away_the_same_photo_in_another_style():
    queries = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    same = in_batch_info_nce(queries, queries, torch.tensor([0, 0, 1]), 0.01)
    apart = in_batch_info_nce(queries, queries, torch.tensor([0, 1, 2]), 0.01)
    # Cross-entropy against a half-and-half target is at best log 2 for two of three queries.
    assert same.item() == pytest.approx(2 / 3 * math.log(2), abs=1e-4)
    assert apart.item() == pytest.approx(2 / 3 * math.log(2), abs=1e-4)
    assert in_batch_info_nce(queries, queries.flip(0), torch.tensor([0, 0, 1]), 0.01) > same


def test_triplet_by_hand():
    query = torch.tensor([[1.0, 0.0]])
    near, far = torch.tensor([[0.6, 0.8]]), torch.tensor([[0.0, 1.0]])
    assert triplet(query, near, far, 1.0).item() == pytest.approx(0.4 - 1.0 + 1.0)
    assert triplet(query, query, -query, 1.0).item() == 0.0


@pytest.mark.parametrize("name", ["gallery", "in-batch", "triplet"])
def test_every_loss_draws_queries_to_their_photos(name):
    gallery = unit(12, 6)
    groups = torch.arange(12)
    queries = torch.nn.Parameter(unit(12, 6, seed=5))
    optimizer = torch.optim.Adam([queries], lr=0.05)
    config = LossConfig(name=name, temperature=0.1, margin=0.5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        optimizer.zero_grad()
        loss = retrieval_loss(
            config, F.normalize(queries, dim=-1), groups, gallery, groups, generator
        )
        loss.backward()
        optimizer.step()
    found = (F.normalize(queries, dim=-1) @ gallery.T).argmax(dim=1)
    assert (found == groups).float().mean() >= 0.9


def test_triplet_needs_another_group():
    gallery = unit(3, 4)
    with pytest.raises(ValueError, match="another group"):
        retrieval_loss(
            LossConfig(name="triplet"),
            unit(1, 4),
            torch.tensor([0]),
            gallery,
            torch.zeros(3, dtype=torch.long),
        )


@pytest.mark.parametrize("name", ["gallery", "in-batch", "triplet"])
def test_photos_that_move_give_the_loss_of_a_gallery_with_them_in_place(name):
    queries, before, now = unit(6, 8), unit(9, 8, seed=1), unit(9, 8, seed=2)
    groups, asked = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 7]), torch.tensor([2, 0, 5, 2, 7, 1])
    config = LossConfig(name=name, temperature=0.1)
    embedded = []

    def embed(rows):
        embedded.append(rows)
        return now[rows]

    photos = StepPhotos(embed)
    found = retrieval_loss(
        config, queries, asked, before, groups, torch.Generator().manual_seed(3), photos
    )
    assert len(embedded) == 1
    rows = embedded[0]
    assert len(rows.unique()) == len(rows)  # a photo that two queries ask for is embedded once
    mixed = before.clone()
    mixed[rows] = now[rows]
    expected = retrieval_loss(
        config, queries, asked, mixed, groups, torch.Generator().manual_seed(3)
    )
    if name == "gallery":  # the frozen form draws nothing, having every photo there
        assert set(asked.tolist()) == set(groups[rows].tolist())
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["gallery", "in-batch", "triplet"])
def test_gradients_reach_both_sides(name):
    queries = unit(6, 8).requires_grad_()
    now = unit(9, 8, seed=2).requires_grad_()
    asked = torch.tensor([2, 0, 5, 2, 7, 1])
    photos = StepPhotos(now.__getitem__)
    retrieval_loss(
        LossConfig(name=name), queries, asked, unit(9, 8, seed=1), torch.arange(9), None, photos
    ).backward()
    assert (queries.grad.abs().sum(dim=1) > 0).all()
    drawn = (now.grad.abs().sum(dim=1) > 0).nonzero().flatten().tolist()
    assert set(asked.tolist()) <= set(drawn)
    if name != "triplet":  # which draws negatives beside
        assert set(asked.tolist()) == set(drawn)
