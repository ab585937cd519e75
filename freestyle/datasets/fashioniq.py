"""FashionIQ (Wu et al., CVPR 2021): clothes of three categories, two captions a query.

::

    root/captions/cap.{dress,shirt,toptee}.{train,val}.json    [{candidate, target, captions}]
    root/image_splits/split.{dress,shirt,toptee}.{...}.json    [names]
    root/images/<name>.png|jpg

Recall@10 and @50 within each category, and their mean. ``gallery: original`` ranks all pictures of
the category's split; ``val-union`` only the candidates and targets of its queries (VAL's protocol,
easier): results name which. The reference stays in the ranking, as in the challenge's own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from freestyle.datasets.composed import (
    ComposedProtocol,
    ComposedQuery,
    ComposedSplit,
    entry_value,
    read_json,
)
from freestyle.datasets.images import IMAGE_EXTENSIONS
from freestyle.errors import UserError

CATEGORIES = ("dress", "shirt", "toptee")
GALLERIES = ("original", "val-union")
PROTOCOL = ComposedProtocol((10, 50), main="R@10")


def open_fashioniq(
    root: str | Path,
    split: str = "val",
    categories: Sequence[str] = CATEGORIES,
    gallery: str = "original",
) -> ComposedSplit:
    """Open one split: every query ranks the pictures of its own category.

    Args:
        root: The folder that holds ``captions/``, ``image_splits/`` and ``images/``.
        split: ``train`` or ``val``.
        categories: Some of ``dress``, ``shirt``, ``toptee``.
        gallery: ``original`` or ``val-union``.

    Raises:
        UserError: Anything in the files that does not fit.
    """
    root = Path(root)
    if gallery not in GALLERIES:
        raise UserError(f"data.gallery is '{gallery}': use {' or '.join(GALLERIES)}")
    files: dict[str, Path] = {}
    queries: list[ComposedQuery] = []
    for category in categories:
        if category not in CATEGORIES:
            raise UserError(f"unknown category '{category}': use {', '.join(CATEGORIES)}")
        captions = root / "captions" / f"cap.{category}.{split}.json"
        rows = read_json(captions, list, "FashionIQ's captions")
        listed = root / "image_splits" / f"split.{category}.{split}.json"
        names = read_json(listed, list, "FashionIQ's image split")
        asked = [_asked(row, captions, number) for number, row in enumerate(rows)]
        if gallery == "val-union":
            names = [name for candidate, target, _ in asked for name in (candidate, target)]
        names = list(dict.fromkeys(str(name) for name in names))
        for name in dict.fromkeys([*names, *(candidate for candidate, _, _ in asked)]):
            files.setdefault(name, _file(root, name))
        ranked = tuple(names)
        queries += [
            ComposedQuery(
                id=f"{category}-{number}",
                reference=files[candidate],
                reference_id=candidate,
                text=" and ".join(texts),
                targets=(target,),
                group=category,
                candidates=ranked,
            )
            for number, (candidate, target, texts) in enumerate(asked)
        ]
    note = f"FashionIQ's gallery: {gallery}."
    return ComposedSplit(
        "FashionIQ", split, list(files.values()), list(files), queries, PROTOCOL, note
    )


def _asked(row: object, path: Path, number: int) -> tuple[str, str, list[str]]:
    candidate = entry_value(row, "candidate", str, path, number)
    target = entry_value(row, "target", str, path, number)
    texts = entry_value(row, "captions", list, path, number)
    if not texts or not all(isinstance(t, str) for t in texts):
        raise UserError(f"{path}, entry {number}: captions must be texts")
    return candidate, target, [t.strip().rstrip(".") for t in texts if t.strip()]


def _file(root: Path, name: str) -> Path:
    for suffix in (".png", ".jpg", *sorted(IMAGE_EXTENSIONS)):
        path = root / "images" / f"{name}{suffix}"
        if path.is_file():
            return path
    raise UserError(f"FashionIQ's picture {name} is missing in {root / 'images'}: complete them")
