"""One scorer for composed queries; every known method is a setting of it.

A query is a few *blocks*, each a set of embeddings that is compared with the candidates' sets:

    target             captions of the target, moved towards the modification       S_d
    modification       the modification                                             S_m
    reference          the reference picture's views                                S_r
    reference-caption  captions of the reference                                    S_b
    mixed              captions and reference in one vector (SDR-CIR)
    moved-caption      reference captions moved along the captions' difference (PDV)
    moved-reference    reference views moved likewise (PDV)
    desired, preserved, forbidden    phrases with a role (MulVec)

A score is the weighted sum of the blocks' set scores, plus SEIZE's two-sided term. A preset is all
of these numbers; users write their own in YAML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from freestyle.errors import UserError
from freestyle.transport.presets import Preset
from freestyle.transport.scoring import SetDistance, score_sets
from freestyle.transport.sets import Sets
from freestyle.transport.transition import along_difference, out_of_medium, towards


@dataclass
class QueryBlocks:
    """Everything a scorer may read of Q queries.

    Attributes:
        text: By name, sets of unit-norm text embeddings in the encoder's own E dimensions:
            ``captions``, ``modification``, ``reference-caption``, ``desired``, ``preserved``,
            ``forbidden``; ``as-photo`` and ``as-medium`` for presets with a medium step.
        reference: The reference pictures' views ``(Q, R, E')``, columns of a calibration included.
    """

    text: dict[str, Sets]
    reference: Sets | None = None

    def __len__(self) -> int:
        if self.reference is not None:
            return len(self.reference)
        return len(next(iter(self.text.values())))

    def take(self, rows: Tensor | slice) -> QueryBlocks:
        """The queries at these positions."""
        text = {name: sets.take(rows) for name, sets in self.text.items()}
        return QueryBlocks(text, None if self.reference is None else self.reference.take(rows))


class ComposedScorer:
    """Scores composed queries by a preset.

    Args:
        preset: The method.
        finish_texts: Text atoms ``(..., E)`` to what is compared with the gallery ``(..., E')``.
        sample: Sets of gallery photos over which blocks are standardised; needed where the preset
            does.
    """

    def __init__(
        self, preset: Preset, finish_texts: Any = None, sample: Sets | None = None
    ) -> None:
        if preset.standardise != "none" and sample is None:
            raise ValueError(f"preset {preset.name} standardises and needs a sample of the gallery")
        self.preset, self.sample = preset, sample
        self.finish = finish_texts or (lambda atoms: atoms)

    def score(self, queries: QueryBlocks, candidates: Sets) -> Tensor:
        """Scores ``(Q, G)`` float32, higher is better, comparable within a row only."""
        preset = self.preset
        found = {
            block: self._block_scores(block, queries, candidates) for block in preset.read_blocks
        }
        total = torch.zeros(len(queries), len(candidates))
        for block, weight in preset.weights.items():
            if weight:
                total += weight * found[block]
        if preset.below or preset.above:
            gain = found["target"] - found["reference-caption"]
            total += preset.below * gain.clamp(max=0) + preset.above * gain.clamp(min=0)
        return total

    def _block_scores(self, block: str, queries: QueryBlocks, candidates: Sets) -> Tensor:
        sets = self.sets_of(block, queries)
        distance = self.preset.distance_of(block)
        scores = _score(sets, candidates, distance)
        if self.preset.standardise == "none":
            return scores
        own = self.sample is candidates  # a small gallery is its own sample
        reference = scores if own else _score(sets, self.sample, distance)
        over = dict(dim=1, keepdim=True) if self.preset.standardise == "query" else {}
        mean, deviation = reference.mean(**over), reference.std(correction=0, **over)
        return torch.where(deviation > 1e-9, (scores - mean) / deviation, torch.zeros(()))

    def sets_of(self, block: str, queries: QueryBlocks) -> Sets:
        """The elements of one block, ready to be compared with the gallery."""
        preset, text = self.preset, queries.text
        if block == "reference":
            return self._reference(queries)
        if block == "target":
            sets = self._text(queries, "captions")
            moved = towards(sets.atoms, text["modification"].atoms[:, :1], preset.transition)
            return Sets(self.finish(moved), sets.weights)
        if block in ("moved-caption", "moved-reference", "mixed"):
            composed = _centre(self._text(queries, "captions"))  # (Q, 1, E)
            width = composed.shape[-1]
            if block == "mixed":
                reference = self._reference(queries).atoms[:, :1, :width].float()
                share = preset.reference_share
                captions = self._text(queries, "captions")
                mixed = F.normalize((1 - share) * captions.atoms + share * reference, dim=-1)
                return Sets(self.finish(mixed), captions.weights)
            caption = _centre(self._text(queries, "reference-caption"))
            if block == "moved-caption":
                moved = along_difference(caption, composed, caption, preset.caption_step)
                return Sets(self.finish(moved))
            reference = self._reference(queries)
            own = reference.atoms[..., :width].float()
            moved = along_difference(own, composed, caption, preset.reference_step)
            rest = reference.atoms[..., width:].float()
            return Sets(torch.cat([moved, rest], dim=-1), reference.weights)
        sets = self._text(queries, block)
        return Sets(self.finish(sets.atoms), sets.weights)

    def _text(self, queries: QueryBlocks, name: str) -> Sets:
        if name not in queries.text:
            raise UserError(
                f"preset {self.preset.name} reads '{name}', which the captions lack: use a "
                "composer that writes it, or another preset"
            )
        return queries.text[name]

    def _reference(self, queries: QueryBlocks) -> Sets:
        reference, step = queries.reference, self.preset.medium_step
        if reference is None:
            raise UserError(
                f"preset {self.preset.name} reads the reference picture: give one with every query"
            )
        if not step:
            return reference
        photo, medium = self._text(queries, "as-photo"), self._text(queries, "as-medium")
        drawn = medium.atoms.abs().sum(dim=(1, 2), keepdim=True) > 0  # photos have no medium
        width = photo.atoms.shape[-1]
        own, rest = reference.atoms[..., :width].float(), reference.atoms[..., width:].float()
        moved = out_of_medium(own, photo.atoms, _centre(medium), step)
        return Sets(torch.cat([torch.where(drawn, moved, own), rest], dim=-1), reference.weights)


def _centre(sets: Sets) -> Tensor:
    """The unit-norm weighted mean of each set ``(Q, 1, E)``."""
    if sets.weights is None:
        return F.normalize(sets.atoms.mean(dim=1, keepdim=True), dim=-1)
    return F.normalize((sets.atoms * sets.weights[..., None]).sum(dim=1, keepdim=True), dim=-1)


def _score(sets: Sets, candidates: Sets, distance: SetDistance) -> Tensor:
    single = distance.name == "single"  # reads the first elements only
    return score_sets(
        (sets.atoms[:, :1] if single else sets.atoms).float(),
        candidates.atoms[:, :1] if single else candidates.atoms,
        distance,
        query_weights=None if single else sets.weights,
        candidate_weights=None if single else candidates.weights,
    )
