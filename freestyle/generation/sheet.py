"""A contact sheet: some photos, and beside each what was made of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from freestyle.datasets.images import load_image
from freestyle.files import write_atomically
from freestyle.generation.journal import PHOTOS, Journal

_CELL, _GAP, _HEAD = 192, 6, 22


def sample(ids: Sequence[str], count: int) -> list[str]:
    """Up to ``count`` ids, those of the lowest hash: the same ones for the same set, sorted."""
    by_hash = sorted(ids, key=lambda name: hashlib.sha256(f"sheet\0{name}".encode()).digest())
    return sorted(by_hash[:count])


def contact_sheet(
    journal: Journal, ids: Sequence[str], styles: Sequence[str], path: Path, rows: int = 12
) -> Path:
    """Draw a sheet of ``rows`` photos (PNG): a column per picture style, captions below photos.

    Args:
        journal: Of a finished set.
        ids: Photos to choose from.
        styles: Styles to show; ``text`` is written, not shown.
        path: Where to.
        rows: Most photos.
    """
    chosen = sample(ids, rows)
    pictured = [PHOTOS, *(style for style in styles if style != "text")]
    files: dict[tuple[str, str], Path] = {}
    for style in pictured:
        for row in journal.rows(style):
            if row["id"] in chosen:
                files[style, row["id"]] = journal.root / row["file"]
    line = _HEAD if "text" in styles else 0
    size = (
        _GAP + len(pictured) * (_CELL + _GAP),
        _HEAD + len(chosen) * (_CELL + _GAP + line) + _GAP,
    )
    sheet = Image.new("RGB", size, (238, 238, 238))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, style in enumerate(pictured):
        left = _GAP + column * (_CELL + _GAP)
        pen.text((left, 3), "photo" if style == PHOTOS else style, fill="black", font=font)
        for number, name in enumerate(chosen):
            top = _HEAD + number * (_CELL + _GAP + line)
            picture = load_image(files[style, name])
            picture = _fit(picture)
            sheet.paste(
                picture, (left + (_CELL - picture.width) // 2, top + (_CELL - picture.height) // 2)
            )
            if line and column == 0:
                caption = (journal.root / "text" / f"{name}.txt").read_text(encoding="utf-8")
                pen.text((left, top + _CELL + 2), caption.strip()[:110], fill="black", font=font)
    return write_atomically(path, lambda temporary: sheet.save(temporary, "PNG"))


def _fit(picture: Image.Image) -> Image.Image:
    """Into a cell; thumbnails are enlarged pixel by pixel."""
    factor = _CELL / max(picture.size)
    size = tuple(max(1, round(side * factor)) for side in picture.size)
    enlarge = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BICUBIC
    return picture.resize(size, enlarge)
