"""Photos to fill indexes with, and the back ends under test."""

from __future__ import annotations

import numpy as np
from qdrant_client import QdrantClient

from freestyle.search.index import create_index, open_index
from freestyle.search.qdrant import QdrantIndex
from freestyle.search.records import IndexSettings, PhotoRecord, photo_id

WIDTH, ATOMS = 16, 3
SETTINGS = IndexSettings("freestyle-mini", "freestyle-mini@1", WIDTH, "patches-3-uniform", ATOMS)
FOLDERS = ("", "trips", "trips/2020", "trips/2020/sea", "trips/2020er", "Größe/ça va", 'it\'s "it"')
CAPTIONS = (
    "a Dog at the sea",
    "DOGS",
    "",
    "ein Straßenfest",
    "100% _wild_ c\\at",
    "'; DROP TABLE x",
)


def unit(array):
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def make_photo(number, width=WIDTH, elements=ATOMS, version=0, **changes):
    """A photo of a number; another version has other content under the same id."""
    random = np.random.default_rng([number, version])
    path = "/".join(filter(None, (FOLDERS[number % len(FOLDERS)], f"{number:04d}.jpg")))
    extra = {"camera": ("Canon", "Nikon", 'Nikon\'s "best"')[number % 3], "rating": number % 5}
    if number % 2:
        extra |= {
            "f-stop": number / 4,
            'my "column"; --': f"{number % 4}",
            "Flash": number % 3 == 0,
        }
    sets = unit(random.standard_normal((elements, width))).astype(np.float16) if elements else None
    values = {
        "id": photo_id(path),
        "path": path,
        "vector": unit(random.standard_normal(width)).astype(np.float32),
        "atoms": sets,
        "origin": f"/photos/{path}",
        "offset": number % 7 - 1,
        "size": 1000 * number + version,
        "modified": 1.7e9 + number / 8,
        "digest": f"{number:064x}",
        "width": 40 + number,
        "height": 30,
        "caption": CAPTIONS[number % len(CAPTIONS)],
        "date": f"20{number % 23:02d}-0{1 + number % 9}-1{number % 7}T10:00:0{number % 10}"
        if number % 11
        else "",
        "thumbnail": b"RIFF" + bytes([number % 256]) * (number % 50) if number % 5 else b"",
        "extra": extra,
    }
    return PhotoRecord(**(values | changes))


def make_photos(count, start=0, **changes):
    return [make_photo(number, **changes) for number in range(start, start + count)]


class BackEnd:
    """One back end under test: where its indexes lie and how they are opened."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        self.client = QdrantClient(":memory:") if name == "qdrant" else None

    def uri(self, name="my index ü"):
        if self.client is not None:  # of the test's own, so that the locks are too
            return f"qdrant://memory/{self.folder.name}-{name.split()[0]}"
        return f"{self.name}:{self.folder / name}"

    def create(self, settings=SETTINGS, name="my index ü"):
        if self.client is not None:
            return QdrantIndex.create(self.uri(name), settings, self.client)
        return create_index(self.uri(name), settings)

    def open(self, name="my index ü"):
        if self.client is not None:
            return QdrantIndex.open(self.uri(name), self.client)
        return open_index(self.uri(name))

    def filled(self, photos, settings=SETTINGS, name="my index ü"):
        index = self.create(settings, name)
        with index.writing():
            index.upsert(photos)
        return index
