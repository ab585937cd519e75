"""Rules that join several query terms (sketch + text, ...) into one score per photo.

Each term scores the same gallery. Every rule is exact when the gallery is scored chunk by chunk: it
reads all chunks once (:meth:`Fusion.fit`), then joins any columns (:meth:`Fusion.combine`).

    zscore           each term standardised per query over the whole gallery, then summed (default)
    max-softmax      the largest softmax probability among the terms, as FreestyleRet's code does
    sum              plain sum of the cosines
    reciprocal-rank  sum of 1 / (60 + rank) (Cormack, Clarke and Buettcher, SIGIR 2009)
    weighted         as zscore, with a weight per term that was fitted on validation queries
    stitch           as zscore, each term compared with the photos' views by transport
                     (:mod:`freestyle.evaluation.stitch_fusion`)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from freestyle.errors import UserError

DEFAULT_FUSION = "zscore"
WEIGHTED = "weighted"
STITCH = "stitch"

# A term whose scores vary by less than this, relative to their size, says nothing about a query.
_CONSTANT = 1e-9


class Fusion:
    """Joins T terms' scores; this base class sums them and needs no statistics.

    Attributes:
        name: The name on the command line and in the report.
    """

    name = "sum"

    def fit(self, tiles: Iterable[list[Tensor]]) -> Any:
        """Statistics of some queries over the whole gallery.

        Args:
            tiles: For each chunk of the gallery, in order, the T terms' scores, ``(q, g)`` each.

        Returns:
            Whatever :meth:`combine` needs; ``None`` here.
        """
        return None

    def combine(self, scores: list[Tensor], state: Any) -> Tensor:
        """Joined scores of any columns.

        Args:
            scores: The T terms' scores of the same queries and photos, ``(q, g)`` each.
            state: What :meth:`fit` returned for these queries.

        Returns:
            Scores ``(q, g)``; higher is better, comparable within a row only.
        """
        total = scores[0].clone()
        for term in scores[1:]:
            total += term
        return total

    def state_bytes(self, n_terms: int, n_gallery: int) -> int:
        """Bytes of statistics one query needs, temporaries of :meth:`fit` included."""
        return 64 * n_terms


class ZScore(Fusion):
    """``sum_t (s_t - mean_t) / sd_t`` with a query's mean and population sd over the gallery."""

    name = "zscore"

    def fit(self, tiles: Iterable[list[Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Mean and inverse deviation per term, ``(q, 1)`` each; merged over chunks (Chan 1979)."""
        seen, means, squares = 0, [], []
        for scores in tiles:
            new = scores[0].shape[1]
            if not means:
                means = [torch.zeros_like(term[:, :1]) for term in scores]
                squares = [torch.zeros_like(mean) for mean in means]
            for t, term in enumerate(scores):
                mean = term.mean(dim=1, keepdim=True)  # (q, 1)
                squares[t] += (term - mean).square_().sum(dim=1, keepdim=True)
                delta = mean - means[t]
                squares[t] += delta.square() * (seen * new / (seen + new))
                means[t] = means[t] + delta * (new / (seen + new))
            seen += new
        state = []
        for mean, square in zip(means, squares, strict=True):
            deviation = (square / seen).sqrt()
            size = (mean.square() + square / seen).sqrt()
            inverse = torch.where(deviation > _CONSTANT * size, 1 / deviation, 0.0)
            state.append((mean, inverse))
        return state

    def combine(self, scores: list[Tensor], state: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Sum of the standardised terms; a term that is constant over the gallery adds 0."""
        total = torch.zeros_like(scores[0])
        for term, (mean, inverse) in zip(scores, state, strict=True):
            total += (term - mean) * inverse
        return total


class Weighted(ZScore):
    """``sum_t w_t (s_t - mean_t) / sd_t``; weights come from :func:`fit_weights`.

    Args:
        weights: One per term, in the terms' order.
    """

    name = WEIGHTED

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = tuple(weights)

    def combine(self, scores: list[Tensor], state: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Weighted sum of the standardised terms."""
        if len(scores) != len(self.weights):
            raise ValueError(f"{len(self.weights)} weights cannot join {len(scores)} terms")
        weighted = [
            (mean, inverse * w) for (mean, inverse), w in zip(state, self.weights, strict=True)
        ]
        return super().combine(scores, weighted)


class MaxSoftmax(Fusion):
    """``max_t softmax_g(s_t)`` over the gallery, without temperature.

    Joined in the log domain and shifted by a constant per query, neither of which changes an order:
    ``max_t (s_t - lse_t) + min_t lse_t`` with ``lse_t = log sum_g exp(s_t)``.
    """

    name = "max-softmax"

    def fit(self, tiles: Iterable[list[Tensor]]) -> list[Tensor]:
        """Each term's shift ``min_t lse_t - lse_t``, ``(q, 1)``."""
        totals: list[Tensor] = []
        for scores in tiles:
            parts = [torch.logsumexp(term, dim=1, keepdim=True) for term in scores]
            totals = totals or [torch.full_like(part, -torch.inf) for part in parts]
            totals = [torch.logaddexp(*pair) for pair in zip(totals, parts, strict=True)]
        least = torch.stack(totals).amin(dim=0)
        return [least - total for total in totals]

    def combine(self, scores: list[Tensor], state: list[Tensor]) -> Tensor:
        """The best of the shifted terms."""
        joined = scores[0] + state[0]
        for term, shift in zip(scores[1:], state[1:], strict=True):
            joined = torch.maximum(joined, term + shift)
        return joined


class ReciprocalRank(Fusion):
    """``sum_t 1 / (60 + rank_t)``; tied photos share the worst of their ranks.

    Needs every term's sorted scores, so a chunk holds whole rows: fewer queries at a time.
    """

    name = "reciprocal-rank"
    constant = 60

    def fit(self, tiles: Iterable[list[Tensor]]) -> list[Tensor]:
        """Each term's scores in ascending order, ``(q, G)`` float32."""
        parts = [[term.float() for term in scores] for scores in tiles]
        return [torch.cat(term, dim=1).sort(dim=1).values for term in zip(*parts, strict=True)]

    def combine(self, scores: list[Tensor], state: list[Tensor]) -> Tensor:
        """Sum of the reciprocal ranks; a photo's rank is how many score at least as high."""
        total = torch.zeros_like(scores[0])
        for term, ordered in zip(scores, state, strict=True):
            below = torch.searchsorted(ordered, term.float())  # (q, g): how many score lower
            total += 1 / (self.constant + ordered.shape[1] - below)
        return total

    def state_bytes(self, n_terms: int, n_gallery: int) -> int:
        """Two copies of all rows, and one sort with its indices."""
        return n_gallery * (8 * n_terms + 16)


FUSIONS: dict[str, Fusion] = {
    rule.name: rule for rule in (ZScore(), MaxSoftmax(), Fusion(), ReciprocalRank())
}


RULES = (*FUSIONS, WEIGHTED, STITCH)


def get_fusion(rule: str | Fusion) -> Fusion:
    """The rule of this name; a rule passes through unchanged.

    Raises:
        UserError: There is no rule of this name.
    """
    if isinstance(rule, Fusion):
        return rule
    if rule not in FUSIONS:
        raise UserError(f"unknown fusion rule {rule!r}: use one of {', '.join(RULES)}")
    return FUSIONS[rule]


def fuse(scores: Sequence[Tensor], rule: str | Fusion = DEFAULT_FUSION) -> Tensor:
    """Join full score matrices, for a gallery that is small enough to hold.

    Args:
        scores: One ``(Q, G)`` matrix per term.
        rule: Name of the rule, or a rule.

    Returns:
        Joined scores ``(Q, G)`` in float64; higher is better, comparable within a row only.

    Raises:
        UserError: There is no rule of this name.
    """
    rule = get_fusion(rule)
    terms = [term.double() for term in scores]
    return rule.combine(terms, rule.fit([terms]))
