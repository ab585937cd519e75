"""``freestyle search``: ask an index by pictures, texts and photos; a table, JSON or a page."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from freestyle.errors import UserError
from freestyle.options import OneSentenceParser
from freestyle.search.query import Part, PartReading, Query, SearchResult, signed

if TYPE_CHECKING:
    from freestyle.search.filters import Filter
    from freestyle.search.index import Index

TOP = 20
COLUMN = 16  # characters of a part's name above its column
SEVERAL = 5  # photos of one path that are told apart by id
SHOWN = 0.05  # probability from which a style is named


class _AddPart(argparse.Action):
    """Options that are parts are kept in their order, so that ``--weight`` finds the one before."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        part = {self.const: values, "exclude": str(option_string).startswith("--not")}
        namespace.parts = [*(namespace.parts or []), part]


class _SetWeight(argparse.Action):
    """``--weight`` belongs to the part before it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if not namespace.parts:
            raise UserError(
                f"--weight {values:g} comes first: write it behind the --image, --text, --photo or "
                "--not it belongs to"
            )
        if "weight" in namespace.parts[-1]:
            raise UserError(f"--weight {values:g} is the second of its part: leave one out")
        namespace.parts[-1]["weight"] = values


def parser() -> OneSentenceParser:
    """All options of ``freestyle search``."""
    p = OneSentenceParser(
        prog="freestyle search",
        description="Find photos by any number of pictures, texts and photos of the index.",
        epilog='example: freestyle search my.index --image sketch.png --text "red, at night" '
        '--weight 0.5 --not "people" --where "folder under trips" --html found.html',
    )
    p.add_argument("index", help="folder, or URI such as qdrant://HOST:6333/COLLECTION")
    for name, kind, metavar, what in (
        ("--image", "image", "FILE", "a picture of what is wanted, in any style; repeatable"),
        ("--text", "text", "TEXT", "what is wanted in words, phrases between commas; repeatable"),
        ("--photo", "photo", "ID", "more like this photo of the index (id, or path as results "
         "show it); repeatable"),
        ("--not", "text", "TEXT", "what shall not be there, in words; repeatable"),
        ("--not-image", "image", "FILE", "a picture of what shall not be there; repeatable"),
        ("--not-photo", "photo", "ID", "less like this photo of the index; repeatable"),
    ):  # fmt: skip
        p.add_argument(name, action=_AddPart, const=kind, dest="parts", metavar=metavar, help=what)
    p.add_argument(
        "--weight",
        action=_SetWeight,
        type=float,
        metavar="W",
        default=argparse.SUPPRESS,
        help="of the image, text or photo before it (default: 1)",
    )
    p.add_argument("--top", type=int, default=TOP, help=f"number of photos (default: {TOP})")
    p.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help='such as "folder under trips" or "date >= 2024-01"; repeatable, all must hold',
    )
    p.add_argument("--model", help="trained model: folder or hub id (default: the index's own)")
    p.add_argument("--onnx", metavar="FOLDER", help="exported query encoder, runs without torch")
    p.add_argument(
        "--fusion", choices=("sum", "zscore"), default="sum", help="how parts are joined (sum)"
    )
    p.add_argument("--rerank", type=int, help="candidates of the second stage (default: 50)")
    p.add_argument("--device", default="cpu", help="where torch computes (default: cpu)")
    p.add_argument(
        "--json", metavar="FILE",
        help="write the answer as the server gives it; - for the screen, instead of the table",
    )  # fmt: skip
    p.add_argument("--html", metavar="FILE", help="write a page with pictures")
    return p


def main(args: Sequence[str]) -> SearchResult:
    """Run ``freestyle search``.

    Raises:
        UserError: At bad input.
    """
    options = parser().parse_args(args)
    query = Query(tuple(Part(**values) for values in options.parts or ()), options.top)
    from freestyle.search.searcher import Searcher

    searcher = Searcher.open(
        options.index,
        options.model,
        options.onnx,
        device=options.device,
        fusion=options.fusion,
    )
    index = searcher.index
    where = _filter(options.where, index)
    parts = tuple(_looked_up(part, index) for part in query.parts)
    query = Query(parts, query.top, where, options.rerank)
    result = searcher.search(query)
    if options.json == "-":
        sys.stdout.write(json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(table(query, result) + "\n")
    if options.json and options.json != "-":
        from freestyle.files import write_json

        write_json(options.json, result.to_dict())
    if options.html:
        from freestyle.search.results_page import write_page

        write_page(options.html, query, result, index)
        if options.json != "-":
            sys.stdout.write(f"\n{options.html}\n")
    searcher.close()
    return result


def _looked_up(part: Part, index: Index) -> Part:
    """A part whose photo is named by its id, not by the path that tables show.

    Raises:
        UserError: If no photo, or several, have the path.
    """
    from freestyle.search.filters import Condition, Filter
    from freestyle.search.records import photo_id

    path = part.photo
    if path is None or re.fullmatch(r"[0-9a-f]{20}", path):
        return part
    any_query = np.ones((1, index.settings.width), dtype=np.float32)
    named = Filter((Condition("path", "=", (path,)),))
    (found,) = index.search(any_query, SEVERAL, named)
    ids = found.ids
    if not ids:  # SOURCE/PATH, which is what ids are made of
        with suppress(KeyError):
            ids = [row["id"] for row in index.metadata([photo_id(path)])]
    if len(ids) != 1:
        counted = f"{len(ids)} photos ({', '.join(ids)})" if ids else "no photo"
        raise UserError(f"{index.uri} has {counted} of the path {path!r}: give a result's id")
    return replace(part, photo=ids[0], name=part.name or path)


def _filter(conditions: Sequence[str], index: Index) -> Filter | None:
    if not conditions:
        return None
    from freestyle.search.filters import parse_filter

    return parse_filter(conditions, index.columns())


def table(query: Query, result: SearchResult) -> str:
    """The answer for a terminal: what was read of pictures, then one line per photo.

    Columns of parts are deviations above an ordinary photo; ``<`` marks the part that speaks most
    for the photo.
    """
    lines = [line for line in map(style_line, result.parts) if line]
    if not result.hits:
        return "\n".join([*lines, "no photo matches"])
    labels = [
        _cut(("not " if asked.exclude else "") + plain(read.name)).rjust(6)
        for asked, read in zip(query.parts, result.parts, strict=True)
    ]
    names = [plain(str(hit.metadata.get("path") or hit.id)) for hit in result.hits]
    wide = max(len("photo"), *map(len, names))
    lines += ["", f"{'':>3}  {'score':>7}  {'photo':<{wide}}  {'  '.join(labels)}"]
    for place, (name, hit) in enumerate(zip(names, result.hits, strict=True), start=1):
        cells = []
        for value, read, label in zip(hit.parts, result.parts, labels, strict=True):
            mark = "<" if read.name == hit.reason else " "
            cells.append(f"{signed(value)}{mark}".rjust(len(label)))
        line = f"{place:>3}  {hit.score:>7.3f}  {name:<{wide}}  {'  '.join(cells)}"
        lines.append(line.rstrip())
    spent = ", ".join(f"{what} {ms:,.0f} ms" for what, ms in result.milliseconds.items())
    lines += ["", f"{len(result.hits):,} of {result.photos:,} photos; {spent}"]
    return "\n".join(lines)


def style_line(part: PartReading) -> str:
    """``sketch.png: sketch 86 %, other 13 %; style space .98 .01 .01 .00``, or what was read."""
    ordered = sorted(part.styles.items(), key=lambda item: -item[1])
    told = [", ".join(f"{style} {100 * p:.0f} %" for style, p in ordered if p >= SHOWN)]
    if part.place is not None:
        told.append("style space " + " ".join(f"{w:.2f}".removeprefix("0") for w in part.place))
    told = [each for each in told if each]
    return f"{plain(part.name)}: {'; '.join(told)}" if told else ""


def plain(text: str) -> str:
    """Text without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _cut(text: str) -> str:
    return text if len(text) <= COLUMN else text[: COLUMN - 1].rstrip() + "…"
