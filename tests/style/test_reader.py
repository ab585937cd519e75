import pytest
import torch

from freestyle.errors import UserError
from freestyle.style import FrozenFeatures, StyleReader, gram_matrix, upper_triangle

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def features():
    return FrozenFeatures("vgg19", ("relu1_1", "relu2_1"), 32, weights="random")


def pixels(batch=6, side=48):
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_code_without_frills_is_the_gram_matrix(features):
    reader = StyleReader(features, power=1.0, normalise=False)
    codes = reader(pixels())
    wanted = torch.cat([upper_triangle(gram_matrix(tap)) for tap in features(pixels())], dim=1)
    assert torch.equal(codes, wanted)
    assert codes.shape == (6, reader.code_dim) == (6, 64 * 65 // 2 + 128 * 129 // 2)


def test_default_code(features):
    reader = StyleReader(features, channels=16)
    codes = reader(pixels())
    assert codes.shape == (6, reader.code_dim) == (6, 2 * 136)
    assert codes.dtype == torch.float32
    for part in codes.split(136, dim=1):  # every tap has unit norm
        torch.testing.assert_close(part.norm(dim=1), torch.ones(6))


def test_mixing_is_orthonormal_and_turns_the_gram(features):
    reader = StyleReader(features, channels=16, power=1.0, normalise=False)
    mixing = reader.mixing_1  # (128, 16)
    torch.testing.assert_close(mixing.t() @ mixing, torch.eye(16), atol=1e-6, rtol=0)
    wanted = mixing.t() @ gram_matrix(features(pixels())[1]) @ mixing
    torch.testing.assert_close(
        reader(pixels())[:, 136:], upper_triangle(wanted), atol=1e-4, rtol=1e-4
    )
    assert StyleReader(features, channels=64).mixing_0 is None  # nothing to mix down


def test_independent_of_the_batch(features):
    reader = StyleReader(features, channels=32)
    together = reader(pixels())
    alone = torch.cat([reader(picture[None]) for picture in pixels()])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    assert reader(pixels()[:0]).shape == (0, reader.code_dim)


def test_distinct_pictures_have_distinct_codes(features):
    codes = StyleReader(features)(pixels())
    assert torch.cdist(codes, codes).add(torch.eye(6)).min() > 1e-3


def test_deterministic_and_rebuilt_from_config(features):
    reader = StyleReader(features, channels=16, seed=4)
    again = StyleReader.from_config(reader.config)
    assert again.tag == reader.tag
    assert torch.equal(again(pixels()), reader(pixels()))
    others = [
        StyleReader(features, channels=16, seed=5),
        StyleReader(features, channels=8),
        StyleReader(features, power=1.0),
        StyleReader(features, normalise=False),
        StyleReader(features),
    ]
    assert len({reader.tag, *(other.tag for other in others)}) == 6


def test_frozen(features):
    reader = StyleReader(features, channels=16).train()
    assert not any(module.training for module in reader.modules())
    assert not any(p.requires_grad for p in reader.parameters())
    assert not reader(pixels().requires_grad_()).requires_grad


def test_bf16_autocast(features):
    reader = StyleReader(features, channels=32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = reader(pixels())
    assert low.dtype == torch.float32
    assert torch.cosine_similarity(low, reader(pixels())).min() > 0.999


def test_blank_pictures_have_finite_codes(features):
    codes = StyleReader(features)(torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)]))
    assert codes.isfinite().all()


@pytest.mark.parametrize("options", [{"channels": 0}, {"power": 0.0}, {"power": 1.5}])
def test_user_errors(features, options):
    with pytest.raises(UserError):
        StyleReader(features, **options)
