"""The trained map behind a query embedding, and what the query's style does to it."""

from __future__ import annotations

from torch import Tensor, nn


class QueryMap(nn.Module):
    """``W x + b``, and with a Gram code g ``W (x * (1 + s(g))) + b + t(g)``.

    A mean embedding per style is what the training-free control subtracts; here scale and shift
    are learned functions of the query's own Gram code, so that no style need be named (FiLM, Perez
    et al., AAAI 2018, arXiv 1709.07871).

    Args:
        width: E.
        code_dim: Width d of the Gram code; 0 leaves the map linear.
        hidden: Hidden width of the function s, t.
    """

    def __init__(self, width: int, code_dim: int = 0, hidden: int = 64) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.style: nn.Sequential | None = None
        if code_dim:
            last = nn.Linear(hidden, 2 * width)
            nn.init.normal_(last.weight, std=1e-3)  # near nothing, yet every weight has a gradient
            nn.init.zeros_(last.bias)
            self.style = nn.Sequential(nn.Linear(code_dim, hidden), nn.GELU(), last)

    def forward(self, x: Tensor, gram: Tensor | None = None) -> Tensor:
        """Unit-norm embeddings ``(B, E)`` and Gram codes ``(B, d)`` to ``(B, E)``."""
        if self.style is None:
            return self.linear(x)
        scale, shift = self.style(gram).chunk(2, dim=1)  # (B, E) each
        # Entries of a unit vector are small: the shift must not outgrow them in a few steps.
        return self.linear(x * (1 + scale)) + 0.1 * shift
