"""The trained map behind a query embedding, and its shift by style."""

from __future__ import annotations

from torch import Tensor, nn


class QueryMap(nn.Module):
    """``W x + b``, and with a code ``W x + b + f(g)``: what a style adds to every picture.

    A mean embedding per style is what the training-free control subtracts; here the shift is
    learned, a function of the query's own Gram code, so that no style need be named.

    Args:
        width: E.
        code_dim: Width d of the Gram code; 0 leaves the map linear.
        hidden: Hidden width of the shift's function.
    """

    def __init__(self, width: int, code_dim: int = 0, hidden: int = 64) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.shift: nn.Sequential | None = None
        if code_dim:
            last = nn.Linear(hidden, width, bias=False)
            nn.init.normal_(last.weight, std=1e-3)  # near no shift, yet every weight has a gradient
            self.shift = nn.Sequential(nn.Linear(code_dim, hidden), nn.GELU(), last)

    def forward(self, x: Tensor, gram: Tensor | None = None) -> Tensor:
        """Unit-norm embeddings ``(B, E)`` and Gram codes ``(B, d)`` to ``(B, E)``."""
        mapped = self.linear(x)
        if self.shift is not None:
            mapped = mapped + self.shift(gram)
        return mapped
