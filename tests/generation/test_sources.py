"""Photos from folders, lists, tar shards and data sets; splits and near duplicates."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from freestyle.datasets.photos import read_photos
from freestyle.generation.pictures import perceptual_hash
from freestyle.generation.runner import Shard, parse_shard
from freestyle.generation.splits import assign, near_duplicates, parse_shares, split_of


def test_folder_gives_photos_captions_and_sorted_ids(photos):
    (photos / ".hidden").mkdir()
    (photos / ".hidden" / "x.jpg").write_bytes((photos / "photo0.jpg").read_bytes())
    found = read_photos(photos)
    assert [p.id for p in found] == [*(f"photo{n}" for n in range(8)), "trip/photo8", "trip/photo9"]
    assert found[3].caption == "a picture of number 3" and found[3].split is None
    assert found[3].picture().size == (96, 80)


def test_lists_of_paths_and_of_json(photos, refusal):
    (photos / "list.txt").write_text("photo1.jpg\n\ntrip/photo8.jpg\n")
    assert [p.id for p in read_photos(photos / "list.txt")] == ["photo1", "trip/photo8"]
    lines = [{"image": "photo2.jpg", "caption": "mine", "split": "val"}, {"image": "photo1.jpg"}]
    (photos / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    one, two = read_photos(photos / "list.jsonl")
    assert (one.caption, two.caption, two.split) == ("a picture of number 1", "mine", "val")
    (photos / "bad.jsonl").write_text('{"image": "photo1.jpg"}\n{"picture": 3}\n')
    assert "line 2" in refusal(read_photos, photos / "bad.jsonl")
    (photos / "torn.jsonl").write_text('{"image": ')
    assert "line 1" in refusal(read_photos, photos / "torn.jsonl")
    (photos / "empty").mkdir()
    assert "no photo" in refusal(read_photos, photos / "empty")
    assert "do not exist" in refusal(read_photos, photos / "nowhere")
    assert "layout" in refusal(read_photos, photos, "heap")


@pytest.fixture
def shards(photos, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"{shard:03d}.tar", "w") as tar:
            for n in range(5 * shard, 5 * shard + 5):
                (path,) = photos.rglob(f"photo{n}.jpg")
                tar.add(path, f"{n}.jpg")
                key = "json" if n % 2 else "txt"
                text = json.dumps({"caption": f"no {n}"}) if n % 2 else f"no {n}\nmore"
                info = tarfile.TarInfo(f"{n}.{key}")
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
    return folder


def test_shards_give_the_same_pictures(shards, photos, tmp_path, generate, files_of, refusal):
    found = read_photos(shards)
    assert [p.id for p in found][:2] == ["000/0", "000/1"] and len(found) == 10
    assert [p.caption for p in found] == [f"no {n}" for n in range(10)]
    assert found[2].data() == (photos / "photo2.jpg").read_bytes()
    out = files_of(generate(shards, tmp_path / "out"))
    assert out["images/001/7.jpg"] == (photos / "photo7.jpg").read_bytes()
    straight = files_of(generate(photos, tmp_path / "straight", "--styles", "mosaic"))
    assert out["mosaic/001/7.png"] == straight["mosaic/photo7.png"]
    (shards / "002.tar").write_bytes(b"no tar")
    assert "002.tar" in refusal(read_photos, shards)


def test_data_set_keeps_its_splits_and_gains_styles(data, tmp_path, generate):
    from freestyle.datasets import open_split

    found = read_photos(data)
    assert [p.split for p in found] == ["train"] * 6 + ["val"] * 4 + ["test"] * 5
    out = generate(data, tmp_path / "out", "--styles", "sketch,mosaic")
    for split, size in (("train", 6), ("val", 4), ("test", 5)):
        old, new = open_split(data, split), open_split(out, split)
        assert list(old.gallery_ids) == list(new.gallery_ids) and len(new.gallery) == size
        assert list(old.queries["text"].sources) == list(new.queries["text"].sources)
        assert set(new.styles) == {"sketch", "mosaic", "text"}


def test_photos_are_linked_copied_or_pointed_to(photos, tmp_path, generate):
    for how in ("link", "copy", "symlink"):
        out = generate(photos, tmp_path / how, "--styles", "mosaic", "--photos", how)
        path = out / "images" / "photo1.jpg"
        assert path.read_bytes() == (photos / "photo1.jpg").read_bytes()
        assert path.is_symlink() == (how == "symlink")
        same = path.stat().st_ino == (photos / "photo1.jpg").stat().st_ino
        assert same == (how != "copy")


def test_splits_are_by_hash_and_stable(refusal):
    names = [f"photo {n}" for n in range(3000)]
    splits = [split_of(name, (80, 5, 15)) for name in names]
    shares = [splits.count(s) / 3000 for s in ("train", "val", "test")]
    assert np.abs(np.array(shares) - (0.8, 0.05, 0.15)).max() < 0.02
    alone = np.arange(3000)
    assert assign(names, alone, (80, 5, 15), {}) == splits
    assert assign(names[::2], alone[::2], (80, 5, 15), {}) == splits[::2]
    assert parse_shares("70,10,20") == (70, 10, 20)
    for wrong in ("70,30", "70,20,20", "a,b,c"):
        refusal(parse_shares, wrong)


def test_near_duplicates_share_a_side_and_follow_those_that_were_there():
    random = np.random.default_rng(0)
    packed = random.integers(0, 2**63, 400, dtype=np.uint64)
    packed[100] = packed[7] ^ np.uint64(0b1011)  # three bits from photo 7
    packed[200] = packed[100] ^ np.uint64(1 << 60 | 1 << 50)  # five from 7, two from 100
    hashes = [f"{value:016x}" for value in packed.tolist()]
    groups = near_duplicates(hashes, 4)
    assert groups[100] == groups[200] == 7
    assert (np.delete(groups, [100, 200]) == np.delete(np.arange(400), [100, 200])).all()
    assert (near_duplicates(hashes, -1) == np.arange(400)).all()
    slow = [
        [bin(int(a) ^ int(b)).count("1") <= 4 for b in packed.tolist()] for a in packed.tolist()
    ]
    assert np.argwhere(np.triu(slow, 1)).tolist() == [[7, 100], [100, 200]]
    names = [f"{n:03d}" for n in range(400)]
    splits = assign(names, groups, (50, 20, 30), {})
    assert splits[7] == splits[100] == splits[200]
    for before in ({"100": "val"}, {"007": "val"}):
        kept = assign(names, groups, (50, 20, 30), before)
        assert [kept[n] for n in (7, 100, 200)] == ["val"] * 3


def test_perceptual_hash_survives_size_and_compression(make_photo):
    def differing(a: str, b: str) -> int:
        return bin(int(a, 16) ^ int(b, 16)).count("1")

    photo = make_photo(1, 240, 200)
    buffer = io.BytesIO()
    photo.resize((120, 100)).save(buffer, "JPEG", quality=60)
    near = perceptual_hash(Image.open(buffer))
    others = [perceptual_hash(make_photo(seed, 240, 200)) for seed in range(2, 12)]
    assert differing(perceptual_hash(photo), near) <= 4
    assert min(differing(perceptual_hash(photo), other) for other in others) > 8


def test_generated_near_duplicates_are_on_one_side(photos, tmp_path, generate):
    for n in range(8):
        Image.open(photos / f"photo{n}.jpg").save(photos / f"copy{n}.jpg", quality=80)
        (photos / f"copy{n}.txt").write_text("again\n")
    out = generate(photos, tmp_path / "out", "--styles", "mosaic", "--splits", "40,20,40")
    side = {}
    for split in ("train", "val", "test"):
        for entry in json.loads((out / f"{split}.json").read_text()):
            side[entry["image"]] = split
    assert len(set(side.values())) > 1
    assert all(side[f"photo{n}.jpg"] == side[f"copy{n}.jpg"] for n in range(8))
    assert "16 photos have a near duplicate" in (out / "CARD.md").read_text()


def test_shards_divide_the_work_by_name(monkeypatch, refusal):
    names = [f"photo {n}" for n in range(1000)]
    held = [[Shard(i, 4).holds(name) for name in names] for i in range(4)]
    assert (np.array(held).sum(axis=0) == 1).all()
    assert all(200 < sum(one) < 300 for one in held)
    assert parse_shard("2/8") == Shard(2, 8) and parse_shard(None) == Shard()
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_NTASKS", "5")
    assert parse_shard(None) == Shard(3, 5)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert parse_shard(None) == Shard(1, 2) and parse_shard("0/3") == Shard(0, 3)
    for wrong in ("2", "3/3", "a/b", "-1/2"):
        refusal(parse_shard, wrong)
