"""From the YAML of a composed evaluation to data, model, sets, composer and presets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from itertools import product
from pathlib import Path
from typing import Any

import torch
import yaml

from freestyle.config import from_values
from freestyle.datasets.composed import ComposedSplit
from freestyle.errors import UserError
from freestyle.evaluation.composed import Prepared, evaluate_composed
from freestyle.model import FreestyleRet
from freestyle.transport.captions import CachedCaptions, Composer
from freestyle.transport.presets import CONTROLS, PRESETS, Preset, preset_from
from freestyle.transport.scoring import SetDistance
from freestyle.transport.sets import SetEncoder
from freestyle.transport.views import Views

SECTIONS = ("data", "model", "views", "query_views", "composer", "presets", "tune", "compare")
BENCHMARKS = ("emoji", "cirr", "circo", "fashioniq", "genecis")


def read_settings(path: str | Path) -> dict[str, Any]:
    """The YAML of a composed evaluation.

    Raises:
        UserError: If it is missing, no YAML, or has unknown sections.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read --config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path} is not valid YAML: mend it") from error
    if not isinstance(values, dict) or not isinstance(values.get("data"), dict):
        raise UserError(
            f"--config {path} has no section 'data': use one of configs/composed/*.yaml"
        )
    for key in values:
        if key not in SECTIONS:
            raise UserError(f"--config {path}: unknown section '{key}': use {', '.join(SECTIONS)}")
    return values


def open_composed(data: dict[str, Any], split: str | None = None) -> ComposedSplit:
    """Open the benchmark of a ``data`` section.

    Args:
        data: ``benchmark``, ``root``, ``split`` and what the benchmark's reader takes.
        split: Instead of the section's.

    Raises:
        UserError: If the section or the files do not fit.
    """
    values = dict(data)
    benchmark, root = values.pop("benchmark", None), values.pop("root", None)
    chosen = split or values.pop("split", None)
    values.pop("split", None)
    if benchmark not in BENCHMARKS:
        raise UserError(f"data.benchmark is {benchmark!r}: use one of {', '.join(BENCHMARKS)}")
    if not root or not isinstance(chosen, str):
        raise UserError("data.root and data.split must name the benchmark's folder and split")
    references = values.pop("references", None)
    opened = _call(_reader(benchmark), root, chosen, values)
    if references:
        from freestyle.datasets.composed import with_references

        given = _mapping(references, "data.references")
        try:
            signature(with_references).bind(opened, **given)
        except TypeError as error:
            raise UserError(
                f"data.references: {error}; see docs/composed.md for its fields"
            ) from error
        opened = with_references(opened, **given)
    return opened


def _reader(benchmark: str) -> Callable[..., ComposedSplit]:
    if benchmark == "emoji":
        from freestyle.datasets.emoji_composed import open_emoji_composed as reader
    elif benchmark == "cirr":
        from freestyle.datasets.cirr import open_cirr as reader
    elif benchmark == "circo":
        from freestyle.datasets.circo import open_circo as reader
    elif benchmark == "fashioniq":
        from freestyle.datasets.fashioniq import open_fashioniq as reader
    else:
        from freestyle.datasets.genecis import open_genecis as reader
    return reader


def _call(reader: Callable[..., ComposedSplit], root: str, split: str, values: dict) -> Any:
    try:
        signature(reader).bind(root, split, **values)
    except TypeError as error:
        raise UserError(f"section data: {error}; see docs/composed.md for its fields") from error
    return reader(root, split, **values)


def load_encoder(
    settings: dict[str, Any], model: str | None, cache: str | None, device: str
) -> SetEncoder:
    """Model and views of the settings.

    Args:
        settings: From :func:`read_settings`; ``model`` holds ``path`` or ``encoder``.
        model: A model folder instead of theirs.
        cache: Folder of embedded sets.
        device: Where to compute.
    """
    own = _mapping(settings.get("model") or {}, "model")
    path = model or own.get("path")
    loaded = (
        FreestyleRet.from_pretrained(path)
        if path
        else FreestyleRet.from_encoder(own.get("encoder") or "freestyle-mini")
    )
    loaded.to(device).eval()
    views = from_values(Views, settings.get("views") or {})
    asked = settings.get("query_views")
    half = own.get("half_precision", False)
    return SetEncoder(
        loaded,
        views,
        from_values(Views, asked) if asked else None,
        cache=cache,
        dtype=torch.float16 if half else torch.float32,
    )


def make_composer(section: dict[str, Any] | None, encoder: SetEncoder, benchmark: str) -> Composer:
    """The composer of a ``composer`` section; ``kind: rules`` where there is none.

    Raises:
        UserError: If the section does not fit.
    """
    values = dict(_mapping(section or {}, "composer"))
    kind = values.pop("kind", "rules")
    try:
        if kind == "cached":
            return CachedCaptions(Path(values.pop("path")), **values)
        if kind == "rules":
            return _rules(values, encoder)
        if kind == "endpoint":
            from freestyle.transport.endpoint import EndpointComposer

            return EndpointComposer(**{"benchmark": benchmark, **values})
        if kind == "local":
            from freestyle.transport.local_models import LocalComposer

            return LocalComposer(**{"benchmark": benchmark, **values})
        if kind == "captioner":
            from freestyle.transport.local_models import CaptionerComposer

            return CaptionerComposer(**{"benchmark": benchmark, **values})
    except (TypeError, KeyError) as error:
        raise UserError(
            f"section composer: {error}; see docs/composed.md for its fields"
        ) from error
    raise UserError(f"composer.kind is {kind!r}: use rules, cached, endpoint, local or captioner")


def _rules(values: dict[str, Any], encoder: SetEncoder) -> Composer:
    from freestyle.datasets.readers import open_split
    from freestyle.transport.rules import RuleComposer

    bank = values.pop("bank", None)
    if not bank:
        raise UserError(
            "composer of kind rules needs bank: a data set in the DSR layout whose training split "
            "has captions"
        )
    by = values.pop("by", "photo")
    if by not in ("photo", "caption"):
        raise UserError(f"composer.by is {by!r}: use photo or caption")
    train = open_split(bank, values.pop("split", "train"), ["text"])
    photos = train.gallery if by == "photo" else None
    return RuleComposer(encoder, list(train.queries["text"].sources), photos, **values)


def collect_presets(settings: dict[str, Any], names: list[str]) -> dict[str, Preset]:
    """The controls, then what was asked for by name or written out.

    Args:
        settings: With ``presets``: names, or mappings as in ``preset_from``.
        names: From the command line; instead of the settings' list, if there are any.

    Raises:
        UserError: At unknown names.
    """
    written: dict[str, Preset] = {}
    listed = settings.get("presets") or list(PRESETS)
    if not isinstance(listed, list):
        raise UserError("presets must be a list of names or settings")
    for entry in listed:
        preset = (
            _named(entry) if isinstance(entry, str) else preset_from(_mapping(entry, "presets"))
        )
        written[preset.name] = preset
    if names:
        written = {n: written[n] if n in written else _named(n) for n in names}
    return {**CONTROLS, **written}


def _named(name: str) -> Preset:
    if name not in PRESETS:
        raise UserError(f"unknown preset '{name}': use {', '.join(PRESETS)}, or write one in YAML")
    return PRESETS[name]


@dataclass(frozen=True)
class Tuned:
    """What validation chose.

    Attributes:
        preset: With the chosen settings.
        chosen: The settings.
        value: Of the metric on validation.
        metric: Its name.
    """

    preset: Preset
    chosen: dict[str, float]
    value: float
    metric: str


GRID = ("reference", "temperature", "transition", "picture_temperature", "medium_step")


def tune(preset: Preset, grid: dict[str, list[float]], prepared: Prepared) -> Tuned:
    """Choose settings of a preset on a validation split.

    Args:
        preset: The start.
        grid: Values by name: ``reference`` (weight of the reference), ``temperature``,
            ``picture_temperature``, ``transition``, ``medium_step``.
        prepared: The embedded validation split.

    Returns:
        The best by the protocol's main metric; of equals the first.

    Raises:
        UserError: At unknown names.
    """
    for name, values in _mapping(grid, "tune.grid").items():
        if name not in GRID:
            raise UserError(f"tune.grid has unknown '{name}': use {', '.join(GRID)}")
        numbers = isinstance(values, list) and all(isinstance(v, int | float) for v in values)
        if not numbers or not values:
            raise UserError(f"tune.grid.{name} is {values!r}: give a list of numbers")
    metric = prepared.split.protocol.main
    best: Tuned | None = None
    for values in product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        candidate = _with(preset, chosen)
        value = float(evaluate_composed(prepared, candidate).metric(metric).mean())
        if best is None or value > best.value:
            best = Tuned(candidate, chosen, value, metric)
    return best


def _with(preset: Preset, chosen: dict[str, float]) -> Preset:
    changes: dict[str, Any] = {}
    if "reference" in chosen:
        changes["weights"] = {**preset.weights, "reference": chosen["reference"]}
    for name in ("transition", "medium_step"):
        if name in chosen:
            changes[name] = chosen[name]
    if "temperature" in chosen:
        changes["distance"] = _warmer(preset.distance, chosen["temperature"])
    if "picture_temperature" in chosen:
        own = preset.picture_distance or preset.distance
        changes["picture_distance"] = _warmer(own, chosen["picture_temperature"])
    return replace(preset, **changes)


def _warmer(distance: SetDistance, temperature: float) -> SetDistance:
    return replace(distance, temperature=temperature)


def _mapping(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"{where} is {values!r}: give settings by name")
    return values
