"""Small data sets in the layouts that the readers know."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from freestyle.errors import UserError


def picture(path: Path, colour: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else path.suffix[1:].upper()
    Image.new("L", (2, 2), colour).save(path, format=kind)


def caption(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def write():
    """The helpers above, for tests that change a folder."""
    return SimpleNamespace(picture=picture, caption=caption, json=write_json)


@pytest.fixture
def refused():
    """Call a function that must fail and return its one-sentence message."""

    def call(function, *arguments, **options):
        with pytest.raises(UserError) as caught:
            function(*arguments, **options)
        text = str(caught.value)
        assert "\n" not in text and text.endswith(".") and ":" in text
        return text

    return call


@pytest.fixture
def dsr(tmp_path):
    """Nested ids, three styles (``art`` for one test record only), 40 train and 3 test records."""
    root = tmp_path / "tiny"
    stems = {
        "train": [f"t/{number}" for number in range(40)],
        "test": ["a/1", "a/2", "b/1.x"],
    }
    for split, names in stems.items():
        write_json(
            root / f"{split}.json",
            [{"image": f"{name}.jpg", "caption": f"{name}.txt"} for name in names],
        )
        for name in names:
            picture(root / "images" / f"{name}.jpg")
            picture(root / "sketch" / f"{name}.png")
            picture(root / "mosaic" / f"{name}.JPG")
            caption(root / "text" / f"{name}.txt", f"caption of {name}\nmore words\n")
    picture(root / "art" / "a/1.webp")
    (root / ".cache").mkdir()
    picture(root / "__MACOSX" / "a.png")
    caption(root / "LICENSES" / "art" / "MIT.txt", "no style")
    return root


@pytest.fixture
def fscoco(tmp_path):
    """Two users with 30 scenes each; ids 1, 2 held out, and all of user 2 as unseen."""
    root = tmp_path / "fscoco"
    for user in (1, 2):
        for number in range(30):
            name = f"{user}/{user * 1000 + number:012d}"
            picture(root / "images" / f"{name}.jpg")
            picture(root / "raster_sketches" / f"{name}.jpg")
            caption(root / "text" / f"{name}.txt", f"scene {name}\n")
    (root / "vector_sketches").mkdir()
    (root / "val_normal.txt").write_text("000000001003\n2005\n\n2/000000002001.jpg\n")
    (root / "val_unseen_user.txt").write_text("\n".join(str(2000 + n) for n in range(30)))
    return root


@pytest.fixture
def imagenet_x(tmp_path):
    """Two classes of three photos; ``sketch`` has a list of its own, ``mosaic`` has none."""
    root = tmp_path / "inx"
    entries = []
    for folder, classname in (("n01", "tench"), ("n02", "hen")):
        for number in range(3):
            stem = f"{folder}/{folder}_{number}"
            picture(root / "images" / f"{stem}.JPEG")
            picture(root / "mosaic" / f"{stem}.png")
            caption(root / "text" / f"{stem}.txt", f"a {classname} {number}")
            entries.append({"image": f"{stem}.JPEG", "classname": classname})
    write_json(root / "images" / "test.json", entries)
    sketches = [("n02/s1", "hen"), ("n01/s2", "tench"), ("n02/s3", "hen"), ("n02/s4", "hen")]
    for stem, _ in sketches:
        picture(root / "sketch" / f"{stem}.png")
    write_json(
        root / "sketch" / "test.json",
        [{"image": f"{stem}.png", "classname": classname} for stem, classname in sketches],
    )
    return root
