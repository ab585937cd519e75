"""Captions from models on this machine: one multimodal model, or a captioner and a chat model.

Any image-text-to-text model of transformers with a chat template writes target captions in one step
(Qwen2-VL, Qwen2.5-VL, SmolVLM, ...), sampled as in STiTch: K captions at top-k 50, top-p 0.8 and
temperature 0.7, at most 70 tokens. The two-step form is CIReVL's: BLIP says what the reference
shows, a chat model changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from freestyle.datasets.composed import ComposedQuery, load_picture
from freestyle.errors import UserError
from freestyle.transport.captions import Composition
from freestyle.transport.generating import CaptionCache, compose_cached, read_prompts

SAMPLING = {"do_sample": True, "top_k": 50, "top_p": 0.8, "temperature": 0.7}
TOKENS = 70
BLIP = "Salesforce/blip-image-captioning-base"


class LocalComposer:
    """A multimodal model that sees the picture and writes K captions of the target.

    Args:
        model: Hub id or folder, such as ``Qwen/Qwen2.5-VL-3B-Instruct``.
        benchmark: Whose prompts, or a YAML file of your own.
        count: K.
        cache: Folder of finished captions; the default cache where None.
        device: Where to compute.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        seed: Of the sampling, together with the query's id, so that their order changes nothing.

    Raises:
        UserError: If the model cannot be loaded or has no chat template.
    """

    def __init__(
        self,
        model: str,
        benchmark: str = "emoji",
        *,
        count: int = 5,
        cache: str | Path | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        seed: int = 0,
    ) -> None:
        self.name, self.count, self.seed, self.device = model, count, seed, device
        self.prompts, self.cache = read_prompts(benchmark), CaptionCache(cache)
        self.dtype = _dtype(dtype)
        self._loaded: tuple[Any, Any] | None = None

    def compose(self, queries: Sequence[ComposedQuery]) -> dict[str, Composition]:
        """The captions of every query; the model is loaded at the first that is not in the cache.

        Raises:
            UserError: If the model cannot be loaded or writes nothing.
        """
        prompt = f"{self.prompts['system']}\n{self.prompts['single']}\n{self.count} {self.seed}"
        return compose_cached(queries, self.cache, self.name, prompt, self._write)

    @torch.inference_mode()
    def _write(self, query: ComposedQuery) -> Composition:
        if self._loaded is None:
            self._loaded = _load_multimodal(self.name, self.device, self.dtype)
        model, processor = self._loaded
        asked = self.prompts["single"].format(text=query.text, concept=query.concept)
        image = load_picture(query.reference).convert("RGB")
        messages = [
            {"role": "system", "content": [{"type": "text", "text": self.prompts["system"]}]},
            {
                "role": "user",
                "content": [{"type": "image", "image": image}, {"type": "text", "text": asked}],
            },
        ]
        inputs = processor.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.device, self.dtype)
        texts = _sampled(model, processor, inputs, self.count, f"{self.seed} {query.id}")
        return _composition(texts, query, self.name)


class CaptionerComposer:
    """A captioner says what the reference shows, a chat model changes it K times.

    Args:
        model: Any chat model: hub id or folder.
        captioner: BLIP or another captioning model of transformers.
        benchmark: Whose prompts, or a YAML file of your own.
        count: K.
        cache: Folder of finished captions; the default cache where None.
        device: Where to compute.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        seed: Of the sampling.
    """

    def __init__(
        self,
        model: str,
        captioner: str = BLIP,
        benchmark: str = "emoji",
        *,
        count: int = 5,
        cache: str | Path | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        seed: int = 0,
    ) -> None:
        self.name = f"{captioner} and {model}"
        self.model, self.captioner, self.count, self.seed = model, captioner, count, seed
        self.device, self.dtype = device, _dtype(dtype)
        self.prompts, self.cache = read_prompts(benchmark), CaptionCache(cache)
        self._captioner: tuple[Any, Any] | None = None
        self._chat: tuple[Any, Any] | None = None
        self._said: dict[Any, str] = {}

    def compose(self, queries: Sequence[ComposedQuery]) -> dict[str, Composition]:
        """The captions of every query.

        Raises:
            UserError: If a model cannot be loaded or writes nothing.
        """
        own = f"{self.prompts['system']}\n{self.prompts['from_caption']}\n{self.count} {self.seed}"
        return compose_cached(queries, self.cache, self.name, own, self._write)

    @torch.inference_mode()
    def _write(self, query: ComposedQuery) -> Composition:
        caption = self._caption(query)
        if self._chat is None:
            self._chat = _load_chat(self.model, self.device, self.dtype)
        model, tokenizer = self._chat
        asked = self.prompts["from_caption"].format(
            text=query.text, caption=caption, concept=query.concept
        )
        messages = [
            {"role": "system", "content": self.prompts["system"]},
            {"role": "user", "content": asked},
        ]
        inputs = tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.device)
        texts = _sampled(model, tokenizer, inputs, self.count, f"{self.seed} {query.id}")
        found = _composition(texts, query, self.name)
        return Composition(found.captions, found.modification, reference=(caption,))

    def _caption(self, query: ComposedQuery) -> str:
        if query.reference not in self._said:
            if self._captioner is None:
                self._captioner = _load_multimodal(
                    self.captioner, self.device, self.dtype, chat=False
                )
            model, processor = self._captioner
            image = load_picture(query.reference).convert("RGB")
            inputs = processor(images=image, return_tensors="pt").to(self.device, self.dtype)
            ids = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
            said = processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
            if not said:
                raise UserError(
                    f"{self.captioner} wrote nothing of query {query.id!r}: use another"
                )
            self._said[query.reference] = said
        return self._said[query.reference]


def _sampled(model: Any, decoder: Any, inputs: Any, count: int, seed: str) -> list[str]:
    """``count`` sampled continuations, without the prompt."""
    import hashlib

    torch.manual_seed(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:6], "big"))
    ids = model.generate(**inputs, **SAMPLING, max_new_tokens=TOKENS, num_return_sequences=count)
    return decoder.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def _composition(texts: Sequence[str], query: ComposedQuery, name: str) -> Composition:
    captions = tuple(
        dict.fromkeys(t for text in texts if (t := " ".join(text.split()).strip('" ')))
    )
    if not captions:
        raise UserError(f"{name} wrote nothing for query {query.id!r}: use another model")
    return Composition(captions, query.text)


def _load_multimodal(
    name: str, device: str, dtype: torch.dtype, *, chat: bool = True
) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(name)
        model = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype)
    except Exception as error:  # many kinds, by library and version
        raise _unloadable(name, error) from error
    if chat and not getattr(processor, "chat_template", None):
        raise UserError(f"{name} has no chat template: name an instruction-tuned multimodal model")
    return model.to(device).eval(), processor


def _load_chat(name: str, device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    except Exception as error:
        raise _unloadable(name, error) from error
    if not tokenizer.chat_template:
        raise UserError(f"{name} has no chat template: name an instruction-tuned model")
    return model.to(device).eval(), tokenizer


def _unloadable(name: str, error: Exception) -> UserError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(f"cannot load the model {name} ({first}): give a hub id or a folder")


def _dtype(name: str) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise UserError(f"composer.dtype is '{name}': use {', '.join(known)}")
    return known[name]
