"""What the searcher keeps of a gallery: a fixed sample, and columns computed lately."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from freestyle.errors import UserError
from freestyle.search.recent import Recent
from freestyle.search.scoring import Asked, Photos, SetScoring, score_parts

if TYPE_CHECKING:
    from freestyle.search.index import Index
    from freestyle.search.query_encoder import QueryEncoder

GROWTH = 0.1  # of the photos, by which an index may change before it is sampled anew
NOTHING = 1e-6  # deviation relative to the scores' size, below which it is rounding
KEPT = 100_000  # photos whose columns are kept: some 30 MB


class Gallery:
    """An index seen by the searcher.

    Args:
        index: The gallery.
        encoder: Completes its vectors.
        sample: Most photos of the sample.
        scoring: How photos are scored.

    Attributes:
        count: Number of photos at the last :meth:`refresh`.
        sample: The sampled photos.
    """

    def __init__(
        self, index: Index, encoder: QueryEncoder, sample: int, scoring: SetScoring
    ) -> None:
        self.index, self.encoder, self.scoring = index, encoder, scoring
        self.size = max(2, sample)
        self.count, self._counted = 0, 0
        self.sample: Photos | None = None
        self._columns: Recent[np.ndarray] = Recent(KEPT)

    def refresh(self) -> None:
        """Count the photos, and sample them where their number has changed much.

        Raises:
            UserError: If there are none.
        """
        self.count = len(self.index)
        if not self.count:
            raise UserError(f"{self.index.uri} is empty: fill it with freestyle index")
        if self.sample is None or abs(self.count - self._counted) > GROWTH * self._counted:
            self.sample = self._sampled()
            self._counted = self.count

    def _sampled(self) -> Photos:
        for _ in range(2):
            with suppress(KeyError):  # deleted since it was drawn
                return self.photos(self.index.sample(self.size))
        return self.photos(self.index.sample(self.size))

    def statistics(self, parts: list[Asked]) -> tuple[np.ndarray, np.ndarray]:
        """Means and deviations ``(P,)`` float64 of parts' scores over the sample.

        A deviation is 0 where it is nothing but rounding.
        """
        known = score_parts(parts, self.sample, self.scoring).astype(np.float64)  # (P, S)
        deviations = known.std(axis=1)
        noise = NOTHING * np.abs(known).max(axis=1)
        return known.mean(axis=1), np.where(deviations > noise, deviations, 0.0)

    def photos(self, ids: Sequence[str]) -> Photos:
        """Completed vectors and sets of photos.

        Raises:
            KeyError: At an unknown id.
        """
        vectors = self._completed(self.index.vectors(ids))
        if not self.index.settings.atoms or self.scoring.share == 0:
            return Photos(vectors)
        return Photos(vectors, self.index.atoms(ids).astype(np.float32))

    def _completed(self, vectors: np.ndarray) -> np.ndarray:
        """``(N, E)`` to ``(N, E + C)``; columns are looked up by what the vector is."""
        keys = [vector.tobytes() for vector in vectors]
        found = [self._columns.get(hash(key)) for key in keys]
        new = [row for row, columns in enumerate(found) if columns is None]
        if new:
            completed = self.encoder.complete(vectors[new])[:, vectors.shape[1] :]
            for row, columns in zip(new, completed, strict=True):
                found[row] = columns.copy()
                self._columns.put(hash(keys[row]), found[row])
        return np.concatenate([vectors.astype(np.float32), np.stack(found)], axis=1)
