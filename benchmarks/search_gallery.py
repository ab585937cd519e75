"""A real index in each back end: latency of both stages, and what N candidates keep.

    freestyle index data/emoji/images --out runs/emoji.index --model runs/demo/model
    python benchmarks/search_gallery.py runs/emoji.index [--json out.json] [--check]

All photos of the index are copied to each back end. Queries are those of DSR-Emoji's test split.
``nearest`` and ``rerank`` are the milliseconds of the two stages (the query embedded before), one
query at a time, with 50 candidates. ``kept`` counts how many of the ten photos that scoring *every*
photo finds are found with N candidates: by the searcher's own scores, and by ``sets`` alone, where
the first stage helps least. ``--check`` exits with 1 where the searcher's own keep less than 98 %
at N = 50.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from freestyle.datasets import open_split
from freestyle.errors import UserError
from freestyle.search.index import create_index, open_index
from freestyle.search.opening import open_encoder
from freestyle.search.query import Part, Query
from freestyle.search.query_encoder import Encoded
from freestyle.search.scoring import SetScoring
from freestyle.search.searcher import Searcher

STYLES = ("sketch", "art", "mosaic", "text")
TOP, GOAL, KEPT_AT, BATCH = 10, 0.98, 50, 16
SCORINGS = {"kept": SetScoring(), "kept by sets alone": SetScoring(share=1.0)}


def queries_of(root: str, count: int | None) -> list[Part]:
    """Parts of single queries, ``count`` of each style."""
    split = open_split(Path(root), "test", styles=STYLES)
    return [
        Part(**{"text" if style == "text" else "image": source})
        for style in STYLES
        for source in list(split.queries[style].sources)[:count]
    ]


def copied(source: Any, name: str, folder: Path) -> Any:
    """The photos of an index in another back end."""
    if name == "qdrant":
        from qdrant_client import QdrantClient

        from freestyle.search.qdrant import QdrantIndex

        client = QdrantClient(":memory:")
        index = QdrantIndex.create("qdrant://memory/gallery", source.settings, client)
    else:
        index = create_index(f"{name}:{folder / name}", source.settings)
    with index.writing():
        for batch in source.records():
            index.upsert(batch)
        index.optimise()
    return index


class Remembered:
    """A query encoder that embeds no picture and no text twice; see ``QueryEncoder``."""

    def __init__(self, encoder: Any) -> None:
        self._own, self._known = encoder, {}
        self.encoder, self.weights, self.width = encoder.encoder, encoder.weights, encoder.width
        self.complete = encoder.complete

    def embed_images(self, images: Sequence[Any]) -> Encoded:
        """Pictures, by their pixels."""
        return self._embed(self._own.embed_images, images, [image.tobytes() for image in images])

    def embed_texts(self, texts: Sequence[str]) -> Encoded:
        """Texts."""
        return self._embed(self._own.embed_texts, texts, texts)

    def _embed(self, embed: Any, items: Sequence[Any], keys: Sequence[Any]) -> Encoded:
        new = {key: item for key, item in zip(keys, items, strict=True) if key not in self._known}
        if new:
            fresh = embed(list(new.values()))
            for row, key in enumerate(new):
                self._known[key] = fresh.rows[row], fresh.styles[row]
        rows = np.stack([self._known[key][0] for key in keys])
        return Encoded(rows, tuple(self._known[key][1] for key in keys))


def ids_of(searcher: Searcher, parts: Sequence[Part], candidates: int) -> list[set[str]]:
    """The ten best of each query."""
    found = []
    for start in range(0, len(parts), BATCH):
        queries = [Query((p,), TOP, rerank=candidates) for p in parts[start : start + BATCH]]
        results = searcher.search_many(queries)
        found += [{hit.id for hit in result.hits} for result in results]
    return found


def shared(found: Sequence[set[str]], right: Sequence[set[str]]) -> float:
    """Mean share of the right ids that were found."""
    return float(np.mean([len(f & r) / max(len(r), 1) for f, r in zip(found, right, strict=True)]))


def exhaustive(index: Any, encoder: Any, parts: Sequence[Part]) -> dict[str, list[set[str]]]:
    """The ten best of all photos, by title of the scoring."""
    return {
        title: ids_of(Searcher(index, encoder, scoring=scoring), parts, len(index))
        for title, scoring in SCORINGS.items()
    }


def measure(
    name: str,
    index: Any,
    encoder: Any,
    parts: Sequence[Part],
    numbers: Sequence[int],
    right: dict[str, list[set[str]]],
) -> dict[str, Any]:
    """One row: a back end."""
    row: dict[str, Any] = {"back_end": name, "photos": len(index)}
    searcher = Searcher(index, encoder)
    ids_of(searcher, parts[:BATCH], KEPT_AT)
    times = [searcher.search(Query((part,), TOP, rerank=KEPT_AT)).milliseconds for part in parts]
    for stage in ("nearest", "rerank"):
        for p in (50, 95):
            row[f"{stage}_p{p}_ms"] = float(np.percentile([t[stage] for t in times], p))
    for title, scoring in SCORINGS.items():
        own = Searcher(index, encoder, scoring=scoring)
        for number in numbers:
            row[f"{title} at {number}"] = shared(ids_of(own, parts, number), right[title])
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """All rows, one column per back end."""
    lines = ["| | " + " | ".join(row["back_end"] for row in rows) + " |"]
    lines.append("|---|" + "---:|" * len(rows))
    for key in list(rows[0])[1:]:
        cells = [f"{row[key]:,}" if key == "photos" else f"{row[key]:.3f}" for row in rows]
        lines.append(f"| {key.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("index", help="with sets, as freestyle index makes it")
    p.add_argument("--model", help="of the queries (default: the index's own)")
    p.add_argument("--data", default="data/emoji")
    p.add_argument(
        "--back-ends", default="exact,lance,qdrant", help="qdrant: in the client's memory"
    )
    p.add_argument("--queries", type=int, help="of each style (default: all)")
    p.add_argument("--candidates", default="20,50,100", help="N, comma-separated")
    p.add_argument("--json")
    p.add_argument("--check", action="store_true")
    options = p.parse_args(args)
    numbers = [int(number) for number in options.candidates.split(",")]
    if options.check and KEPT_AT not in numbers:
        p.error(f"--check is of N = {KEPT_AT}: add it to --candidates")
    source = open_index(options.index)
    if not source.settings.atoms:
        raise UserError(f"{options.index} keeps no sets: make it again without --views none")
    encoder = Remembered(open_encoder(source, options.model))
    parts = queries_of(options.data, options.queries)
    rows = []
    right = exhaustive(source, encoder, parts)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.back_ends.split(","):
            index = copied(source, name, Path(folder))
            rows.append(measure(name, index, encoder, parts, numbers, right))
            index.close()
            print(f"{name}: done", file=sys.stderr, flush=True)
    source.close()
    print(f"{len(parts)} queries of {', '.join(STYLES)}\n\n{table(rows)}")
    if options.json:
        values = {"index": options.index, "queries": len(parts), "rows": rows}
        Path(options.json).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    low = [row for row in rows if row.get(f"kept at {KEPT_AT}", 1.0) < GOAL]
    for row in low:
        print(f"missed: {row['back_end']} keeps less than {GOAL:.0%} at N = {KEPT_AT}")
    return 1 if low and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
