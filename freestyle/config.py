"""Settings of a query encoder: what reads the style, what the prompt tokens are made from.

Plain dataclasses that refuse bad combinations when they are made and round-trip through JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from freestyle.values import from_values, require

Source = Literal["style", "gram", "learned", "none"]
SOURCES = ("style", "gram", "learned", "none")
QUERY_MAPS = ("none", "linear", "styled")
FRAMINGS = ("whole", "framed", "both")
GALLERIES = ("frozen", "prompted")


@dataclass(frozen=True)
class StyleConfig:
    """What turns a query picture into a style code, and the space the codes live in.

    Attributes:
        network: Frozen CNN: ``vgg-mini``, ``vgg16``, ``vgg19`` or ``timm:<name>``.
        taps: Layers whose Gram matrices are read; the network stops at the last.
        resolution: Side in pixels that pictures are shrunk to for the CNN; None keeps them.
        channels: At most so many channels per tap before the Gram (seeded projection); None = all.
        power: Signed power that tames the Gram matrix's heavy tails, in (0, 1].
        normalise: Scale each tap's code to unit norm.
        n_bases: K of the K-means style space.
        n_components: Principal components kept of the centred code; None keeps all.
        center: Subtract the mean training code (the paper's form does not).
        temperature: Of the softmax over cosines to the bases; the paper's form has 1.
        seed: Of K-means.
        weights: ``pretrained``, ``random``, or a ``.safetensors`` path for the CNN.
    """

    network: str = "vgg-mini"
    taps: tuple[str, ...] = ("relu2_1",)
    resolution: int | None = None
    channels: int | None = None
    power: float = 0.5
    normalise: bool = True
    n_bases: int = 4
    n_components: int | None = 64
    center: bool = True
    temperature: float = 0.1
    seed: int = 0
    weights: str = "pretrained"

    def __post_init__(self) -> None:
        object.__setattr__(self, "taps", tuple(self.taps))
        require(len(self.taps) > 0, "style.taps is empty: name at least one layer, e.g. relu2_1")
        require(self.n_bases >= 1, f"style.n_bases is {self.n_bases}: use 1 or more")
        require(self.temperature > 0, f"style.temperature is {self.temperature}: use above 0")
        require(0 < self.power <= 1, f"style.power is {self.power}: use a value in (0, 1]")


@dataclass(frozen=True)
class PromptConfig:
    """How prompt tokens are made and where they enter (FreestyleRet, arXiv 2312.02428, sec. 3).

    Attributes:
        n_tokens: Tokens per layer.
        shallow: What feeds the first ``split`` layers: ``style`` (projection onto the bases),
            ``gram`` (the Gram code itself), ``learned`` (a constant) or ``none`` (no tokens).
        deep: What feeds the other layers.
        split: Number of shallow layers; None means half of them.
        hidden: Width of the small network from code to tokens; 0 makes it one linear map.
        scope: ``deep`` replaces the tokens at every layer; ``input`` puts them in before the first
            layer and lets them travel through (VPT shallow).
        text_tokens: Learned tokens in the text tower; 0 leaves text untouched.
        code_dropout: Probability that a training query's code is replaced by the mean code.
        codes: ``own``, or a control: ``mean`` puts the training mean in place of every code, in
            training and after; ``shuffled`` trains on codes dealt among a batch's queries.
    """

    n_tokens: int = 4
    shallow: Source = "style"
    deep: Source = "gram"
    split: int | None = None
    hidden: int = 64
    scope: Literal["deep", "input"] = "deep"
    text_tokens: int = 0
    code_dropout: float = 0.0
    codes: Literal["own", "mean", "shuffled"] = "own"

    def __post_init__(self) -> None:
        for name in ("shallow", "deep"):
            value = getattr(self, name)
            require(
                value in SOURCES, f"prompts.{name} is '{value}': use one of {', '.join(SOURCES)}"
            )
        require(self.n_tokens >= 1, f"prompts.n_tokens is {self.n_tokens}: use 1 or more")
        require(self.hidden >= 0, f"prompts.hidden is {self.hidden}: use 0 or more")
        require(self.text_tokens >= 0, f"prompts.text_tokens is {self.text_tokens}: use 0 or more")
        require(
            self.scope in ("deep", "input"),
            f"prompts.scope is '{self.scope}': use 'deep' or 'input'",
        )
        require(
            self.codes in ("own", "mean", "shuffled"),
            f"prompts.codes is '{self.codes}': use 'own', 'mean' or 'shuffled'",
        )
        require(
            0 <= self.code_dropout < 1,
            f"prompts.code_dropout is {self.code_dropout}: use a value in [0, 1)",
        )

    @property
    def has_tokens(self) -> bool:
        """Whether any layer of the image tower gets tokens."""
        return (self.shallow, self.deep) != ("none", "none")

    @property
    def reads_style(self) -> bool:
        """Whether any layer's tokens depend on the query."""
        return bool({self.shallow, self.deep} & {"style", "gram"})


@dataclass(frozen=True)
class TowerConfig:
    """A trained copy of the image tower's blocks, for queries only; the gallery's stay frozen.

    Attributes:
        kind: ``lora`` (low-rank adapters on every linear layer) or ``full`` (all weights).
        rank: Of the adapters, r.
        gate: What scales the adapters' channels per query: ``gram``, ``style`` or ``none``.
        hidden: Width of the small network from code to gates.
    """

    kind: Literal["lora", "full"] = "lora"
    rank: int = 4
    gate: Literal["gram", "style", "none"] = "none"
    hidden: int = 64

    def __post_init__(self) -> None:
        require(self.kind in ("lora", "full"), f"tower.kind is '{self.kind}': use 'lora' or 'full'")
        require(
            self.gate in ("gram", "style", "none"),
            f"tower.gate is '{self.gate}': use 'gram', 'style' or 'none'",
        )
        require(self.rank >= 1, f"tower.rank is {self.rank}: use 1 or more")
        require(self.hidden >= 1, f"tower.hidden is {self.hidden}: use 1 or more")
        require(
            self.kind == "lora" or self.gate == "none",
            "tower.gate needs adapters to scale: set tower.kind to 'lora', or the gate to 'none'",
        )


@dataclass(frozen=True)
class CalibrationConfig:
    """How far a photo that everything is near to is lowered; see :mod:`freestyle.calibration`.

    Attributes:
        gate: ``style`` lowers a query's photos as far as its style is one of those trained on;
            ``none`` lowers them for every query.
        temperature: T for picture queries, on cosines in [-1, 1].
        strength: For picture queries, in [0, 1].
        text_temperature: T for texts.
        text_strength: For texts; 0 leaves them as they are. An encoder that was itself trained on
            the bank's captions knows them too well for them to stand for other texts.
        bank: At most so many training queries per style are kept.
    """

    gate: Literal["style", "none"] = "style"
    temperature: float = 0.03
    strength: float = 0.5
    text_temperature: float = 0.02
    text_strength: float = 0.0
    bank: int = 1024

    def __post_init__(self) -> None:
        require(
            self.gate in ("style", "none"),
            f"calibration.gate is '{self.gate}': use 'style' or 'none'",
        )
        for name in ("temperature", "text_temperature"):
            value = getattr(self, name)
            require(value > 0, f"calibration.{name} is {value}: use a value above 0")
        for name in ("strength", "text_strength"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"calibration.{name} is {value}: use a value in [0, 1]")
        require(self.bank >= 1, f"calibration.bank is {self.bank}: use 1 or more")


@dataclass(frozen=True)
class FreestyleConfig:
    """Everything that rebuilds a model around its encoder; saved as ``config.json``.

    Attributes:
        encoder: Name for :func:`freestyle.encoders.create`.
        revision: Hub revision of the encoder, or None.
        method: Name under which results are reported.
        style: Style reader and space; None where nothing reads the style.
        prompts: Prompt tokens; None for a promptless model.
        tower: A trained copy of the image tower; None uses the encoder's own.
        query_map: ``none``, or a trained map behind the query embedding: ``linear``, or ``styled``,
            one whose scale and shift are functions of the Gram code.
        calibration: Lowers photos that are near to everything; None compares plain cosines.
        gallery: ``frozen`` embeds photos with the untouched encoder; ``prompted`` passes them
            through the queries' own path, with their own style codes (FreestyleRet's way).
        framing: Whether a query picture is embedded ``whole``, ``framed`` (cut to its content, see
            :mod:`freestyle.framing`), or in ``both`` ways, which the query map joins with weights
            that are a function of the style where the map is styled.
        centred: Subtract the mean embedding of the query's style (training-free).
        seed: The training seed, reported with results; None where nothing was trained.
        styles: Styles it was trained on; evaluation marks all others as unseen.
    """

    encoder: str = "freestyle-mini"
    revision: str | None = None
    method: str = "zero-shot"
    style: StyleConfig | None = None
    prompts: PromptConfig | None = None
    tower: TowerConfig | None = None
    query_map: Literal["none", "linear", "styled"] = "none"
    calibration: CalibrationConfig | None = None
    gallery: Literal["frozen", "prompted"] = "frozen"
    framing: Literal["whole", "framed", "both"] = "whole"
    centred: bool = False
    seed: int | None = None
    styles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "styles", tuple(self.styles))
        require(
            self.query_map in QUERY_MAPS,
            f"query_map is '{self.query_map}': use one of {', '.join(QUERY_MAPS)}",
        )
        require(
            not self.needs_style or self.style is not None,
            f"method '{self.method}' reads the query's style but has no 'style' settings: "
            "add a style section",
        )
        require(
            self.gallery in GALLERIES,
            f"gallery is '{self.gallery}': use one of {', '.join(GALLERIES)}",
        )
        if self.gallery == "prompted":
            self._check_prompted()
        require(
            self.framing in FRAMINGS,
            f"framing is '{self.framing}': use one of {', '.join(FRAMINGS)}",
        )
        require(
            self.framing != "both" or (self.query_map != "none" and not self.has_trained_tower),
            "framing is 'both', which joins two frozen embeddings before a query map: set "
            "query_map to 'linear' or 'styled', without prompt tokens or tower, or framing to "
            "'framed' or 'whole'",
        )

    @property
    def has_trained_tower(self) -> bool:
        """Whether something is trained inside the image tower: prompt tokens or its blocks."""
        tokens = self.prompts is not None and self.prompts.has_tokens
        return tokens or self.tower is not None

    def _check_prompted(self) -> None:
        require(
            self.has_trained_tower or self.query_map != "none",
            f"gallery is 'prompted', but method '{self.method}' trains nothing that a photo passes "
            "through: set gallery to 'frozen', or train prompt tokens, a tower or a query map",
        )
        require(
            self.prompts is None or self.prompts.codes != "shuffled",
            "gallery is 'prompted', but prompts.codes 'shuffled' deals codes among queries and a "
            "photo has its own: set gallery to 'frozen', or prompts.codes to 'mean'",
        )

    @property
    def needs_style(self) -> bool:
        """Whether a style code is needed to encode a query."""
        reads = self.prompts is not None and self.prompts.reads_style
        gated = self.tower is not None and self.tower.gate != "none"
        chosen = self.calibration is not None and self.calibration.gate == "style"
        return self.centred or reads or gated or chosen or self.query_map == "styled"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FreestyleConfig:
        """Rebuild from :meth:`to_dict`.

        Raises:
            UserError: If a field is unknown or a value is refused.
        """
        return from_values(cls, values)


@dataclass(frozen=True)
class LossConfig:
    """Which loss trains the prompts; see :mod:`freestyle.training.losses`.

    Attributes:
        name: ``gallery`` (cross-entropy over every training photo, the default), ``in-batch``
            (symmetric InfoNCE) or ``triplet`` (the paper's).
        temperature: Of the softmax, on cosines in [-1, 1].
        label_smoothing: In [0, 1).
        margin: Of the triplet loss, on 1 - cosine.
    """

    name: Literal["gallery", "in-batch", "triplet"] = "gallery"
    temperature: float = 0.05
    label_smoothing: float = 0.0
    margin: float = 1.0

    def __post_init__(self) -> None:
        names = ("gallery", "in-batch", "triplet")
        require(self.name in names, f"loss.name is '{self.name}': use one of {', '.join(names)}")
        require(self.temperature > 0, f"loss.temperature is {self.temperature}: use above 0")
        require(
            0 <= self.label_smoothing < 1,
            f"loss.label_smoothing is {self.label_smoothing}: use a value in [0, 1)",
        )


__all__ = [
    "CalibrationConfig",
    "FreestyleConfig",
    "LossConfig",
    "PromptConfig",
    "StyleConfig",
    "TowerConfig",
]
