"""Captions: the source's own, or made by BLIP (arXiv 2201.12086) where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from freestyle.errors import UserError
from freestyle.generation.engine import EngineError, Item, Made


@dataclass(frozen=True)
class CaptionSettings:
    """How missing captions are made.

    Attributes:
        model: BLIP checkpoint, hub id or local folder; empty for none, then a photo without a
            caption cannot be used.
        revision: Of a hub checkpoint; None takes the newest.
        tokens: Most new tokens of a caption.
        beams: Of the beam search.
        batch: Photos at once.
    """

    model: str = ""
    revision: str | None = None
    tokens: int = 30
    beams: int = 3
    batch: int = 1

    def __post_init__(self) -> None:
        if min(self.tokens, self.beams, self.batch) < 1:
            raise UserError("tokens, beams or batch of captions is below 1: use 1 or more")


class Captions:
    """Engine ``caption``: writes each photo's caption as a text file, which is also its cache."""

    name, needs_caption = "caption", False

    def __init__(self, settings: CaptionSettings, device: str = "cpu") -> None:
        self.settings, self.device = settings, device
        self.batch_size = settings.batch
        self.light = not settings.model
        self._made_by: dict[str, Any] = {"engine": self.name, "settings": asdict(settings)}
        self._model: Any = None
        if settings.model:
            from freestyle.generation.checkpoints import describe_checkpoint

            self._made_by["models"] = [
                describe_checkpoint("captioner", settings.model, settings.revision)
            ]

    def describe(self) -> dict[str, Any]:
        """Settings and checkpoint."""
        return self._made_by

    def __call__(self, items: Sequence[Item]) -> list[Made]:
        """Take each caption that is there; make the others together."""
        bare = [item for item in items if not item.caption]
        made = dict(zip((item.id for item in bare), self._write(bare), strict=True))
        return [
            Made(text=made.get(item.id, item.caption), details={"given": item.id not in made})
            for item in items
        ]

    def _write(self, items: Sequence[Item]) -> list[str]:
        if not items:
            return []
        if not self.settings.model:
            raise UserError(
                f"{items[0].id} has no caption: write it to <stem>.txt beside the photo, or give "
                "--captioner with a BLIP checkpoint"
            )
        import torch

        if self._model is None:
            self._load()
        pictures = [item.picture for item in items]
        inputs = self._processor(images=pictures, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            tokens = self._model.generate(
                pixel_values=inputs["pixel_values"],
                max_new_tokens=self.settings.tokens,
                num_beams=self.settings.beams,
                do_sample=False,
            )
        texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(text.split()) or "a photo" for text in texts]

    def _load(self) -> None:
        from transformers import BlipForConditionalGeneration, BlipProcessor

        options = {"revision": self.settings.revision} if self.settings.revision else {}
        try:
            self._processor = BlipProcessor.from_pretrained(self.settings.model, **options)
            self._model = BlipForConditionalGeneration.from_pretrained(
                self.settings.model, use_safetensors=True, **options
            )
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise EngineError(
                f"cannot load captioner {self.settings.model} ({reason}): give a BLIP checkpoint, "
                "a hub id or a local folder"
            ) from error
        self._model = self._model.to(self.device).eval()
