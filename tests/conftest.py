"""Small models and picture folders shared by the tests; nothing is downloaded."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

WORDS = ("a red cat", "two dogs", "the boat", "a house on a hill", "one tree", "blue shoes")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the style codes of whoever runs it, or asks the network."""
    monkeypatch.setenv("FREESTYLE_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> SimpleNamespace:
    """What ``make demo`` leaves, made once: its ``folder``, and what it ``printed``."""
    from freestyle.cli import main

    folder = tmp_path_factory.mktemp("demo")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("FREESTYLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.chdir(Path(__file__).parents[1])
        assert main(["demo", "--out", str(folder)]) == 0
    return SimpleNamespace(folder=folder, printed=printed.getvalue())


def draw(seed: int, style: str = "images", side: int = 40) -> Image.Image:
    """A picture with structure: the same shape per seed, another texture per style."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
    if style == "sketch":
        grey = pixels.mean(axis=2, keepdims=True)
        edges = np.abs(np.diff(grey, axis=1, prepend=grey[:, :1])) * 12
        pixels = np.repeat(255 - edges, 3, axis=2)
    elif style == "art":
        pixels = pixels + 60 * ((np.indices((side, side)).sum(axis=0) // 2) % 2)[..., None]
    elif style == "mosaic":
        pixels = np.asarray(coarse.resize((side, side), Image.Resampling.NEAREST)).astype(int)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def make_picture():
    """Pictures: ``make_picture(seed, style)``."""
    return draw


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Eight different pictures."""
    return [draw(seed) for seed in range(8)]


def write_dsr(root: Path, sizes: dict[str, int], styles: tuple[str, ...]) -> Path:
    seed = 0
    for split, count in sizes.items():
        entries = []
        for _ in range(count):
            stem = f"{seed:02d}"
            for style in ("images", *styles):
                suffix = "jpg" if style == "images" else "png"
                (root / style).mkdir(parents=True, exist_ok=True)
                draw(seed, style).save(root / style / f"{stem}.{suffix}")
            (root / "text").mkdir(exist_ok=True)
            (root / "text" / f"{stem}.txt").write_text(f"{WORDS[seed % 6]} number {seed}")
            entries.append({"image": f"{stem}.jpg", "caption": f"{stem}.txt"})
            seed += 1
        (root / f"{split}.json").write_text(json.dumps(entries))
    return root


@pytest.fixture
def data(tmp_path) -> Path:
    """A data set in the DSR layout: 6 training, 4 validation, 5 test records in 3 styles."""
    sizes = {"train": 6, "val": 4, "test": 5}
    return write_dsr(tmp_path / "tiny", sizes, ("sketch", "art", "mosaic"))


@pytest.fixture(scope="session")
def style_config():
    """A style reader that needs no download and a space that a dozen codes can fill."""
    from freestyle.config import StyleConfig

    return StyleConfig(
        network="vgg16",
        taps=("relu1_2",),
        resolution=32,
        channels=8,
        n_bases=2,
        n_components=6,
        weights="random",
    )


@pytest.fixture(scope="session")
def shared():
    """Encoder and style reader by settings, built once: nothing may change them anyway."""
    made: dict = {}

    def get(what):
        if what not in made:
            if isinstance(what, str):
                from freestyle.encoders.factory import create

                made[what] = create(what)
            else:
                from freestyle.style.build import build_reader

                made[what] = build_reader(what)
        return made[what]

    return get


@pytest.fixture(scope="session")
def style_codes(shared, style_config):
    """Style codes ``(12, code_dim)`` of four pictures in three styles."""
    import torch

    encoder, reader = shared("random:clip-tiny"), shared(style_config)
    drawn = [draw(seed, style) for style in ("sketch", "art", "mosaic") for seed in range(4)]
    return reader(torch.stack([encoder.preprocess(image) for image in drawn]))


@pytest.fixture(scope="session")
def make_model(shared, style_config, style_codes):
    """Models by method, their style space fitted: ``make_model("freestyle", n_tokens=2)``."""
    import torch

    from freestyle import baselines
    from freestyle.config import PromptConfig
    from freestyle.model import FreestyleRet
    from freestyle.style.build import fit_space

    def make(
        method="freestyle",
        encoder="random:clip-tiny",
        *,
        query_map="none",
        tower=None,
        calibration=None,
        gallery="frozen",
        style=style_config,
        seed=0,
        **prompts,
    ):
        prompts = PromptConfig(**{"n_tokens": 2, "hidden": 5, **prompts})
        settings = baselines.settings(
            method,
            encoder,
            style=style,
            prompts=prompts,
            tower=tower,
            query_map=query_map,
            calibration=calibration,
            gallery=gallery,
        )
        torch.manual_seed(seed)
        reader = shared(style) if settings.needs_style else None
        model = FreestyleRet(settings, encoder=shared(encoder), reader=reader)
        if model.space is not None:
            fitted = fit_space(style, style_codes, reader.tag)
            model.space.load_state_dict(fitted.state_dict())
        return model.eval()

    return make


@pytest.fixture
def pixels(shared, pictures):
    """Eight pictures as pixels ``(8, 3, S, S)`` for the tiny CLIP."""
    import torch

    encoder = shared("random:clip-tiny")
    return torch.stack([encoder.preprocess(image) for image in pictures])


@pytest.fixture
def refusal():
    """Call what must fail; return its message, which must be one sentence with a remedy."""
    from freestyle.errors import UserError

    def call(function, *arguments, **options) -> str:
        with pytest.raises(UserError) as caught:
            function(*arguments, **options)
        text = str(caught.value)
        assert "\n" not in text and ":" in text, text
        return text

    return call


def draw_record(seed, size=40):
    """One record: a photo, its outline, its flat drawing and its thumbnail."""
    rng = np.random.default_rng(seed)
    photo = Image.new("RGB", (size, size), "white")
    sketch, art = photo.copy(), photo.copy()
    for _ in range(3):
        x, y = rng.integers(2, size - 18, 2).tolist()
        w, h = rng.integers(6, 16, 2).tolist()
        colour = tuple(rng.integers(0, 220, 3).tolist())
        shape = "ellipse" if rng.random() < 0.5 else "rectangle"
        box = (x, y, x + w, y + h)
        getattr(ImageDraw.Draw(photo), shape)(box, fill=colour)
        getattr(ImageDraw.Draw(sketch), shape)(box, outline="black")
        getattr(ImageDraw.Draw(art), shape)(box, fill=colour, outline="black")
    mosaic = photo.resize((8, 8), Image.Resampling.BOX).resize((size, size))
    return {
        "images": photo.filter(ImageFilter.GaussianBlur(1)),
        "sketch": sketch,
        "art": art,
        "mosaic": mosaic,
    }


@pytest.fixture(scope="session")
def dsr(tmp_path_factory):
    """A data set in the DSR layout: 24 training, 8 validation and 8 test records."""
    root = tmp_path_factory.mktemp("dsr")
    lists = {"train": range(24), "val": range(24, 32), "test": range(32, 40)}
    for split, ids in lists.items():
        entries = []
        for i in ids:
            for style, picture in draw_record(i).items():
                (root / style).mkdir(exist_ok=True)
                picture.save(root / style / f"{i}.png")
            (root / "text").mkdir(exist_ok=True)
            (root / "text" / f"{i}.txt").write_text(f"number {i} of many things\n")
            entries.append({"image": f"{i}.png", "caption": f"{i}.txt"})
        (root / f"{split}.json").write_text(json.dumps(entries))
    return root
