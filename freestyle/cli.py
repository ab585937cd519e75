"""The command line: one table from command to function, bad input in one sentence.

freestyle demo | bench | train ... | eval ... | eval-composed ... | figures ... | generate ... |
index ... | search ... | serve ... | export ...
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from freestyle.allocator import keep_freed_memory
from freestyle.errors import UserError

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("freestyle.demo", "train on DSR-Emoji and print the Recall@K table"),
    "bench": (
        "freestyle.bench.command",
        "run matrices of experiments: freestyle bench configs/bench/methods.yaml",
    ),
    "train": ("freestyle.training.cli", "train by a config: freestyle train fit --config FILE"),
    "eval": ("freestyle.evaluation.command", "evaluate models on a data set in the DSR layout"),
    "eval-composed": (
        "freestyle.evaluation.composed_command",
        "composed queries: a picture and a text that changes it",
    ),
    "figures": (
        "freestyle.evaluation.map_command",
        "draw what a trained model does to styles: maps, curves, cases",
    ),
    "generate": (
        "freestyle.generation.command",
        "make query sets from photos: freestyle generate PHOTOS --out FOLDER",
    ),
    "index": (
        "freestyle.search.index_command",
        "make an index of photos, or update it: freestyle index PHOTOS --out INDEX",
    ),
    "search": (
        "freestyle.search.search_command",
        "find photos: freestyle search my.index --image sketch.png --text red",
    ),
    "serve": (
        "freestyle.search.serve_command",
        "a page and an HTTP interface: freestyle serve my.index",
    ),
    "export": (
        "freestyle.search.export_command",
        "what embeds queries, without torch: freestyle export --model FOLDER",
    ),
}
"""By name: the module whose ``main(args)`` it is, loaded when called, and what it does."""


def command(name: str) -> Callable[[list[str]], None]:
    """The function of a command."""

    def call(args: list[str]) -> None:
        import_module(COMMANDS[name][0]).main(args)

    return call


def usage() -> str:
    """The help text."""
    lines = [f"  {name:<15}{what}" for name, (_, what) in COMMANDS.items()]
    return "usage: freestyle COMMAND [options]\n\n" + "\n".join(lines) + "\n"


def run(call: Callable[[list[str]], None], args: Sequence[str]) -> int:
    """Run a command; bad input becomes one sentence on stderr and exit code 2."""
    keep_freed_memory()
    try:
        call(list(args))
    except UserError as error:
        sys.stderr.write(f"error: {sentence(error)}\n")
        return 2
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "freestyle"):
            raise
        sys.stderr.write(f"error: {absent(package)}\n")
        return 2
    except BrokenPipeError:  # whoever read the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to flush
        return 141
    except KeyboardInterrupt:
        sys.stderr.write("stopped; finished checkpoints are kept, --ckpt_path last goes on\n")
        return 130
    return 0


def absent(package: str) -> str:
    """What a user reads where a package is not installed."""
    text = f"the package {package} is not installed: pip install {package}"
    if package in ("torch", "torchvision", "transformers", "timm"):
        text += ", or name a folder of freestyle export with --onnx, as search and serve take it"
    return text


def sentence(error: UserError) -> str:
    """The message alone, also where a decoding process has wrapped it in its traceback."""
    text = str(error)
    found = re.findall(r"UserError: (.+)", text)
    return found[-1] if found else text


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of ``freestyle``."""
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        return 0
    if args[0] == "--version":
        from freestyle import __version__

        sys.stdout.write(f"freestyle {__version__}\n")
        return 0
    if args[0] not in COMMANDS:
        sys.stderr.write(f"error: unknown command '{args[0]}': use {', '.join(COMMANDS)}\n")
        return 2
    return run(command(args[0]), args[1:])


def train() -> int:
    """Entry point of ``train.py``."""
    return run(command("train"), sys.argv[1:])


def evaluate() -> int:
    """Entry point of ``eval.py``."""
    return run(command("eval"), sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
