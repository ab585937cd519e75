"""An exported query encoder against the model it was made from: recall, size, time.

    python benchmarks/export.py --model runs/demo/model --data data/emoji --splits val,test
    python benchmarks/export.py --model runs/demo/model --threads 2 --json runs/export.json

The gallery is the model's own, embedded once and completed with its calibration; only the queries'
encoder changes: torch (eager), ONNX in float32, ONNX in dynamic int8. Recall at 1 is over the whole
gallery of the split, in %, by style; the interval is the paired bootstrap's of int8 less float32.
Times are of one query at a time, picture or text ready in memory, tokenizing and resizing included;
the three run in turns, and the median is told.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from freestyle.datasets import open_split
from freestyle.datasets.images import load_image
from freestyle.errors import UserError
from freestyle.evaluation.metrics import paired_bootstrap_difference
from freestyle.model import FreestyleRet
from freestyle.search.export import export_model
from freestyle.search.onnx_encoder import OnnxQueryEncoder
from freestyle.search.torch_encoder import TorchQueryEncoder

if TYPE_CHECKING:
    from freestyle.datasets.records import QuerySet, RetrievalSplit
    from freestyle.search.query_encoder import QueryEncoder

Encoders = dict[str, "QueryEncoder"]


def hits(rows: np.ndarray, photos: np.ndarray, queries: QuerySet, groups: np.ndarray) -> np.ndarray:
    """Whether each query's best photo is a relevant one ``(Q,)``, ties counting against it.

    Args:
        rows: ``(Q, E + C)``.
        photos: ``(G, E + C)``.
        queries: Their groups.
        groups: Of the photos ``(G,)``.
    """
    scores = rows @ photos.T  # (Q, G)
    relevant = queries.groups[:, None] == groups
    best = np.where(relevant, scores, -np.inf).max(axis=1)
    return np.where(relevant, -np.inf, scores).max(axis=1) < best


def recall(encoders: Encoders, model: FreestyleRet, split: RetrievalSplit) -> dict[str, Any]:
    """Recall at 1 by style and encoder, and the interval of int8 less float32."""
    photos = model.encode_gallery(split.gallery).numpy()
    found: dict[str, Any] = {}
    for style, queries in split.queries.items():
        own = {}
        for name, encoder in encoders.items():
            rows = [_embed(encoder, queries, i, i + 32) for i in range(0, len(queries), 32)]
            own[name] = hits(np.concatenate(rows), photos, queries, split.gallery_groups)
        low_high = paired_bootstrap_difference(
            own["int8"].astype(float), own["onnx"].astype(float), seed=0
        )
        found[style] = {name: 100 * float(value.mean()) for name, value in own.items()}
        found[style]["interval"] = [100 * low_high.low, 100 * low_high.high]
        found[style]["queries"] = len(queries)
    return found


def _embed(encoder: QueryEncoder, queries: QuerySet, start: int, end: int) -> np.ndarray:
    sources = list(queries.sources[start:end])
    if queries.is_text:
        return encoder.embed_texts(sources).rows
    return encoder.embed_images([load_image(source) for source in sources]).rows


def speed(encoders: Encoders, split: RetrievalSplit, repeats: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of one query by kind and encoder."""
    pictures = next(q for q in split.queries.values() if not q.is_text).sources[:repeats]
    images = [load_image(picture) for picture in pictures]
    texts = [q.sources[:repeats] for q in split.queries.values() if q.is_text]
    taken: dict[str, dict[str, list[float]]] = {}
    for number in range(-2, repeats):  # the first two warm up
        for kind, things in (("picture", images), ("text", texts[0] if texts else [])):
            for name, encoder in encoders.items() if len(things) else ():
                embed = encoder.embed_texts if kind == "text" else encoder.embed_images
                start = time.perf_counter()
                embed([things[number % len(things)]])
                if number >= 0:
                    spent = 1000 * (time.perf_counter() - start)
                    taken.setdefault(kind, {}).setdefault(name, []).append(spent)
    return {kind: {n: median(v) for n, v in by.items()} for kind, by in taken.items()}


def table(results: dict[str, Any]) -> str:
    """What was measured, for people."""
    lines = []
    for split, styles in results["recall"].items():
        lines += [f"R@1 on {split}", f"  {'style':<10}{'torch':>8}{'onnx':>8}{'int8':>8}  change"]
        for style, row in styles.items():
            low, high = row["interval"]
            lines.append(
                f"  {style:<10}{row['torch']:8.1f}{row['onnx']:8.1f}{row['int8']:8.1f}"
                f"  {row['int8'] - row['onnx']:+.1f} [{low:+.1f}, {high:+.1f}]"
            )
    for what, unit in (("megabytes", "MB"), ("milliseconds", "ms per query")):
        for kind, row in results[what].items():
            values = "  ".join(f"{name} {value:.1f}" for name, value in row.items())
            lines.append(f"{kind}, {unit}: {values}")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    """Print the table; bad input in one sentence."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", default="runs/demo/model")
    p.add_argument("--data", default="data/emoji")
    p.add_argument("--splits", default="val,test")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--repeats", type=int, default=50, help="timed queries of each kind")
    p.add_argument("--json", help="file for the numbers")
    options = p.parse_args(args)
    torch.set_num_threads(options.threads)
    try:
        results = measure(options)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    print(table(results))
    if options.json:
        Path(options.json).parent.mkdir(parents=True, exist_ok=True)
        Path(options.json).write_text(json.dumps(results, indent=2) + "\n")
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Export in both precisions, then recall, sizes and times."""
    model = FreestyleRet.from_pretrained(options.model)
    with tempfile.TemporaryDirectory() as folder:
        folders = {name: Path(folder) / name for name in ("onnx", "int8")}
        for name, place in folders.items():
            export_model(model, place, int8=name == "int8")
        encoders: Encoders = {"torch": TorchQueryEncoder(model)}
        for name, place in folders.items():
            encoders[name] = OnnxQueryEncoder.open(place, threads=options.threads)
        splits = {name: open_split(options.data, name) for name in options.splits.split(",")}
        first = next(iter(splits.values()))
        return {
            "recall": {name: recall(encoders, model, split) for name, split in splits.items()},
            "megabytes": {
                kind: {name: _size(place / f"{kind}.onnx") for name, place in folders.items()}
                for kind in ("image", "text")
            },
            "milliseconds": speed(encoders, first, options.repeats),
            "threads": options.threads,
        }


def _size(path: Path) -> float:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")) / 1e6


if __name__ == "__main__":
    raise SystemExit(main())
