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

from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from freestyle.config import from_values
from freestyle.errors import UserError
from freestyle.transport.scoring import SetDistance, score_sets
from freestyle.transport.sets import Sets

TEXT_BLOCKS = (
    "target",
    "modification",
    "reference-caption",
    "moved-caption",
    "desired",
    "preserved",
    "forbidden",
)
PICTURE_BLOCKS = ("reference", "mixed", "moved-reference")
BLOCKS = (*TEXT_BLOCKS, *PICTURE_BLOCKS)
STANDARDISE = ("none", "query", "block")


@dataclass(frozen=True)
class Preset:
    """All numbers of one method.

    Attributes:
        name: In reports.
        weights: By block; a negative weight pushes away. A block with weight 0 is not computed.
        distance: How text blocks are compared.
        picture_distance: How picture blocks are compared; as texts where None.
        transition: Alpha in [0, 1]: how far target captions move towards the modification.
        caption_step: How far captions move along the difference (PDV's a_T).
        reference_step: How far the reference does (PDV's a_I).
        reference_share: How much of ``mixed`` is the reference (SDR-CIR's a).
        below: SEIZE's factor on ``min(S_d - S_b, 0)``.
        above: On ``max(S_d - S_b, 0)``.
        standardise: ``none``; ``query``: each block's scores less their mean and divided by their
            deviation over a sample of the gallery, per query, so that text-picture and
            picture-picture cosines may be added; ``block``: the same over all queries at once.

    Raises:
        UserError: If a setting cannot be used.
    """

    name: str
    weights: dict[str, float]
    distance: SetDistance = field(default_factory=SetDistance)
    picture_distance: SetDistance | None = None
    transition: float = 0.0
    caption_step: float = 1.0
    reference_step: float = 1.0
    reference_share: float = 0.0
    below: float = 0.0
    above: float = 0.0
    standardise: str = "none"

    def __post_init__(self) -> None:
        unknown = [block for block in self.weights if block not in BLOCKS]
        if unknown:
            raise UserError(
                f"preset {self.name}: unknown block '{unknown[0]}' in weights: use one of "
                f"{', '.join(BLOCKS)}"
            )
        if not self.read_blocks:
            raise UserError(f"preset {self.name} weighs no block: give weights above or below 0")
        for name in ("transition", "reference_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"preset {self.name}: {name} must be in [0, 1]")
        if self.standardise not in STANDARDISE:
            raise UserError(
                f"preset {self.name}: standardise is '{self.standardise}': use "
                f"{', '.join(STANDARDISE)}"
            )

    @property
    def read_blocks(self) -> list[str]:
        """The blocks that are computed."""
        read = [block for block, weight in self.weights.items() if weight]
        if self.below or self.above:
            read += [b for b in ("target", "reference-caption") if b not in read]
        return read

    def distance_of(self, block: str) -> SetDistance:
        """How a block is compared."""
        if block in PICTURE_BLOCKS and self.picture_distance is not None:
            return self.picture_distance
        return self.distance

    def single(self) -> Preset:
        """The same method with one vector per block: its control."""
        one = SetDistance("single")
        return replace(self, name=f"{self.name} (single)", distance=one, picture_distance=one)


def preset_from(values: dict[str, Any], name: str = "") -> Preset:
    """A preset from YAML: its own fields, or ``base: stitch`` with what differs.

    Raises:
        UserError: At unknown fields or values that cannot be.
    """
    values = dict(values)
    base = values.pop("base", None)
    own_name = values.pop("name", None) or name or base or "preset"
    if base is not None and base not in PRESETS:
        raise UserError(f"unknown preset '{base}' in base: use {', '.join(PRESETS)}")
    known = set(Preset.__dataclass_fields__) - {"name"}
    for key, value in values.items():
        where = f"preset {own_name}"
        if key not in known:
            raise UserError(f"{where}: unknown field '{key}': use {', '.join(sorted(known))}")
        if key in ("distance", "picture_distance"):
            values[key] = None if value is None else from_values(SetDistance, value)
        elif key == "weights":
            if not isinstance(value, dict) or not all(_is_number(v) for v in value.values()):
                raise UserError(f"{where}: weights must be numbers by block, such as target: 1.0")
        elif key != "standardise" and not _is_number(value):
            raise UserError(f"{where}: {key} is {value!r}: use a number")
    if base is not None:
        return replace(PRESETS[base], name=own_name, **values)
    if "weights" not in values:
        raise UserError(f"preset {own_name}: give weights by block, or base: NAME")
    return Preset(own_name, **values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_ONE_WAY = SetDistance("transport", 0.02, mix=1.0)
_SINGLE = SetDistance("single")

CONTROLS = {
    "image-only": Preset("image-only", {"reference": 1.0}, _SINGLE),
    "text-only": Preset("text-only", {"modification": 1.0}, _SINGLE),
    "sum": Preset("sum", {"modification": 1.0, "reference": 1.0}, _SINGLE),
}
PRESETS = {
    **CONTROLS,
    "cosine": Preset("cosine", {"target": 1.0}, _SINGLE),
    "stitch": Preset("stitch", {"target": 1.0}, SetDistance("transport", 0.02), transition=0.45),
    "stitch-released": Preset(
        "stitch-released", {"target": 1.0}, SetDistance("transport", 0.001), transition=0.45
    ),
    "maxsim": Preset("maxsim", {"target": 1.0}, SetDistance("max-mean"), transition=0.45),
    # S_d + 2.1 min(S_d - S_b, 0) + 0.13 max(S_d - S_b, 0)
    "seize": Preset("seize", {"target": 1.0}, SetDistance("mean"), below=2.1, above=0.13),
    # (1 + b) S_q - b (S_d - S_m) with a = 0.15, b = 0.35
    "sdr-cir": Preset(
        "sdr-cir",
        {"mixed": 1.35, "target": -0.35, "modification": 0.35},
        SetDistance("mean"),
        reference_share=0.15,
    ),
    "pdv": Preset(
        "pdv",
        {"moved-caption": 0.5, "moved-reference": 0.5},
        _SINGLE,
        caption_step=1.4,
        reference_step=1.0,
    ),
    "mulvec": Preset(
        "mulvec",
        {"target": 1.0, "desired": 0.5, "preserved": 0.3, "forbidden": -0.3},
        _ONE_WAY,
    ),
}


@dataclass
class QueryBlocks:
    """Everything a scorer may read of Q queries.

    Attributes:
        text: By name, sets of unit-norm text embeddings in the encoder's own E dimensions:
            ``captions``, ``modification``, ``reference-caption``, ``desired``, ``preserved``,
            ``forbidden``.
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
        from freestyle.transport.transition import along_difference, towards

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
        if queries.reference is None:
            raise UserError(
                f"preset {self.preset.name} reads the reference picture: give one with every query"
            )
        return queries.reference


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
