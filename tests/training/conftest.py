import json

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter


def draw(seed, size=40):
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
            for style, picture in draw(i).items():
                (root / style).mkdir(exist_ok=True)
                picture.save(root / style / f"{i}.png")
            (root / "text").mkdir(exist_ok=True)
            (root / "text" / f"{i}.txt").write_text(f"number {i} of many things\n")
            entries.append({"image": f"{i}.png", "caption": f"{i}.txt"})
        (root / f"{split}.json").write_text(json.dumps(entries))
    return root
