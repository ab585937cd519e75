"""``freestyle-mini``: a small CLIP-like dual encoder that needs no download (see MODEL_CARD.md)."""

from freestyle.encoders.mini.model import FreestyleMini

__all__ = ["FreestyleMini"]
