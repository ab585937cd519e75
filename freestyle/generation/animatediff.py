"""Cartoon and art by AnimateDiff (arXiv 2307.04725), on diffusers' pipelines.

``animatediff`` draws from the caption alone, as FreestyleRet's art was made (arXiv 2312.02428),
and keeps one frame of the clip. ``animatediff-v2v`` starts from the photo, held still as a clip,
so that its content stays; a ControlNet can hold its outlines too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
from PIL import Image

from freestyle.generation.animatediff_settings import (
    SCHEDULERS,
    TextToImageSettings,
    VideoToVideoSettings,
    named_prompts,
    split_lora,
)
from freestyle.generation.engine import EngineError, Item, Made


def kept_frame(frames: Sequence[Image.Image], keep: str) -> int:
    """Which frame is kept; of equally sharp ones the earliest."""
    if keep == "sharpest":
        greys = [np.asarray(frame.convert("L"), dtype=np.float32) for frame in frames]
        return int(np.argmax([cv2.Laplacian(grey, cv2.CV_32F).var() for grey in greys]))
    return {"first": 0, "middle": len(frames) // 2, "last": len(frames) - 1}[keep]


class TextToImage:
    """Engine ``animatediff``: pictures from captions alone."""

    name, needs_caption, light = "animatediff", True, False
    _pipeline_class = "AnimateDiffPipeline"

    def __init__(self, settings: TextToImageSettings, device: str = "cpu") -> None:
        from freestyle.generation.checkpoints import describe_checkpoint

        self.settings, self.device = settings, device
        self.batch_size = settings.batch
        self.prompts = named_prompts(settings.prompts_file)
        self._pipeline: Any = None
        models = [
            describe_checkpoint("diffusion model", settings.model, settings.revision),
            describe_checkpoint("motion adapter", settings.adapter, settings.adapter_revision),
            *(describe_checkpoint("LoRA", split_lora(text)[0]) for text in settings.loras),
        ]
        controlnet = getattr(settings, "controlnet", "")
        if controlnet:
            revision = settings.controlnet_revision
            models.append(describe_checkpoint("ControlNet", controlnet, revision))
        self.models = models

    def describe(self) -> dict[str, Any]:
        """Settings, checkpoints with revisions and licences, versions of the libraries."""
        from importlib.metadata import version

        settings = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self.settings).items()
        }
        for model, key in zip(
            (m for m in self.models if m["role"] != "LoRA"),
            ("revision", "adapter_revision", "controlnet_revision"),
            strict=False,
        ):
            if not str(model["revision"]).startswith("sha256:"):
                settings[key] = model["revision"]  # the commit that is loaded, for the remaking
        return {
            "engine": self.name,
            "settings": settings,
            "models": self.models,
            "dtype": self._dtype(),
            "versions": {name: version(name) for name in ("diffusers", "torch", "transformers")},
        }

    def __call__(self, items: Sequence[Item]) -> list[Made]:
        """Draw pictures, each by its own generator."""
        import torch

        pipeline = self._load()
        names = [self.settings.prompts[i.seed % len(self.settings.prompts)] for i in items]
        prompts = [
            self.prompts[name]["prompt"].replace("{caption}", (item.caption or "").rstrip(" ."))
            for name, item in zip(names, items, strict=True)
        ]
        prompts = [prompt.lstrip(" ,") for prompt in prompts]
        negatives = [
            self.settings.negative
            if self.settings.negative is not None
            else self.prompts[name].get("negative", "")
            for name in names
        ]
        generators = [torch.Generator("cpu").manual_seed(item.seed) for item in items]
        try:
            clips = self._sample(pipeline, items, prompts, negatives, generators)
        except torch.OutOfMemoryError as error:
            raise EngineError(
                "the GPU has too little memory for AnimateDiff: set art.offload=model, "
                "art.vae_slicing=true, or a smaller art.batch, frames or size"
            ) from error
        made = []
        for name, prompt, negative, clip in zip(names, prompts, negatives, clips, strict=True):
            frame = kept_frame(clip, self.settings.keep)
            details = {
                "look": name,
                "prompt": prompt,
                "negative_prompt": negative,
                "scheduler": type(pipeline.scheduler).__name__,
                "frame": frame,
            }
            made.append(Made(clip[frame].convert("RGB"), details=details))
        return made

    def _sample(
        self,
        pipeline: Any,
        items: Sequence[Item],
        prompts: list[str],
        negatives: list[str],
        generators: list[Any],
    ) -> list[list[Image.Image]]:
        """One clip of frames per item."""
        return pipeline(
            num_frames=self.settings.frames,
            width=self.settings.width or None,
            height=self.settings.height or None,
            **self._common(prompts, negatives, generators),
        ).frames

    def _common(
        self, prompts: list[str], negatives: list[str], generators: list[Any]
    ) -> dict[str, Any]:
        return {
            "prompt": prompts,
            "negative_prompt": negatives,
            "num_inference_steps": self.settings.steps,
            "guidance_scale": self.settings.guidance,
            "generator": generators,
            "decode_chunk_size": self.settings.decode_chunk,
        }

    def _dtype(self) -> str:
        if self.settings.dtype != "auto":
            return self.settings.dtype
        return "float16" if self.device.startswith("cuda") else "float32"

    def _load(self) -> Any:
        """The pipeline, built at the first picture."""
        if self._pipeline is not None:
            return self._pipeline
        import diffusers
        import torch

        options: dict[str, Any] = {
            "torch_dtype": getattr(torch, self._dtype()),
            "use_safetensors": True,
        }
        settings = self.describe()["settings"]
        try:
            parts: dict[str, Any] = {
                "motion_adapter": diffusers.MotionAdapter.from_pretrained(
                    settings["adapter"], revision=settings["adapter_revision"], **options
                )
            }
            if settings.get("controlnet"):
                parts["controlnet"] = diffusers.ControlNetModel.from_pretrained(
                    settings["controlnet"], revision=settings["controlnet_revision"], **options
                )
            pipeline = getattr(diffusers, self._pipeline_class).from_pretrained(
                settings["model"], revision=settings["revision"], **parts, **options
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise EngineError(
                f"cannot load AnimateDiff from {settings['model']} and {settings['adapter']}: "
                f"{reason}"
            ) from error
        self._pipeline = self._prepare(pipeline)
        return self._pipeline

    def _prepare(self, pipeline: Any) -> Any:
        """Scheduler, LoRAs, attention and where it all runs."""
        import diffusers

        scheduler = getattr(diffusers, SCHEDULERS[self.settings.scheduler])
        # Motion adapters are trained on a linear schedule and do not bear clipped samples.
        pipeline.scheduler = scheduler.from_config(
            pipeline.scheduler.config, beta_schedule="linear", clip_sample=False
        )
        weights = [split_lora(text) for text in self.settings.loras]
        for number, (name, _) in enumerate(weights):
            folder, _, file = name.rpartition("/")
            pipeline.load_lora_weights(
                folder or ".", weight_name=file, adapter_name=f"lora{number}", use_safetensors=True
            )
        if weights:
            names = [f"lora{number}" for number in range(len(weights))]
            pipeline.set_adapters(names, adapter_weights=[weight for _, weight in weights])
        if self.settings.attention == "xformers":
            try:
                pipeline.enable_xformers_memory_efficient_attention()
            except (ModuleNotFoundError, ValueError) as error:
                raise EngineError(
                    "attention xformers needs the package xformers and a GPU: install it, or use "
                    "sdpa"
                ) from error
        elif self.settings.attention == "sliced":
            pipeline.enable_attention_slicing()
        if self.settings.vae_slicing:
            pipeline.vae.enable_slicing()
        if self.settings.offload == "model":
            pipeline.enable_model_cpu_offload(device=self.device)
        elif self.settings.offload == "sequential":
            pipeline.enable_sequential_cpu_offload(device=self.device)
        else:
            pipeline = pipeline.to(self.device)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


class VideoToVideo(TextToImage):
    """Engine ``animatediff-v2v``: the photo, redrawn."""

    name, needs_caption = "animatediff-v2v", False
    settings: VideoToVideoSettings

    def __init__(self, settings: VideoToVideoSettings, device: str = "cpu") -> None:
        super().__init__(settings, device)
        if settings.controlnet:
            self._pipeline_class = "AnimateDiffVideoToVideoControlNetPipeline"
        else:
            self._pipeline_class = "AnimateDiffVideoToVideoPipeline"

    def _sample(
        self,
        pipeline: Any,
        items: Sequence[Item],
        prompts: list[str],
        negatives: list[str],
        generators: list[Any],
    ) -> list[list[Image.Image]]:
        clips: list[list[Image.Image]] = [[] for _ in items]
        stills = [self._still(item.picture, pipeline) for item in items]
        for size in dict.fromkeys(still.size for still in stills):
            chosen = [n for n, still in enumerate(stills) if still.size == size]
            batch = [[stills[n]] * self.settings.frames for n in chosen]
            more: dict[str, Any] = {"width": size[0], "height": size[1]}
            if self.settings.controlnet:
                outlines = Image.fromarray(_outlines(np.asarray(stills[chosen[0]])))
                more["conditioning_frames"] = [outlines] * self.settings.frames
                more["controlnet_conditioning_scale"] = float(self.settings.control)
            frames = pipeline(
                video=batch if len(batch) > 1 else batch[0],
                strength=self.settings.strength,
                **more,
                **self._common(
                    [prompts[n] for n in chosen],
                    [negatives[n] for n in chosen],
                    [generators[n] for n in chosen],
                ),
            ).frames
            for position, clip in zip(chosen, frames, strict=True):
                clips[position] = clip
        return clips

    def _still(self, picture: Image.Image, pipeline: Any) -> Image.Image:
        """The photo at a size that the networks can halve as often as they do."""
        halvings = len(pipeline.unet.config.block_out_channels) - 1
        step = max(8, pipeline.vae_scale_factor * 2**halvings)
        width, height = self.settings.width, self.settings.height
        if not (width and height):
            factor = self.settings.side / max(picture.size)
            width, height = (max(step, round(side * factor / step) * step) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.LANCZOS)


def _outlines(pixels: np.ndarray) -> np.ndarray:
    """White edges on black ``(H, W, 3)``, as Canny ControlNets were trained on."""
    edges = cv2.Canny(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), 100, 200)
    return np.repeat(edges[..., None], 3, axis=2)
