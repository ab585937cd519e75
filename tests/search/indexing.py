"""Folders of small photos, and the command that indexes them; read by the tests with runpy."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from freestyle.search.index import open_index
from freestyle.search.index_command import main

ENCODER = "random:clip-tiny"
NAMES = ("a.jpg", "b.png", "trips/c.jpg", "trips/sea/d.webp", "trips/sea/ü – ça.jpg")


def draw(seed, width=60, height=40):
    """A picture of its own by seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def put(path, seed, **options):
    """Write a picture."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    draw(seed).save(path, **options)
    return Path(path)


def make_folder(root, names=NAMES):
    """Pictures with these names; the number of a name is its seed."""
    for seed, name in enumerate(names):
        put(root / name, seed)
    return root


def uri(out, back_end="exact"):
    return f"{back_end}:{out}"


def index(sources, out, *options, encoder=ENCODER):
    """Run the command in this process; returns its summary."""
    sources = sources if isinstance(sources, list | tuple) else [sources]
    report = Path(out).parent / f"{Path(out).name}.json"
    new = not (Path(out) / "info.json").exists() and encoder and "--model" not in options
    more = ["--encoder", encoder] if new else []
    place = ["--out", uri(out), "--workers", "0", "--quiet", "--json", str(report)]
    main([*map(str, sources), *place, *more, *map(str, options)])
    return json.loads(report.read_text())


def counts(summary):
    """What a run did, without what is 0."""
    names = ("added", "changed", "refreshed", "deleted", "unchanged", "broken")
    return {name: summary[name] for name in names if summary[name]}


def content(out, back_end="exact"):
    """All records of an index, by path."""
    opened = open_index(uri(out, back_end))
    return {record.path: record for batch in opened.records() for record in batch}


def same_content(one, other, tolerance=1e-5, but=()):
    """Whether two indexes hold the same photos."""
    assert one.keys() == other.keys()
    for path, mine in one.items():
        theirs = other[path]
        assert np.allclose(mine.vector, theirs.vector, atol=tolerance)
        assert (mine.atoms is None) == (theirs.atoms is None)
        if mine.atoms is not None:  # float16: a unit of the last place
            assert np.allclose(mine.atoms, theirs.atoms, atol=1e-3)
        for name in mine.__dataclass_fields__:
            if name not in ("vector", "atoms", *but):
                assert getattr(mine, name) == getattr(theirs, name), (path, name)
    return True


def touch(path, seconds=1_700_000_000):
    """Another time of change, the same bytes."""
    os.utime(path, (seconds, seconds))
