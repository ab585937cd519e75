"""``freestyle export``: a model's query side for servers without torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from freestyle.errors import UserError
from freestyle.options import OneSentenceParser, listed

if TYPE_CHECKING:
    import argparse


def parser() -> argparse.ArgumentParser:
    """All options of ``freestyle export``."""
    p = OneSentenceParser(
        prog="freestyle export",
        description="Export what embeds queries, for freestyle search and serve --onnx.",
    )
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="folder or hub id of a trained model")
    what.add_argument("--encoder", help="an untouched encoder instead, such as freestyle-mini")
    p.add_argument("--out", required=True, metavar="FOLDER", help="where to; replaced if it is "
                   "an export already")  # fmt: skip
    p.add_argument("--format", default="onnx", help="onnx, torch (torch.export), or onnx,torch")
    p.add_argument(
        "--int8", action="store_true",
        help="8-bit weights: smaller and mostly faster, at some recall (benchmarks/export.py)",
    )  # fmt: skip
    return p


def main(args: Sequence[str]) -> None:
    """Run ``freestyle export``.

    Raises:
        UserError: At bad input, or where the model cannot be exported.
    """
    options = parser().parse_args(args)
    formats = list(dict.fromkeys(listed(options.format)))
    from freestyle.search.export import FORMATS, export_model

    if not formats or set(formats) - set(FORMATS):
        raise UserError(f"--format is {options.format}: use onnx, torch, or onnx,torch")
    from freestyle.model import FreestyleRet

    if options.model is not None:
        model = FreestyleRet.from_pretrained(options.model)
    else:
        model = FreestyleRet.from_encoder(options.encoder)
    differences = export_model(model, options.out, formats=formats, int8=options.int8)
    for name, difference in differences.items():
        what = "int8 " if options.int8 and name == "onnx" else ""
        sys.stdout.write(f"{what}{name}: rows differ from the model's by {difference:.1e}\n")
    sys.stdout.write(f"{options.out}: freestyle serve INDEX --onnx {options.out}\n")
