"""How alike two weighted sets of unit vectors are, from the cosines between their elements.

Every function takes cosines ``(..., K, M)`` between the K elements of a query and the M of a
candidate and returns ``-cost`` with cost ``c = 1 - cosine``: at most 0, higher is better.
Elements of weight 0 are padding and change nothing, so that sets of different sizes share a batch.

    conditional_transport  bidirectional transport (Zheng and Zhou, NeurIPS 2021, arXiv 2012.14100;
                           STiTch, arXiv 2605.21261): each element meets the other set's elements
                           by a softmax of the cosines
    sinkhorn               entropic optimal transport (Cuturi, NIPS 2013), in the log domain
    max_mean               each element meets its nearest one
    mean                   every element meets all others

At temperature 0 conditional transport is ``max_mean``, at infinity ``mean``; with one element on
either side all of them are ``cosine - 1``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TEMPERATURE = 0.02
MIX = 0.5


class Transport(NamedTuple):
    """A score with the plan behind it.

    Attributes:
        score: ``(...)``, the negative cost.
        plan: Mass moved between elements ``(..., K, M)``, at least 0, sum 1.
    """

    score: Tensor
    plan: Tensor


def conditional_transport(
    similarity: Tensor,
    query_weights: Tensor | None = None,
    candidate_weights: Tensor | None = None,
    temperature: float = TEMPERATURE,
    mix: float = MIX,
    *,
    return_plan: bool = False,
) -> Tensor | Transport:
    """Bidirectional conditional transport: STiTch, equations 5 to 7.

    With ``pi(m|k) = q_m exp(s_km / t) / sum_m' q_m' exp(s_km' / t)``, ``pi(k|m)`` likewise with p,
    and ``c = 1 - s``: ``-(mix sum_km p_k pi(m|k) c_km + (1 - mix) sum_km q_m pi(k|m) c_km)``.

    Args:
        similarity: Cosines in [-1, 1], ``(..., K, M)``, any float type; computed in float32.
        query_weights: p, at least 0, broadcastable to ``(..., K)``; each set is scaled to sum 1.
            None weighs all alike.
        candidate_weights: q, broadcastable to ``(..., M)``.
        temperature: t, above 0.
        mix: Share of the direction from query to candidate, in [0, 1].
        return_plan: Whether to return the plan as well.

    Returns:
        Scores ``(...)`` in [-2, 0], higher is better; with ``return_plan`` a :class:`Transport`.

    Raises:
        ValueError: Settings out of range, or a set in which no element has weight.

    Example:
        >>> import torch
        >>> cosines = torch.tensor([[1.0, 0.0], [0.0, 0.5]])
        >>> round(conditional_transport(cosines, temperature=1e-3).item(), 4)  # max-mean: 0.75 - 1
        -0.25
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if not 0 <= mix <= 1:
        raise ValueError(f"mix must be in [0, 1], got {mix}")
    similarity, p, q = _prepared(similarity, query_weights, candidate_weights)
    forth = None if mix == 0 else _conditional(similarity, q, -1, temperature)
    back = None if mix == 1 else _conditional(similarity, p, -2, temperature)
    if not return_plan:
        score = 0.0
        if forth is not None:  # (..., K) -> (...)
            score = score + mix * _average((forth * similarity).sum(dim=-1), p)
        if back is not None:  # (..., M) -> (...)
            score = score + (1 - mix) * _average((back * similarity).sum(dim=-2), q)
        return score - 1
    plan = torch.zeros_like(similarity)
    if forth is not None:
        plan = plan + mix * forth * (p[..., :, None] if p is not None else 1 / plan.shape[-2])
    if back is not None:
        plan = plan + (1 - mix) * back * (q[..., None, :] if q is not None else 1 / plan.shape[-1])
    return Transport((plan * similarity).sum(dim=(-2, -1)) - 1, plan)


def sinkhorn(
    similarity: Tensor,
    query_weights: Tensor | None = None,
    candidate_weights: Tensor | None = None,
    temperature: float = TEMPERATURE,
    *,
    iterations: int = 100,
    tolerance: float = 1e-4,
    return_plan: bool = False,
) -> Tensor | Transport:
    """Entropic optimal transport by Sinkhorn's iterations on log potentials.

    Args:
        similarity: As for :func:`conditional_transport`.
        query_weights: As there.
        candidate_weights: As there.
        temperature: Weight of the entropy, above 0; towards 0 this is exact optimal transport.
        iterations: At most so many rounds over both marginals.
        tolerance: Stops once every query marginal is met to this much in sum; those of the
            candidates are always met.
        return_plan: Whether to return the plan as well.

    Returns:
        Scores ``(...)`` in [-2, 0]: the plan's cost without the entropy, negative.

    Raises:
        ValueError: Settings out of range, or a set in which no element has weight.
    """
    if not temperature > 0 or iterations < 1:
        raise ValueError(f"temperature and iterations must be above 0: {temperature}, {iterations}")
    similarity, p, q = _prepared(similarity, query_weights, candidate_weights)
    log_p, log_q = _logs(p, similarity.shape[-2]), _logs(q, similarity.shape[-1])
    log_p, log_q = log_p.to(similarity), log_q.to(similarity)
    scaled = similarity / temperature  # (..., K, M)
    g = torch.zeros_like(scaled[..., 0, :])  # (..., M)
    for _ in range(iterations):
        f = -_logsumexp(scaled + (g + log_q)[..., None, :], -1)  # (..., K)
        g = -_logsumexp(scaled + (f + log_p)[..., :, None], -2)  # (..., M)
        plan = (scaled + (f + log_p)[..., :, None] + (g + log_q)[..., None, :]).exp()
        with torch.no_grad():
            if (plan.sum(dim=-1) - log_p.exp()).abs().sum(dim=-1).max() <= tolerance:
                break
    score = (plan * similarity).sum(dim=(-2, -1)) - plan.sum(dim=(-2, -1))
    return Transport(score, plan) if return_plan else score


def max_mean(
    similarity: Tensor,
    query_weights: Tensor | None = None,
    candidate_weights: Tensor | None = None,
    mix: float = MIX,
) -> Tensor:
    """Two-way MaxSim: conditional transport at temperature 0.

    Args:
        similarity: Cosines ``(..., K, M)``.
        query_weights: As for :func:`conditional_transport`.
        candidate_weights: As there.
        mix: Share of the direction from query to candidate; 1 is ColBERT's one-way MaxSim.

    Returns:
        Scores ``(...)`` in [-2, 0].
    """
    if not 0 <= mix <= 1:
        raise ValueError(f"mix must be in [0, 1], got {mix}")
    similarity, p, q = _prepared(similarity, query_weights, candidate_weights)
    score = 0.0
    if mix > 0:
        best = similarity if q is None else similarity.masked_fill(q[..., None, :] == 0, -torch.inf)
        score = score + mix * _average(best.amax(dim=-1), p)
    if mix < 1:
        best = similarity if p is None else similarity.masked_fill(p[..., :, None] == 0, -torch.inf)
        score = score + (1 - mix) * _average(best.amax(dim=-2), q)
    return score - 1


def mean(
    similarity: Tensor,
    query_weights: Tensor | None = None,
    candidate_weights: Tensor | None = None,
) -> Tensor:
    """The weighted mean of all cosines, less 1: what transport is at temperature infinity."""
    similarity, p, q = _prepared(similarity, query_weights, candidate_weights)
    return _average(_average(similarity, None if q is None else q[..., None, :]), p) - 1


def _prepared(
    similarity: Tensor, query_weights: Tensor | None, candidate_weights: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Cosines in at least float32, and weights that sum to 1, where there are any."""
    if similarity.ndim < 2 or 0 in similarity.shape[-2:]:
        raise ValueError(f"expected cosines (..., K, M), got shape {tuple(similarity.shape)}")
    if similarity.dtype in (torch.float16, torch.bfloat16):
        similarity = similarity.float()
    k, m = similarity.shape[-2:]
    p = _scaled("query", query_weights, k, similarity)
    return similarity, p, _scaled("candidate", candidate_weights, m, similarity)


def _scaled(side: str, weights: Tensor | None, size: int, like: Tensor) -> Tensor | None:
    if weights is None:
        return None
    weights = weights.to(like)
    if weights.shape[-1] != size:
        raise ValueError(f"{side} weights {tuple(weights.shape)} do not fit {size} elements")
    total = weights.sum(dim=-1, keepdim=True)
    if not bool((total > 0).all()) or bool((weights < 0).any()):
        raise ValueError(f"{side} weights must be at least 0, with one above 0 in every set")
    return weights / total


def _conditional(
    similarity: Tensor, weights: Tensor | None, dim: int, temperature: float
) -> Tensor:
    """``pi(. | element)``: weights times softmax of the cosines along ``dim``, sum 1 there.

    Written in elementwise steps: they keep the tensor's memory order, so that with the candidates
    innermost (:mod:`freestyle.transport.scoring`) all of it runs over long vectors.
    """
    mask = None
    if weights is not None:
        mask = weights[..., None, :] if dim == -1 else weights[..., :, None]
        # Were padding the largest, all that counts would underflow.
        masked = similarity.masked_fill(mask == 0, -torch.inf)
        top = masked.detach().amax(dim=dim, keepdim=True)
        masses = ((masked - top) * (1 / temperature)).exp() * mask
    else:
        top = similarity.detach().amax(dim=dim, keepdim=True)
        masses = ((similarity - top) * (1 / temperature)).exp()
    return masses / masses.sum(dim=dim, keepdim=True)


def _average(values: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean over the last dimension; values of weight 0 may be anything."""
    if weights is None:
        return values.mean(dim=-1)
    return torch.where(weights > 0, values * weights, 0.0).sum(dim=-1)


def _logs(weights: Tensor | None, size: int) -> Tensor:
    if weights is None:
        return torch.full((size,), 1 / size).log()
    return weights.log()


def _logsumexp(values: Tensor, dim: int) -> Tensor:
    """As torch's, with a gradient of 0 instead of NaN where all of a row is padding."""
    top = values.detach().amax(dim=dim, keepdim=True).clamp(min=-1e30)
    return (values - top).exp().sum(dim=dim).clamp(min=1e-38).log() + top.squeeze(dim)
