"""Settings of the AnimateDiff engines: checkpoints, prompts, sampling, memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from freestyle.errors import UserError
from freestyle.generation.reading import read_yaml

FOLDER = Path(__file__).parent
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "pndm": "PNDMScheduler",
    "lcm": "LCMScheduler",
}
KEEP = ("middle", "sharpest", "first", "last")
DTYPES = ("auto", "float32", "float16", "bfloat16")
ATTENTION = ("sdpa", "xformers", "sliced")
OFFLOAD = ("none", "model", "sequential")


@dataclass(frozen=True)
class TextToImageSettings:
    """Checkpoints, prompts, sampling and memory.

    Attributes:
        preset: Name in ``presets.yaml`` whose values stand for all that are not set; none for no
            preset.
        model: Stable Diffusion 1.5 family checkpoint in diffusers' layout: hub id or local folder.
        revision: Of ``model`` on the hub; None takes the newest.
        adapter: Motion adapter: hub id or local folder.
        adapter_revision: Of ``adapter`` on the hub.
        loras: ``NAME`` or ``NAME:WEIGHT``; NAME is a hub id with a file name behind it, or a local
            ``.safetensors`` file.
        prompts: Named styles of ``prompts.yaml``; the picture's seed chooses one.
        prompts_file: YAML of further named styles.
        negative: Negative prompt in place of the named styles'.
        scheduler: Of the sampling.
        steps: Of the sampling.
        guidance: Classifier-free guidance; 1 is without.
        frames: Of the clip.
        keep: Which frame is kept: ``middle``, ``sharpest`` (variance of its Laplacian), ``first``
            or ``last``.
        width: Of the picture in pixels; 0 takes what the checkpoint was trained at.
        height: Likewise.
        batch: Pictures at once. Pictures of a larger batch equal those made alone up to rounding
            only.
        dtype: ``auto`` is float16 on a GPU and float32 on a CPU.
        attention: ``sdpa``, ``xformers`` or ``sliced`` (slow, small).
        offload: ``model`` or ``sequential`` keep on the GPU only what runs.
        vae_slicing: Decode frame by frame.
        decode_chunk: Frames decoded at once.
    """

    preset: str = "toonyou"
    model: str | None = None
    revision: str | None = None
    adapter: str | None = None
    adapter_revision: str | None = None
    loras: tuple[str, ...] | None = None
    prompts: tuple[str, ...] = ("cartoon",)
    prompts_file: str | None = None
    negative: str | None = None
    scheduler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    frames: int = 16
    keep: str = "middle"
    width: int = 0
    height: int = 0
    batch: int = 1
    dtype: str = "auto"
    attention: str = "sdpa"
    offload: str = "none"
    vae_slicing: bool = False
    decode_chunk: int = 16

    def __post_init__(self) -> None:
        self._take_preset()
        object.__setattr__(self, "prompts", tuple(self.prompts))
        for name, allowed in (
            ("scheduler", tuple(SCHEDULERS)),
            ("keep", KEEP),
            ("dtype", DTYPES),
            ("attention", ATTENTION),
            ("offload", OFFLOAD),
        ):
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"{name} of AnimateDiff is '{getattr(self, name)}': use {', '.join(allowed)}"
                )
        for name in ("steps", "frames", "batch", "decode_chunk"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} of AnimateDiff is {getattr(self, name)}: use 1 or more")
        if self.width % 8 or self.height % 8 or min(self.width, self.height) < 0:
            raise UserError("width or height of AnimateDiff does not fit: use multiples of 8, or 0")
        known = named_prompts(self.prompts_file)
        for name in self.prompts:
            if name not in known:
                raise UserError(f"unknown style '{name}' in prompts: use {', '.join(known)}")
        if not self.prompts:
            raise UserError(f"prompts is empty: name one or more of {', '.join(known)}")

    def _take_preset(self) -> None:
        """Fill what is not set from the preset, then from plain defaults."""
        presets = read_yaml(FOLDER / "presets.yaml")
        if self.preset not in (*presets, "none"):
            raise UserError(f"unknown preset '{self.preset}': use {', '.join(presets)}, or none")
        plain = {"scheduler": "ddim", "steps": 25, "guidance": 7.5, "loras": ()}
        values = plain | (presets.get(self.preset) or {})
        for name, value in values.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "loras", tuple(self.loras or ()))
        if not (self.model and self.adapter):
            raise UserError(
                "AnimateDiff needs a model and an adapter: name a preset, or set art.model and "
                "art.adapter to hub ids or local folders"
            )


@dataclass(frozen=True)
class VideoToVideoSettings(TextToImageSettings):
    """How a photo is redrawn: `TextToImageSettings`, and what holds it to the photo.

    Attributes:
        strength: Share of the noise schedule that is run, in (0, 1]: low keeps the photo.
        side: Longer side of the picture in pixels, where width and height are 0.
        controlnet: ControlNet for Canny edges, hub id or local folder; empty for none.
        controlnet_revision: Of ``controlnet`` on the hub.
        control: Weight of the ControlNet.
    """

    strength: float = 0.6
    side: int = 512
    controlnet: str = ""
    controlnet_revision: str | None = None
    control: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.strength <= 1:
            raise UserError(f"strength of AnimateDiff is {self.strength}: use above 0, up to 1")
        if int(self.steps * self.strength) < 1:
            raise UserError(
                f"{self.steps} steps at strength {self.strength} are no step: raise either"
            )
        if self.side < 8 or self.control < 0:
            raise UserError(
                "side or control of AnimateDiff is too small: use 8 or more, and 0 or more"
            )
        if self.controlnet and self.batch > 1:
            raise UserError("a ControlNet takes one picture at a time: leave batch at 1")


def named_prompts(file: str | None = None) -> dict[str, dict[str, str]]:
    """The named styles: prompt with ``{caption}``, and negative prompt.

    Raises:
        UserError: If a style has no prompt.
    """
    styles = read_yaml(FOLDER / "prompts.yaml")
    if file:
        styles |= read_yaml(file)
    for name, style in styles.items():
        if not isinstance(style, dict) or not isinstance(style.get("prompt"), str):
            raise UserError(f"style '{name}' of {file} has no prompt: write one with {{caption}}")
    return styles


def split_lora(text: str) -> tuple[str, float]:
    """Name and weight of ``NAME`` or ``NAME:WEIGHT``."""
    name, colon, weight = text.rpartition(":")
    if not colon:
        return text, 1.0
    try:
        return name, float(weight)
    except ValueError as error:
        raise UserError(f"LoRA '{text}' has no readable weight: write NAME:0.8") from error
