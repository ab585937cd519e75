"""Scores of all queries against a gallery of any size, one bounded tile at a time.

Sums run in float64 and the joined score is rounded to float32. A matrix product in float32 gives
identical photos scores that differ in the last bit, depending on where in a chunk they stand, which
breaks ties by luck; here they tie, whatever the chunk, the device and its TF32 setting. (Apple's
MPS has no float64: sums run in float32 there.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from freestyle.errors import UserError
from freestyle.evaluation.fusion import DEFAULT_FUSION, FUSIONS, Fusion, get_fusion

DEFAULT_MEMORY = 256 * 2**20
MAX_ROWS = 512

Columns = slice | Tensor


class Scorer:
    """Tiles of joined scores of Q queries (T terms each) against G photos.

    Attributes:
        n_queries: Q.
        n_gallery: G.
        rows: Most queries in a tile.
        columns: Most photos in a tile.

    Args:
        queries: Unit-norm embeddings ``(Q, E)`` of any float type, or one such tensor per term of a
            joint query.
        gallery: Unit-norm embeddings ``(G, E)``.
        fusion: The rule that joins the terms; irrelevant with one term.
        memory: Bytes that one tile and everything computed for it may take.
        device: Where to compute; the gallery's device where ``None``.

    Raises:
        UserError: Nothing to rank, an unknown rule, or ``memory`` too small for a single score.
        ValueError: Shapes that do not fit, or embeddings that are not finite.
    """

    def __init__(
        self,
        queries: Tensor | Sequence[Tensor],
        gallery: Tensor,
        *,
        fusion: str | Fusion = DEFAULT_FUSION,
        memory: int = DEFAULT_MEMORY,
        device: torch.device | str | None = None,
    ) -> None:
        self.terms = [queries] if isinstance(queries, Tensor) else list(queries)
        self.gallery = gallery
        rule = get_fusion(fusion)
        self.fusion = rule if len(self.terms) > 1 else FUSIONS["sum"]
        self.device = torch.device(device) if device is not None else gallery.device
        self.dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self._check_shapes()
        self.n_queries, self.n_gallery = len(self.terms[0]), len(gallery)
        self.rows, self.columns = self._plan(memory)
        chunk = max(1, memory // (16 * gallery.shape[1]))
        for t, term in enumerate(self.terms):
            _check_finite(f"query term {t}", term, chunk)
        _check_finite("gallery", gallery, chunk)

    def _check_shapes(self) -> None:
        if not self.terms:
            raise ValueError("a query needs at least one term")
        width = self.gallery.shape[-1]
        for t, term in enumerate(self.terms):
            if term.ndim != 2 or self.gallery.ndim != 2 or term.shape[1] != width:
                raise ValueError(
                    f"query term {t} has shape {tuple(term.shape)} and the gallery "
                    f"{tuple(self.gallery.shape)}: expected (Q, E) and (G, E)"
                )
            if len(term) != len(self.terms[0]):
                raise ValueError(
                    f"query term {t} has {len(term)} queries and term 0 has {len(self.terms[0])}: "
                    "the terms of a joint query pair by position"
                )
        if not len(self.terms[0]):
            raise UserError("there are no queries to rank: check the split and the style")
        if not len(self.gallery):
            raise UserError("the gallery is empty: check the data set's folder and split")

    def _plan(self, memory: int) -> tuple[int, int]:
        """The largest tile within ``memory``, wide rather than high."""
        n_terms, width = len(self.terms), self.gallery.shape[1]
        cell = 16 * (n_terms + 2)  # a score per term, its temporaries, the joined score, sort keys
        photo = 16 * width  # the photo as stored, and in float64
        query = 16 * n_terms * width + self.fusion.state_bytes(n_terms, self.n_gallery)
        rows = min(self.n_queries, MAX_ROWS)
        while True:
            columns = (memory - rows * query) // (rows * cell + photo)
            if columns >= min(self.n_gallery, rows):
                return rows, min(columns, self.n_gallery)
            if rows == 1:
                if columns >= 1:
                    return 1, columns
                raise UserError(
                    f"memory={memory} bytes cannot hold one query against one photo: "
                    f"allow at least {query + cell + photo} bytes"
                )
            rows //= 2

    def blocks(self) -> Iterator[Block]:
        """The queries in order, at most :attr:`rows` at a time."""
        for start in range(0, self.n_queries, self.rows):
            yield Block(self, slice(start, min(start + self.rows, self.n_queries)))

    def column_slices(self) -> Iterator[slice]:
        """The gallery in order, at most :attr:`columns` photos at a time."""
        for start in range(0, self.n_gallery, self.columns):
            yield slice(start, min(start + self.columns, self.n_gallery))


class Block:
    """Some queries, ready to be scored against any photos.

    Attributes:
        queries: Which queries.
    """

    def __init__(self, scorer: Scorer, queries: slice) -> None:
        self._scorer = scorer
        self.queries = queries
        self._terms = [
            term[queries].to(device=scorer.device, dtype=scorer.dtype) for term in scorer.terms
        ]
        self._state = scorer.fusion.fit(self._term_scores(c) for c in scorer.column_slices())

    def _term_scores(self, columns: Columns) -> list[Tensor]:
        gallery = self._scorer.gallery[columns]
        gallery = gallery.to(device=self._scorer.device, dtype=self._scorer.dtype)
        return [term @ gallery.T for term in self._terms]  # (q, g) each

    def scores(self, columns: Columns) -> Tensor:
        """Joined float32 scores ``(q, g)`` of these photos, at most ``Scorer.columns`` of them.

        Raises:
            ValueError: The fusion rule gave NaN.
        """
        joined = self._scorer.fusion.combine(self._term_scores(columns), self._state)
        joined = joined.float().add_(0.0)  # adding 0 turns -0.0 into 0.0
        if torch.isnan(joined).any():
            raise ValueError(f"fusion rule {self._scorer.fusion.name!r} gave scores that are NaN")
        return joined


def _check_finite(name: str, tensor: Tensor, chunk: int) -> None:
    """Refuse NaN and infinity, reading ``chunk`` rows at a time."""
    if not tensor.is_floating_point():
        raise ValueError(f"{name} embeddings have type {tensor.dtype}: expected a float type")
    for start in range(0, len(tensor), chunk):
        good = torch.isfinite(tensor[start : start + chunk]).all(dim=1)
        if not good.all():
            row = start + int((~good).nonzero()[0])
            raise ValueError(f"{name}: embedding {row} holds NaN or infinity and cannot be ranked")
