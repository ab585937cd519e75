"""Which photos a query is ranked among: the whole gallery, or a batch whose size is in its name.

FreestyleRet's published numbers are recall inside batches of 24, with the last incomplete batch
dropped. ``batch:24`` reproduces that scale for comparison; ``gallery`` is the honest protocol.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from freestyle.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """The candidates of a query.

    Attributes:
        batch_size: Candidates per query; ``None`` is the whole gallery.
    """

    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 2:
            raise UserError(
                f"protocol batch:{self.batch_size}: a batch needs at least 2 photos, "
                "use batch:24 or gallery"
            )

    @property
    def name(self) -> str:
        """The name on the command line and in the report."""
        return "gallery" if self.batch_size is None else f"batch:{self.batch_size}"

    def gallery_size(self, n_gallery: int) -> int:
        """How many photos each query is ranked among.

        Raises:
            UserError: The gallery has fewer photos than a batch.
        """
        if self.batch_size is None:
            return n_gallery
        if n_gallery < self.batch_size:
            raise UserError(
                f"protocol {self.name}: the gallery has only {n_gallery} photos, "
                "use gallery or a smaller batch"
            )
        return self.batch_size

    def batches(
        self, query_groups: np.ndarray, gallery_groups: np.ndarray, seed: int = 0
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Queries and the photos they are ranked among; every query comes exactly once.

        A seeded permutation of the queries is cut into batches. Each query brings one relevant
        photo: its own with instance-level relevance; with several relevant photos (class-level)
        one of them, drawn with the seed. A batch that then holds fewer distinct photos than its
        size (the last one, or queries that share a photo) is filled with seeded random others, so
        that every query has exactly as many candidates. Relevance inside a batch is by group
        still: with classes, another photo of the query's class counts as found.

        The batches depend on the groups and the seed alone, so methods, and styles whose queries
        are aligned, are compared on the same ones.

        Args:
            query_groups: Group of each query ``(Q,)``.
            gallery_groups: Group of each photo ``(G,)``; holds every query's group.
            seed: Seed of the permutation and the draws.

        Yields:
            Positions of the queries ``(b,)`` and of their candidates ``(size,)``, int64.

        Raises:
            UserError: The gallery has fewer photos than a batch.
        """
        n_queries, n_gallery = len(query_groups), len(gallery_groups)
        size = self.gallery_size(n_gallery)
        if self.batch_size is None:
            yield np.arange(n_queries), np.arange(n_gallery)
            return
        rng = np.random.default_rng(seed)
        order = rng.permutation(n_queries)
        photos = _draw_relevant(np.asarray(query_groups), np.asarray(gallery_groups), rng)
        for start in range(0, n_queries, size):
            queries = order[start : start + size]
            own = np.unique(photos[queries])
            yield queries, np.concatenate([own, _draw_others(own, size, n_gallery, rng)])


def parse_protocol(text: str) -> Protocol:
    """Read ``gallery`` or ``batch:24``.

    Raises:
        UserError: Anything else, or a batch of fewer than 2.

    Example:
        >>> parse_protocol("batch:24").name
        'batch:24'
    """
    if text == "gallery":
        return Protocol()
    match = re.fullmatch(r"batch:([0-9]+)", text)
    if match is None:
        raise UserError(f"unknown protocol {text!r}: use gallery, or batch:24 (any size from 2)")
    return Protocol(int(match[1]))


def _draw_relevant(
    query_groups: np.ndarray, gallery_groups: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """One relevant photo of each query, ``(Q,)``."""
    order = np.argsort(gallery_groups, kind="stable")
    ordered = gallery_groups[order]
    first = np.searchsorted(ordered, query_groups, side="left")
    count = np.searchsorted(ordered, query_groups, side="right") - first
    if (count == 0).any():
        lost = int(np.flatnonzero(count == 0)[0])
        raise UserError(
            f"query number {lost} (group {query_groups[lost]}) has no relevant photo in the "
            "gallery: remove it from the list or add its photo"
        )
    return order[first + rng.integers(0, count)]


def _draw_others(
    own: np.ndarray, size: int, n_gallery: int, rng: np.random.Generator
) -> np.ndarray:
    """Distinct photos outside ``own`` that fill it up to ``size``."""
    missing = size - len(own)
    # Draws among the photos outside `own`, then shifted past those inside it.
    drawn = rng.choice(n_gallery - len(own), size=missing, replace=False)
    gaps = own - np.arange(len(own))  # how many outsiders precede each own photo
    return drawn + np.searchsorted(gaps, drawn, side="right")
