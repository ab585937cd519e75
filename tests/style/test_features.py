import os
import subprocess
import sys
from types import ModuleType

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from freestyle.errors import UserError
from freestyle.style import FrozenFeatures
from freestyle.style.features import shrink
from freestyle.style.networks import vgg_taps

torch.set_num_threads(1)
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def pixels(batch=2, side=32, seed=0):
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("network", "cfg", "taps", "places"),
    [
        ("vgg16", "D", ("relu1_2", "relu3_3"), (3, 15)),
        ("vgg19", "E", ("relu4_1", "relu2_1"), (20, 6)),
    ],
)
def test_taps_equal_the_full_torchvision_network(tmp_path, network, cfg, taps, places):
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs[cfg])
    state = {f"features.{key}": value for key, value in layers.state_dict().items()}
    save_file(state, tmp_path / "vgg.safetensors")
    features = FrozenFeatures(network, taps, weights=str(tmp_path / "vgg.safetensors"))
    x, wanted = (pixels() - MEAN) / STD, {}
    with torch.no_grad():
        for index, layer in enumerate(layers):
            x = layer(x)
            wanted[index] = x.clone()
    found = features(pixels())
    assert len(features.network) == max(places) + 1  # nothing after the last tap exists
    assert features.channels == tuple(wanted[place].shape[1] for place in places)
    for tap, place in zip(found, places, strict=True):
        torch.testing.assert_close(tap, wanted[place], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("network", "last"), [("vgg16", "relu5_3"), ("vgg19", "relu5_4")])
def test_tap_names(network, last):
    taps = vgg_taps(network)
    layers = getattr(torchvision.models, network)  # the full layout, on no memory
    with torch.device("meta"):
        full = layers().features
    assert all(isinstance(full[index], nn.ReLU) for index in taps.values())
    assert list(taps)[-1] == last
    assert len(taps) == int(network[3:]) - 3


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_timm_by_name(name):
    features = FrozenFeatures(f"timm:{name}", (1, "0"), weights="random", seed=3)
    torch.manual_seed(3)
    full = timm.create_model(name, features_only=True, out_indices=[0, 1]).eval()
    full.load_state_dict(features.network.state_dict(), strict=False)
    config = full.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        wanted = full((pixels() - mean) / std)
    found = features(pixels())
    assert features.channels == tuple(tap.shape[1] for tap in found)
    torch.testing.assert_close(found[0], wanted[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1], wanted[0], atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in features.parameters()) < 200_000  # later stages are gone


def test_mini_brings_its_own_taps_and_statistics(monkeypatch):
    import freestyle.style

    mini = ModuleType("freestyle.style.vgg_mini")
    mini.TAPS = {"relu1_1": 1, "relu2_1": 4}
    mini.MEAN, mini.STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    layers = torchvision.models.vgg.make_layers([8, "M", 16, 16])
    mini.vgg_mini = lambda pretrained=True: layers
    monkeypatch.setitem(sys.modules, mini.__name__, mini)
    monkeypatch.setattr(freestyle.style, "vgg_mini", mini, raising=False)
    features = FrozenFeatures("vgg-mini", ("relu2_1", "relu1_1"))
    assert (len(features.network), features.channels) == (5, (16, 8))
    with torch.no_grad():
        wanted = layers[:2]((pixels() - 0.5) / 0.25)
    torch.testing.assert_close(features(pixels())[1], wanted)
    with pytest.raises(UserError, match="relu1_1, relu2_1"):
        FrozenFeatures("vgg-mini", ("relu1_2",))


def test_network_that_is_not_convolutional_is_refused():
    features = FrozenFeatures("timm:swin_tiny_patch4_window7_224", (0,), weights="random")
    with pytest.raises(UserError, match="swin_tiny"):
        features(pixels(1, 224))


def test_frozen_for_good():
    features = FrozenFeatures("timm:resnet18", (0,), weights="random")
    parent = nn.Sequential(features).train()
    assert not any(module.training for module in features.modules())
    assert not any(p.requires_grad for p in parent.parameters())
    before = {key: value.clone() for key, value in features.state_dict().items()}
    out = parent(pixels().requires_grad_())
    assert not out[0].requires_grad
    assert all(torch.equal(value, before[key]) for key, value in features.state_dict().items())


def test_resolution_shrinks_and_never_enlarges():
    constant = torch.full((1, 3, 64, 64), 0.25)
    torch.testing.assert_close(shrink(constant, 16), torch.full((1, 3, 16, 16), 0.25))
    checks = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    inside = shrink(checks, 16)[..., 2:-2]
    assert (inside - 0.5).abs().max() < 0.05  # antialiased: fine stripes become grey
    small = pixels(side=16)
    assert shrink(small, 32) is small
    assert shrink(torch.zeros(1, 3, 40, 80), 20).shape == (1, 3, 10, 20)
    features = FrozenFeatures("vgg16", ("relu1_1",), 16, "random")
    assert features(pixels(side=64))[0].shape == (2, 64, 16, 16)
    assert features(pixels(side=8))[0].shape == (2, 64, 8, 8)


def test_random_weights_follow_the_seed_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    same = [FrozenFeatures("vgg16", ("relu1_1",), weights="random", seed=5) for _ in range(2)]
    other = FrozenFeatures("vgg16", ("relu1_1",), weights="random", seed=6)
    assert torch.equal(state, torch.get_rng_state())
    assert same[0].tag == same[1].tag != other.tag
    assert torch.equal(same[0](pixels())[0], same[1](pixels())[0])


def test_tag_names_what_decides_the_features():
    tags = {
        FrozenFeatures("vgg16", ("relu1_1",), weights="random").tag,
        FrozenFeatures("vgg16", ("relu1_2",), weights="random").tag,
        FrozenFeatures("vgg16", ("relu1_1",), 64, weights="random").tag,
    }
    assert len(tags) == 3
    assert any(tag.startswith("vgg16:relu1_1@64#") for tag in tags)


def test_autocast():
    features = FrozenFeatures("vgg16", ("relu2_1",), weights="random")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = features(pixels())[0]
    high = features(pixels())[0]
    assert torch.cosine_similarity(low.float().flatten(), high.flatten(), dim=0) > 0.999


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("vgg99", ("relu1_1",)), "vgg16, vgg19, vgg-mini, timm"),
        (("vgg16", ("relu9_1",)), "relu5_3"),
        (("vgg16", ()), "one or more"),
        (("vgg16", ("relu1_1", "relu1_1")), "different"),
        (("vgg16", ("relu1_1",), 0), "at least 1"),
        (("vgg16", ("relu1_1",), None, "weights.pth"), "safetensors"),
        (("vgg16", ("relu1_1",), None, "none.safetensors"), "do not exist"),
        (("timm:no_such_net", (0,)), "no_such_net"),
        (("timm:resnet18", (9,), None, "random"), "0, 1, 2, 3, 4"),
        (("timm:resnet18", ("relu1_1",), None, "random"), "0, 1, 2, 3, 4"),
    ],
)
def test_user_errors(arguments, words):
    with pytest.raises(UserError, match=words):
        FrozenFeatures(*arguments)


def test_bad_weight_files(tmp_path):
    damaged, foreign = tmp_path / "damaged.safetensors", tmp_path / "foreign.safetensors"
    damaged.write_bytes(b"no tensors")
    save_file({"0.weight": torch.zeros(2)}, foreign)
    with pytest.raises(UserError, match="not a readable"):
        FrozenFeatures("vgg16", ("relu1_1",), weights=str(damaged))
    with pytest.raises(UserError, match="do not fit"):
        FrozenFeatures("vgg16", ("relu1_1",), weights=str(foreign))


def test_torchvision_cache(tmp_path, monkeypatch):
    source = torchvision.models.VGG16_Weights.IMAGENET1K_V1
    cached = tmp_path / "checkpoints" / source.url.rsplit("/", 1)[-1]
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", _offline)
    with pytest.raises(UserError, match="could not be downloaded"):
        FrozenFeatures("vgg16", ("relu1_1",))
    cached.parent.mkdir(exist_ok=True)
    cached.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="damaged"):
        FrozenFeatures("vgg16", ("relu1_1",))
    layers = torchvision.models.vgg.make_layers([64])
    torch.save({f"features.{k}": v for k, v in layers.state_dict().items()}, cached)
    features = FrozenFeatures("vgg16", ("relu1_1",))
    assert torch.equal(features.network[0].weight, layers[0].weight)


def _offline(*_, **__):
    raise OSError("no network")


def test_too_small_a_picture():
    features = FrozenFeatures("vgg16", ("relu3_1",), weights="random")
    with pytest.raises(UserError, match="at least 4 pixels"):
        features(pixels(side=3))


def test_import_is_light():
    code = (
        "import sys, freestyle.style; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'torchvision', 'timm', 'sklearn')))"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
