"""The one interface of everything that makes pictures: a batch of photos in, pictures out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from freestyle.errors import UserError


class EngineError(UserError):
    """An engine cannot work at all, whatever the photo: the run stops."""


@dataclass(frozen=True, slots=True)
class Item:
    """One photo to be drawn in a style.

    Attributes:
        id: Of the photo.
        picture: Upright 8-bit RGB.
        caption: What the photo shows, where it is known.
        seed: In [0, 2^31); decides everything random about the picture.
    """

    id: str
    picture: Image.Image
    caption: str | None
    seed: int


@dataclass(frozen=True, slots=True)
class Made:
    """What an engine makes of one photo.

    Attributes:
        picture: The picture, or None where a text was made.
        text: The text, or None where a picture was made.
        details: What else the picture's row shall tell, as JSON values.
    """

    picture: Image.Image | None = None
    text: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """Makes the pictures of one style.

    Attributes:
        name: As it is named in settings, such as ``npr``.
        batch_size: Photos that it takes at once.
        needs_caption: Whether photos without a caption are of no use to it.
        light: Whether it runs in many processes of one thread each.
    """

    name: str
    batch_size: int
    needs_caption: bool
    light: bool

    def describe(self) -> dict[str, Any]:
        """Settings, models, revisions and licences as JSON values: with the seed, all that counts.

        Equal descriptions, seeds and photos give equal pictures.
        """
        ...

    def __call__(self, items: Sequence[Item]) -> list[Made]:
        """Draw a batch, in its order."""
        ...


def seed_of(seed: int, style: str, photo: str) -> int:
    """The seed of one picture, in [0, 2^31): by the run's seed, the style and the photo's id.

    >>> seed_of(0, "art", "a/1") == seed_of(0, "art", "a/1") != seed_of(0, "art", "a/2")
    True
    """
    digest = hashlib.sha256(f"{seed}\0{style}\0{photo}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1
