"""Indexing that is killed again and again ends with the same content as an undisturbed run.

    python benchmarks/killed.py [--photos data/emoji/images] [--model runs/demo/model] [--kills 10]

The photos are indexed once without disturbance. Then ``freestyle index`` is started and ended by
``kill -9`` at a random moment, ten times, and left alone at last. Exits with 1 unless both indexes
hold the same photos with the same vectors, sets, thumbnails and metadata, to the last bit.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from freestyle.errors import UserError
from freestyle.search.index import open_index
from freestyle.search.records import PhotoRecord

COMMIT = 32  # photos, so that many a kill falls between two commits
SHARE = 0.3  # of the undisturbed run's embedding, within which a run is killed once it has begun


def command(photos: str, model: str, out: Path) -> list[str]:
    """One run of ``freestyle index``."""
    program = [sys.executable, "-m", "freestyle.cli", "index", photos, "--out", str(out)]
    return [*program, "--model", model, "--commit", str(COMMIT), "--quiet"]


def seconds_of(run: Sequence[str]) -> float:
    """Run to the end."""
    begin = time.perf_counter()
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def content(path: Path) -> dict[str, PhotoRecord]:
    """All photos of an index by id."""
    index = open_index(str(path))
    try:
        return {photo.id: photo for batch in index.records() for photo in batch}
    finally:
        index.close()


def same(one: PhotoRecord, other: PhotoRecord) -> bool:
    """Whether two photos agree in everything."""
    for field in dataclasses.fields(PhotoRecord):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            if a.dtype != b.dtype or a.tobytes() != b.tobytes():
                return False
        elif a != b:
            return False
    return True


def main(args: Sequence[str] | None = None) -> int:
    """Kill, finish, compare."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--photos", default="data/emoji/images")
    p.add_argument("--model", default="runs/demo/model")
    p.add_argument("--kills", type=int, default=10)
    p.add_argument("--seed", type=int, default=0)
    options = p.parse_args(args)
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole.index"), Path(folder, "killed.index")
        first = seconds_of(command(options.photos, options.model, whole))
        again = seconds_of(command(options.photos, options.model, whole))  # start and end alone
        print(f"undisturbed: {first:.1f} s, of which {first - again:.1f} s of embedding")
        for number in range(options.kills):
            run = subprocess.Popen(command(options.photos, options.model, killed))
            time.sleep(generator.uniform(0.5 * again, again + SHARE * (first - again)))
            if run.poll() is not None:
                print(f"run {number + 1} ended before it was killed, with exit code {run.poll()}")
                return 1
            run.kill()
            run.wait()
            print(f"killed {number + 1}: {photos_in(killed)}", flush=True)
        seconds_of(command(options.photos, options.model, killed))
        a, b = content(whole), content(killed)
    equal = a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    print(
        f"{len(b):,} photos at the end, {'the same' if equal else 'NOT the same'} to the last bit"
    )
    return 0 if equal else 1


def photos_in(path: Path) -> str:
    """How far a killed run came."""
    try:
        index = open_index(str(path))
    except UserError:
        return "no index yet"
    try:
        return f"{len(index):,} photos"
    finally:
        index.close()


if __name__ == "__main__":
    sys.exit(main())
