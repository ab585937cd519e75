"""Questions to an index: parts become one vector, the nearest photos are scored exactly.

A weighted sum of inner products is one inner product, so a query of any number of parts is *one*
nearest-neighbour search by the sum of its parts' vectors. That is stage one; it knows the photos'
frozen vectors only. Stage two takes the best N of it, completes their vectors with the
calibration's columns, compares their sets with every part's (:mod:`freestyle.search.scoring`),
lowers what is like excluded parts (:mod:`freestyle.search.planning`) and orders them anew.

Fusion ``sum`` adds the parts' scores; ``zscore`` first divides each by its deviation over a fixed
sample of the gallery, which is also linear. Photos that are themselves parts of a query ("more
like this") are never among its results.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from freestyle.errors import UserError
from freestyle.search.embed_parts import PartEmbedder
from freestyle.search.filters import Filter, parse_filter
from freestyle.search.gallery import Gallery
from freestyle.search.opening import refuse_other_encoder
from freestyle.search.planning import Plan, make_plan
from freestyle.search.query import Hit, Part, PartReading, Query, SearchResult
from freestyle.search.scoring import SetScoring

if TYPE_CHECKING:
    from freestyle.search.index import Index
    from freestyle.search.query_encoder import QueryEncoder
    from freestyle.search.records import Hits

__all__ = ["Hit", "Part", "PartReading", "Query", "SearchResult", "Searcher"]
FUSIONS = ("sum", "zscore")
RERANK = 50
ATTEMPTS = 3  # when photos vanish between the stages


class Searcher:
    """Answers queries; threads may share it.

    Args:
        index: The gallery.
        encoder: The query side of a model that fits the index.
        fusion: ``sum`` or ``zscore``: how parts are joined.
        rerank: Candidates of the second stage where a query names none.
        scoring: How sets count there; without effect where the index keeps none.
        sample: Photos over which scores are standardised.
        remember: Texts, and pictures, whose embeddings are kept for the next query.

    Raises:
        UserError: If the encoder is another than the index was made with, or a setting cannot be
            used.
    """

    def __init__(
        self,
        index: Index,
        encoder: QueryEncoder,
        *,
        fusion: str = "sum",
        rerank: int = RERANK,
        scoring: SetScoring | None = None,
        sample: int = 512,
        remember: int = 1024,
    ) -> None:
        if fusion not in FUSIONS:
            raise UserError(f"unknown fusion '{fusion}': use {' or '.join(FUSIONS)}")
        if rerank < 0:
            raise UserError(f"rerank is {rerank}: use 0 or more candidates")
        refuse_other_encoder(index, encoder)
        self.index, self.encoder = index, encoder
        self.fusion, self.rerank = fusion, rerank
        self.scoring = scoring or SetScoring()
        self.gallery = Gallery(index, encoder, sample, self.scoring)
        self._embedder = PartEmbedder(index, encoder, remember)
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        uri: str,
        model: str | None = None,
        onnx: str | None = None,
        *,
        device: str = "cpu",
        threads: int | None = None,
        **options: Any,
    ) -> Searcher:
        """Open an index and the query encoder that goes with it.

        Args:
            uri: As for :func:`freestyle.search.index.open_index`.
            model: Folder or hub id of a trained model; the one that the index names where None.
            onnx: Folder of an exported query encoder, which runs without torch.
            device: Where torch computes.
            threads: Of an exported encoder, for one pass; all cores where None.
            **options: As for the class.

        Raises:
            UserError: If one of them cannot be opened, or they do not fit each other.
        """
        from freestyle.search.index import open_index
        from freestyle.search.opening import open_encoder

        index = open_index(uri)
        return cls(
            index, open_encoder(index, model, onnx, device=device, threads=threads), **options
        )

    def search(self, *query: Query | Part | str, **options: Any) -> SearchResult:
        """Answer one query.

        Args:
            *query: A query, or its parts; texts stand for parts that ask for them.
            **options: ``top``, ``where`` and ``rerank``, with parts. Conditions may be text, such
                as ``"date >= 2024-01"``, or a list of them.

        Raises:
            UserError: If it cannot be answered; one sentence says why.
        """
        if len(query) == 1 and isinstance(query[0], Query):
            return self.search_many([query[0]])[0]
        parts = tuple(Part(text=part) if isinstance(part, str) else part for part in query)
        where = options.pop("where", None)
        if isinstance(where, str) or (where is not None and not isinstance(where, Filter)):
            conditions = [where] if isinstance(where, str) else list(where)
            where = parse_filter(conditions, self.index.columns()) if conditions else None
        return self.search_many([Query(parts, where=where, **options)])[0]

    def search_many(
        self, queries: Sequence[Query], *, keep_errors: bool = False
    ) -> list[SearchResult | UserError]:
        """Answer several queries together, which costs less than one by one.

        Args:
            queries: Of any kinds.
            keep_errors: Return an error in the place of its query's result instead of raising it,
                so that one bad query does not spoil the others.

        Raises:
            UserError: Without ``keep_errors``, of the first query that cannot be answered.
        """
        start = time.perf_counter()
        outcomes: list[SearchResult | UserError | None] = [None] * len(queries)
        with self._lock:
            self.gallery.refresh()
            plans = self._plans(queries, outcomes)
            times = {"embed": time.perf_counter() - start, "nearest": 0.0, "rerank": 0.0}
            found = self._found(plans, outcomes, times)
            times["total"] = time.perf_counter() - start
            milliseconds = {what: 1000 * seconds for what, seconds in times.items()}
            for number, hits in found.items():
                readings = tuple(part.reading for part in plans[number].parts)
                outcomes[number] = SearchResult(hits, readings, milliseconds, self.gallery.count)
        for outcome in outcomes:
            if isinstance(outcome, UserError) and not keep_errors:
                raise outcome
        return outcomes

    def warm_up(self) -> None:
        """Load what the first query would wait for: networks, tokenizer, the gallery's sample."""
        from PIL import Image

        with self._lock:
            self.encoder.embed_images([Image.new("RGB", (64, 64), "white")])
            self.encoder.embed_texts(["warm"])
            if len(self.index):
                self.gallery.refresh()

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    def __enter__(self) -> Searcher:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _plans(self, queries: Sequence[Query], outcomes: list) -> dict[int, Plan]:
        """Embed the parts of all queries; plans by number, errors into ``outcomes``."""
        embedded = self._embedder.embed([part for query in queries for part in query.parts])
        good = [part for part in embedded if not isinstance(part, UserError)]
        rows = {id(part): row for row, part in enumerate(good)}
        if good:
            means, deviations = self.gallery.statistics([part.asked for part in good])
        plans, rest = {}, iter(embedded)
        for number, query in enumerate(queries):
            parts = list(islice(rest, len(query.parts)))
            wrong = next((part for part in parts if isinstance(part, UserError)), None)
            if wrong is not None:
                outcomes[number] = wrong
                continue
            own = [rows[id(part)] for part in parts]
            how = {"width": self.encoder.width, "fusion": self.fusion, "rerank": self.rerank}
            try:
                plans[number] = make_plan(query, parts, means[own], deviations[own], **how)
            except UserError as error:
                outcomes[number] = error
        return plans

    def _found(
        self, plans: dict[int, Plan], outcomes: list, times: dict[str, float]
    ) -> dict[int, tuple[Hit, ...]]:
        """Both stages, once more where photos were deleted between them."""
        for _ in range(ATTEMPTS):
            begin = time.perf_counter()
            nearest = self._nearest(plans, outcomes)
            times["nearest"] = time.perf_counter() - begin
            begin = time.perf_counter()
            try:
                found = self._second_stage(plans, nearest)
            except KeyError:
                continue
            times["rerank"] = time.perf_counter() - begin
            return found
        raise UserError(f"{self.index.uri} changes faster than it is searched: try again")

    def _nearest(self, plans: dict[int, Plan], outcomes: list) -> dict[int, Hits]:
        """Stage one: queries of equal number and filter in one call."""
        groups: dict[tuple[int, Filter | None], list[int]] = {}
        for number, plan in plans.items():
            groups.setdefault((plan.candidates, plan.query.where), []).append(number)
        found: dict[int, Hits] = {}
        for (k, where), numbers in groups.items():
            vectors = np.stack([plans[number].vector for number in numbers])  # (Q, E)
            try:
                found.update(zip(numbers, self.index.search(vectors, k, where), strict=True))
            except UserError as error:  # of the filter: all that share it
                for number in numbers:
                    outcomes[number] = error
        return found

    def _second_stage(
        self, plans: dict[int, Plan], nearest: dict[int, Hits]
    ) -> dict[int, tuple[Hit, ...]]:
        """Exact scores of all queries' candidates, each photo fetched once."""
        ids = sorted({each for hits in nearest.values() for each in hits.ids})
        rows = {each: row for row, each in enumerate(ids)}
        photos = self.gallery.photos(ids) if ids else None
        best = {}
        for number, hits in nearest.items():
            plan = plans[number]
            own = photos.take(np.array([rows[each] for each in hits.ids])) if len(hits) else None
            best[number] = plan.best(hits, own, self.scoring) if own is not None else []
        shown = sorted({each for rated in best.values() for each, _, _ in rated})
        told = dict(zip(shown, self.index.metadata(shown), strict=True)) if shown else {}
        found = {}
        for number, rated in best.items():
            reason = plans[number].reason
            found[number] = tuple(
                Hit(each, score, tuple(standard.tolist()), reason(standard), told[each])
                for each, score, standard in rated
            )
        return found
