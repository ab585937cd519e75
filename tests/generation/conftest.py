"""Small photo folders for the generation tests; nothing is downloaded."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[2]


def draw_photo(seed: int, width: int = 96, height: int = 80) -> Image.Image:
    """A photo-like picture: soft background, a few shapes, grain."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(60, 220, (3, 3, 3), dtype=np.uint8))
    picture = coarse.resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(4):
        x, y = random.integers(0, width - 30), random.integers(0, height - 30)
        box = [int(x), int(y), int(x + random.integers(12, 30)), int(y + random.integers(12, 30))]
        colour = tuple(random.integers(0, 256, 3).tolist())
        (pen.ellipse if random.random() < 0.5 else pen.rectangle)(box, fill=colour)
    noisy = np.asarray(picture).astype(int) + random.integers(-6, 7, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def make_photo():
    """Photos: ``make_photo(seed, width, height)``."""
    return draw_photo


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of ten photos, two of them in a folder below, each with a caption beside it."""
    folder = tmp_path / "photos"
    (folder / "trip").mkdir(parents=True)
    for seed in range(10):
        path = folder / ("trip" if seed > 7 else ".") / f"photo{seed}.jpg"
        draw_photo(seed).save(path, quality=95)
        path.with_suffix(".txt").write_text(f"a picture of number {seed}\n")
    return folder


@pytest.fixture
def generate():
    """Run the command in this process: ``generate(photos, out, *options)``."""
    from freestyle.generation.command import main

    def run(source, out, *options: str) -> Path:
        defaults = ["--workers", "0", "--statistics", "0", "--sheet-rows", "0", "--part-size", "3"]
        main([str(source), "--out", str(out), *defaults, *options])
        return Path(out)

    return run


@pytest.fixture
def command():
    """The command as a process of its own, not yet waited for."""

    def start(*arguments: object, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "freestyle.cli", "generate", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder and its bytes."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def files_of():
    """``files_of(folder)``: relative path to bytes."""
    return tree


@pytest.fixture(scope="session")
def checkpoints():
    """The makers of tiny checkpoints in checkpoints.py, which lies beside the tests."""
    spec = importlib.util.spec_from_file_location(
        "generation_checkpoints", Path(__file__).with_name("checkpoints.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
