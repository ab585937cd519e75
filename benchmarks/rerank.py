"""What the two stages of a search keep, and what their settings do, on DSR-Emoji.

    python benchmarks/rerank.py --model runs/demo/model [--json out.json] [--check]

``kept`` asks the whole gallery with test queries: how many of the ten photos that exhaustive set
scoring finds are among what ``Searcher`` finds with N candidates. ``choice`` ranks the validation
split's photos by shares and temperatures of set scores, and by z-scored parts: reciprocal rank of
single and joint queries. ``exclusion`` asks the whole gallery with a validation query that excludes
another concept: one by chance, or the one found wrongly most; reciprocal rank of what is wanted,
and how often the excluded photo is among the first ten, by a plain minus and by what the searcher
does. ``--check`` exits with 1 where fewer than 98 % are kept at N = 50.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from freestyle.datasets import open_split
from freestyle.datasets.images import load_image
from freestyle.search import planning
from freestyle.search.embed_parts import elements_of
from freestyle.search.index import create_index
from freestyle.search.query import Part, Query
from freestyle.search.records import IndexSettings, PhotoRecord, photo_id
from freestyle.search.scoring import Asked, Photos, SetScoring, score_parts
from freestyle.search.searcher import Searcher
from freestyle.search.torch_encoder import TorchQueryEncoder
from freestyle.transport.sets import patch_sets
from freestyle.transport.views import Views

VIEWS = Views("patches", 10)
SINGLE, JOINT = ("sketch", "art", "mosaic", "text"), ("sketch+text", "art+text", "mosaic+text")
GOAL, KEPT_AT = 0.98, 50
BATCH = 16  # queries at a time
EXCLUDING = 100  # queries that are asked exhaustively
SHARES, TEMPERATURES = (0.0, 0.1, 0.2, 0.3, 0.5), (0.005, 0.02, 0.05, 0.1)


@dataclass
class Emoji:
    """Embedded photos and queries.

    Attributes:
        encoder: The query side.
        photos: All photos of the gallery, completed, in the order of ``paths``.
        paths: Their files; validation first, then test, then training.
        queries: By split and style the queries, as parts for the searcher.
        asked: The same, embedded.
    """

    encoder: TorchQueryEncoder
    photos: Photos
    paths: list[Path]
    queries: dict[tuple[str, str], list[Part]]
    asked: dict[tuple[str, str], list[Asked]]

    def rows(self, split: str) -> slice:
        """Where a split's photos stand among all."""
        first = len(self.queries["val", "text"])
        return slice(0, first) if split == "val" else slice(first, first + self.count("test"))

    def count(self, split: str) -> int:
        """Queries of each style."""
        return len(self.queries[split, "text"])


def embed(root: Path, model: str, limit: int | None) -> Emoji:
    """Embed the gallery once, and the queries of both splits."""
    encoder = TorchQueryEncoder.open(model)
    opened = {name: open_split(root, name, styles=SINGLE) for name in ("val", "test", "train")}
    paths = [path for split in opened.values() for path in list(split.gallery)[:limit]]
    atoms = patch_sets(encoder.model.encoder, paths, VIEWS.count).atoms.numpy()
    queries: dict[tuple[str, str], list[Part]] = {}
    asked: dict[tuple[str, str], list[Asked]] = {}
    for name in ("val", "test"):
        for style in SINGLE:
            sources = list(opened[name].queries[style].sources)[:limit]
            kind = "text" if style == "text" else "image"
            queries[name, style] = [Part(**{kind: source}) for source in sources]
            asked[name, style] = asked_of(encoder, kind, sources)
    photos = Photos(encoder.complete(atoms[:, 0]), atoms.astype(np.float16))
    return Emoji(encoder, photos, paths, queries, asked)


def asked_of(encoder: TorchQueryEncoder, kind: str, sources: list) -> list[Asked]:
    """Queries embedded as the searcher does it."""
    if kind == "text":
        sets = [elements_of(source) for source in sources]
        rows = iter(encoder.embed_texts([text for texts in sets for text in texts]).rows)
        own = [np.stack([next(rows) for _ in texts]) for texts in sets]
    else:
        starts = range(0, len(sources), BATCH)
        own = [
            row[None]
            for i in starts
            for row in encoder.embed_images([load_image(s) for s in sources[i : i + BATCH]]).rows
        ]
    return [Asked(rows[0], rows[:, : encoder.width]) for rows in own]


def scores(
    data: Emoji,
    split: str,
    style: str,
    scoring: SetScoring,
    rows: slice,
    *,
    standard: bool = False,
) -> np.ndarray:
    """Every query of a (joint) style against some photos, (z-scored) parts summed: ``(Q, G)``."""
    photos = data.photos.take(np.arange(len(data.photos))[rows])
    total = 0.0
    for part in style.split("+"):
        asked = data.asked[split, part]
        blocks = [score_parts(asked[i : i + 32], photos, scoring) for i in range(0, len(asked), 32)]
        found = np.concatenate(blocks)
        if standard:
            found = (found - found.mean(1, keepdims=True)) / found.std(1, keepdims=True)
        total = total + found
    return total


def reciprocal_rank(found: np.ndarray, first: int) -> float:
    """Mean over queries, of which number i asks for photo ``first + i``."""
    wanted = found[np.arange(len(found)), first + np.arange(len(found))]
    return float(np.mean(1 / (found >= wanted[:, None]).sum(axis=1)))


def choice(data: Emoji) -> list[dict[str, float | str]]:
    """Mean reciprocal ranks on validation, by share and temperature, and of z-scored parts."""
    settings = [(0.0, 0.0, "sum"), (0.0, 0.0, "z-scored")]
    settings += [(share, heat, "sum") for share in SHARES if share for heat in TEMPERATURES]
    lines = []
    for share, temperature, rule in settings:
        scoring, rows = SetScoring(share, temperature or TEMPERATURES[0]), data.rows("val")
        line: dict[str, float | str] = {"share": share, "temperature": temperature, "parts": rule}
        for style in (*SINGLE, *JOINT):
            found = scores(data, "val", style, scoring, rows, standard=rule != "sum")
            line[style] = reciprocal_rank(found, 0)
        lines.append(line)
    return lines


def searcher_of(data: Emoji, folder: str) -> Searcher:
    """The gallery in an exact index."""
    encoder = data.encoder
    settings = IndexSettings(
        encoder.encoder, encoder.weights, encoder.width, VIEWS.key, data.photos.atoms.shape[1]
    )
    index = create_index(f"exact:{folder}/emoji.index", settings)
    records = [
        PhotoRecord(photo_id(str(number)), path.name, row[: encoder.width], atoms)
        for number, (path, row, atoms) in enumerate(
            zip(data.paths, data.photos.vectors, data.photos.atoms, strict=True)
        )
    ]
    with index.writing():
        index.upsert(records)
    return Searcher(index, encoder, remember=1 << 20)


def kept(data: Emoji, searcher: Searcher, candidates: Sequence[int]) -> list[dict[str, float]]:
    """Share of the exhaustive top ten that the searcher finds, by number of candidates."""
    lines = [{"candidates": float(n)} for n in candidates]
    for style in (*SINGLE, "sketch+text"):
        exact = [
            frozenset(photo_id(str(place)) for place in order[:10])
            for order in np.argsort(
                -scores(data, "test", style, searcher.scoring, slice(None)), axis=1, kind="stable"
            )
        ]
        parts = list(zip(*(data.queries["test", part] for part in style.split("+")), strict=True))
        for line in lines:
            queries = [Query(own, 10, rerank=int(line["candidates"])) for own in parts]
            results = [result for part in batches(queries) for result in searcher.search_many(part)]
            line[style] = float(np.mean([
                len(wanted & {hit.id for hit in result.hits}) / len(wanted)
                for wanted, result in zip(exact, results, strict=True)
            ]))  # fmt: skip
    return lines


def kept_without(data: Emoji, searcher: Searcher) -> dict[str, float | str]:
    """The same for sketches that exclude the drawing of the photo found wrongly most."""
    count = min(EXCLUDING, data.count("test"))
    found = scores(data, "test", "sketch", searcher.scoring, data.rows("test"))[:count]
    found[np.arange(count), np.arange(count)] = -np.inf
    drawings = [data.queries["test", "art"][other].image for other in found.argmax(axis=1)]
    parts = [
        (sketch, Part(image=drawing, exclude=True))
        for sketch, drawing in zip(data.queries["test", "sketch"][:count], drawings, strict=True)
    ]
    best = [
        [
            {hit.id for hit in result.hits}
            for some in batches([Query(own, 10, rerank=rerank) for own in parts])
            for result in searcher.search_many(some)
        ]
        for rerank in (len(data.photos), None)
    ]
    share = np.mean([len(a & b) / len(a) for a, b in zip(*best, strict=True)])
    return {"query": "sketch, not a drawing", "kept": float(share)}


def exclusion(data: Emoji) -> list[dict[str, float | str]]:
    """What excluding another concept does to what is wanted and to what is excluded."""
    count, everything = data.count("val"), slice(None)
    scoring = SetScoring()
    found = {s: scores(data, "val", s, scoring, everything) for s in ("sketch", "art", "text")}
    lines: list[dict[str, float | str]] = []
    for which in ("by chance", "found wrongly"):
        sums: dict[str, list[tuple[float, float]]] = {}
        for wanted in found.values():
            others = wanted[:, :count].copy()
            others[np.arange(count), np.arange(count)] = -np.inf
            chance = (np.arange(count) + 17) % count
            other = others.argmax(axis=1) if which == "found wrongly" else chance
            for style in found:
                excluded = found[style][other]
                for rule, total in excluding(wanted, excluded):
                    own = total[np.arange(count), other]
                    ahead = (total >= own[:, None]).sum(axis=1) <= 10
                    numbers = reciprocal_rank(total, 0), float(ahead.mean())
                    sums.setdefault(rule, []).append(numbers)
        for rule, values in sums.items():
            rank, seen = np.mean(values, axis=0)
            lines.append({
                "excluded": which, "rule": rule, "reciprocal rank": float(rank),
                "excluded in top 10": float(seen),
            })  # fmt: skip
    return lines


def excluding(wanted: np.ndarray, excluded: np.ndarray) -> Iterable[tuple[str, np.ndarray]]:
    """Scores without the excluded part, with a plain minus, and as the searcher does it."""
    mean, deviation = excluded.mean(1, keepdims=True), excluded.std(1, keepdims=True)
    yield "none", wanted
    yield "plain minus", wanted - excluded
    for ordinary in sorted({0.0, 1.0, planning.ORDINARY}):
        mark = " (the searcher's)" if ordinary == planning.ORDINARY else ""
        excess = np.maximum(0, excluded - mean - ordinary * deviation)
        yield f"beyond {ordinary:g} deviations{mark}", wanted - excess


def batches(queries: list[Query], size: int = BATCH) -> Iterable[list[Query]]:
    """A few queries at a time."""
    return (queries[start : start + size] for start in range(0, len(queries), size))


def show(title: str, lines: Sequence[dict]) -> None:
    """A table, one line per setting."""
    rows = [list(lines[0]), *([cell(value) for value in line.values()] for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{title}")
    for row in rows:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))


def cell(value: float | str) -> str:
    """A value of a table."""
    return f"{value:.4g}" if isinstance(value, float) else value


def main(args: Sequence[str] | None = None) -> int:
    """Run what was asked for and print it."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", type=Path, default=Path("data/emoji"))
    p.add_argument("--model", default="runs/demo/model", help="folder of a trained model")
    p.add_argument("--only", default="kept,choice,exclusion", help="comma-separated parts")
    p.add_argument("--candidates", default="20,50,100", help="N, comma-separated")
    p.add_argument("--limit", type=int, help="photos and queries of each split (default: all)")
    p.add_argument("--json", help="write everything here")
    p.add_argument("--check", action="store_true", help="exit with 1 where the goal is missed")
    options = p.parse_args(args)
    asked, values = options.only.split(","), {}
    numbers = [int(n) for n in options.candidates.split(",")]
    if options.check and not ("kept" in asked and KEPT_AT in numbers):
        p.error(f"--check is of what is kept at N = {KEPT_AT}: measure it too")
    data = embed(options.data, options.model, options.limit)
    print(f"{len(data.photos):,} photos, {data.count('val')} and {data.count('test')} queries")
    if "kept" in asked:
        with tempfile.TemporaryDirectory() as folder:
            searcher = searcher_of(data, folder)
            values["kept"] = kept(data, searcher, numbers)
            values["kept without"] = [kept_without(data, searcher)]
            searcher.close()
        show("share of the exhaustive top 10 that two stages keep, test queries", values["kept"])
        show("the same where something is excluded, N as by default", values["kept without"])
    if "choice" in asked:
        values["choice"] = choice(data)
        show("mean reciprocal rank, validation, by share and temperature", values["choice"])
    if "exclusion" in asked:
        values["exclusion"] = exclusion(data)
        show("an excluded concept, validation queries, whole gallery", values["exclusion"])
    if options.json:
        Path(options.json).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    at = [line for line in values.get("kept", ()) if line["candidates"] == KEPT_AT]
    missed = [s for line in at for s, v in line.items() if s != "candidates" and v < GOAL]
    for style in missed:
        print(f"missed: {style} keeps less than {GOAL:.0%} at N = {KEPT_AT}")
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
