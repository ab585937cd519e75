"""The look that all figures share. Matplotlib is imported on the first call.

Drawn with Matplotlib's Agg canvas, without pyplot's global state. Colours are Okabe and Ito's,
which colour-blind readers can tell apart; nothing is said by colour alone.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from freestyle.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, HAIRLINE, CARD = "#1f2328", "#656d76", "#d0d7de", "#f6f8fa"
RIGHT, WRONG = "#009e73", "#b3450a"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d", "#8c6d31")


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of this size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: str | Path) -> Path:
    """Write the figure as PNG, atomically; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return write_atomically(path, lambda p: p.write_bytes(buffer.getvalue()))
