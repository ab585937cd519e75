"""One call for any combination of pictures and texts, each with its role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from freestyle.datasets.composed import ComposedQuery, Cut
from freestyle.errors import UserError
from freestyle.transport.captions import Composer, Composition
from freestyle.transport.scoring import SetDistance, score_sets
from freestyle.transport.sets import SetEncoder, Sets
from freestyle.transport.transition import towards

if TYPE_CHECKING:
    from PIL import Image

ROLES = ("target", "reference", "change", "forbidden")
SAMPLE = 1000  # photos over which each term is standardised


@dataclass(frozen=True)
class Term:
    """One picture or one text of a query.

    Attributes:
        role: ``target``: it describes what is wanted (joint query); ``reference``: what is wanted
            is like it, but changed; ``change``: a text that changes the reference; ``forbidden``:
            it must not appear.
        text: The text, or None.
        image: A path, PIL image or cut, or None.
        weight: Above 0.

    Raises:
        UserError: If it is neither or both, a change that is no text, or the role is unknown.
    """

    role: str
    text: str | None = None
    image: Path | str | Image.Image | Cut | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UserError(f"unknown role '{self.role}': use {', '.join(ROLES)}")
        if (self.text is None) == (self.image is None):
            raise UserError(
                f"a term of role {self.role} needs a text or an image: give one of them"
            )
        if self.text is not None and not self.text.strip():
            raise UserError(f"the text of role {self.role} is empty: write it or leave it out")
        if self.role == "change" and self.text is None:
            raise UserError("a change is a text: give the picture as target or reference")
        if not self.weight > 0:
            raise UserError(f"a term's weight is {self.weight}: use a number above 0")


class Ranking(NamedTuple):
    """The best photos of one query.

    Attributes:
        positions: In the gallery ``(k,)`` int64, best first; of equal scores the earlier first.
        scores: ``(k,)``, comparable within the query only.
    """

    positions: Tensor
    scores: Tensor


class Combiner:
    """Ranks a gallery by any number of terms.

    Every term is a set that is compared with every photo's set by transport. Its scores are
    standardised over a sample of the gallery, since text-picture and picture-picture cosines lie on
    different scales; then they are added, forbidden terms with a minus.

    Args:
        encoder: Embeds pictures and texts.
        gallery: Photos' sets, from ``encoder.photos``.
        composer: Writes target captions of reference and change; without one, the change itself
            (and, where the reference is a text, both in one sentence) stands for them.
        distance: How sets are compared.
        transition: How far target captions move towards the change, in [0, 1].
        reference_weight: Of the reference picture beside the captions; the rest of the score is
            the captions'.
        seed: Of the sample.
    """

    def __init__(
        self,
        encoder: SetEncoder,
        gallery: Sets,
        composer: Composer | None = None,
        *,
        distance: SetDistance | None = None,
        transition: float = 0.45,
        reference_weight: float = 0.5,
        seed: int = 0,
    ) -> None:
        if not len(gallery):
            raise UserError("the gallery is empty: index photos first")
        self.encoder, self.gallery, self.composer = encoder, gallery, composer
        self.distance = distance or SetDistance()
        self.transition, self.reference_weight = transition, reference_weight
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(gallery), generator=generator)[:SAMPLE].sort().values
        self.sample = gallery.take(rows)

    @torch.inference_mode()
    def rank(self, terms: Sequence[Term], k: int = 20) -> Ranking:
        """The best photos for some terms.

        Args:
            terms: In any number and order.
            k: How many photos; all of them if the gallery holds fewer.

        Raises:
            UserError: If there is no term, a change without a reference, or nothing but forbidden
                terms.
        """
        scores = self.scores(terms)
        order = torch.sort(scores, descending=True, stable=True).indices[:k]
        return Ranking(order, scores[order])

    @torch.inference_mode()
    def scores(self, terms: Sequence[Term]) -> Tensor:
        """One score per photo ``(G,)``."""
        by_role = {role: [t for t in terms if t.role == role] for role in ROLES}
        if by_role["change"] and not by_role["reference"]:
            raise UserError(
                "a change without a reference: add the picture or text that is changed, or give "
                "the text as target"
            )
        if not (by_role["target"] or by_role["reference"]):
            raise UserError("nothing is asked for: give a target, or a reference")
        total = torch.zeros(len(self.gallery))
        for term in by_role["target"]:
            total += term.weight * self._standard(self._sets(term))
        for term in by_role["forbidden"]:
            total -= term.weight * self._standard(self._sets(term))
        for term in by_role["reference"]:
            total += term.weight * self._composed(term, by_role["change"])
        return total

    def _composed(self, reference: Term, changes: Sequence[Term]) -> Tensor:
        """Captions of the changed reference, and the reference picture itself."""
        if not changes:
            return self._standard(self._sets(reference))
        text = " and ".join(change.text for change in changes)
        captions = self._composition(reference, text).captions
        atoms = towards(self.encoder.texts(captions), self.encoder.texts([text]), self.transition)
        score = self._standard(Sets(self.encoder.finish_texts(atoms[None])))
        return score + self.reference_weight * self._standard(self._sets(reference))

    def _composition(self, reference: Term, text: str) -> Composition:
        if reference.text is not None:
            return Composition((f"{reference.text}, {text}",), text)
        if self.composer is None:
            return Composition((text,), text)
        query = ComposedQuery("query", reference.image, "", text)
        return self.composer.compose([query])[query.id]

    def _sets(self, term: Term) -> Sets:
        if term.image is not None:
            return self.encoder.queries([term.image])
        return Sets(self.encoder.finish_texts(self.encoder.texts([term.text])[None]))

    def _standard(self, sets: Sets) -> Tensor:
        """One set's scores ``(G,)``, standardised over the sample."""
        found, known = (
            score_sets(
                sets.atoms.float(),
                photos.atoms,
                self.distance,
                query_weights=sets.weights,
                candidate_weights=photos.weights,
            )[0]
            for photos in (self.gallery, self.sample)
        )
        deviation = known.std(correction=0)
        if deviation < 1e-9:
            return torch.zeros_like(found)
        return (found - known.mean()) / deviation
