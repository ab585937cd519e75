"""The frozen pass: rows in order, on one process or several, and nothing dropped silently."""

from __future__ import annotations

import logging
import threading

import pytest
import torch

from freestyle.encoders.base import Preprocessing
from freestyle.frozen import Pictures, augment, frozen_pass

SIZE = Preprocessing(8, resize="exact")


@pytest.fixture
def paths(tmp_path, make_picture):
    files = []
    for seed in range(7):
        files.append(tmp_path / f"{seed}.png")
        make_picture(seed).save(files[-1])
    return files


def compute(pixels, index):
    return {"mean": pixels.mean(dim=(2, 3)), "row": index.clone()}


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_rows_come_in_order(paths, batch_size):
    pictures = Pictures(paths, SIZE)
    rows = frozen_pass(compute, pictures, batch_size=batch_size)
    assert rows["row"].tolist() == list(range(7))
    expected = torch.stack([pictures.pixels(i)[0].mean(dim=(1, 2)) for i in range(7)])
    assert torch.allclose(rows["mean"], expected)
    assert rows.readable.tolist() == [True] * 7
    assert len({tuple(row) for row in rows["mean"].tolist()}) == 7


def test_decoding_processes_give_the_same(paths):
    alone = frozen_pass(compute, Pictures(paths, SIZE), batch_size=2)
    helped = frozen_pass(compute, Pictures(paths, SIZE), batch_size=2, num_workers=2)
    assert torch.equal(alone["mean"], helped["mean"])


@pytest.mark.parametrize("world_size", [2, 3, 4, 9])
def test_several_processes_give_every_row_to_all(paths, world_size):
    """Ranks as threads; gathering waits for all, so unequal numbers of batches would hang."""
    barrier = threading.Barrier(world_size, timeout=20)
    slots: list = [None] * world_size
    results: list = [None] * world_size
    counts = [0] * world_size

    def work(rank):
        def gather(tensor):
            slots[rank] = tensor
            barrier.wait()
            together = torch.stack(slots)
            barrier.wait()
            return together

        def counted(pixels, index):
            counts[rank] += len(pixels)
            return compute(pixels, index)

        results[rank] = frozen_pass(
            counted,
            Pictures(paths, SIZE),
            batch_size=2,
            rank=rank,
            world_size=world_size,
            gather=gather,
        )

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = frozen_pass(compute, Pictures(paths, SIZE))
    for rows in results:
        assert torch.equal(rows["row"], alone["row"])
        assert torch.equal(rows["mean"], alone["mean"])
    assert counts == [-(-7 // world_size)] * world_size


def test_broken_picture_stops(paths, refusal):
    paths[3].write_bytes(paths[3].read_bytes()[:60])
    assert str(paths[3]) in refusal(frozen_pass, compute, Pictures(paths, SIZE))


def test_broken_picture_is_skipped_and_reported(paths, caplog):
    paths[3].write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        rows = frozen_pass(compute, Pictures(paths, SIZE, "skip"), batch_size=2)
    assert rows.readable.tolist() == [i != 3 for i in range(7)]
    assert [r.getMessage() for r in caplog.records] == [
        f"skipped {paths[3]}: it cannot be read as a picture"
    ]
    assert rows["mean"][3].tolist() == [1, 1, 1]  # the white stand-in
    alone = frozen_pass(compute, Pictures(paths[:3], SIZE))
    assert torch.equal(rows["mean"][:3], alone["mean"])


def test_unknown_way_with_broken_pictures(refusal):
    assert "'stop' or 'skip'" in refusal(Pictures, [], SIZE, "ignore")


def test_no_pictures():
    rows = frozen_pass(compute, Pictures([], SIZE))
    assert rows.values == {} and len(rows.readable) == 0


def view(pixels, seed=0):
    return augment(pixels, torch.Generator().manual_seed(seed))


def smooth(count, side=32):
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)


def test_views_are_seeded_and_in_range():
    pixels = smooth(16)
    kept = pixels.clone()
    one = view(pixels)
    assert one.shape == pixels.shape and one.dtype == pixels.dtype
    assert torch.equal(one, view(pixels)) and torch.equal(pixels, kept)
    assert (one - view(pixels, 1)).abs().mean() > 0.01
    assert (one - pixels).abs().mean(dim=(1, 2, 3)).min() > 0.005
    assert one.min() >= 0 and one.max() <= 1
    sharp = (torch.rand(4, 3, 16, 16) > 0.5).float()
    assert view(sharp).min() >= 0 and view(sharp).max() <= 1


def test_views_move_the_global_generator_not():
    state = torch.random.get_rng_state()
    view(smooth(2))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_views_keep_what_a_picture_is():
    """Mild: constant pictures stay, and over many views mean and spread stay near."""
    constant = torch.full((5, 3, 16, 16), 0.3)
    assert torch.allclose(view(constant), constant, atol=1e-6)
    pixels = smooth(1).expand(400, -1, -1, -1)
    seen = view(pixels)
    centre = (slice(None), slice(None), slice(8, 24), slice(8, 24))
    assert abs(float(seen.mean() - pixels.mean())) < 0.02
    assert abs(float(seen.std() - pixels.std())) < 0.03
    mirrored = pixels.flip(3)
    errors = [
        (seen[centre] - other[centre]).abs().mean(dim=(1, 2, 3)) for other in (pixels, mirrored)
    ]
    share = float((errors[1] < errors[0]).float().mean())
    assert 0.4 < share < 0.6  # half of them are mirrored
    assert torch.minimum(*errors).max() < 0.2


def test_views_repeat_the_border():
    """White paper stays white at the rim: nothing black comes in from outside."""
    paper = torch.ones(200, 3, 16, 16)
    paper[:, :, 6:10, 6:10] = 0
    seen = view(paper)
    rims = [seen[:, :, 0], seen[:, :, -1], seen[..., 0], seen[..., -1]]
    assert min(float(rim.min()) for rim in rims) > 0.999


def test_rows_are_remembered_only_while_a_command_shares_them(tmp_path):
    from freestyle.frozen import frozen_key, is_remembered, remembered, shared_memory

    calls = []

    def compute():
        calls.append(1)
        return len(calls)

    key = frozen_key("gallery", "weights@1", [tmp_path / "a.png"], "stop")
    assert remembered(key, compute) == 1
    assert remembered(key, compute) == 2  # nobody shares: computed each time
    with shared_memory():
        assert not is_remembered(key)
        assert [remembered(key, compute), remembered(key, compute)] == [3, 3]
        assert is_remembered(key)
        other = frozen_key("gallery", "weights@2", [tmp_path / "a.png"], "stop")
        assert remembered(other, compute) == 4  # other weights, other rows
    assert not is_remembered(key)
