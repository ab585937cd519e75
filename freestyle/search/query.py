"""What is asked and what is answered: the words of the searcher, the server and the command."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freestyle.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from freestyle.search.filters import Filter

MAX_TEXT = 1000
"""Longest text in characters; encoders cut what their tower does not hold."""
MAX_PARTS = 16
"""Most parts of one query."""


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a query: a text, a picture, or a photo of the gallery ("more like this").

    Attributes:
        text: Commas separate phrases: the photo's set is compared with the whole and with each.
        image: A picture in any style, in memory or a file.
        photo: Id of a photo of the index, whose stored vector is taken.
        weight: At least 0, beside the other parts'.
        exclude: Whether photos that are more like this part than an ordinary photo are pushed
            down, instead of photos like it up.
        name: For the reasons and the table; made from the part where empty.

    Raises:
        UserError: If it is none or several of the three, or a value cannot be used.
    """

    text: str | None = None
    image: Image.Image | str | Path | None = None
    photo: str | None = None
    weight: float = 1.0
    exclude: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        given = [what for what in (self.text, self.image, self.photo) if what is not None]
        if len(given) != 1:
            raise UserError(
                f"a part of a query has {len(given)} of text, image and photo: give one of them"
            )
        if self.text is not None:
            if not self.text.strip():
                raise UserError("a text is empty: write what to look for, or leave the part out")
            if len(self.text) > MAX_TEXT:
                raise UserError(
                    f"a text has {len(self.text):,} characters: shorten it to {MAX_TEXT:,}"
                )
        if self.photo is not None and not self.photo:
            raise UserError("a photo's id is empty: take one from a result")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise UserError(
                f"a weight is {self.weight}: use a number of at least 0, and exclude what shall "
                "not be found"
            )

    @property
    def kind(self) -> str:
        """``text``, ``image`` or ``photo``."""
        return "text" if self.text is not None else "image" if self.image is not None else "photo"

    @property
    def label(self) -> str:
        """:attr:`name`, or a name made from the part."""
        if self.name:
            return self.name
        if self.text is not None:
            return self.text.strip()
        if isinstance(self.image, str | Path):
            return Path(self.image).name
        return "picture" if self.image is not None else "photo"


@dataclass(frozen=True, eq=False)
class Query:
    """Any number of parts, and how to answer.

    Attributes:
        parts: At least one that is not excluded and has a weight above 0.
        top: Number of photos wanted.
        where: Only photos that match.
        rerank: Candidates of the second stage; the searcher's own number where None; 0 leaves the
            second stage out.

    Raises:
        UserError: If nothing is asked for, or a number cannot be used.
    """

    parts: tuple[Part, ...]
    top: int = 20
    where: Filter | None = None
    rerank: int | None = None

    def __post_init__(self) -> None:
        if not self.parts:
            raise UserError("the query is empty: give a text, a picture or a photo")
        if len(self.parts) > MAX_PARTS:
            raise UserError(f"the query has {len(self.parts)} parts: use at most {MAX_PARTS}")
        wanted = [part for part in self.parts if not part.exclude]
        if not wanted:
            raise UserError("the query only excludes: add what to look for")
        if not any(part.weight > 0 for part in wanted):
            raise UserError("all weights are 0: give what to look for a weight above 0")
        if self.top < 1:
            raise UserError(f"top is {self.top}: ask for 1 photo or more")
        if self.rerank is not None and self.rerank < 0:
            raise UserError(f"rerank is {self.rerank}: use 0 or more candidates")


@dataclass(frozen=True)
class Hit:
    """A photo that was found.

    Attributes:
        id: Of the photo.
        score: Of the whole query; comparable within one answer only.
        parts: Each part's score in standard deviations above the mean of a fixed sample of the
            gallery: 0 is an ordinary photo. High values of excluded parts count against it.
        reason: Label of the part that speaks most for the photo.
        metadata: From the index.
    """

    id: str
    score: float
    parts: tuple[float, ...]
    reason: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PartReading:
    """What was understood of a part.

    Attributes:
        kind: ``image``, ``text`` or ``photo``.
        name: The part's label.
        styles: Probability of each style the model knows and of ``other``; empty where it cannot
            tell.
        place: Weights over the bases of the style space, sum 1; None without one.
    """

    kind: str
    name: str
    styles: dict[str, float] = field(default_factory=dict)
    place: tuple[float, ...] | None = None


@dataclass(frozen=True)
class SearchResult:
    """The answer to one query.

    Attributes:
        hits: Best first; of equal scores the smaller id first.
        parts: As the query's.
        milliseconds: ``embed``, ``nearest``, ``rerank`` and ``total`` of the batch that the query
            was in.
        photos: How many the index holds.
    """

    hits: tuple[Hit, ...]
    parts: tuple[PartReading, ...]
    milliseconds: dict[str, float]
    photos: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: what the server answers."""
        values = asdict(self)
        for hit in values["hits"]:
            hit["score"] = round(hit["score"], 6)
            hit["parts"] = [round(value, 3) for value in hit["parts"]]
        for part in values["parts"]:
            part["styles"] = {style: round(p, 4) for style, p in part["styles"].items()}
            place = part["place"]
            part["place"] = None if place is None else [round(weight, 4) for weight in place]
        values["hits"], values["parts"] = list(values["hits"]), list(values["parts"])
        values["milliseconds"] = {k: round(v, 2) for k, v in self.milliseconds.items()}
        return values


def signed(value: float) -> str:
    """A standardised score for people.

    >>> signed(1.26), signed(-0.04)
    ('+1.3', '+0.0')
    """
    return f"{round(value, 1) + 0.0:+.1f}"
