"""A query on its way through both stages.

Excluded parts: a plain minus would reward what is least like them, and drown what is asked for.
Here a photo loses only what an excluded part finds in it beyond an ordinary photo, half a deviation
above the mean of the sample:

    score = sum of wanted c_p s_p  -  sum of excluded c_p max(0, s_p - mean_p - deviation_p / 2)

Stage one needs one vector: it takes a quarter of the excluded parts' from the wanted ones' and is
asked for four times as many photos. ``benchmarks/rerank.py`` measures both choices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from freestyle.errors import UserError
from freestyle.search.embed_parts import EmbeddedPart
from freestyle.search.query import Query
from freestyle.search.records import Hits
from freestyle.search.scoring import Photos, SetScoring, score_parts

ORDINARY = 0.5  # deviations above the mean up to which an excluded part is no objection
EARLY = 0.25  # of an excluded part's vector that stage one takes away
MORE = 4  # times as many candidates where parts are excluded
NOTHING = 1e-6  # norm of a sum relative to its terms' weights, below which it is rounding


@dataclass(eq=False)
class Plan:
    """What both stages need to know of one query.

    Attributes:
        query: As asked.
        parts: Embedded.
        factors: ``(P,)``: what each part's score is multiplied by, at least 0.
        excluded: ``(P,)`` bool.
        means: ``(P,)`` of the parts' scores over the sample.
        scales: ``(P,)``: one over their deviations; 0 where a part says nothing.
        vector: ``(E,)`` of stage one.
        candidates: How many photos stage one is asked for.
        second: Whether there is a second stage.
    """

    query: Query
    parts: list[EmbeddedPart]
    factors: np.ndarray
    excluded: np.ndarray
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
        totals = self._totals(scores) if self.second else hits.scores
        hidden = self.hidden
        order = sorted(
            (row for row, each in enumerate(hits.ids) if each not in hidden),
            key=lambda row: (-float(totals[row]), hits.ids[row]),
        )
        return [
            (hits.ids[row], float(totals[row]), standard[:, row]) for row in order[: self.query.top]
        ]

    def _totals(self, scores: np.ndarray) -> np.ndarray:
        """The parts' scores ``(P, N)`` in one ``(N,)``."""
        deviations = np.divide(
            1.0, self.scales, out=np.zeros_like(self.scales), where=self.scales > 0
        )
        excess = np.maximum(0, scores - (self.means + ORDINARY * deviations)[:, None])
        return self.factors @ np.where(self.excluded[:, None], -excess, scores)

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
    width: int,
    fusion: str,
    rerank: int,
) -> Plan:
    """Weigh the parts and add them up.

    Args:
        query: As asked.
        parts: Embedded.
        means: ``(P,)`` from :meth:`Gallery.statistics`.
        deviations: ``(P,)``, likewise.
        width: E.
        fusion: ``sum`` or ``zscore``.
        rerank: Candidates of the second stage where the query names none.

    Raises:
        UserError: If nothing is left of their sum.
    """
    parts = _named_apart(parts)
    excluded = np.array([part.part.exclude for part in parts])
    factors = np.array([part.part.weight for part in parts], dtype=np.float64)
    scales = np.divide(1.0, deviations, out=np.zeros_like(deviations), where=deviations > 0)
    if fusion == "zscore":
        factors = factors * np.where(scales > 0, scales, 1.0)
    rows = np.stack([part.asked.row for part in parts])  # (P, E + C)
    vector = np.where(excluded, -EARLY * factors, factors) @ rows[:, :width]  # (E,)
    if not np.linalg.norm(vector) > NOTHING * factors.sum():
        raise UserError("the parts cancel each other out: change their weights, or leave one out")
    rerank = query.rerank if query.rerank is not None else rerank
    hidden = len({part.part.photo for part in parts if part.part.photo is not None})
    candidates = max(rerank * (MORE if excluded.any() else 1), query.top)
    return Plan(
        query=query,
        parts=parts,
        factors=factors,
        excluded=excluded,
        means=means,
        scales=scales,
        vector=vector.astype(np.float32),
        candidates=candidates + hidden,
        second=rerank > 0,
    )


def _named_apart(parts: list[EmbeddedPart]) -> list[EmbeddedPart]:
    """Parts whose names differ, so that a reason names one: ``picture``, ``picture 2``."""
    taken: set[str] = set()
    apart = []
    for part in parts:
        name, number = part.reading.name, 1
        while name in taken:
            number += 1
            name = f"{part.reading.name} {number}"
        taken.add(name)
        apart.append(replace(part, reading=replace(part.reading, name=name)))
    return apart
