"""Tokenizers without torch and transformers, against those with."""

from __future__ import annotations

import numpy as np
import pytest

from freestyle.encoders import create
from freestyle.encoders.token_ids import open_tokens
from freestyle.encoders.tokenizers import HubTokenizer
from freestyle.search.export_tokens import SAMPLES, save_tokens

PIECES = ["the red boat sails at night", "three small birds on a wire", "a cafe in the old town"]


def agree(encoder, folder, n_prompts=0):
    settings = save_tokens(encoder, folder, n_prompts)
    tokens = open_tokens(settings, folder)
    for batch in ([text] for text in SAMPLES):
        expected, found = encoder.tokenize(batch, n_prompts), tokens(batch)
        for one, other in zip(expected, found, strict=True):
            assert np.array_equal(one.numpy(), other) and other.dtype == np.int64
    expected, found = encoder.tokenize(list(SAMPLES), n_prompts), tokens(SAMPLES)
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(expected, found, strict=True))
    assert 60 <= found[0].shape[1] <= settings["length"]
    return settings


@pytest.mark.parametrize("n_prompts", [0, 3])
def test_stand_ins(tiny, tmp_path, n_prompts):
    assert agree(tiny, tmp_path, n_prompts)["kind"] == "word-hash"
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("family", ["clip", "siglip", "blip"])
def test_tokenizers_of_checkpoints(family, save_checkpoint, tmp_path):
    encoder = create(str(save_checkpoint(family)))
    assert agree(encoder, tmp_path, 2)["kind"] == "tokenizers"
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]


def test_the_minis(tmp_path):
    settings = agree(create("freestyle-mini"), tmp_path)
    assert (settings["kind"], settings["length"]) == ("tokenizers", 64)


def test_sentence_pieces_of_siglip(tmp_path):
    import sentencepiece
    from transformers import SiglipTokenizer

    (tmp_path / "text.txt").write_text("\n".join(PIECES * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=200,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    encoder = create("random:siglip-tiny")
    own = SiglipTokenizer(str(tmp_path / "spiece.model"))
    encoder.tokenizer = HubTokenizer(own, pad_to_max=True)
    (tmp_path / "out").mkdir()
    assert agree(encoder, tmp_path / "out")["kind"] == "sentencepiece"


def test_tokenizers_that_cannot_be_saved_or_read(tmp_path, refusal):
    encoder = create("random:clip-tiny")
    encoder.tokenizer = lambda texts, length: (np.zeros((1, 3)), np.zeros((1, 3)))
    encoder.tokenize = lambda texts, n_prompts=0: encoder.tokenizer(texts, 3)
    assert "cannot be exported" in refusal(save_tokens, encoder, tmp_path)
    assert "kind 'other'" in refusal(open_tokens, {"kind": "other"}, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    settings = {"kind": "tokenizers", "file": "tokenizer.json"}
    assert "damaged tokenizer" in refusal(open_tokens, settings, tmp_path)
    assert "damaged tokenizer" in refusal(open_tokens, {"kind": "tokenizers"}, tmp_path)
