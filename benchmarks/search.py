"""Indexes at scale: build time, memory, latency, throughput, and recall@10 against exact search.

    python benchmarks/search.py [--sizes 10000,100000] [--back-ends exact,lance] [--json out.json]
    python benchmarks/search.py --back-ends qdrant --qdrant qdrant://127.0.0.1:6333

Vectors are synthetic, of CLIP's shape: 512 wide, in clusters of uneven size, their variance falling
from direction to direction, all in a narrow cone (mean cosine about 0.5). Half of the queries lie
among the photos, as pictures do; half are moved away in one common direction, as texts are. Blocks
of the gallery are made when needed, so a million fit into little memory. Building and searching
are processes of their own, with their own peaks of memory; one query is asked at a time for
latency, ``--threads`` at once for throughput. ``qdrant`` without a URI is the client's in-memory
mode, which compares everything in NumPy: it says nothing about a server, and goes to 10,000 only.

``--check`` exits with 1 where LanceDB misses its goals at 100,000. The real emoji gallery is
measured by ``benchmarks/search_gallery.py``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from freestyle.search.filters import parse_filter
from freestyle.search.index import create_index, open_index
from freestyle.search.records import IndexSettings, PhotoRecord, photo_id

WIDTH, TOP, BLOCK, FOLDERS = 512, 10, 1000, 10
FILTER = "folder = 3"  # a tenth of the photos
MEMORY_LIMIT = 10_000  # photos in Qdrant's in-memory mode
BYTES = 3 * (4 * WIDTH + 300)  # of a photo on disk while an index is merged
SLOWEST_MS, LEAST_RECALL, AT = 25.0, 0.95, 100_000  # goals of LanceDB
COLUMNS = {
    "photos": "{:,}",
    "fill_s": "{:.1f}",
    "optimise_s": "{:.1f}",
    "build_gib": "{:.2f}",
    "disk_gib": "{:.2f}",
    "search_gib": "{:.2f}",
    "p50_ms": "{:.1f}",
    "p95_ms": "{:.1f}",
    "p99_ms": "{:.1f}",
    "cpu_ms": "{:.1f}",
    "queries_per_s": "{:.0f}",
    "recall_photos": "{:.3f}",
    "recall_moved": "{:.3f}",
    "filtered_p95_ms": "{:.1f}",
    "filtered_recall": "{:.3f}",
}


@dataclass(frozen=True)
class Gallery:
    """A synthetic gallery.

    Attributes:
        size: Number of photos, a multiple of :data:`BLOCK`.
        seed: Of everything.
    """

    size: int
    seed: int = 0

    @cached_property
    def shape(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scaled directions ``(E, E)``, clusters ``(C, E)``, and the cone's axis ``(E,)``."""
        random = np.random.default_rng(self.seed)
        basis, _ = np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))
        scale = basis * np.arange(1, WIDTH + 1)[:, None] ** -0.6
        scale = (scale / np.linalg.norm(scale)).astype(np.float32)
        clusters = random.standard_normal((1000, WIDTH)).astype(np.float32) @ scale
        axis = random.standard_normal(WIDTH)
        return scale, clusters, (axis / np.linalg.norm(axis)).astype(np.float32)

    def draw(self, count: int, stream: int, moved: float = 0.0) -> np.ndarray:
        """Unit vectors ``(count, E)``, ``moved`` away from the photos."""
        scale, clusters, axis = self.shape
        random = np.random.default_rng([self.seed, stream])
        share = 1 / np.sqrt(np.arange(1, len(clusters) + 1))
        cluster = random.choice(len(clusters), count, p=share / share.sum())
        own = random.standard_normal((count, WIDTH)).astype(np.float32) @ scale
        away = np.roll(axis, 1)  # as good as orthogonal to the axis
        vectors = axis + 0.8 * clusters[cluster] + 0.6 * own + moved * away
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def blocks(self) -> Iterator[np.ndarray]:
        """The photos' vectors, a block at a time."""
        for number in range(self.size // BLOCK):
            yield self.draw(BLOCK, 10 + number)

    def queries(self, count: int) -> np.ndarray:
        """Queries ``(count, E)``: half like photos, half moved away."""
        half = count // 2
        return np.concatenate([self.draw(half, 1), self.draw(count - half, 2, moved=0.7)])


def identity(number: int) -> str:
    """Id of a synthetic photo."""
    return photo_id(str(number))


def record(number: int, vector: np.ndarray) -> PhotoRecord:
    """A synthetic photo."""
    path = f"{number % FOLDERS}/{number}.jpg"
    return PhotoRecord(identity(number), path, vector, size=number, date="2024-01-01T00:00:00")


def truth(gallery: Gallery, queries: np.ndarray, wanted: int | None = None) -> list[set[str]]:
    """Ids of the ten best of all photos, or of one folder's."""
    scores, numbers = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), int)
    for block, vectors in enumerate(gallery.blocks()):
        rows = np.arange(block * BLOCK, (block + 1) * BLOCK)
        kept = slice(None) if wanted is None else rows % FOLDERS == wanted
        rows = np.broadcast_to(rows[kept], (len(queries), len(rows[kept])))
        scores = np.concatenate([scores, queries @ vectors[kept].T], axis=1)
        numbers = np.concatenate([numbers, rows], axis=1)
        best = np.argsort(-scores, axis=1)[:, :TOP]
        scores = np.take_along_axis(scores, best, axis=1)
        numbers = np.take_along_axis(numbers, best, axis=1)
    return [{identity(number) for number in row} for row in numbers.tolist()]


def peak_memory() -> float:
    """GiB that this process has held at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def build(uri: str, gallery: Gallery, client: Any = None) -> dict[str, float]:
    """Fill and optimise an index; the making of the vectors is not counted."""
    settings = IndexSettings("synthetic", "clusters", WIDTH, thumbnail=0)
    index = create(uri, settings, client)
    seconds = 0.0
    with index.writing():
        for block, vectors in enumerate(gallery.blocks()):
            photos = [record(block * BLOCK + row, v) for row, v in enumerate(vectors)]
            start = time.perf_counter()
            index.upsert(photos)
            seconds += time.perf_counter() - start
        start = time.perf_counter()
        index.optimise()
        optimised = time.perf_counter() - start
    index.close()
    return {"fill_s": seconds, "optimise_s": optimised, "build_gib": peak_memory()}


def create(uri: str, settings: IndexSettings, client: Any) -> Any:
    """An empty index; with a client, of the client's memory."""
    if client is None:
        return create_index(uri, settings)
    from freestyle.search.qdrant import QdrantIndex

    return QdrantIndex.create(uri, settings, client)


def ask(
    uri: str,
    queries: np.ndarray,
    right: list[set[str]],
    right_filtered: list[set[str]],
    threads: int,
    client: Any = None,
) -> dict[str, float]:
    """Latency, throughput and recall of an index."""
    if client is None:
        index = open_index(uri)
    else:
        from freestyle.search.qdrant import QdrantIndex

        index = QdrantIndex.open(uri, client)
    for query in queries[:20]:
        index.search(query[None], TOP)
    half = len(queries) // 2
    begin = time.process_time()
    times, found = timed(lambda q: index.search(q, TOP)[0].ids, queries)
    cpu = 1000 * (time.process_time() - begin) / len(queries)
    kept = recalls(found, right)
    where = parse_filter([FILTER], index.columns())
    narrow, found = timed(lambda q: index.search(q, TOP, where)[0].ids, queries)
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(lambda q: index.search(q[None], TOP), queries))
        rate = len(queries) / (time.perf_counter() - start)
    index.close()
    return {
        **{f"p{p}_ms": float(np.percentile(times, p)) for p in (50, 95, 99)},
        "cpu_ms": cpu,
        "queries_per_s": rate,
        "recall": float(kept.mean()),
        "recall_photos": float(kept[:half].mean()),
        "recall_moved": float(kept[half:].mean()),
        "filtered_p95_ms": float(np.percentile(narrow, 95)),
        "filtered_recall": float(recalls(found, right_filtered).mean()),
        "search_gib": peak_memory(),
    }


def timed(search: Callable[[np.ndarray], list], queries: np.ndarray) -> tuple[np.ndarray, list]:
    """Milliseconds of each query, asked alone, and what it found."""
    times, found = [], []
    for query in queries:
        start = time.perf_counter()
        found.append(search(query[None]))
        times.append(1000 * (time.perf_counter() - start))
    return np.array(times), found


def recalls(found: Sequence[list[str]], right: Sequence[set[str]]) -> np.ndarray:
    """Share of the right ids that each query has found ``(Q,)``."""
    pairs = zip(found, right, strict=True)
    return np.array([len(set(ids) & wanted) / max(len(wanted), 1) for ids, wanted in pairs])


def build_and_ask(uri: str, gallery: Gallery, *arguments: Any) -> dict[str, float]:
    """Both in the memory of one client."""
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    return {**build(uri, gallery, client), **ask(uri, *arguments, client)}


def alone(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Run in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(work, *arguments).result()


def measure(name: str, gallery: Gallery, options: argparse.Namespace, known: dict) -> dict:
    """One row: a back end at a size."""
    row: dict[str, Any] = {"back_end": name, "photos": gallery.size}
    queries = gallery.queries(options.queries)
    if gallery.size not in known:
        known[gallery.size] = truth(gallery, queries), truth(gallery, queries, int(FILTER[-1]))
    asked = (queries, *known[gallery.size], options.threads)
    if name == "qdrant" and options.qdrant is None:
        row["back_end"] = "qdrant-client in memory"
        if gallery.size > MEMORY_LIMIT:
            return {**row, "skipped": f"its memory mode goes to {MEMORY_LIMIT:,} here"}
        uri = "qdrant://memory/benchmark"
        return {**row, **alone(build_and_ask, uri, gallery, *asked)}
    if name == "qdrant":
        uri = f"{options.qdrant.rstrip('/')}/benchmark-{gallery.size}"
        return {**row, **alone(build, uri, gallery), **alone(ask, uri, *asked)}
    folder = Path(options.folder) / f"{name}-{gallery.size}"
    free = shutil.disk_usage(options.folder).free
    if free < BYTES * gallery.size + 2 * 2**30:
        needed = BYTES * gallery.size / 2**30 + 2
        return {**row, "skipped": f"needs {needed:.0f} GiB of disk, {free / 2**30:.0f} are free"}
    shutil.rmtree(folder, ignore_errors=True)
    try:
        row |= alone(build, f"{name}:{folder}", gallery)
        row["disk_gib"] = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 2**30
        return {**row, **alone(ask, f"{name}:{folder}", *asked)}
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    """Options."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--sizes", default="10000,100000", help="photos, multiples of 1000")
    p.add_argument("--back-ends", default="exact,lance,qdrant")
    p.add_argument("--qdrant", metavar="URI", help="a server: qdrant://HOST:6333")
    p.add_argument("--queries", type=int, default=400)
    p.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    p.add_argument("--folder", help="for the indexes (default: a temporary one)")
    p.add_argument("--keep", action="store_true", help="leave the indexes there")
    p.add_argument("--json")
    p.add_argument("--check", action="store_true")
    options = p.parse_args(args)
    options.sizes = [int(size) for size in options.sizes.split(",") if size]
    options.back_ends = [name for name in options.back_ends.split(",") if name]
    for size in options.sizes:
        if size < BLOCK or size % BLOCK:
            p.error(f"{size} photos: use a multiple of {BLOCK}")
    for name in options.back_ends:
        if name not in ("exact", "lance", "qdrant"):
            p.error(f"unknown back end '{name}': use exact, lance or qdrant")
    if options.check and not (AT in options.sizes and "lance" in options.back_ends):
        p.error(f"--check is of lance at {AT}: measure it too")
    return options


def table(rows: Sequence[dict[str, Any]]) -> str:
    """All rows as a Markdown table."""
    lines = ["| back end | " + " | ".join(name.replace("_", " ") for name in COLUMNS) + " |"]
    lines.append("|---|" + "---:|" * len(COLUMNS))
    for row in rows:
        cells = [form.format(row[name]) if name in row else "" for name, form in COLUMNS.items()]
        lines.append(f"| {row['back_end']} | " + " | ".join(cells) + " |")
    notes = [f"{r['back_end']}, {r['photos']:,}: {r['skipped']}" for r in rows if "skipped" in r]
    return "\n".join([*lines, *notes])


def missed(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Goals that LanceDB misses."""
    found = []
    for row in rows:
        if row["back_end"] == "lance" and row["photos"] == AT:
            if "skipped" in row:
                found.append(f"it was not measured: {row['skipped']}")
                continue
            if row["p95_ms"] >= SLOWEST_MS:
                found.append(f"p95 is {row['p95_ms']:.1f} ms, the goal is below {SLOWEST_MS:g}")
            if row["recall"] < LEAST_RECALL:
                found.append(f"recall@{TOP} is {row['recall']:.3f}, the goal is {LEAST_RECALL}")
    return found


def main(args: Sequence[str] | None = None) -> int:
    """Measure what was asked for, print a table, write JSON."""
    options = parse(args)
    rows: list[dict[str, Any]] = []
    known: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        options.folder = options.folder or folder
        Path(options.folder).mkdir(parents=True, exist_ok=True)
        for size in options.sizes:
            for name in options.back_ends:
                rows.append(measure(name, Gallery(size), options, known))
                print(f"{rows[-1]['back_end']}, {size:,} photos: done", file=sys.stderr, flush=True)
    machine = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    how = {"queries": options.queries, "threads": options.threads, **machine}
    print(table(rows))
    if options.json:
        values = {"how": how, "rows": rows}
        Path(options.json).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    goals = missed(rows)
    for text in goals:
        print(f"missed: {text}")
    return 1 if goals and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
