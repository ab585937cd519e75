"""Open a data set: one function for every layout.

======================  ===========================================================
Layout                  Recognised by
======================  ===========================================================
``dsr``                 ``train.json`` / ``test.json`` beside ``images/``
``fscoco``              ``raster_sketches/`` beside ``images/``
``imagenet-x``          ``images/train.json`` / ``images/test.json`` with class names
======================  ===========================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from freestyle.datasets import dsr, fscoco, imagenet_x
from freestyle.datasets.folders import holds_pictures, subfolders
from freestyle.datasets.lists import listed_splits
from freestyle.datasets.records import Relevance, RetrievalSplit
from freestyle.errors import UserError

LAYOUTS = ("dsr", "fscoco", "imagenet-x")


def open_split(
    root: str | Path,
    split: str,
    styles: Sequence[str] | None = None,
    layout: str = "auto",
    *,
    relevance: Relevance | None = None,
    name: str | None = None,
) -> RetrievalSplit:
    """Open one split of a data set; files are checked for existence, pictures are not decoded.

    Args:
        root: Folder of the data set.
        split: ``"train"``, ``"val"`` or ``"test"``; FS-COCO's own names as well.
        styles: Style folders to open, ``"text"`` among them; None opens all that are there.
            Folders of other styles need not be complete.
        layout: ``"dsr"``, ``"fscoco"``, ``"imagenet-x"``, or ``"auto"`` to recognise it.
        relevance: ``"instance"`` or ``"class"``; None takes the layout's own: ``"class"`` for
            ImageNet-X, ``"instance"`` for the others, which have no classes.
        name: Name of the data set in reports; None takes the name of the folder.

    Raises:
        UserError: Anything in the folder or the arguments that does not fit, in one sentence.
    """
    root = Path(root)
    layout = _layout(root, layout)
    name = root.resolve().name if name is None else name
    if relevance not in (None, "instance", "class"):
        raise UserError(f"Unknown relevance {relevance!r}: choose 'instance' or 'class'.")
    if relevance == "class" and layout != "imagenet-x":
        raise UserError(
            f"{root} has no classes (layout {layout}): open it with relevance 'instance'."
        )
    if not split or any(mark in split for mark in "/\\\0"):
        raise UserError(f"Unknown split {split!r}: give the name of a list, such as 'test'.")
    styles = _chosen_styles(root, layout, styles)
    if layout == "fscoco":
        return fscoco.open_fscoco(root, split, styles, name)
    if layout == "imagenet-x":
        return imagenet_x.open_imagenet_x(root, split, styles, name, relevance or "class")
    return dsr.open_dsr(root, split, styles, name)


def available_styles(root: str | Path, layout: str = "auto") -> list[str]:
    """List the picture styles of a data set, sorted.

    A style is a folder beside ``images/`` and ``text/`` that holds a picture at any depth, so that
    a folder of licences or notes is none; captions (``"text"``) are not among them.
    """
    root = Path(root)
    layout = _layout(root, layout)
    if layout == "fscoco":
        styles = fscoco.style_folders(subfolders(root))
    else:
        styles = {name: name for name in subfolders(root) if name not in dsr.NOT_STYLES}
    return sorted(style for style, folder in styles.items() if holds_pictures(root / folder))


def _chosen_styles(root: Path, layout: str, styles: Sequence[str] | None) -> list[str]:
    existing = available_styles(root, layout)
    if (root / "text").is_dir():
        existing.append("text")
    if styles is None:
        return existing
    if isinstance(styles, str):
        raise UserError(f"Option styles is {styles!r}: give a list such as [{styles!r}].")
    for style in styles:
        if style not in existing:
            raise UserError(
                f"Unknown style {style!r} in {root}: choose from {', '.join(existing) or 'none'}."
            )
    return list(dict.fromkeys(styles))


def _layout(root: Path, layout: str) -> str:
    """Check the folder and return the name of its layout."""
    if not root.is_dir():
        state = "is no folder" if root.exists() else "does not exist"
        raise UserError(f"Data folder {root} {state}: give the folder that holds images/.")
    if layout not in (*LAYOUTS, "auto"):
        raise UserError(f"Unknown layout {layout!r}: choose from auto, {', '.join(LAYOUTS)}.")
    if not (root / "images").is_dir():
        found = ", ".join(subfolders(root)[:8]) or "no folders"
        raise UserError(
            f"Data folder {root} has no images/ (it has {found}): "
            "give the folder that holds images/."
        )
    if layout != "auto":
        return layout
    matches = []
    if listed_splits(root):
        matches.append("dsr")
    if (root / "raster_sketches").is_dir():
        matches.append("fscoco")
    if listed_splits(root / "images"):
        matches.append("imagenet-x")
    if len(matches) == 1:
        return matches[0]
    what = " and ".join(matches) if matches else "no known layout"
    remedy = f"name one with layout, {' or '.join(matches or LAYOUTS)}"
    if not matches:
        remedy = "add train.json and test.json, or " + remedy
    raise UserError(f"Data folder {root} looks like {what}: {remedy}.")
