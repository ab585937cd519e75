import math

import numpy as np
import pytest
import torch

from freestyle.style import gram_matrix, style_code, upper_triangle

torch.set_num_threads(1)


def test_gram_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # two channels, two positions
    assert gram_matrix(features).tolist() == [[[2.5, 1.5], [1.5, 4.5]]]


def test_gram_against_numpy():
    features = torch.randn(3, 5, 7, 4, generator=torch.Generator().manual_seed(0))
    wanted = np.einsum("bchw,bdhw->bcd", features.numpy(), features.numpy()) / 28
    gram = gram_matrix(features)
    np.testing.assert_allclose(gram.numpy(), wanted, atol=1e-5)
    assert torch.equal(gram, gram.transpose(1, 2))
    channels_last = features.contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(gram_matrix(channels_last).numpy(), wanted, atol=1e-5)


def test_same_texture_at_two_sizes():
    tile = torch.rand(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    small, large = gram_matrix(tile.repeat(1, 1, 2, 2)), gram_matrix(tile.repeat(1, 1, 7, 7))
    torch.testing.assert_close(small, large, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype):
    features = torch.full((1, 2, 16, 16), 1000.0, dtype=dtype)  # squares exceed fp16's 65504
    with torch.autocast("cpu", dtype=dtype):
        gram = gram_matrix(features)
    assert gram.dtype == torch.float32
    assert torch.equal(gram, torch.full((1, 2, 2), 1e6))


def test_upper_triangle_keeps_norms_and_products():
    generator = torch.Generator().manual_seed(2)
    a, b = (gram_matrix(torch.randn(2, 6, 3, 3, generator=generator)) for _ in range(2))
    va, vb = upper_triangle(a), upper_triangle(b)
    assert va.shape == (2, 21)
    torch.testing.assert_close(va.norm(dim=1), torch.linalg.matrix_norm(a))
    torch.testing.assert_close((va * vb).sum(1), (a * b).sum((1, 2)))
    by_hand = upper_triangle(torch.tensor([[[2.0, 1.0], [1.0, 3.0]]]))
    torch.testing.assert_close(by_hand, torch.tensor([[2.0, math.sqrt(2), 3.0]]))


def test_style_code_by_hand():
    first = torch.tensor([[[[2.0]], [[-2.0]]]])  # Gram [[4, -4], [-4, 4]]
    second = torch.tensor([[[[3.0]]]])  # Gram [[9]]
    raw = style_code([first, second], normalise=False)
    torch.testing.assert_close(raw, torch.tensor([[4.0, -4 * math.sqrt(2), 4.0, 9.0]]))
    root = style_code([first, second], power=0.5, normalise=False)
    torch.testing.assert_close(root, torch.tensor([[2.0, -2 * math.sqrt(2), 2.0, 3.0]]))
    unit = style_code([first, second], power=0.5)
    torch.testing.assert_close(unit, torch.tensor([[0.5, -math.sqrt(0.5), 0.5, 1.0]]))


def test_style_code_of_nothing_is_zero():
    code = style_code([torch.zeros(2, 3, 4, 4)], power=0.5)
    assert torch.equal(code, torch.zeros(2, 6))
