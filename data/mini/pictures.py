"""Render every training picture once to a square on white, in one memory-mapped array."""

from __future__ import annotations

import io
import json
import os
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image
from sources import Picture
from tqdm import tqdm

SIDE = 224
MIN_COLOUR = 12.0  # mean of (max - min channel) over the ink, of 255: below it, a drawing is black


def write_json(path: Path, content: object) -> None:
    """Atomic: a temporary file, fsync, rename."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, ensure_ascii=False, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def on_white(image: Image.Image, side: int = SIDE) -> Image.Image:
    """Flatten on white, fit the longer side and pad to a centred square of ``side`` pixels."""
    image = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image)
    scale = side / max(ground.size)
    size = tuple(max(1, round(s * scale)) for s in ground.size)
    fitted = ground.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    square = Image.new("RGB", (side, side), "white")
    square.paste(fitted, ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def render(path: str) -> Image.Image:
    """An SVG (by resvg) or a bitmap to a square picture; raises on anything unreadable."""
    if path.endswith(".svg"):
        import resvg_py

        png = resvg_py.svg_to_bytes(svg_path=path, width=320, dpi=96, skip_system_fonts=True)
        return on_white(Image.open(io.BytesIO(bytes(png))))
    with Image.open(path) as image:
        return on_white(image)


def verdict(pixels: np.ndarray, drawing: bool) -> str:
    """``""`` to keep ``(S, S, 3)`` pixels, else why not: empty, or a drawing without colour."""
    ink = pixels.min(-1) < 240
    if ink.mean() < 0.01:
        return "empty"
    spread = pixels.max(-1).astype(int) - pixels.min(-1)
    return "without colour" if drawing and spread[ink].mean() < MIN_COLOUR else ""


def attempt(path: str) -> tuple[np.ndarray | None, str]:
    """Pixels, or None and the reason why the picture is left out."""
    try:
        pixels = np.asarray(render(path))
    except Exception:  # a broken file of a package is counted, not fatal
        return None, "unreadable"
    reason = verdict(pixels, path.endswith(".svg"))
    return (None, reason) if reason else (pixels, "")


def render_all(
    pictures: list[Picture], counts: dict[str, int], cache: Path
) -> tuple[np.ndarray, list[Picture]]:
    """All pictures as ``(N, 224, 224, 3)`` uint8 (memory-mapped) with their records.

    Unreadable, empty, colourless and duplicate pictures are counted in ``counts`` and dropped.
    Finished work is read back.
    """
    data, index = cache / "pictures.npy", cache / "pictures.json"
    if data.exists() and index.exists():
        stored = json.loads(index.read_text())
        counts.update(stored["left out"])
        return np.load(data, mmap_mode="r"), [Picture(**p) for p in stored["pictures"]]

    kept: list[Picture] = []
    seen: set[bytes] = set()
    temporary = data.with_suffix(".npy.tmp")
    shape = (len(pictures), SIDE, SIDE, 3)
    store = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
    with Pool(os.cpu_count()) as pool:
        results = pool.imap(attempt, [p.path for p in pictures], chunksize=16)
        for picture, (pixels, reason) in zip(
            pictures, tqdm(results, "render", len(pictures)), strict=True
        ):
            if pixels is not None:
                key = pixels[::8, ::8].tobytes()
                reason = "duplicate" if key in seen else ""
                seen.add(key)
            if reason:
                label = f"{picture.source}: {reason}"
                counts[label] = counts.get(label, 0) + 1
                continue
            store[len(kept)] = pixels
            kept.append(picture)
    store.flush()
    compact = np.load(temporary, mmap_mode="r")[: len(kept)]
    final = data.with_suffix(".final.tmp")
    with final.open("wb") as stream:
        np.save(stream, compact)
        os.fsync(stream.fileno())
    final.replace(data)
    temporary.unlink()
    write_json(index, {"pictures": [p.__dict__ for p in kept], "left out": counts})
    return np.load(data, mmap_mode="r"), kept
