"""Set distances: their limits, their invariances, and POT as an independent reference."""

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from freestyle.transport.distance import conditional_transport, max_mean, mean, sinkhorn

SIZES = st.integers(1, 6)
SEEDS = st.integers(0, 10_000)
TEMPERATURES = st.sampled_from([0.005, 0.02, 0.1, 1.0])
MIXES = st.sampled_from([0.0, 0.3, 0.5, 1.0])
FEW = settings(max_examples=40, deadline=None)


def cosines(seed, k, m, *lead, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = F.normalize(torch.randn(*lead, k, 8, generator=generator, dtype=dtype), dim=-1)
    y = F.normalize(torch.randn(*lead, m, 8, generator=generator, dtype=dtype), dim=-1)
    return x @ y.mT


def weights(seed, size, *lead):
    generator = torch.Generator().manual_seed(seed + 1)
    values = torch.rand(*lead, size, generator=generator, dtype=torch.float64) + 0.05
    return values / values.sum(dim=-1, keepdim=True)


def by_loops(similarity, p, q, temperature, mix):
    """The formulas of the paper, one sum at a time, for one pair of sets."""
    k, m = similarity.shape
    s = similarity.numpy()
    e = np.exp(s / temperature)
    forth = back = 0.0
    for i in range(k):
        total = sum(q[j] * e[i, j] for j in range(m))
        forth += p[i] * sum(q[j] * e[i, j] / total * (1 - s[i, j]) for j in range(m))
    for j in range(m):
        total = sum(p[i] * e[i, j] for i in range(k))
        back += q[j] * sum(p[i] * e[i, j] / total * (1 - s[i, j]) for i in range(k))
    return -(mix * forth + (1 - mix) * back)


def test_worked_out_by_hand():
    # exp(s / t) with t = 1 / ln 3: powers of three. Forth (3*0 + 1*1)/4 = 1/4, for both rows.
    t = 1 / np.log(3)
    similarity = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert conditional_transport(similarity, temperature=t).item() == pytest.approx(-0.25)
    one_row = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    # Forth 1/4 again; back each column meets the only row: (0 + 1) / 2.
    assert conditional_transport(one_row, temperature=t, mix=1.0).item() == pytest.approx(-0.25)
    assert conditional_transport(one_row, temperature=t, mix=0.0).item() == pytest.approx(-0.5)


@FEW
@given(SEEDS, SIZES, SIZES, st.sampled_from([0.05, 0.1, 1.0]), MIXES)
def test_equals_the_formulas(seed, k, m, temperature, mix):
    s, p, q = cosines(seed, k, m), weights(seed, k), weights(seed + 7, m)
    expected = by_loops(s, p.tolist(), q.tolist(), temperature, mix)
    found = conditional_transport(s, p, q, temperature, mix)
    assert found.item() == pytest.approx(expected, abs=1e-9)


@FEW
@given(SEEDS, SIZES, SIZES, MIXES)
def test_limits(seed, k, m, mix):
    s, p, q = cosines(seed, k, m), weights(seed, k), weights(seed + 7, m)
    cold = conditional_transport(s, p, q, 1e-6, mix)
    assert cold.item() == pytest.approx(max_mean(s, p, q, mix).item(), abs=1e-4)
    hot = conditional_transport(s, p, q, 1e6, mix)
    assert hot.item() == pytest.approx(mean(s, p, q).item(), abs=1e-5)
    assert mean(s, p, q).item() == pytest.approx((p @ s @ q).item() - 1)


@FEW
@given(SEEDS, TEMPERATURES, MIXES)
def test_one_element_on_each_side_gives_the_cosine(seed, temperature, mix):
    s = cosines(seed, 1, 1)
    for found in (
        conditional_transport(s, temperature=temperature, mix=mix),
        sinkhorn(s, temperature=temperature),
        max_mean(s, mix=mix),
        mean(s),
    ):
        assert found.item() == pytest.approx(s.item() - 1, abs=1e-9)


ALL = {
    "transport": lambda s, p, q: conditional_transport(s, p, q, 0.05, 0.3),
    "sinkhorn": lambda s, p, q: sinkhorn(s, p, q, 0.1, iterations=500, tolerance=1e-9),
    "max-mean": lambda s, p, q: max_mean(s, p, q, 0.3),
    "mean": mean,
}


@pytest.mark.parametrize("name", ALL)
@FEW
@given(SEEDS, SIZES, SIZES)
def test_order_padding_and_split_elements_change_nothing(name, seed, k, m):
    distance = ALL[name]
    s, p, q = cosines(seed, k, m), weights(seed, k), weights(seed + 7, m)
    expected = distance(s, p, q).item()
    rows, columns = (
        torch.randperm(n, generator=torch.Generator().manual_seed(seed)) for n in (k, m)
    )
    assert distance(s[rows][:, columns], p[rows], q[columns]).item() == pytest.approx(
        expected, abs=1e-7
    )
    padded = F.pad(s, (0, 2, 0, 3), value=1.0)  # padding that would win, had it weight
    assert distance(padded, F.pad(p, (0, 3)), F.pad(q, (0, 2))).item() == pytest.approx(
        expected, abs=1e-7
    )
    twice = torch.cat([s, s[:1]])
    split = torch.cat([p, p[:1] * 0.25])
    split[0] = p[0] * 0.75
    assert distance(twice, split, q).item() == pytest.approx(expected, abs=1e-7)


@FEW
@given(SEEDS, SIZES, SIZES, TEMPERATURES, MIXES)
def test_swapping_the_sets_swaps_the_mix(seed, k, m, temperature, mix):
    s, p, q = cosines(seed, k, m), weights(seed, k), weights(seed + 7, m)
    one = conditional_transport(s, p, q, temperature, mix)
    other = conditional_transport(s.T, q, p, temperature, 1 - mix)
    assert one.item() == pytest.approx(other.item(), abs=1e-9)


@FEW
@given(SEEDS, SIZES, SIZES, TEMPERATURES, MIXES)
def test_the_plan_explains_the_score(seed, k, m, temperature, mix):
    s, p, q = cosines(seed, k, m, 3), weights(seed, k, 3), weights(seed + 7, m, 3)
    score, plan = conditional_transport(s, p, q, temperature, mix, return_plan=True)
    assert torch.allclose(plan.sum(dim=(-2, -1)), torch.ones(3, dtype=torch.float64))
    assert (plan >= 0).all()
    assert torch.allclose(score, -(plan * (1 - s)).sum(dim=(-2, -1)))
    assert torch.allclose(score, conditional_transport(s, p, q, temperature, mix))
    if mix == 1:  # one way, the query's marginal is exact; the other is free
        assert torch.allclose(plan.sum(dim=-1), p)
    if mix == 0:
        assert torch.allclose(plan.sum(dim=-2), q)


@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0])
def test_sinkhorn_equals_pots_batch_solver(temperature):
    s, p, q = cosines(0, 5, 11, 20), weights(0, 5, 20), weights(7, 11, 20)
    result = ot.batch.solve_batch(
        1 - s, reg=temperature, a=p, b=q, method="log_sinkhorn", max_iter=20_000, tol=1e-9
    )
    score, plan = sinkhorn(
        s, p, q, temperature, iterations=20_000, tolerance=1e-9, return_plan=True
    )
    assert torch.allclose(plan, result.plan, atol=1e-6)
    assert torch.allclose(-score, result.value_linear, atol=1e-6)


def test_cold_sinkhorn_equals_exact_transport():
    s, p, q = cosines(1, 5, 11, 10), weights(1, 5, 10), weights(8, 11, 10)
    found = sinkhorn(s, p, q, 0.002, iterations=20_000, tolerance=1e-6)
    exact = [ot.emd2(*(x[i].numpy() for x in (p, q)), (1 - s[i]).numpy()) for i in range(10)]
    assert torch.allclose(-found, torch.tensor(exact, dtype=torch.float64), atol=2e-3)


@FEW
@given(SEEDS, SIZES, SIZES, st.sampled_from([0.02, 0.2]))
def test_sinkhorn_meets_both_marginals(seed, k, m, temperature):
    s, p, q = cosines(seed, k, m), weights(seed, k), weights(seed + 7, m)
    _, plan = sinkhorn(s, p, q, temperature, iterations=20_000, tolerance=1e-5, return_plan=True)
    assert (plan.sum(dim=0) - q).abs().sum() < 1e-6
    assert (plan.sum(dim=1) - p).abs().sum() < 2e-5


def test_sinkhorn_stops_early_when_it_may():
    s = cosines(3, 5, 11)
    _, loose = sinkhorn(s, temperature=0.02, iterations=1, tolerance=9.0, return_plan=True)
    _, tight = sinkhorn(s, temperature=0.02, iterations=5000, tolerance=1e-8, return_plan=True)
    _, same = sinkhorn(s, temperature=0.02, iterations=5000, tolerance=9.0, return_plan=True)
    assert torch.equal(loose, same) and not torch.allclose(loose, tight, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.001, 0.02])
def test_half_precision_gives_numbers_also_at_cosine_one(dtype, temperature):
    s = torch.ones(4, 3, 6, dtype=dtype)
    s[1] = -1
    s[2, 0, 0] = -1
    for found in (
        conditional_transport(s, temperature=temperature),
        sinkhorn(s, temperature=temperature),
        max_mean(s),
    ):
        assert found.dtype == torch.float32 and found.isfinite().all()
        assert found[0].item() == pytest.approx(0.0, abs=1e-6)
        assert found[1].item() == pytest.approx(-2.0, abs=1e-6)
    generator = torch.Generator().manual_seed(0)
    s = torch.rand(4, 3, 6, generator=generator)
    coarse = conditional_transport(s.to(dtype), temperature=temperature)
    assert torch.allclose(coarse, conditional_transport(s, temperature=temperature), atol=1e-2)


@pytest.mark.parametrize("padded", [False, True])
def test_gradients_are_right_and_finite(padded):
    s = cosines(2, 3, 4, 2).requires_grad_()
    p, q = weights(2, 3, 2), weights(9, 4, 2)
    if padded:
        p[:, 2], q[:, 3] = 0.0, 0.0
    for distance in (
        lambda x: conditional_transport(x, p, q, 0.1, 0.4),
        lambda x: sinkhorn(x, p, q, 0.3, iterations=5, tolerance=0.0),
    ):
        assert torch.autograd.gradcheck(distance, s)
    (gradient,) = torch.autograd.grad(conditional_transport(s, p, q, 0.001).sum(), s)
    assert gradient.isfinite().all()
    if padded:
        assert (gradient[:, 2] == 0).all() and (gradient[:, :, 3] == 0).all()


def test_float32_stays_near_float64_at_low_temperature():
    s = cosines(5, 5, 11, 2000)
    for temperature in (0.02, 0.005):
        exact = conditional_transport(s, temperature=temperature)
        found = conditional_transport(s.float(), temperature=temperature).double()
        assert (found - exact).abs().max() < 1e-5


@pytest.mark.parametrize(
    "call",
    [
        lambda s: conditional_transport(s, temperature=0.0),
        lambda s: conditional_transport(s, mix=1.5),
        lambda s: conditional_transport(s[..., 0]),
        lambda s: conditional_transport(s, torch.ones(5)),
        lambda s: conditional_transport(s, torch.zeros(3)),
        lambda s: conditional_transport(s, torch.tensor([1.0, 1.0, -1.0])),
        lambda s: max_mean(s, mix=-1),
        lambda s: sinkhorn(s, iterations=0),
    ],
)
def test_what_cannot_be_is_refused(call):
    with pytest.raises(ValueError):
        call(torch.zeros(3, 4))
