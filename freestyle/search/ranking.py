"""The one order of results: by score, then by id; and samples that depend on content alone."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence

import numpy as np

from freestyle.search.records import Hits

SLACK = 1e-5  # of a query's norm: more than float32 sums over columns differ in


def ranked(ids: Sequence[str], vectors: np.ndarray, query: np.ndarray, k: int) -> Hits:
    """The k best of some candidates.

    Scores are computed anew in float64, candidate by candidate, so that equal vectors have equal
    scores wherever and by whatever library they were found.

    Args:
        ids: N different ids.
        vectors: ``(N, E)``.
        query: ``(E,)``.
        k: At least 1.
    """
    scores = exact_scores(vectors, query)
    order = sorted(range(len(ids)), key=lambda row: (-scores[row], ids[row]))[:k]
    return Hits([ids[row] for row in order], scores[order])


def nearest(ids: np.ndarray, vectors: np.ndarray, query: np.ndarray, k: int) -> Hits:
    """The k best of a block ``(N, E)``; near the k-th, float64 decides."""
    scores = vectors @ query
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        near = np.flatnonzero(scores >= least - SLACK * np.linalg.norm(query))
        ids, vectors = ids[near], vectors[near]
    return ranked(ids.tolist(), vectors, query, k)


def exact_scores(vectors: np.ndarray, query: np.ndarray, rows: int = 4096) -> np.ndarray:
    """Inner products ``(N,)`` float32 of ``(N, E)`` with ``(E,)``, summed in float64."""
    query = query.astype(np.float64)
    parts = [
        np.einsum("ne,e->n", vectors[start : start + rows].astype(np.float64), query)
        for start in range(0, len(vectors), rows)
    ]
    return np.concatenate([np.empty(0), *parts]).astype(np.float32)


def merged(parts: Iterable[Hits], k: int) -> Hits:
    """The k best of several rankings without common ids."""
    pairs = [
        (-score, name)
        for hits in parts
        for name, score in zip(hits.ids, hits.scores.tolist(), strict=True)
    ]
    best = heapq.nsmallest(k, pairs)
    return Hits([name for _, name in best], np.array([-s for s, _ in best], dtype=np.float32))


def sampled(ids: Iterable[str], count: int, seed: int) -> list[str]:
    """Up to ``count`` ids, those whose hash with the seed is smallest, in that order."""
    salt = seed.to_bytes(8, "little", signed=True)

    def place(name: str) -> bytes:
        text = name.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=8, salt=salt).digest()

    return heapq.nsmallest(count, ids, key=place)
