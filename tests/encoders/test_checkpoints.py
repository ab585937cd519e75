"""Local folders load as Hugging Face saved them; damaged ones are refused in a sentence."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from freestyle.encoders import create
from freestyle.encoders.base import Preprocessing
from freestyle.encoders.checkpoints import Checkpoint, read_preprocessing
from freestyle.encoders.random_weights import build_model
from freestyle.errors import UserError

FAMILIES = ["clip", "siglip", "blip"]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, save_checkpoint):
    return save_checkpoint(request.param)


@pytest.fixture(scope="module")
def clip_folder(save_checkpoint):
    return save_checkpoint("clip")


@pytest.fixture
def copy(clip_folder, tmp_path):
    return shutil.copytree(clip_folder, tmp_path / "copy")


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@torch.no_grad()
def test_a_saved_model_loads_and_computes_the_same(folder, make_image):
    from transformers import AutoImageProcessor, AutoTokenizer

    encoder = create(str(folder))
    image = make_image(80, 50)
    values = AutoImageProcessor.from_pretrained(folder)(image, return_tensors="pt").pixel_values
    texts = ["a red cat", "the house"]
    siglip = encoder.n_prefix == 0
    padding = {"padding": "max_length", "max_length": 64} if siglip else {"padding": True}
    ids = AutoTokenizer.from_pretrained(folder)(texts, return_tensors="pt", **padding)
    model = encoder.model
    if hasattr(model, "get_image_features"):
        image_features = model.get_image_features(values).pooler_output
        mask = {} if siglip else {"attention_mask": ids.attention_mask}
        text_features = model.get_text_features(ids.input_ids, **mask).pooler_output
        expected = torch.cat([image_features, text_features])
    else:
        hidden = model.vision_model(pixel_values=values).last_hidden_state
        text = model.text_encoder(ids.input_ids, attention_mask=ids.attention_mask)
        expected = torch.cat(
            [model.vision_proj(hidden[:, 0]), model.text_proj(text.last_hidden_state[:, 0])]
        )
    expected = torch.nn.functional.normalize(expected, dim=-1)
    assert (encoder.encode_image(encoder.preprocess(image)[None])[0] @ expected[0]) >= 0.9999
    assert (encoder.encode_text(texts) - expected[1:]).abs().max() < 1e-5
    original = build_model(f"{folder.name.split('-')[1][:-1]}-tiny", seed=3).state_dict()
    assert all(torch.equal(v, original[k]) for k, v in model.state_dict().items())


def test_the_tag_follows_the_content(clip_folder, copy):
    tag = create(str(clip_folder)).weights_tag
    assert tag.startswith(f"{clip_folder.name}@sha256:")
    assert create(str(copy)).weights_tag.partition("@")[2] == tag.partition("@")[2]
    build_model("clip-tiny", seed=4).save_pretrained(copy)
    assert create(str(copy)).weights_tag.partition("@")[2] != tag.partition("@")[2]


@pytest.mark.parametrize("keep", [0, 7, 200, -100])
def test_truncated_weights(copy, keep):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model\.safetensors.*damaged"):
        create(str(copy))


def test_missing_weights(copy):
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match="pickled weights are not read"):
        create(str(copy))


def test_missing_tensors(copy):
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 tensors.*visual_projection"):
        create(str(copy))


def test_weights_of_another_shape(copy):
    build_model("siglip-tiny").save_pretrained(copy)
    edit(copy / "config.json", model_type="clip")
    with pytest.raises(UserError, match="copy"):
        create(str(copy))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model_type": 3, "vision_config": "x"}'])
def test_broken_configuration(copy, text):
    (copy / "config.json").write_text(text)
    with pytest.raises(UserError, match="copy"):
        create(str(copy))


def test_wrong_model_types(copy):
    edit(copy / "config.json", model_type="bert")
    with pytest.raises(UserError, match="'bert' is not supported"):
        create(str(copy))
    edit(copy / "config.json", model_type="siglip2", vision_config={"num_patches": 256})
    with pytest.raises(UserError, match="NaFlex"):
        create(str(copy))


def test_fixed_resolution_siglip2(save_checkpoint):
    folder = save_checkpoint("siglip")
    edit(folder / "config.json", model_type="siglip2")
    assert type(create(str(folder))).__name__ == "SiglipEncoder"


@pytest.mark.parametrize(
    "pattern, sentence", [("*processor*", "image size"), ("tokenizer*", "tok")]
)
def test_missing_side_files(copy, pattern, sentence):
    for path in copy.glob(pattern):
        path.unlink()
    with pytest.raises(UserError, match=sentence):
        create(str(copy))


def test_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        create(str(tmp_path))


def processor_file(folder, **values):
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return Checkpoint(folder, {}, "x")


CLIP = Preprocessing(224)
HALF = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "values, default, expected",
    [
        ({"size": 224, "crop_size": 224, "do_center_crop": True}, CLIP, CLIP),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, CLIP,
         Preprocessing(224, shorter_side=256)),
        ({"size": {"height": 384, "width": 384}, "resample": 2, "image_mean": HALF,
          "image_std": HALF}, Preprocessing(224, "exact"),
         Preprocessing(384, "exact", "bilinear", HALF, HALF)),
        ({"size": 336}, Preprocessing(384, "exact"), Preprocessing(336, "exact")),
        ({"size": 224, "do_normalize": False}, CLIP,
         Preprocessing(224, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))),
    ],
)  # fmt: skip
def test_processor_files(tmp_path, values, default, expected):
    assert read_preprocessing(processor_file(tmp_path, **values), default) == expected


@pytest.mark.parametrize(
    "values",
    [
        {"size": {"shortest_edge": 224}, "do_center_crop": False},
        {"size": {"shortest_edge": 224}, "crop_size": {"height": 256, "width": 256}},
        {"size": {"height": 224, "width": 200}},
        {"size": 224, "resample": 0},
        {"size": 224, "do_resize": False},
        {"size": 224, "rescale_factor": 1.0},
        {"size": {"longest_edge": 224}},
    ],
)
def test_unsupported_processors(tmp_path, values):
    with pytest.raises(UserError, match="not supported"):
        read_preprocessing(processor_file(tmp_path, **values), CLIP)
