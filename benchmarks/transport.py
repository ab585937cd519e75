"""Speed of comparing sets of embeddings: our transport, POT, and max-mean.

    python benchmarks/transport.py [--json out.json] [--only pairs,gallery,rerank,large] [--check]

``pairs`` times one comparison of 5 x 11 elements from ready cosines: conditional transport and our
Sinkhorn against POT's batch solver and a loop over ``ot.emd2``. ``gallery`` scores 50 queries
against 1,000 candidates from the same float32 embeddings (K = 5, M = 11, E = 512; with the matrix
product), against max-mean, and compares the scores with float64. ``rerank`` scores 1,000 queries
against the 1,000 best candidates of each, from a gallery in float16; ``large`` 32 queries against
all of 123,403 sets. ``--check`` exits with 1 where a ratio misses its goal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from freestyle.transport.distance import conditional_transport, sinkhorn
from freestyle.transport.scoring import SetDistance, score_candidates, score_sets

K, M, WIDTH, TEMPERATURE = 5, 11, 512, 0.02
GOALS = {
    "POT's batch solver / conditional transport": (5.0, None),
    "loop over ot.emd2 / conditional transport": (30.0, None),
    "conditional transport / max-mean": (None, 2.0),
    "largest difference from float64 at temperature 0.005": (None, 1e-4),
    "rerank, seconds": (None, 60.0),
    "rerank, peak memory in GiB": (None, 2.0),
    "large gallery, peak memory in GiB": (None, 8.0),
}


def unit_sets(count: int, size: int, seed: int) -> Tensor:
    """Random sets ``(count, size, WIDTH)`` whose elements lie about a common centre."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(count, 1, WIDTH, generator=generator)
    return F.normalize(centres + 0.8 * torch.randn(count, size, WIDTH, generator=generator), dim=-1)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of a call, after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def time_pairs(pairs: int, repeats: int) -> dict[str, float]:
    """Microseconds per pair from ready cosines, by method."""
    import ot

    side = max(1, pairs // 50)
    queries, candidates = unit_sets(50, K, 0), unit_sets(side, M, 1)
    similarity = torch.einsum("qke,gme->qgkm", queries, candidates).reshape(-1, K, M)
    costs = 1 - similarity
    few, looped = costs[: min(2000, len(costs))], costs[: min(500, len(costs))].double().numpy()
    p, q = np.full(K, 1 / K), np.full(M, 1 / M)
    micro = 1e6
    found = {
        "conditional transport": micro
        / len(similarity)
        * seconds(lambda: chunked(conditional_transport, similarity), repeats),
        "our Sinkhorn": micro / len(few) * seconds(lambda: sinkhorn(1 - few), repeats),
        "POT's batch solver": micro
        / len(few)
        * seconds(lambda: ot.batch.solve_batch(few, reg=TEMPERATURE, method="log_sinkhorn"), 1),
        "POT's batch solver, 100 rounds": micro
        / len(few)
        * seconds(
            lambda: ot.batch.solve_batch(
                few, reg=TEMPERATURE, method="log_sinkhorn", max_iter=100, tol=1e-4
            ),
            1,
        ),
        "loop over ot.emd2": micro
        / len(looped)
        * seconds(lambda: [ot.emd2(p, q, cost) for cost in looped], 3),
    }
    return found


def chunked(distance: Callable[[Tensor], Tensor], similarity: Tensor) -> Tensor:
    """A distance over many pairs, pairs innermost, 4,000 at a time."""
    inner = similarity.permute(1, 2, 0).contiguous()  # (K, M, N)
    return torch.cat([distance(part.permute(2, 0, 1)) for part in inner.split(4000, dim=2)])


def time_gallery(repeats: int) -> dict[str, float]:
    """Milliseconds for 50 queries and 1,000 candidates, by distance; and the error."""
    queries, candidates = unit_sets(50, K, 0), unit_sets(1000, M, 1)
    found = {}
    for name in ("transport", "max-mean", "mean", "single"):
        distance = SetDistance(name, TEMPERATURE)
        found[name] = 1e3 * seconds(lambda d=distance: score_sets(queries, candidates, d), repeats)
    error = 0.0
    for temperature in (0.1, 0.02, 0.005):
        distance = SetDistance("transport", temperature)
        exact = score_sets(queries.double(), candidates.double(), distance)
        error = max(error, float((score_sets(queries, candidates, distance) - exact).abs().max()))
    found["error"] = error
    return found


def time_rerank(n_queries: int, n_candidates: int, gallery: int) -> dict[str, float]:
    """Seconds and peak memory of this process for scoring every query's own candidates."""
    photos = torch.cat([unit_sets(1000, M, seed).half() for seed in range(gallery // 1000)])
    queries = unit_sets(n_queries, K, 99)
    generator = torch.Generator().manual_seed(0)
    positions = torch.randint(len(photos), (n_queries, n_candidates), generator=generator)
    start = time.perf_counter()
    score_candidates(queries, photos, positions)
    return {
        "seconds": time.perf_counter() - start,
        "peak GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def time_large(gallery: int, queries: int = 32) -> dict[str, float]:
    """A gallery of CIRCO's size in float16: seconds for some queries, and peak memory."""
    photos = torch.empty(gallery, M, WIDTH, dtype=torch.float16)
    for start in range(0, gallery, 1000):
        part = photos[start : start + 1000]
        part.copy_(unit_sets(len(part), M, start))
    asked = unit_sets(queries, K, 99)
    start = time.perf_counter()
    score_sets(asked, photos)
    return {
        "seconds": time.perf_counter() - start,
        "peak GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def ratios(values: dict[str, dict[str, float]]) -> dict[str, float]:
    """What the goals are about, of the parts that were run."""
    found = {}
    if "pairs" in values:
        own = values["pairs"]["conditional transport"]
        for name in ("POT's batch solver", "loop over ot.emd2"):
            found[f"{name} / conditional transport"] = values["pairs"][name] / own
    if "gallery" in values:
        part = values["gallery"]
        found["conditional transport / max-mean"] = part["transport"] / part["max-mean"]
        found["largest difference from float64 at temperature 0.005"] = part["error"]
    if "rerank" in values:
        found["rerank, seconds"] = values["rerank"]["seconds"]
        found["rerank, peak memory in GiB"] = values["rerank"]["peak GiB"]
    if "large" in values:
        found["large gallery, peak memory in GiB"] = values["large"]["peak GiB"]
    return found


def missed(found: dict[str, float]) -> list[str]:
    """Names of the ratios that miss their goal."""
    wrong = []
    for name, value in found.items():
        least, most = GOALS[name]
        if (least is not None and value < least) or (most is not None and value > most):
            wrong.append(name)
    return wrong


def main(args: Sequence[str] | None = None) -> int:
    """Run what was asked for, print it, compare it with the goals."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--only", default="rerank,large,pairs,gallery", help="comma-separated parts")
    p.add_argument("--repeats", type=int, default=15)
    p.add_argument("--pairs", type=int, default=50_000)
    p.add_argument("--rerank-queries", type=int, default=1000)
    p.add_argument("--rerank-candidates", type=int, default=1000)
    p.add_argument("--rerank-gallery", type=int, default=20_000)
    p.add_argument("--large-gallery", type=int, default=123_403, help="CIRCO's size by default")
    p.add_argument("--threads", type=int, help="default: PyTorch's")
    p.add_argument("--json", help="write everything here")
    p.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    options = p.parse_args(args)
    if options.threads:
        torch.set_num_threads(options.threads)
    parts = options.only.split(",")
    values: dict[str, dict[str, float]] = {}
    with torch.inference_mode():
        if "rerank" in parts:  # first: peak memory is of the whole process
            values["rerank"] = time_rerank(
                options.rerank_queries, options.rerank_candidates, options.rerank_gallery
            )
        if "large" in parts:
            values["large"] = time_large(options.large_gallery)
        if "pairs" in parts:
            values["pairs"] = time_pairs(options.pairs, options.repeats)
        if "gallery" in parts:
            values["gallery"] = time_gallery(options.repeats)
    where = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    units = {"rerank": "", "large": "", "pairs": "us per pair", "gallery": "ms"}
    for part, numbers in values.items():
        for name, value in numbers.items():
            unit = "" if name == "error" else units[part]
            print(f"{part:8} {name:32} {value:12.6g} {unit}")
    found = ratios(values)
    print()
    for name, value in found.items():
        print(f"{name:56} {value:10.4g}")
    if options.json:
        text = json.dumps({**where, **values, "ratios": found}, indent=2)
        Path(options.json).write_text(text + "\n", encoding="utf-8")
    wrong = missed(found)
    for name in wrong:
        print(f"missed: {name}")
    return 1 if wrong and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
