import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from freestyle.errors import UserError
from freestyle.training.data import EpochSampler, ResumableLoader, RetrievalData


class Numbers(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return index


def batches(loader):
    return [batch.tolist() for batch in loader]


def test_sampler_is_a_new_permutation_each_epoch_and_the_same_after_a_restart():
    sampler = EpochSampler(10, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    again = EpochSampler(10, seed=3)
    again.set_epoch(1)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert list(again) == second


def test_ranks_share_an_epoch_evenly_and_cover_it():
    parts = [list(EpochSampler(10, 0, rank, 3)) for rank in range(3)]
    assert {len(part) for part in parts} == {4}
    assert {i for part in parts for i in part} == set(range(10))


def test_a_resumed_loader_goes_on_where_the_checkpoint_was_written():
    def loader():
        return ResumableLoader(Numbers(), batch_size=3, sampler=EpochSampler(10, seed=1))

    whole = batches(loader())
    broken = loader()
    seen = []
    for batch in broken:
        seen.append(batch.tolist())
        if len(seen) == 2:
            state = broken.state_dict()
            break
    resumed = loader()
    resumed.load_state_dict(state)
    assert seen + batches(resumed) == whole
    assert len(batches(resumed)) == 4  # only the interrupted epoch is short


def test_items_carry_style_row_and_group(dsr):
    data = RetrievalData(str(dsr), ["sketch", "mosaic"], batch_size=48)
    data.setup()
    data.decode = False
    items = data.items("train")
    assert len(items) == 48
    assert items[0] == {"style": 0, "index": 0, "group": 0}
    assert items[47] == {"style": 1, "index": 23, "group": 23}


def test_kept_queries_only(dsr):
    data = RetrievalData(str(dsr), ["sketch"])
    data.setup()
    data.decode = False
    keep = torch.ones(24, dtype=torch.bool)
    keep[5] = False
    data.keep = {"train": {"sketch": keep}}
    rows = [items["index"] for items in data.items("train")]
    assert rows == [i for i in range(24) if i != 5]


def test_captions_stand_in_the_order_of_the_records(dsr):
    data = RetrievalData(str(dsr))
    assert data.captions[3] == "number 3 of many things"


def test_refusals_name_the_option():
    with pytest.raises(UserError, match=r"data\.styles lists 'text'"):
        RetrievalData(styles=["sketch", "text"])
    with pytest.raises(UserError, match=r"data\.styles is empty"):
        RetrievalData(styles=[])
    with pytest.raises(UserError, match=r"data\.batch_size is 0"):
        RetrievalData(batch_size=0)


def test_validation_covers_every_query_once(dsr):
    data = RetrievalData(str(dsr), ["sketch", "art"], batch_size=5)
    data.setup()
    data.decode = False
    loader = data.val_dataloader()
    assert isinstance(loader, DataLoader)
    rows = np.concatenate([batch["style"] * 100 + batch["index"] for batch in loader])
    assert sorted(rows) == [*range(8), *range(100, 108)]
