"""The trained map behind a query embedding, and what the query's style does to it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROUTING_RATE = 10.0  # lets the few weights of the routing move as far as the map's many


class QueryMap(nn.Module):
    """``W x + b``, and with a Gram code g ``W (x * (1 + s(g))) + b + t(g)``.

    A mean embedding per style is what the training-free control subtracts; here scale and shift
    are learned functions of the query's own Gram code, so that no style need be named (FiLM, Perez
    et al., AAAI 2018, arXiv 1709.07871).

    Args:
        width: E.
        code_dim: Width d of the Gram code; 0 leaves the map linear.
        hidden: Hidden width of the function s, t.
        framings: F embeddings of each query, of differently framed pictures, which are joined
            before the map with weights that are a function of the Gram code (of nothing where the
            map is linear).
    """

    def __init__(self, width: int, code_dim: int = 0, hidden: int = 64, framings: int = 1) -> None:
        super().__init__()
        self.framings = framings
        self.routing: nn.Linear | None = None
        if framings > 1:
            if code_dim:
                self.routing = nn.Linear(code_dim, framings)
                nn.init.zeros_(self.routing.weight)
                nn.init.zeros_(self.routing.bias)
            else:  # nothing to read: the same weights for every query
                self.shares = nn.Parameter(torch.zeros(framings))
        self.linear = nn.Linear(width, width)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.style: nn.Sequential | None = None
        if code_dim:
            last = nn.Linear(hidden, 2 * width)
            nn.init.normal_(last.weight, std=1e-3)  # near nothing, yet every weight has a gradient
            nn.init.zeros_(last.bias)
            self.style = nn.Sequential(nn.Linear(code_dim, hidden), nn.GELU(), last)

    def route(self, x: Tensor, gram: Tensor | None = None) -> Tensor:
        """Weights of the framings ``(B, F)``, rows sum to 1."""
        logits = self.shares.expand(x.shape[0], -1) if self.routing is None else self.routing(gram)
        return (ROUTING_RATE * logits.float()).softmax(dim=1)

    def forward(self, x: Tensor, gram: Tensor | None = None) -> Tensor:
        """Embeddings ``(B, F * E)``, one framing after the other, and codes to ``(B, E)``.

        Args:
            x: Frozen embeddings.
            gram: Gram codes ``(B, d)``; None for a linear map.
        """
        x = x.unflatten(1, (self.framings, -1))  # (B, F, E)
        x = F.normalize(x.float(), dim=-1)
        if self.framings > 1:
            x = (x * self.route(x, gram)[:, :, None]).sum(dim=1)  # (B, E)
            x = F.normalize(x, dim=-1)
        else:
            x = x[:, 0]
        if self.style is None:
            return self.linear(x)
        scale, shift = self.style(gram).chunk(2, dim=1)  # (B, E) each
        # Entries of a unit vector are small: the shift must not outgrow them in a few steps.
        return self.linear(x * (1 + scale)) + 0.1 * shift
