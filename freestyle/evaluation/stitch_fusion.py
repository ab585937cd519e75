"""Joint queries by transport: ``--fusion stitch``.

Each part of a joint query (a picture's views, a caption) is compared as a set with every photo's
views; the parts' scores are standardised per query over the gallery, as ``zscore`` does with
cosines, and added. What differs from ``zscore`` is the comparison of sets alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from freestyle.datasets.records import QuerySet, RetrievalSplit
from freestyle.errors import UserError
from freestyle.evaluation.composed import target_ranks
from freestyle.evaluation.evaluate import Outcome
from freestyle.evaluation.fusion import STITCH, ZScore
from freestyle.evaluation.ranks import Ranks
from freestyle.evaluation.variants import Variant
from freestyle.transport.scoring import SetDistance, score_sets
from freestyle.transport.sets import SetEncoder, Sets
from freestyle.transport.views import Views

VIEWS = Views("pyramid", 6)
ROWS = 64  # queries at a time


class StitchFusion:
    """Embeds a split's views once per variant and ranks joint queries by transport.

    Args:
        split: Instance-level.
        views: Of photos and query pictures.
        distance: How sets are compared.
    """

    def __init__(
        self,
        split: RetrievalSplit,
        views: Views = VIEWS,
        distance: SetDistance | None = None,
    ) -> None:
        self.split, self.views = split, views
        self.distance = distance or SetDistance()
        self._plain: dict[str, Sets] = {}
        self._queries: dict[tuple[str, str], Sets] = {}

    def outcome(self, name: str, variant: Variant, parts: Sequence[str]) -> Outcome:
        """Ranks of one joint style.

        Args:
            name: Of the variant.
            variant: The model and how it is used: as it is.
            parts: The styles.

        Raises:
            UserError: If the variant is one of the controls, which embed no views.
        """
        if variant.style != "own" or not variant.use_map:
            raise UserError(
                f"--fusion {STITCH} cannot rank the control '{name}': leave it out, or choose "
                "another rule"
            )
        encoder = SetEncoder(variant.model, self.views)
        photos = self._photos(name, encoder)
        queries = self.split.aligned(parts)
        sets = [self._of(name, encoder, own) for own in queries]
        rule, ranks = ZScore(), np.empty(len(queries[0]), dtype=np.int64)
        for start in range(0, len(ranks), ROWS):
            part = slice(start, min(start + ROWS, len(ranks)))
            terms = [self._scores(own.take(part), photos) for own in sets]
            scores = rule.combine(terms, rule.fit([terms])).numpy()
            for row, group in enumerate(queries[0].groups[part].tolist()):
                ranks[start + row] = target_ranks(scores[row], np.array([group]))[0]
        return Outcome(Ranks(ranks, self.split.n_gallery))

    def _photos(self, name: str, encoder: SetEncoder) -> Sets:
        own = name if encoder.model.prompts_gallery else ""  # the untouched encoder's serve all
        if own not in self._plain:
            self._plain[own] = encoder.frozen_photos(self.split.gallery)
        return encoder.completed(self._plain[own])

    def _of(self, name: str, encoder: SetEncoder, queries: QuerySet) -> Sets:
        key = name, queries.style
        if key not in self._queries:
            if queries.is_text:
                rows = encoder.texts(list(queries.sources))
                self._queries[key] = Sets(encoder.finish_texts(rows[:, None]))
            else:
                self._queries[key] = encoder.queries(queries.sources)
        return self._queries[key]

    def _scores(self, sets: Sets, photos: Sets) -> Tensor:
        with torch.inference_mode():
            found = score_sets(
                sets.atoms,
                photos.atoms,
                self.distance,
                query_weights=sets.weights,
                candidate_weights=photos.weights,
            )
        return found.double()
