"""From the parts of many queries to vectors: everything of a kind in one batch.

Texts and pictures that were embedded lately are remembered, since a page asks for the same parts
again whenever a weight is moved or another part is drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from freestyle.datasets.images import load_image
from freestyle.errors import UserError
from freestyle.search.query import Part, PartReading
from freestyle.search.recent import Recent
from freestyle.search.scoring import Asked

if TYPE_CHECKING:
    from PIL import Image

    from freestyle.search.index import Index
    from freestyle.search.query_encoder import QueryEncoder

MAX_PHRASES = 16


@dataclass(frozen=True, eq=False)
class EmbeddedPart:
    """A part, ready to be compared with photos."""

    part: Part
    asked: Asked
    reading: PartReading


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the encoder said of one picture."""

    row: np.ndarray
    styles: dict[str, float]
    place: tuple[float, ...] | None


class PartEmbedder:
    """Embeds parts with one pass over all new pictures and one over all new texts.

    Args:
        index: Where stored photos are looked up.
        encoder: The query side of a model.
        remember: Most texts, and most pictures, whose embeddings are kept.
    """

    def __init__(self, index: Index, encoder: QueryEncoder, remember: int = 1024) -> None:
        self.index, self.encoder = index, encoder
        self._texts: Recent[np.ndarray] = Recent(remember)
        self._pictures: Recent[_Seen] = Recent(remember)

    def embed(self, parts: Sequence[Part]) -> list[EmbeddedPart | UserError]:
        """Embed parts of any kinds.

        Returns:
            One for each part, or what is wrong with it: an unreadable picture or an unknown photo
            fails alone.
        """
        texts = self._embed_texts([part.text for part in parts if part.text is not None])
        pictures = self._embed_pictures([part for part in parts if part.image is not None])
        photos = self._look_up([part.photo for part in parts if part.photo is not None])
        found: list[EmbeddedPart | UserError] = []
        for part in parts:
            outcome: EmbeddedPart | UserError
            if part.text is not None:
                rows = [texts[text] for text in elements_of(part.text)]
                outcome = self._put_together(part, rows[0], np.stack(rows))
            elif part.image is not None:
                seen = pictures[id(part)]
                outcome = seen if isinstance(seen, UserError) else self._picture(part, seen)
            else:
                outcome = self._photo(part, photos)
            found.append(outcome)
        return found

    def _picture(self, part: Part, seen: _Seen) -> EmbeddedPart:
        return self._put_together(part, seen.row, seen.row[None], seen.styles, seen.place)

    def _photo(
        self, part: Part, photos: dict[str, tuple[np.ndarray, np.ndarray, str]]
    ) -> EmbeddedPart | UserError:
        if part.photo not in photos:
            return UserError(f"there is no photo '{part.photo}' here: take an id from a result")
        vector, elements, name = photos[part.photo]
        return self._put_together(replace(part, name=part.name or name), vector, elements)

    def _put_together(
        self,
        part: Part,
        row: np.ndarray,
        elements: np.ndarray,
        styles: dict[str, float] | None = None,
        place: tuple[float, ...] | None = None,
    ) -> EmbeddedPart:
        reading = PartReading(part.kind, part.label, styles or {}, place)
        elements = np.ascontiguousarray(elements[:, : self.encoder.width], dtype=np.float32)
        return EmbeddedPart(part, Asked(row, elements), reading)

    def _embed_texts(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Rows of texts and their phrases, by text."""
        needed = dict.fromkeys(element for text in texts for element in elements_of(text))
        rows = {text: self._texts.get(text) for text in needed}
        new = [text for text, row in rows.items() if row is None]
        if new:
            for text, row in zip(new, self.encoder.embed_texts(new).rows, strict=True):
                self._texts.put(text, row)
                rows[text] = row
        return rows

    def _embed_pictures(self, parts: Sequence[Part]) -> dict[int, _Seen | UserError]:
        """What was seen in pictures, by identity of the part."""
        found: dict[int, _Seen | UserError] = {}
        keys: dict[int, str] = {}
        new: dict[str, Image.Image] = {}
        known: dict[str, _Seen] = {}
        for part in parts:
            try:
                image = load_image(part.image)
            except UserError as error:
                found[id(part)] = error
                continue
            key = _digest(image)
            keys[id(part)] = key
            seen = self._pictures.get(key)
            if seen is not None:
                known[key] = seen
            else:
                new.setdefault(key, image)
        if new:
            encoded = self.encoder.embed_images(list(new.values()))
            for number, key in enumerate(new):
                place = None
                if encoded.places is not None:
                    place = tuple(float(weight) for weight in encoded.places[number])
                known[key] = _Seen(encoded.rows[number], encoded.styles[number], place)
                self._pictures.put(key, known[key])
        return found | {part: known[key] for part, key in keys.items()}

    def _look_up(self, ids: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray, str]]:
        """Rows, sets and names of stored photos, by id; unknown ones are missing.

        A photo has no query's columns: as a query it is of no trained style.
        """
        ids = list(dict.fromkeys(ids))
        if not ids:
            return {}
        try:
            vectors = self.index.vectors(ids)
            sets = self.index.atoms(ids) if self.index.settings.atoms else vectors[:, None]
            told = self.index.metadata(ids)
        except KeyError:
            if len(ids) == 1:
                return {}
            return {key: value for each in ids for key, value in self._look_up([each]).items()}
        columns = self.encoder.complete(vectors[:1]).shape[1] - vectors.shape[1]
        rows = np.pad(vectors.astype(np.float32), ((0, 0), (0, columns)))
        names = [str(photo.get("name") or "photo") for photo in told]
        return {each: (rows[i], sets[i], names[i]) for i, each in enumerate(ids)}


def elements_of(text: str) -> list[str]:
    """A text's set: the whole, then its phrases, where commas make several (at most 16 of them).

    >>> elements_of("a red car, at night")
    ['a red car, at night', 'a red car', 'at night']
    >>> elements_of("a red car")
    ['a red car']
    """
    whole = text.strip()
    phrases = [phrase.strip() for phrase in whole.split(",") if phrase.strip()]
    return [whole, *phrases[:MAX_PHRASES]] if len(phrases) > 1 else [whole]


def _digest(image: Image.Image) -> str:
    """Names a picture by its size and pixels."""
    return hashlib.blake2b(
        image.tobytes(), digest_size=16, person=b"%dx%d" % image.size
    ).hexdigest()
