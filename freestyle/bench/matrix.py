"""A matrix of experiments: YAML files to cells, each named by the hash of its full settings.

title: Methods
config: configs/emoji_mini_freestyle.yaml   # what cells change
seeds: [0, 1, 2]
set: {trainer.max_epochs: 4}                # in all cells that train, before their own changes
reference: freestyle                        # differences are this cell minus each other one
minutes: 2.5                                # of one cell, measured on two cores
quick: [zero-shot, freestyle]               # what --quick runs
evaluate: {styles: [sketch, art, mosaic, text, colour]}
cells:
  zero-shot: {method: zero-shot}
  freestyle: {}
  query-adapter: {config: configs/emoji_mini_query_adapter.yaml}
  eight tokens: {set: {model.prompts.n_tokens: 8}}
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from freestyle.errors import UserError
from freestyle.evaluation.command import read_config
from freestyle.values import from_values

FORMAT = 2  # of a cell's result; part of its id. 2: the best epoch is chosen by reciprocal rank
# Settings that came after results had been kept, each with the value that stands for what was done
# before it was there. An id leaves such a setting out while it holds that value, so that ids of
# older results stay. All other settings count, defaults too: a default that changes makes another
# cell. A value here never changes, even if the setting's default does.
ADDED_LATER = {"model.gallery": "frozen", "model.framing": "whole"}
_MATRIX_KEYS = (
    "title",
    "config",
    "seeds",
    "set",
    "reference",
    "minutes",
    "quick",
    "evaluate",
    "cells",
)
_CELL_KEYS = ("config", "method", "set", "seeds", "minutes", "evaluate")


@dataclass(frozen=True)
class EvaluateConfig:
    """What is measured of every cell.

    Attributes:
        split: Split that is reported.
        styles: Single styles, and joint ones such as ``sketch+text``.
        fusions: Rules for joint styles.
        protocols: ``gallery`` and batches such as ``batch:24``.
        style_controls: Also put the training mean, and another query's code, in place of each code.
        changes: Of :mod:`freestyle.evaluation.changes`, such as ``rotate:15``: each is done to all
            query pictures in a further evaluation over the whole gallery.
    """

    split: str = "test"
    styles: tuple[str, ...] = ("sketch", "art", "mosaic", "text", "colour")
    fusions: tuple[str, ...] = ("zscore",)
    protocols: tuple[str, ...] = ("gallery",)
    style_controls: bool = False
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("styles", "fusions", "protocols", "changes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))


@dataclass(frozen=True)
class Cell:
    """One experiment.

    Attributes:
        matrix: Title of its matrix.
        name: Of the cell, within the matrix.
        seed: Training seed; None where nothing is trained.
        config: The training configuration with all changes: trainer, model, data.
        method: Of an untrained cell, such as ``zero-shot``; None where one is trained.
        evaluate: What is measured.
        minutes: What it is expected to take on two cores.
    """

    matrix: str
    name: str
    seed: int | None
    config: dict[str, Any]
    method: str | None
    evaluate: EvaluateConfig
    minutes: float

    @property
    def trained(self) -> bool:
        """Whether the cell has anything to train."""
        return self.method is None

    @property
    def styles(self) -> list[str]:
        """Styles trained on."""
        return list(self.config["data"]["styles"])

    @property
    def encoder(self) -> tuple[str, str | None]:
        """Name and revision."""
        model = self.config.get("model") or {}
        return model.get("encoder", "freestyle-mini"), model.get("revision")

    @property
    def root(self) -> str:
        """Folder of the data set."""
        return (self.config.get("data") or {}).get("root", "data/emoji")

    def settings(self) -> dict[str, Any]:
        """Everything that a result depends on: all settings, weights and lists."""
        from freestyle.training.data import RetrievalData
        from freestyle.training.module import RetrievalModule

        config = self.config
        full = {
            "format": FORMAT,
            "seed": self.seed,
            "method": self.method,
            "model": with_defaults(RetrievalModule, config.get("model") or {}),
            "data": with_defaults(RetrievalData, config.get("data") or {}),
            "evaluate": asdict(self.evaluate),
            "weights": weights_tag(*self.encoder),
        }
        full["lists"] = lists_digest(full["data"]["root"])
        full["data"].pop("seed")
        full["data"].pop("num_workers")
        full["model"].pop("cache_dir")
        trainer = config.get("trainer") or {}
        free = ("default_root_dir", "enable_progress_bar", "enable_model_summary", "logger")
        full["trainer"] = {k: v for k, v in trainer.items() if k not in free}
        return full

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of :meth:`settings`.

        Settings of :data:`ADDED_LATER` count where they are used.
        """
        text = json.dumps(without_later(self.settings()), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Matrix:
    """One YAML file: a table of cells.

    Attributes:
        title: Heading of the table.
        path: The file.
        cells: In order: name by name, seed by seed.
        reference: Name of the cell that the others are compared with; None for none.
        quick: Names that ``--quick`` runs.
    """

    title: str
    path: Path
    cells: tuple[Cell, ...]
    reference: str | None = None
    quick: tuple[str, ...] = field(default_factory=tuple)

    @property
    def names(self) -> list[str]:
        """Cell names in order."""
        return list(dict.fromkeys(cell.name for cell in self.cells))

    def only(self, *, quick: bool, seeds: Sequence[int] | None, names: Sequence[str]) -> Matrix:
        """The cells that a call asks for.

        Args:
            quick: Only the names listed for it, first seed each.
            seeds: Only these seeds; None for all. Untrained cells stay.
            names: Only cells with these names; empty for all.
        """
        kept = self.cells
        if quick:
            first = {cell.name: cell.seed for cell in reversed(self.cells)}
            kept = [c for c in kept if c.name in self.quick and c.seed == first[c.name]]
        if seeds is not None:
            kept = [c for c in kept if c.seed is None or c.seed in seeds]
        if names:
            kept = [c for c in kept if c.name in names]
        return Matrix(self.title, self.path, tuple(kept), self.reference, self.quick)


def read_matrix(path: str | Path) -> Matrix:
    """Read one matrix.

    Raises:
        UserError: If the file is missing, no YAML, or names what is not there.
    """
    path = Path(path)
    values = read_config(path)
    _known(path, "the matrix", values, _MATRIX_KEYS)
    cells = values.get("cells")
    if not isinstance(cells, dict) or not cells:
        raise UserError(f"{path} lists no cells: add a 'cells' section")
    seeds = values.get("seeds", [0])
    made: list[Cell] = []
    for name, entry in cells.items():
        entry = entry or {}
        if not isinstance(entry, dict):
            raise UserError(f"{path}, cell '{name}': give settings by name, or {{}}")
        _known(path, f"cell '{name}'", entry, _CELL_KEYS)
        base = entry.get("config") or values.get("config")
        if not base:
            raise UserError(f"{path}, cell '{name}': name a config, in the cell or at the top")
        method = entry.get("method")
        changes = {**({} if method else values.get("set") or {}), **(entry.get("set") or {})}
        config = with_changes(read_config(base), changes, f"{path}, cell '{name}'")
        if not (config.get("data") or {}).get("styles"):
            raise UserError(f"{base} names no data.styles: list the styles to train on")
        measure = {**(values.get("evaluate") or {}), **(entry.get("evaluate") or {})}
        for seed in [None] if method else entry.get("seeds", seeds):
            if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
                raise UserError(f"{path}: seed {seed!r} is no whole number")
            made.append(
                Cell(
                    matrix=values.get("title") or path.stem,
                    name=str(name),
                    seed=seed,
                    config=config,
                    method=method,
                    evaluate=from_values(EvaluateConfig, measure),
                    minutes=float(entry.get("minutes", values.get("minutes", 3.0))),
                )
            )
    names = [cell.name for cell in made]
    quick = tuple(values.get("quick") or names)
    reference = values.get("reference")
    for name in (*quick, *([reference] if reference else [])):
        if name not in names:
            raise UserError(f"{path} names '{name}', which is none of its cells")
    return Matrix(values.get("title") or path.stem, path, tuple(made), reference, quick)


def with_changes(config: dict[str, Any], changes: dict[str, Any], where: str) -> dict[str, Any]:
    """A copy of a configuration with dotted settings replaced, such as ``model.loss.name``."""
    changed = json.loads(json.dumps(config))
    for name, value in changes.items():
        *sections, last = str(name).split(".")
        if not sections or sections[0] not in ("model", "data", "trainer"):
            raise UserError(f"{where}: '{name}' must begin with model., data. or trainer.")
        place = changed
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise UserError(f"{where}: '{name}' does not exist, '{section}' is a value")
        place[last] = value
    return changed


def with_defaults(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    """A class's settings with the defaults of its signature, nested dataclasses as dictionaries.

    Raises:
        UserError: If a setting is unknown.
    """
    full: dict[str, Any] = {}
    known = inspect.signature(kind).parameters
    for name in given:
        if name not in known:
            raise UserError(f"unknown setting '{name}': {kind.__name__} has {', '.join(known)}")
    hints = get_type_hints(kind.__init__)
    for name, parameter in known.items():
        value = given.get(name, parameter.default)
        inner = [k for k in (hints[name], *get_args(hints[name])) if is_dataclass(k)]
        if inner and (value is not None or is_dataclass(parameter.default)):
            value = value if is_dataclass(value) else from_values(inner[0], value or {})
            value = asdict(value)
        full[name] = value
    return full


def without_later(settings: dict[str, Any]) -> dict[str, Any]:
    """A copy of a cell's settings without those of :data:`ADDED_LATER` that change nothing."""
    kept = json.loads(json.dumps(settings, default=str))
    for name, before in ADDED_LATER.items():
        *sections, last = name.split(".")
        place: Any = kept
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if isinstance(place, dict) and last in place and place[last] == before:
            del place[last]
    return kept


@lru_cache
def weights_tag(encoder: str, revision: str | None) -> str:
    """The tag of an encoder's weights, which a result depends on."""
    from freestyle.encoders.factory import create

    return create(encoder, revision=revision).weights_tag


@lru_cache
def lists_digest(root: str) -> str:
    """SHA-256 of a data set's lists, so that a changed split is another cell.

    ImageNet-X has them in the folders of its styles.
    """
    digest = hashlib.sha256()
    folder = Path(root)
    for path in sorted(p for kind in ("*.json", "*.txt", "*.jsonl") for p in folder.glob(kind)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for path in sorted(folder.glob("*/*.json")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _known(path: Path, where: str, values: dict[str, Any], keys: Sequence[str]) -> None:
    for name in values:
        if name not in keys:
            raise UserError(f"{path}, {where}: unknown key '{name}', use {', '.join(keys)}")
