"""From models and pictures to embeddings and rows."""

import numpy as np
import pytest
import torch
from PIL import Image

from freestyle import FreestyleRet, baselines
from freestyle.config import PromptConfig, StyleConfig
from freestyle.datasets.readers import open_split
from freestyle.errors import UserError
from freestyle.evaluation.centred import fit_style_centred
from freestyle.evaluation.embed import Embedder, Variant
from freestyle.evaluation.models import cases, evaluate_models, single_styles

STYLE = StyleConfig(
    network="vgg16", weights="random", taps=("relu1_2",), resolution=32, n_components=6, n_bases=2
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    names = []
    for i in range(10):
        photo = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize((40, 40))
        grey = photo.convert("L").point(lambda v: 255 if v > 127 else 0).convert("RGB")
        for style, picture in (("images", photo), ("sketch", grey), ("art", photo.rotate(5))):
            (root / style).mkdir(exist_ok=True)
            picture.save(root / style / f"{i}.png")
        (root / "text").mkdir(exist_ok=True)
        (root / "text" / f"{i}.txt").write_text(f"thing {i}")
        names.append(f'{{"image": "{i}.png", "caption": "{i}.txt"}}')
    (root / "test.json").write_text(f"[{', '.join(names)}]")
    return root


@pytest.fixture(scope="module")
def split(root):
    return open_split(root, "test", ["sketch", "art", "text"])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = baselines.settings(
        "freestyle", "random:clip-tiny", style=STYLE, prompts=PromptConfig(hidden=4)
    )
    model = FreestyleRet(config)
    for maker in model.prompts.makers:
        torch.nn.init.normal_(maker.function[-1].weight, std=0.5)
    return model


@pytest.fixture(scope="module")
def fitted(model, split, tmp_path_factory):
    from freestyle.style.build import fit_space

    embedder = Embedder({"own": Variant(model)}, cache_dir=tmp_path_factory.mktemp("codes"))
    codes = embedder.style_codes(
        [*split.queries["sketch"].sources, *split.queries["art"].sources], model.reader.tag, ""
    )
    model.space.load_state_dict(fit_space(STYLE, codes, model.reader.tag).state_dict())
    return model


def test_embeddings_equal_the_models_own_verbs(fitted, split, tmp_path):
    found = Embedder({"own": Variant(fitted)}, cache_dir=tmp_path, batch_size=3).embed(
        split, ["sketch", "text"]
    )
    torch.testing.assert_close(found.gallery, fitted.encode_gallery(split.gallery))
    direct = fitted.encode_query(split.queries["sketch"].sources)
    # Cached style codes are half precision.
    torch.testing.assert_close(found.queries["own"]["sketch"], direct, atol=2e-3, rtol=0)
    texts = fitted.encode_text(list(split.queries["text"].sources))
    torch.testing.assert_close(found.queries["own"]["text"], texts)


def test_style_controls_change_the_embeddings_and_mean_is_the_mean_code(fitted, split, tmp_path):
    variants = {how: Variant(fitted, style=how) for how in ("own", "mean", "shuffled", "zero")}
    found = Embedder(variants, cache_dir=tmp_path).embed(split, ["sketch", "art"]).queries
    for how in ("mean", "shuffled", "zero"):
        assert (found[how]["sketch"] - found["own"]["sketch"]).abs().max() > 1e-3
    tokens, _ = fitted.prepare(
        torch.stack(
            [fitted.encoder.preprocess(Image.open(p)) for p in split.queries["art"].sources]
        )
    )
    mean = fitted.space.mean.expand(10, -1)
    torch.testing.assert_close(
        found["mean"]["art"], fitted.query_from(tokens, mean), atol=2e-3, rtol=0
    )


def test_rows_name_method_style_seed_and_fusion(fitted, split, tmp_path):
    frozen = FreestyleRet.from_encoder("random:clip-tiny", encoder=fitted.encoder)
    result = evaluate_models(
        {"zero-shot": Variant(frozen), "freestyle": Variant(fitted)},
        split,
        ["art", "sketch+text"],
        fusions=["zscore", "max-softmax"],
        command="by hand",
        cache_dir=tmp_path,
    )
    keys = [(row.method, row.style, row.fusion) for row in result.report.rows]
    assert keys == [
        ("zero-shot", "art", None),
        ("zero-shot", "sketch+text", "zscore"),
        ("zero-shot", "sketch+text", "max-softmax"),
        ("freestyle", "art", None),
        ("freestyle", "sketch+text", "zscore"),
        ("freestyle", "sketch+text", "max-softmax"),
    ]
    assert result.report.weights == fitted.encoder.weights_tag
    direct = frozen.encode_query(split.queries["art"].sources) @ result.embeddings.gallery.T
    first = float((direct.argmax(dim=1) == torch.arange(10)).float().mean())
    assert result.report.rows[0].r1 == pytest.approx(first)


def test_style_centring_takes_each_styles_mean_away(split, fitted, tmp_path):
    config = baselines.settings("style-centred", "random:clip-tiny", style=STYLE)
    model = FreestyleRet(config, encoder=fitted.encoder)
    fit_style_centred(model, split, ["sketch", "art"], cache_dir=tmp_path)
    assert model.space.is_fitted
    frozen = FreestyleRet.from_encoder("random:clip-tiny", encoder=fitted.encoder)
    embeddings = torch.cat(
        [frozen.encode_query(split.queries[s].sources) for s in ("sketch", "art")]
    )
    with torch.no_grad():
        pictures = [*split.queries["sketch"].sources, *split.queries["art"].sources]
        pixels = torch.stack([model.encoder.preprocess(Image.open(p)) for p in pictures])
        weights = model.space.weights(model.reader(pixels).half().float())
    by_hand = (weights[:, :, None] * embeddings[:, None]).sum(0) / weights.sum(0)[:, None]
    torch.testing.assert_close(model.style_means, by_hand, atol=1e-3, rtol=0)


def test_unreadable_records_are_left_out_whole(root, fitted, tmp_path):
    import shutil

    broken = tmp_path / "set"
    shutil.copytree(root, broken)
    (broken / "sketch" / "4.png").write_text("not a picture")
    own = open_split(broken, "test", ["sketch", "text"])
    with pytest.raises(UserError, match=r"4\.png"):
        Embedder({"own": Variant(fitted)}, cache_dir=tmp_path).embed(own, ["sketch"])
    embedder = Embedder({"own": Variant(fitted)}, cache_dir=tmp_path, on_broken="skip")
    found = embedder.embed(own, ["sketch", "text"])
    assert [p.name for p in found.skipped] == ["4.png"]
    assert found.split.n_gallery == len(found.gallery) == 9
    assert "4" not in found.split.gallery_ids
    assert len(found.queries["own"]["text"]) == 9


def test_joint_styles_need_different_parts(fitted, split):
    with pytest.raises(UserError, match="join different styles"):
        evaluate_models({"own": Variant(fitted)}, split, ["sketch+sketch"])
    assert single_styles(["a", "a+b", "c"]) == ["a", "b", "c"]


def test_models_on_different_encoders_cannot_share_a_table(fitted):
    other = FreestyleRet.from_encoder("random:siglip-tiny")
    with pytest.raises(UserError, match="different encoders"):
        Embedder({"one": Variant(fitted), "two": Variant(other)})


def test_cases_are_wins_and_a_loss(fitted, split, tmp_path):
    frozen = FreestyleRet.from_encoder("random:clip-tiny", encoder=fitted.encoder)
    variants = {"zero-shot": Variant(frozen), "freestyle": Variant(fitted)}
    result = evaluate_models(variants, split, ["sketch", "art"], cache_dir=tmp_path)
    drawn = cases(result, ["zero-shot", "freestyle"], ["sketch", "art"])
    wins = [c for c in drawn if c.ranks["freestyle"] == 1 and c.ranks["zero-shot"] > 1]
    losses = [c for c in drawn if c.ranks["freestyle"] > 1 and c.ranks["zero-shot"] == 1]
    assert len(wins) + len(losses) == len(drawn)
    assert len(losses) <= 1


def test_commands_that_share_memory_read_each_picture_once(fitted, split, tmp_path, monkeypatch):
    import freestyle.evaluation.embed as module
    from freestyle.frozen import shared_memory

    variants = {"own": Variant(fitted), "mean": Variant(fitted, style="mean")}
    expected = Embedder(variants, cache_dir=tmp_path).embed(split, ["sketch", "art"])
    passes = []
    once = module.frozen_pass
    monkeypatch.setattr(
        module, "frozen_pass", lambda *a, **k: (passes.append(k["description"]), once(*a, **k))[1]
    )
    with shared_memory():
        for _ in range(3):
            found = Embedder(variants, cache_dir=tmp_path).embed(split, ["sketch", "art"])
    assert sorted(passes) == ["Embedding gallery", "Reading art", "Reading sketch"]
    assert torch.equal(found.gallery, expected.gallery)
    for name in variants:
        for style in ("sketch", "art"):
            assert torch.allclose(
                found.queries[name][style], expected.queries[name][style], atol=1e-6
            )
