"""From a style's name to its engine: named styles in YAML, settings that check themselves."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from freestyle.errors import UserError
from freestyle.generation.engine import Engine
from freestyle.generation.reading import read_yaml
from freestyle.values import from_values

FOLDER = Path(__file__).parent
FORMATS = ("png", "jpg", "webp", "txt")
RESERVED = frozenset({"images", "sidecar"})

# Engine: its module, the class of its settings, its own class. Modules are imported on use.
ENGINES: dict[str, tuple[str, str, str]] = {
    "lowres": ("lowres", "LowResSettings", "LowRes"),
    "sketch": ("sketch", "SketchSettings", "Sketch"),
    "learned-lines": ("learned_lines", "LearnedLinesSettings", "LearnedLines"),
    "npr": ("npr", "NprSettings", "Npr"),
    "gram": ("gram", "GramSettings", "GramTransfer"),
    "animatediff": ("animatediff", "TextToImageSettings", "TextToImage"),
    "animatediff-v2v": ("animatediff", "VideoToVideoSettings", "VideoToVideo"),
    "caption": ("captions", "CaptionSettings", "Captions"),
}
ART_ENGINES = ("npr", "gram", "animatediff", "animatediff-v2v")
LIGHT_ENGINES = ("lowres", "sketch", "npr")  # no torch; many processes of one thread each


def named_styles(file: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """All named styles: those of the package, and those of a file of one's own, which win."""
    styles = read_yaml(FOLDER / "styles.yaml")
    if file is not None:
        styles |= read_yaml(file)
    return styles


def choose(
    names: Iterable[str],
    *,
    file: str | Path | None = None,
    art: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Settings of the chosen styles, checked.

    Args:
        names: Styles to make.
        file: YAML of further styles.
        art: Engine of ``art`` in place of its own.
        changes: Values by ``style.setting``, or by ``setting`` for every style that has it.

    Returns:
        By style: ``engine``, ``format`` and every setting that is not the engine's default.

    Raises:
        UserError: If a style, engine or setting is unknown or out of range.
    """
    known = named_styles(file)
    chosen: dict[str, dict[str, Any]] = {}
    for name in names:
        if name not in known:
            raise UserError(f"Unknown style '{name}': use {', '.join(known)}, or --styles-file.")
        if name in RESERVED or "/" in name or name.startswith((".", "__")):
            raise UserError(f"A style cannot be called '{name}': choose another name.")
        chosen[name] = dict(known[name])
    if art is not None and "art" in chosen:
        if art not in ART_ENGINES:
            raise UserError(f"Unknown engine '{art}' of art: use {', '.join(ART_ENGINES)}.")
        if art != chosen["art"].get("engine"):
            chosen["art"] = {"engine": art, "format": "png" if "diff" in art else "jpg"}
    for key, value in (changes or {}).items():
        _change(chosen, key, value)
    for name, spec in chosen.items():
        _check(name, spec)
    return chosen


def _change(chosen: dict[str, dict[str, Any]], key: str, value: Any) -> None:
    style, dot, setting = key.rpartition(".")
    targets = [style] if dot else [name for name, spec in chosen.items() if _has(spec, key)]
    if not targets or any(target not in chosen for target in targets):
        raise UserError(
            f"--set {key} fits none of the styles {', '.join(chosen)}: write STYLE.SETTING=VALUE"
        )
    for target in targets:
        chosen[target][setting or key] = value


def _has(spec: Mapping[str, Any], setting: str) -> bool:
    return setting == "format" or setting in getattr(
        _settings_class(str(spec.get("engine"))), "__dataclass_fields__", {}
    )


def _settings_class(engine: str) -> type:
    if engine not in ENGINES:
        raise UserError(f"Unknown engine '{engine}': use {', '.join(ENGINES)}.")
    module, settings, _ = ENGINES[engine]
    return getattr(importlib.import_module(f"freestyle.generation.{module}"), settings)


def _settings(spec: Mapping[str, Any]) -> Any:
    values = {key: value for key, value in spec.items() if key not in ("engine", "format")}
    return from_values(_settings_class(str(spec.get("engine"))), values)


def _check(name: str, spec: Mapping[str, Any]) -> None:
    form = spec.get("format", "png")
    if form not in FORMATS or (form == "txt") != (spec.get("engine") == "caption"):
        raise UserError(f"Style '{name}' has format {form!r}: use png, jpg or webp.")
    _settings(spec)


def build(spec: Mapping[str, Any], device: str = "cpu") -> Engine:
    """The engine of one style.

    Args:
        spec: As `choose` returns it.
        device: For engines that run networks.

    Raises:
        UserError: If its settings, packages or checkpoints are not to be had.
    """
    module, _, engine = ENGINES[str(spec["engine"])]
    made = getattr(importlib.import_module(f"freestyle.generation.{module}"), engine)
    settings = _settings(spec)
    if spec["engine"] in LIGHT_ENGINES:
        return made(settings)
    return made(settings, device=device)


def spec_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of the engine that made a sidecar's row."""
    made_by = row["made_by"]
    return {"engine": made_by["engine"], "format": row["format"], **made_by["settings"]}
