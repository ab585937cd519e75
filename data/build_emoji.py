#!/usr/bin/env python3
"""Build DSR-Emoji: 1,599 concepts drawn by different artists in different styles.

Sources (npm packages, versions pinned):
    @lobehub/fluent-emoji-3d  Fluent Emoji 3D renders by Microsoft (MIT): the gallery, ``images/``
    openmoji                  OpenMoji line and colour drawings and annotations (CC BY-SA 4.0)
    @twemoji/svg              Twemoji flat drawings (CC BY 4.0)

Run ``python data/build_emoji.py``: it fetches the packages with ``npm pack``. Offline, unpack them
yourself and give ``--packages DIR``, which holds ``DIR/<name>/package.json`` or
``DIR/node_modules/<name>/package.json`` for each name above.
Two builds with the same Pillow and resvg-py are byte-identical.

``--partial`` adds unfinished sketches to an existing build and changes nothing else:
``sketch-25/``, ``sketch-50/`` and ``sketch-75/`` hold the first 25, 50 and 75 % of each drawing's
strokes.
"""

from __future__ import annotations

import argparse
import copy
import functools
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import resvg_py
from npm_packages import BuildError, Package, fetch_packages, find_packages
from PIL import Image
from tqdm import tqdm

FLUENT, OPENMOJI, TWEMOJI = "@lobehub/fluent-emoji-3d", "openmoji", "@twemoji/svg"
PACKAGES = (
    Package(FLUENT, "1.1.0", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"),
    Package(OPENMOJI, "17.0.0", "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68"),
    Package(TWEMOJI, "15.0.0", "1d2907557a422c7c4e3feca50ef915c39da1db3d76b4a4d7e73fb59bce4403c3"),
)

SIZE = 128  # pixels, every picture is SIZE x SIZE
MOSAIC = 16  # side of the low-res style before it is enlarged again
LOSSLESS = {"format": "WEBP", "lossless": True, "quality": 80, "method": 6}
LOSSY = {"format": "WEBP", "quality": 90, "method": 6}
STYLES = ("images", "sketch", "art", "colour", "mosaic", "text")
SPLITS = ("train", "val", "test")
# What a build writes at the top of its folder; anything else there (README, licences) is kept.
GENERATED = (*STYLES, *(f"{split}.json" for split in SPLITS), "concepts.json")
PARTIAL = {"sketch-25": 25, "sketch-50": 50, "sketch-75": 75}  # style: percent of the strokes

SHAPES = {"path", "line", "circle", "ellipse", "rect", "polyline", "polygon"}
NOT_DRAWN = {"defs", "clipPath", "mask", "marker", "pattern", "symbol"}  # drawn by reference only

SKIN_TONE = re.compile(r"1f3f[b-f]")
LEFT_OUT_GROUPS = {"flags", "component"}
UNSEXED = {"1f468": "1f9d1", "1f469": "1f9d1"}  # man, woman -> person
IGNORED = {"fe0f", "200d", "2640", "2642"}  # variation selector, joiner, female and male sign

T = TypeVar("T")


@dataclass(frozen=True)
class Concept:
    """One concept that all three packages draw, and where its drawings lie."""

    stem: str
    annotation: str
    tags: str
    group: str
    subgroup: str
    author: str
    render: Path
    line: Path
    colour: Path
    flat: Path


def base_concept(stem: str) -> str:
    """Return the concept without sex and presentation, so that siblings share one split.

    Args:
        stem: Code points in lower-case hex, joined by ``-``.

    Returns:
        The code points without fe0f, 200d, 2640 and 2642; man and woman become person.

    >>> base_concept("1f469-200d-1f373")
    '1f9d1-1f373'
    """
    return "-".join(UNSEXED.get(c, c) for c in stem.split("-") if c not in IGNORED)


def split_of(stem: str) -> str:
    """Return ``train``, ``val`` or ``test`` (60/10/30) from the SHA-256 of the base concept.

    >>> split_of("1f469-200d-1f373") == split_of("1f468-200d-1f373")
    True
    """
    bucket = int(hashlib.sha256(base_concept(stem).encode()).hexdigest(), 16) % 100
    return "train" if bucket < 60 else "val" if bucket < 70 else "test"


def match_key(stem: str) -> str:
    """Return the name under which the packages agree: no fe0f, no leading zeros, lower case.

    >>> match_key("0023-FE0F-20E3")
    '23-20e3'
    """
    return "-".join(c.lstrip("0") for c in stem.lower().split("-") if c != "fe0f")


def read_concepts(packages: dict[str, Path]) -> list[Concept]:
    """Return the concepts drawn by all three packages, sorted by stem.

    Skin-tone variants and flags are left out (a flag's line drawing is an empty box), and so are
    loose components. The packages disagree about fe0f and leading zeros: see `match_key`.
    """
    openmoji = packages[OPENMOJI]
    renders = {match_key(p.stem): p for p in sorted((packages[FLUENT] / "assets").glob("*.webp"))}
    flats = {match_key(p.stem): p for p in sorted(packages[TWEMOJI].glob("*.svg"))}
    try:
        records = json.loads((openmoji / "data" / "openmoji.json").read_text("utf-8"))
        concepts = [_concept(record, openmoji, renders, flats) for record in records]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(
            f"{openmoji}/data/openmoji.json is not readable; unpack openmoji again."
        ) from error
    kept = [concept for concept in concepts if concept is not None]
    if not kept:
        raise BuildError("The packages have no concept in common; unpack them again.")
    return sorted(kept, key=lambda concept: concept.stem)


def _concept(
    record: dict[str, str], openmoji: Path, renders: dict[str, Path], flats: dict[str, Path]
) -> Concept | None:
    """Return the concept of one OpenMoji record, or None where it is left out."""
    stem = record["hexcode"].lower()
    key = match_key(stem)
    if record["group"] in LEFT_OUT_GROUPS or SKIN_TONE.search(stem):
        return None
    file = f"{record['hexcode']}.svg"
    line, colour = openmoji / "black" / "svg" / file, openmoji / "color" / "svg" / file
    if key not in renders or key not in flats or not line.is_file() or not colour.is_file():
        return None
    return Concept(
        stem=stem,
        annotation=" ".join(record["annotation"].split()),
        tags=" ".join(record["tags"].split()),
        group=record["group"],
        subgroup=record["subgroups"],
        author=record["openmoji_author"],
        render=renders[key],
        line=line,
        colour=colour,
        flat=flats[key],
    )


def _rasterise(**source: str) -> bytes:
    """Return an SVG (``svg_path`` or ``svg_string``) as a SIZE x SIZE PNG."""
    png = resvg_py.svg_to_bytes(**source, width=SIZE, height=SIZE, skip_system_fonts=True)
    return bytes(png)


def draw_svg(path: Path) -> Image.Image:
    """Return an SVG as a SIZE x SIZE RGB picture on a white ground."""
    try:
        png = _rasterise(svg_path=str(path), background="#ffffff")
    except ValueError as error:
        raise BuildError(f"{path} is not a readable SVG; unpack its package again.") from error
    return Image.open(io.BytesIO(png)).convert("RGB")


def draw_partial(path: Path) -> dict[str, Image.Image]:
    """Return an SVG's unfinished sketches by style, drawn as `draw_svg` does.

    Later strokes are taken out of the tree, so groups, transforms and styles stay as they are.
    The number of strokes is rounded up and at least one.
    """
    pictures = {}
    try:
        root = ET.fromstring(path.read_bytes())  # expat reads no other file
        drawn = strokes(root)
        left = len(drawn)
        for style, percent in sorted(PARTIAL.items(), key=lambda item: -item[1]):
            while left > max(1, -(-len(drawn) * percent // 100)):
                left -= 1
                parent, shape = drawn[left]
                parent.remove(shape)
            svg = ET.tostring(root, encoding="unicode")
            png = _rasterise(svg_string=svg, background="#ffffff")
            pictures[style] = Image.open(io.BytesIO(png)).convert("RGB")
    except (OSError, ValueError, ET.ParseError) as error:
        raise BuildError(f"{path} is not a readable SVG; unpack its package again.") from error
    return pictures


def strokes(root: ET.Element) -> list[tuple[ET.Element, ET.Element]]:
    """Return each stroke after its parent, in document order.

    A stroke is a shape that leaves ink when all other shapes are gone: the renderer knows best
    about inherited paint, opacity and empty outlines.
    """
    bare = copy.deepcopy(root)
    trial = list(_shapes(bare))
    for parent, shape in trial:
        parent.remove(shape)
    nothing = _rasterise(svg_string=ET.tostring(bare, encoding="unicode"))
    drawn = []
    for pair, (parent, shape) in zip(_shapes(root), trial, strict=True):
        parent.append(shape)
        if _rasterise(svg_string=ET.tostring(bare, encoding="unicode")) != nothing:
            drawn.append(pair)
        parent.remove(shape)
    return drawn


def _shapes(node: ET.Element) -> Iterator[tuple[ET.Element, ET.Element]]:
    """Yield each shape below ``node`` after its parent, in document order."""
    for child in node:
        name = child.tag.rpartition("}")[2]
        if name in SHAPES:
            yield node, child
        elif name not in NOT_DRAWN:
            yield from _shapes(child)


def draw_render(path: Path) -> Image.Image:
    """Return a transparent picture on a white square ground, shrunk to SIZE x SIZE RGB."""
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGBA")
    except OSError as error:
        raise BuildError(f"{path} is not a readable picture; unpack its package again.") from error
    side = max(picture.size)
    ground = Image.new("RGBA", (side, side), "white")
    corner = ((side - picture.width) // 2, (side - picture.height) // 2)
    ground.alpha_composite(picture, corner)
    return ground.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def low_res(picture: Image.Image) -> Image.Image:
    """Return ``picture`` averaged to MOSAIC x MOSAIC areas and enlarged bilinearly to its size."""
    small = picture.resize((MOSAIC, MOSAIC), Image.Resampling.BOX)
    return small.resize(picture.size, Image.Resampling.BILINEAR)


def encode(picture: Image.Image, settings: dict[str, object]) -> bytes:
    """Return ``picture`` as WebP bytes; the same pixels always give the same bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, **settings)
    return buffer.getvalue()


def write_concept(concept: Concept, out: Path) -> None:
    """Write one concept's files below ``out``, in every style."""
    image = encode(draw_render(concept.render), LOSSY)
    with Image.open(io.BytesIO(image)) as decoded:  # the mosaic follows from the shipped image
        mosaic = low_res(decoded.convert("RGB"))
    files = {
        "images": image,
        "sketch": encode(draw_svg(concept.line), LOSSLESS),
        "art": encode(draw_svg(concept.flat), LOSSLESS),
        "colour": encode(draw_svg(concept.colour), LOSSLESS),
        "mosaic": encode(mosaic, LOSSY),
    }
    for style, data in files.items():
        (out / style / f"{concept.stem}.webp").write_bytes(data)
    text = f"{concept.annotation}\n{concept.tags}\n"
    (out / "text" / f"{concept.stem}.txt").write_bytes(text.encode())


def write_partial(stem: str, openmoji: Path, out: Path) -> None:
    """Write one concept's unfinished sketches below ``out``."""
    line = openmoji / "black" / "svg" / f"{stem.upper()}.svg"
    for style, picture in draw_partial(line).items():
        (out / style / f"{stem}.webp").write_bytes(encode(picture, LOSSLESS))


def _json_lines(rows: Iterable[dict[str, str]]) -> bytes:
    """Return a JSON list with one row a line."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f"[\n{lines}\n]\n".encode()


def write_lists(concepts: list[Concept], out: Path) -> Counter[str]:
    """Write the split lists and ``concepts.json``; return the number of concepts per split."""
    splits = {concept.stem: split_of(concept.stem) for concept in concepts}
    for split in SPLITS:
        stems = [stem for stem, its_split in splits.items() if its_split == split]
        rows = [{"image": f"{stem}.webp", "caption": f"{stem}.txt"} for stem in stems]
        (out / f"{split}.json").write_bytes(_json_lines(rows))
    rows = [
        {
            "stem": concept.stem,
            "annotation": concept.annotation,
            "tags": concept.tags,
            "group": concept.group,
            "subgroup": concept.subgroup,
            "base": base_concept(concept.stem),
            "split": splits[concept.stem],
            "openmoji_author": concept.author,
        }
        for concept in concepts
    ]
    (out / "concepts.json").write_bytes(_json_lines(rows))
    return Counter(splits.values())


def tree_digest(root: Path, entries: Iterable[str] = GENERATED) -> str:
    """Return one SHA-256 over the names and bytes of all generated files below ``root``."""
    total = hashlib.sha256()
    for entry in sorted(entries):
        top = root / entry
        files = sorted(top.iterdir(), key=lambda p: p.name) if top.is_dir() else [top]
        for file in files:
            name = file.relative_to(root).as_posix()
            total.update(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {name}\n".encode())
    return total.hexdigest()


def _check_target(out: Path) -> None:
    """Refuse to replace anything but an earlier build."""
    if out.exists() and not out.is_dir():
        raise BuildError(f"{out} is a file; give --out a folder.")
    known = {*GENERATED, *PARTIAL, "README.md", "LICENSES"}
    if out.is_dir() and {entry.name for entry in out.iterdir()} - known:
        raise BuildError(f"{out} holds other files than DSR-Emoji; give --out a new folder.")


def _run(job: Callable[[T], None], concepts: Sequence[T], workers: int) -> None:
    bar = functools.partial(tqdm, total=len(concepts), unit="concept", delay=2, desc="DSR-Emoji")
    if workers == 1:
        for concept in bar(concepts):
            job(concept)
        return
    with ProcessPoolExecutor(workers) as pool:
        for _ in bar(pool.map(job, concepts, chunksize=8)):
            pass


def build(packages: dict[str, Path], out: Path, workers: int = 1) -> Counter[str]:
    """Build the whole data set beside ``out`` and swap it in when it is complete.

    Args:
        packages: The folder of each package, as `find_packages` returns it.
        out: The folder to create or replace; its README, LICENSES and partial sketches stay.
        workers: Processes that draw at the same time.

    Returns:
        The number of concepts per split.

    Raises:
        BuildError: A source is unreadable, or ``out`` is no earlier build.
    """
    out = out.resolve()
    _check_target(out)
    concepts = read_concepts(packages)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        fresh, old = Path(scratch, "new"), Path(scratch, "old")
        for style in STYLES:
            (fresh / style).mkdir(parents=True)
        _run(functools.partial(write_concept, out=fresh), concepts, workers)
        counts = write_lists(concepts, fresh)
        if out.exists():
            for entry in out.iterdir():
                if entry.name not in GENERATED:
                    copy = shutil.copytree if entry.is_dir() else shutil.copy2
                    copy(entry, fresh / entry.name)
            out.rename(old)
        fresh.rename(out)
    return counts


def built_stems(out: Path) -> list[str]:
    """Return the stems of the sketches in a finished build.

    Raises:
        BuildError: There is no build in ``out``.
    """
    stems = sorted(file.stem for file in (out / "sketch").glob("*.webp"))
    if not stems or not all((out / entry).exists() for entry in GENERATED):
        raise BuildError(
            f"{out} holds no DSR-Emoji build; build it there first, without --partial."
        )
    return stems


def build_partial(openmoji: Path, out: Path, workers: int = 1) -> int:
    """Draw the unfinished sketches beside ``out`` and swap their folders in when complete.

    Args:
        openmoji: The folder of the OpenMoji package.
        out: A finished build; its other files are not touched.
        workers: Processes that draw at the same time.

    Returns:
        The number of sketches in each folder.

    Raises:
        BuildError: A drawing is unreadable, or ``out`` holds no build.
    """
    out = out.resolve()
    stems = built_stems(out)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        fresh, old = Path(scratch, "new"), Path(scratch, "old")
        old.mkdir()
        for style in PARTIAL:
            (fresh / style).mkdir(parents=True)
        _run(functools.partial(write_partial, openmoji=openmoji, out=fresh), stems, workers)
        for style in PARTIAL:
            if (out / style).exists():
                (out / style).rename(old / style)
            (fresh / style).rename(out / style)
    return len(stems)


def main(argv: list[str] | None = None) -> int:
    """Build DSR-Emoji from the command line; return the exit code."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "freestyle", "npm")
    parser = argparse.ArgumentParser(description="Build DSR-Emoji from its npm packages.")
    parser.add_argument("--packages", type=Path, help="folder of unpacked npm packages")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "emoji")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--partial",
        action="store_true",
        help=f"only add unfinished sketches to the build in --out: {', '.join(PARTIAL)}",
    )
    args = parser.parse_args(argv)
    try:
        if args.workers < 1:
            raise BuildError(f"--workers is {args.workers}; give 1 or more.")
        wanted = PACKAGES
        if args.partial:
            built_stems(args.out)  # a wrong --out is refused before anything is fetched
            wanted = tuple(package for package in PACKAGES if package.name == OPENMOJI)
        if args.packages:
            packages = find_packages(args.packages, wanted)
        else:
            packages = fetch_packages(cache, wanted)
        if args.partial:
            number = build_partial(packages[OPENMOJI], args.out, args.workers)
        else:
            counts = build(packages, args.out, args.workers)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error}; check the path and its permissions.", file=sys.stderr)
        return 2
    if args.partial:
        print(f"{args.out}: {number} sketches in each of {', '.join(PARTIAL)}")
        print(f"digest {tree_digest(args.out, PARTIAL)}")
        return 0
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    shares = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
    print(f"{args.out}: {counts.total()} concepts ({shares}), {size / 1e6:.1f} MB")
    print(f"digest {tree_digest(args.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
