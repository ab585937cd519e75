"""Presets: all the numbers of a method for composed queries, the known ones by name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from freestyle.config import from_values
from freestyle.errors import UserError
from freestyle.transport.scoring import SetDistance

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
        medium_step: How far the reference's views move out of their medium, along
            ``f("a photo of c") - f("a sketch of c")`` with c its caption; 0 leaves them.
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
    medium_step: float = 0.0
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
