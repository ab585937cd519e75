"""The controls, by name: the same class as the method, with other settings.

| name | what is trained | source |
|---|---|---|
| ``zero-shot`` | nothing | the frozen encoder |
| ``style-centred`` | nothing | mean embedding of the query's style subtracted |
| ``query-adapter`` | one linear map behind the query embedding | linear probing of the space |
| ``vpt-shallow`` | constant tokens before the first layer | VPT, arXiv 2203.12119 |
| ``vpt-deep`` | constant tokens at every layer | VPT, arXiv 2203.12119 |
| ``lora`` | low-rank adapters on the tower's linear layers | LoRA, arXiv 2106.09685 |
| ``fine-tune`` | all blocks of the query's tower | as SketchScape, BMVC 2025 |
| ``freestyle`` | tokens made from style and Gram code | FreestyleRet, arXiv 2312.02428 |
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from freestyle.config import (
    CalibrationConfig,
    FreestyleConfig,
    PromptConfig,
    StyleConfig,
    TowerConfig,
)
from freestyle.errors import UserError
from freestyle.model import FreestyleRet

METHODS = (
    "zero-shot",
    "style-centred",
    "query-adapter",
    "vpt-shallow",
    "vpt-deep",
    "lora",
    "fine-tune",
    "freestyle",
)
UNTRAINED = ("zero-shot", "style-centred")


def settings(
    method: str,
    encoder: str = "freestyle-mini",
    *,
    revision: str | None = None,
    style: StyleConfig | None = None,
    prompts: PromptConfig | None = None,
    tower: TowerConfig | None = None,
    query_map: str = "none",
    calibration: CalibrationConfig | None = None,
    gallery: str = "frozen",
    framing: str = "whole",
) -> FreestyleConfig:
    """The settings that make a method out of :class:`~freestyle.model.FreestyleRet`.

    Args:
        method: One of :data:`METHODS`.
        encoder: Encoder name.
        revision: Hub revision.
        style: Style reader and space, where the method has one.
        prompts: Prompt settings; the VPT controls take the token count from it.
        tower: Adapters of ``lora``, and of ``freestyle`` where given; ``fine-tune`` has its own.
        query_map: ``linear`` adds a map to ``lora``, ``fine-tune`` and ``freestyle``; ``styled``,
            for ``freestyle`` alone, one whose scale and shift depend on the style.
        calibration: Of any trained method's scores; without a gate where it reads no style.
        gallery: ``prompted`` passes photos through a trained method's query path too.
        framing: ``framed`` cuts query pictures to their content, ``both`` joins the two.

    Raises:
        UserError: If the method is unknown, or trains nothing that a photo could pass through.
    """
    base = FreestyleConfig(encoder=encoder, revision=revision, method=method)
    made = _of_method(
        base,
        style or StyleConfig(),
        prompts or PromptConfig(),
        tower,
        query_map,
        calibration,
    )
    return replace(made, gallery=gallery, framing=framing)


def _of_method(
    base: FreestyleConfig,
    style: StyleConfig,
    prompts: PromptConfig,
    tower: TowerConfig | None,
    query_map: str,
    calibration: CalibrationConfig | None,
) -> FreestyleConfig:
    """What a method adds to settings that have only encoder and name."""
    method = base.method
    if method not in ("freestyle", *UNTRAINED) and calibration is not None:
        base = replace(base, calibration=replace(calibration, gate="none"))
    constant = replace(prompts, shallow="learned", deep="learned", code_dropout=0.0, scope="deep")
    if method == "zero-shot":
        return base
    if method == "style-centred":
        return replace(base, style=style, centred=True)
    if method == "query-adapter":
        return replace(base, query_map="linear")
    if method == "vpt-shallow":
        return replace(base, prompts=replace(constant, deep="none", scope="input"))
    if method == "vpt-deep":
        return replace(base, prompts=constant)
    if method in ("lora", "fine-tune") and query_map == "styled":
        raise UserError(f"method '{method}' reads no style: set query_map to 'linear' or 'none'")
    if method == "lora":
        tower = replace(tower or TowerConfig(), gate="none")
        return replace(base, tower=tower, query_map=query_map)
    if method == "fine-tune":
        return replace(base, tower=TowerConfig(kind="full"), query_map=query_map)
    if method == "freestyle":
        asked = replace(
            base,
            style=style,
            prompts=prompts,
            tower=tower,
            query_map=query_map,
            calibration=calibration,
        )
        return asked if asked.needs_style else replace(asked, style=None)
    raise UserError(f"unknown method '{method}': use one of {', '.join(METHODS)}")


@torch.no_grad()
def fit_style_means(model: FreestyleRet, embeddings: Tensor, codes: Tensor) -> None:
    """Fill a style-centred model's mean embeddings, softly by style-space weights.

    Args:
        model: A model with ``config.centred``, its style space fitted.
        embeddings: Frozen embeddings of the training queries ``(N, E)``, unit norm.
        codes: Their style codes ``(N, code_dim)``.
    """
    weights = model.space.weights(codes.float())  # (N, K)
    sums = weights.T @ F.normalize(embeddings.float(), dim=-1)  # (K, E)
    model.style_means.copy_(sums / weights.sum(dim=0, keepdim=True).T.clamp_min(1e-12))
