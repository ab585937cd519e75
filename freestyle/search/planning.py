"""A query on its way through both stages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freestyle.errors import UserError
from freestyle.search.embed_parts import EmbeddedPart
from freestyle.search.gallery import Gallery
from freestyle.search.query import Query
from freestyle.search.records import Hits
from freestyle.search.scoring import Photos, SetScoring, score_parts

NOTHING = 1e-6  # norm of a sum relative to its terms' weights, below which it is rounding


@dataclass(eq=False)
class Plan:
    """What both stages need to know of one query.

    Attributes:
        query: As asked.
        parts: Embedded.
        factors: ``(P,)``: what each part's score is multiplied by in the sum.
        means: ``(P,)`` of the parts' scores over the sample.
        scales: ``(P,)``: one over their deviations; 0 where a part says nothing.
        vector: ``(E,)`` of stage one.
        candidates: How many photos stage one is asked for.
        second: Whether there is a second stage.
    """

    query: Query
    parts: list[EmbeddedPart]
    factors: np.ndarray
    means: np.ndarray
    scales: np.ndarray
    vector: np.ndarray
    candidates: int
    second: bool

    @property
    def hidden(self) -> set[str]:
        """Photos that are parts of the query themselves."""
        return {part.photo for part in self.query.parts if part.photo is not None}

    def best(
        self, hits: Hits, photos: Photos, scoring: SetScoring
    ) -> list[tuple[str, float, np.ndarray]]:
        """The final order.

        Args:
            hits: Of stage one.
            photos: The same photos, in their order.
            scoring: Of the second stage.

        Returns:
            Id, score and standardised scores ``(P,)`` of the best photos, best first.
        """
        asked = [part.asked for part in self.parts]
        scores = score_parts(asked, photos, scoring)  # (P, N)
        standard = (scores - self.means[:, None]) * self.scales[:, None]
        totals = self.factors @ scores if self.second else hits.scores
        hidden = self.hidden
        order = sorted(
            (row for row, each in enumerate(hits.ids) if each not in hidden),
            key=lambda row: (-float(totals[row]), hits.ids[row]),
        )
        return [
            (hits.ids[row], float(totals[row]), standard[:, row]) for row in order[: self.query.top]
        ]

    def reason(self, standard: np.ndarray) -> str:
        """Label of the part that speaks most for a photo with these standardised scores."""
        voices = [
            (part.part.weight * value, -number)
            for number, (part, value) in enumerate(zip(self.parts, standard, strict=True))
            if not part.part.exclude and part.part.weight > 0
        ]
        return self.parts[-max(voices)[1]].reading.name


def make_plan(
    query: Query,
    parts: list[EmbeddedPart],
    means: np.ndarray,
    deviations: np.ndarray,
    *,
    gallery: Gallery,
    fusion: str,
    rerank: int,
) -> Plan:
    """Weigh the parts and add them up.

    Args:
        query: As asked.
        parts: Embedded.
        means: ``(P,)`` from :meth:`Gallery.statistics`.
        deviations: ``(P,)``, likewise.
        gallery: What is searched.
        fusion: ``sum`` or ``zscore``.
        rerank: Candidates of the second stage where the query names none.

    Raises:
        UserError: If nothing is left of their sum.
    """
    signs = np.array([-1.0 if part.part.exclude else 1.0 for part in parts])
    weights = signs * np.array([part.part.weight for part in parts])
    scales = np.divide(1.0, deviations, out=np.zeros_like(deviations), where=deviations > 0)
    factors = weights * scales if fusion == "zscore" else weights
    rows = np.stack([part.asked.row for part in parts])  # (P, E + C)
    summed = factors @ rows  # (E + C,)
    width = gallery.encoder.width
    vector = summed[:width] + summed[width:] @ gallery.slopes  # (E,)
    if not np.linalg.norm(vector) > NOTHING * np.abs(factors).sum():
        raise UserError("the parts cancel each other out: change their weights, or leave one out")
    rerank = query.rerank if query.rerank is not None else rerank
    hidden = len({part.part.photo for part in parts if part.part.photo is not None})
    return Plan(
        query=query,
        parts=parts,
        factors=factors,
        means=means,
        scales=scales,
        vector=vector.astype(np.float32),
        candidates=max(rerank, query.top) + hidden,
        second=rerank > 0,
    )
