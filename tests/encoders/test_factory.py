"""Names: what they mean, what is refused, and what the refusal says."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from freestyle.encoders import create
from freestyle.encoders.random_weights import ARCHITECTURES
from freestyle.encoders.tokenizers import WordHashTokenizer
from freestyle.errors import UserError


@pytest.mark.parametrize("name", ["clip-tiny", "siglip-tiny", "blip-tiny"])
def test_random_weights_follow_the_seed(name):
    state = torch.random.get_rng_state()
    first, again, other = (create(f"random:{name}", seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.name == f"random:{name}" and first.weights_tag == f"random:{name}@seed1"
    a, b, c = (torch.cat([p.flatten() for p in e.parameters()]) for e in (first, again, other))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_full_size_architectures_have_their_checkpoints_shapes():
    clip = ARCHITECTURES["clip-vit-l-14"]
    assert clip.vision["hidden_size"] == 1024 and clip.top["projection_dim"] == 768
    blip = ARCHITECTURES["blip-large"]
    assert blip.vision["num_hidden_layers"] == 24 and blip.vision["image_size"] == 384


@pytest.mark.parametrize(
    "name, near",
    [
        ("freestyle-mni", "freestyle-mini"),
        ("clip-vit-b-32", "random:clip-vit-b-32"),
        ("random:clip-vit-l14", "random:clip-vit-l-14"),
        ("clip-vit-base-patch32", "openai/clip-vit-base-patch32"),
        ("siglip-tiny", "random:siglip-tiny"),
    ],
)
def test_near_misses_are_named(name, near):
    with pytest.raises(UserError, match=f"unknown encoder.*did you mean.*{near}"):
        create(name)


@pytest.mark.parametrize("name", ["", "nothing", "random:", "random:resnet", "x" * 5000])
def test_unknown_names_list_what_can_be_written(name):
    with pytest.raises(UserError, match=r"freestyle-mini.*hub id.*folder.*random:clip-vit-l-14"):
        create(name)


@pytest.mark.parametrize("name", ["./nothing", "/no/such/folder", "a/b/c", "~/no-such-folder"])
def test_missing_folders(name):
    with pytest.raises(UserError, match="no such folder"):
        create(name)


def test_ambiguity_is_refused(tmp_path, monkeypatch):
    (tmp_path / "openai" / "clip-vit-base-patch32").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"\./openai/clip.*or hf-hub:openai/clip"):
        create("openai/clip-vit-base-patch32")
    with pytest.raises(UserError, match="owner/model"):
        create("hf-hub:clip")


def test_revision_is_for_the_hub(tmp_path):
    for name in ("random:clip-tiny", "freestyle-mini", str(tmp_path)):
        with pytest.raises(UserError, match="hub ids only"):
            create(name, revision="main")


@pytest.mark.parametrize("name", ["openai/clip-vit-base-patch32", "hf-hub:some-owner/some-model"])
def test_offline_names_the_remedy(name, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"local folder.*freestyle-mini"):
        create(name)


def test_cached_hub_checkpoint_is_tagged_with_its_commit(save_checkpoint, tmp_path, monkeypatch):
    import shutil

    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--some-owner--some-model"
    shutil.copytree(save_checkpoint("clip"), repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    encoder = create("some-owner/some-model")
    assert encoder.name == "some-owner/some-model"
    assert encoder.weights_tag == f"some-owner/some-model@{commit}"
    assert create("hf-hub:some-owner/some-model", revision=commit).weights_tag.endswith(commit)


def test_importing_the_package_is_light():
    code = (
        "import sys, freestyle, freestyle.encoders; "
        "sys.exit(bool({'torch', 'transformers', 'timm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_wrong_name_is_refused_before_anything_heavy_is_imported():
    code = (
        "import sys\nfrom freestyle.encoders import create\n"
        "try: create('nonsense')\n"
        "except ValueError: sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_word_hash_tokenizer():
    tokenizer = WordHashTokenizer(1000, start=998, end=999, pad=0)
    ids, mask = tokenizer(["A cat, a cat", "", "w " * 50], 12)
    assert ids.shape == mask.shape == (3, 12)
    assert ids[0, 0] == 998 and ids[0, 1] == ids[0, 4] and ids[0, 2] == ids[0, 5]
    assert ids[0, 6] == 999 and ids[0, 7:].eq(0).all()
    assert ids[1, :2].tolist() == [998, 999] and mask[1].sum() == 2
    assert ids[2, -1] == 999 and mask[2].all()
    words = ids[0, 1:6]
    assert not set(words.tolist()) & {0, 998, 999}
    assert words.tolist() == [i.item() for i in tokenizer(["a CAT , a cat"], 77)[0][0, 1:6]]
    padded, _ = WordHashTokenizer(1000, start=None, end=1, pad=1, pad_to_max=True)(["a"], 64)
    assert padded.shape == (1, 64)
