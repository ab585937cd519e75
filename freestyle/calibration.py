"""Calibrated scores: photos that every query of a style likes are lowered.

In a space of many dimensions some photos are near to everything (hubs). What training queries say
of a photo tells how much of one: with the bank B_s of embedded training queries of style s,

    h_s(g) = strength * T * log mean_{b in B_s} exp(b . g / T)
    score(q, g) = q . g - sum_s p_s(q) h_s(g)

Querybank normalisation (Bogolin et al., CVPR 2022, arXiv 2112.12777) has one bank and one step for
all queries. Here p_s(q) is the probability, by the query's own Gram code, that it is of style s, or
of none of them: for a style nobody trained on the bank says nothing, and lowering by it costs.

A score stays one inner product: photos are ``[g, h_1 ... h_S, h_text]``, queries
``[q, -p_1 ... -p_S, 0]``, texts ``[t, 0 ... 0, -1]``. The photos' own embeddings do not move.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from freestyle.config import CalibrationConfig

NEVER = -1e4  # logit of a class that was not there to learn from
GATE_PENALTY = 0.01  # inverse strength C of the classifier's L2 penalty
CHUNK = 4096  # photos at a time


class HubCalibration(nn.Module):
    """The banks of S trained styles and of texts, and the classifier that chooses among them.

    Buffers only; empty until :meth:`fit`, or until a saved model fills it; then embeddings pass as
    they are.

    Args:
        config: Temperatures and strengths.
        width: E.
        code_dim: Width d of the Gram code; 0 where the styles have equal shares.
    """

    def __init__(self, config: CalibrationConfig, width: int, code_dim: int = 0) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("bank", torch.zeros(0, width, dtype=torch.float16))
        self.register_buffer("member", torch.zeros(0, dtype=torch.int64))  # S stands for text
        self.register_buffer("gate_weight", torch.zeros(0, code_dim))
        self.register_buffer("gate_bias", torch.zeros(0))

    @property
    def is_fitted(self) -> bool:
        """Whether there is a bank."""
        return len(self.bank) > 0

    @property
    def n_styles(self) -> int:
        """S."""
        return max(0, len(self.gate_bias) - 1)

    @torch.no_grad()
    def fit(
        self,
        queries: Sequence[Tensor],
        codes: Sequence[Tensor] | None,
        others: Tensor | None,
        texts: Tensor | None,
    ) -> None:
        """Fill the banks and learn to tell the styles apart.

        Args:
            queries: Per trained style unit-norm embeddings ``(N_s, E)``.
            codes: Per trained style reduced Gram codes ``(N_s, d)``; None for equal shares.
            others: Gram codes ``(N, d)`` of queries of no trained style; None where there are none.
            texts: Unit-norm embeddings ``(N, E)`` of training captions, or None.
        """
        generator = torch.Generator().manual_seed(0)
        banks, members = [], []
        for number, rows in enumerate([*queries, *([] if texts is None else [texts])]):
            kept = torch.randperm(len(rows), generator=generator)[: self.config.bank]
            banks.append(rows.cpu()[kept.sort().values].half())
            members.append(torch.full((len(kept),), number))
        device = self.bank.device
        self.bank, self.member = torch.cat(banks).to(device), torch.cat(members).to(device)
        weight = torch.zeros(len(queries) + 1, self.gate_weight.shape[1])
        bias = torch.zeros(len(queries) + 1)
        bias[-1] = NEVER
        if codes is not None:
            classes = [*codes, *([] if others is None else [others])]
            weight[: len(classes)], bias[: len(classes)] = _classifier(classes)
        self.gate_weight, self.gate_bias = weight.to(device), bias.to(device)

    def adopt(self, state: dict[str, Tensor], prefix: str) -> None:
        """Take the shapes of saved buffers, so that they can be loaded."""
        for name, own in list(self.named_buffers()):
            given = state.get(prefix + name)
            if given is not None and given.ndim == own.ndim and given.shape[1:] == own.shape[1:]:
                setattr(self, name, own.new_zeros(given.shape))

    @torch.no_grad()
    def photo_terms(self, gallery: Tensor) -> Tensor:
        """What photos ``(G, E)`` are lowered by, by trained styles and texts: ``(G, S + 1)``."""
        options = self.config
        terms = gallery.new_zeros(len(gallery), self.n_styles + 1, dtype=torch.float32)
        for number in range(self.n_styles + 1):
            text = number == self.n_styles
            bank = self.bank[self.member == number].to(gallery).float()  # (M, E)
            if not len(bank):
                continue
            heat = options.text_temperature if text else options.temperature
            strength = options.text_strength if text else options.strength
            for rows, part in zip(terms.split(CHUNK), gallery.float().split(CHUNK), strict=True):
                mean = torch.logsumexp(part @ bank.T / heat, dim=1) - np.log(len(bank))
                rows[:, number] = strength * heat * mean
        return terms

    @torch.no_grad()
    def shares(self, gram: Tensor | None, batch: int) -> Tensor:
        """p_s of queries with reduced Gram codes ``(B, d)``: ``(B, S)``, sums in [0, 1]."""
        logits = self.gate_bias.expand(batch, -1)
        if gram is not None and self.gate_weight.shape[1]:
            logits = logits + gram.float() @ self.gate_weight.T
        return logits.softmax(dim=1)[:, :-1]

    def extend_queries(
        self, queries: Tensor, gram: Tensor | None = None, *, calibrate: bool = True
    ) -> Tensor:
        """``[q, -p, 0]``: unit-norm queries ``(B, E)`` to ``(B, E + S + 1)``.

        Args:
            queries: Unit-norm embeddings.
            gram: Their reduced Gram codes ``(B, d)``, where there is a gate.
            calibrate: False leaves the columns zero: plain cosines against the same photos.
        """
        columns = -self.shares(gram, queries.shape[0]) * float(calibrate)  # (B, S)
        return self._with(queries, columns.to(queries), queries.new_zeros(queries.shape[0], 1))

    def extend_texts(self, texts: Tensor) -> Tensor:
        """``[t, 0, -1]``: unit-norm texts ``(B, E)`` to ``(B, E + S + 1)``."""
        return self._with(
            texts,
            texts.new_zeros(texts.shape[0], self.n_styles),
            texts.new_full((texts.shape[0], 1), -1.0),
        )

    def extend_gallery(self, gallery: Tensor) -> Tensor:
        """``[g, h]``: frozen embeddings ``(G, E)`` to ``(G, E + S + 1)``."""
        return self._with(gallery, self.photo_terms(gallery))

    def _with(self, rows: Tensor, *columns: Tensor) -> Tensor:
        return torch.cat([rows, *columns], dim=1) if self.is_fitted else rows


def _classifier(classes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Weights ``(C, d)`` and biases ``(C,)`` of a balanced logistic regression on codes."""
    width = classes[0].shape[1]
    if len(classes) == 1:
        return torch.zeros(1, width), torch.zeros(1)
    from sklearn.linear_model import LogisticRegression

    labels = np.concatenate([np.full(len(rows), n) for n, rows in enumerate(classes)])
    fitted = LogisticRegression(C=GATE_PENALTY, class_weight="balanced", max_iter=500)
    fitted.fit(torch.cat(list(classes)).double().cpu().numpy(), labels)
    weight, bias = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
    if len(classes) == 2:  # one row stands for both
        weight = torch.cat([torch.zeros_like(weight), weight])
        bias = torch.cat([torch.zeros_like(bias), bias])
    return weight.float(), bias.float()
