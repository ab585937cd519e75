"""The layout of the Diverse-Style Retrieval data set (Li et al., FreestyleRet, ECCV 2024).

::

    root/
      images/<id>.jpg          photos: the gallery
      <style>/<id>.<ext>       any other folder is a style; same relative stem, any extension
      text/<id>.txt            captions; the first line is the caption
      train.json val.json test.json

A list holds ``{"image": "<id>.jpg", "caption": "<id>.txt"}`` entries; ids may be nested
(``a/1.jpg``). ``caption`` may be left out where the caption has the stem of the photo. Without a
``val.json``, validation is carved out of training (`freestyle.datasets.lists.find_split`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from freestyle.datasets.folders import check_files, match_pictures
from freestyle.datasets.lists import (
    Entries,
    find_split,
    listed_splits,
    read_entries,
    relative_path,
)
from freestyle.datasets.records import QuerySet, RetrievalSplit
from freestyle.datasets.tables import read_caption
from freestyle.errors import UserError

NOT_STYLES = frozenset({"images", "text"})


def open_dsr(root: Path, split: str, styles: Sequence[str], name: str) -> RetrievalSplit:
    """Open a split with these styles; query i of each asks for photo i."""
    source = find_split(root, split)
    if source is None:
        raise missing_list(root, split)
    entries = read_entries(source, "caption")
    gallery = check_files(
        root / "images", entries.stems, entries.codes, entries.suffixes, "images", entries.path
    )
    groups = np.arange(len(gallery), dtype=np.int64)
    queries = {}
    for style in styles:
        if style == "text":
            sources: Sequence = _captions(root / "text", entries)
        else:
            sources = match_pictures(root / style, entries.stems, style, entries.path)
        queries[style] = QuerySet(style, sources, groups, entries.stems)
    return RetrievalSplit(name, split, root, gallery, entries.stems, groups, queries, "instance")


def missing_list(folder: Path, split: str) -> UserError:
    """Say which list is missing and which splits there are."""
    splits = ", ".join(listed_splits(folder))
    remedy = f"choose from {splits}" if splits else "write the list"
    file = "train.json" if split == "val" and "train" not in splits else f"{split}.json"
    return UserError(f"Split {split!r} needs {folder / file}, which does not exist: {remedy}.")


def _captions(folder: Path, entries: Entries) -> list[str]:
    captions = []
    for stem, label in zip(entries.stems, entries.labels.tolist(), strict=True):
        file = f"{stem}.txt"
        if label >= 0:
            file = relative_path(entries.names[label], f"{entries.path}, caption of {stem!r}")
        captions.append(read_caption(folder / file))
    return captions
