"""The layout of ImageNet-X: class folders per style, a million images, relevance by class.

::

    root/
      images/train.json images/test.json    [{"image": "<class>/<id>.jpg", "classname": "..."}]
      images/<class>/<id>.jpg               photos: the gallery
      sketch/test.json sketch/<class>/...   a style with lists of its own, paired by class
      mosaic/<class>/<id>.<ext>             a style without lists: one picture per photo
      text/<class>/<id>.txt                 a caption per photo, first line, read when asked for

By ``"class"`` relevance every photo of the query's class counts; a style with a list of its own
holds the pictures of that list, any other one picture per photo. By ``"instance"`` relevance query
i of every style is the file with the stem of photo i, and lists of the styles are not read.

Lists are parsed as a stream and kept as bytes: a million entries take about 100 MB, and some
seconds to check against the folders. Caption files are not checked until they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from freestyle.datasets.dsr import missing_list
from freestyle.datasets.folders import check_files, match_pictures
from freestyle.datasets.lists import Entries, SplitList, find_split, read_entries
from freestyle.datasets.records import QuerySet, Relevance, RetrievalSplit
from freestyle.datasets.tables import CaptionTable, PathTable
from freestyle.errors import UserError


def open_imagenet_x(
    root: Path, split: str, styles: Sequence[str], name: str, relevance: Relevance
) -> RetrievalSplit:
    """Open a split with these styles, paired by class or by photo."""
    source = find_split(root / "images", split)
    if source is None:
        raise missing_list(root / "images", split)
    photos = read_entries(source, "classname", required=True)
    gallery = check_files(
        root / "images", photos.stems, photos.codes, photos.suffixes, "images", photos.path
    )
    if relevance == "instance":
        groups = np.arange(len(gallery), dtype=np.int64)
    else:
        groups = photos.labels
    queries = {}
    for style in styles:
        own = find_split(root / style, split) if relevance == "class" else None
        if own is not None and style != "text":
            queries[style] = _by_class(root / style, style, own, photos)
            continue
        if style == "text":
            codes = np.zeros(len(gallery), dtype=np.uint8)
            sources: Sequence = CaptionTable(
                PathTable(root / "text", photos.stems, codes, (".txt",))
            )
        else:
            sources = match_pictures(root / style, photos.stems, style, photos.path)
        queries[style] = QuerySet(style, sources, groups, photos.stems)
    return RetrievalSplit(name, split, root, gallery, photos.stems, groups, queries, relevance)


def _by_class(folder: Path, style: str, source: SplitList, photos: Entries) -> QuerySet:
    """Read a style's own list; the groups are the classes of the photos.

    Where the split was carved by hash, a class may have kept queries but no photo: such queries
    are left out. In lists written by hand they are an error.
    """
    entries = read_entries(source, "classname", required=True)
    numbers = {classname: number for number, classname in enumerate(photos.names)}
    translate = np.array([numbers.get(name, -1) for name in entries.names], dtype=np.int64)
    if (translate < 0).any() and not source.carved:
        unknown = int(np.argmin(translate))
        raise UserError(
            f"{int((translate < 0).sum())} classes of {entries.path} have no photo in "
            f"{photos.path}, the first is {entries.names[unknown]!r}: add photos of the class or "
            "remove its entries."
        )
    files = check_files(folder, entries.stems, entries.codes, entries.suffixes, style, entries.path)
    queries = QuerySet(style, files, translate[entries.labels], entries.stems)
    return queries.subset(np.flatnonzero(queries.groups >= 0)) if source.carved else queries
