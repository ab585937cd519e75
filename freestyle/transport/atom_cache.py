"""Embedded sets on disk, in parts, so that a killed run over a large gallery goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from freestyle.files import write_atomically
from freestyle.transport.sets import Sets

if TYPE_CHECKING:
    from freestyle.datasets.composed import Picture

PART = 2048  # pictures a file


def cached_sets(
    folder: Path | None,
    tag: str,
    pictures: Sequence[Picture],
    compute: Callable[[Sequence[Picture]], Sets],
) -> Sets:
    """The sets of some pictures, computed once.

    Args:
        folder: Of the files; None computes all and keeps nothing.
        tag: Weights, views and type.
        pictures: What ``compute`` is called with, in parts.
        compute: Some pictures to their sets.

    Returns:
        All sets, in the pictures' order.

    Raises:
        UserError: If a picture cannot be read, or the folder cannot be written to.
    """
    if folder is None:
        return compute(pictures)
    atoms, weights = None, None
    for start in range(0, len(pictures), PART):
        part = pictures[start : start + PART]
        path = folder / f"{_digest(tag, part)}.safetensors"
        found = _read(path)
        if found is None:
            found = compute(part)
            _write(path, found)
        if atoms is None:
            atoms = found.atoms.new_empty(len(pictures), *found.atoms.shape[1:])
            if found.weights is not None:
                weights = found.weights.new_empty(len(pictures), found.atoms.shape[1])
        atoms[start : start + len(part)] = found.atoms
        if weights is not None:
            weights[start : start + len(part)] = found.weights
    return compute(pictures) if atoms is None else Sets(atoms, weights)


def _digest(tag: str, pictures: Sequence[Picture]) -> str:
    """By the content of every picture, so that a changed file never meets stale sets."""
    from freestyle.datasets.composed import picture_key

    digest = hashlib.sha256(tag.encode())
    for picture in pictures:
        digest.update(picture_key(picture))
    return digest.hexdigest()[:24]


def _read(path: Path) -> Sets | None:
    try:
        values = load_file(path)
        return Sets(values["atoms"], values.get("weights"))
    except (OSError, SafetensorError, KeyError, ValueError):  # not there, or cut short: anew
        return None


def _write(path: Path, sets: Sets) -> None:
    values = {"atoms": sets.atoms.contiguous()}
    if sets.weights is not None:
        values["weights"] = sets.weights.to(torch.float32).contiguous()
    write_atomically(path, lambda p: save_file(values, p))
