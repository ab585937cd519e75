"""The command line: one table from command to function, bad input in one sentence.

freestyle demo | bench | train ... | eval ... | eval-composed ... | figures ... | generate ...
    | index ... | search ... | serve ... | export ...
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence

from freestyle.allocator import keep_freed_memory
from freestyle.errors import UserError


def _train(args: list[str]) -> None:
    from freestyle.training.cli import main

    main(args)


def _evaluate(args: list[str]) -> None:
    from freestyle.evaluation.command import main

    main(args)


def _demo(args: list[str]) -> None:
    from freestyle.demo import main

    main(args)


def _bench(args: list[str]) -> None:
    from freestyle.bench.command import main

    main(args)


def _evaluate_composed(args: list[str]) -> None:
    from freestyle.evaluation.composed_command import main

    main(args)


def _figures(args: list[str]) -> None:
    from freestyle.evaluation.map_command import main

    main(args)


def _generate(args: list[str]) -> None:
    from freestyle.generation.command import main

    main(args)


def _index(args: list[str]) -> None:
    from freestyle.search.index_command import main

    main(args)


def _search(args: list[str]) -> None:
    from freestyle.search.search_command import main

    main(args)


def _serve(args: list[str]) -> None:
    from freestyle.search.serve_command import main

    main(args)


def _export(args: list[str]) -> None:
    from freestyle.search.export_command import main

    main(args)


COMMANDS: dict[str, tuple[Callable[[list[str]], None], str]] = {
    "demo": (_demo, "train on DSR-Emoji and print the Recall@K table"),
    "bench": (_bench, "run matrices of experiments: freestyle bench configs/bench/methods.yaml"),
    "train": (_train, "train by a config: freestyle train fit --config FILE"),
    "eval": (_evaluate, "evaluate models on a data set in the DSR layout"),
    "eval-composed": (_evaluate_composed, "composed queries: a picture and a text that changes it"),
    "figures": (_figures, "draw what a trained model does to styles: maps, curves, cases"),
    "generate": (_generate, "make query sets from photos: freestyle generate PHOTOS --out FOLDER"),
    "index": (_index, "make an index of photos, or update it: freestyle index PHOTOS --out INDEX"),
    "search": (_search, "find photos: freestyle search my.index --image sketch.png --text red"),
    "serve": (_serve, "a page and an HTTP interface: freestyle serve my.index"),
    "export": (_export, "what embeds queries, without torch: freestyle export --model FOLDER"),
}


def usage() -> str:
    """The help text."""
    lines = [f"  {name:<15}{what}" for name, (_, what) in COMMANDS.items()]
    return "usage: freestyle COMMAND [options]\n\n" + "\n".join(lines) + "\n"


def run(command: Callable[[list[str]], None], args: Sequence[str]) -> int:
    """Run a command; bad input becomes one sentence on stderr and exit code 2."""
    keep_freed_memory()
    try:
        command(list(args))
    except UserError as error:
        sys.stderr.write(f"error: {sentence(error)}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; finished checkpoints are kept, --ckpt_path last goes on\n")
        return 130
    return 0


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
    return run(COMMANDS[args[0]][0], args[1:])


def train() -> int:
    """Entry point of ``train.py``."""
    return run(_train, sys.argv[1:])


def evaluate() -> int:
    """Entry point of ``eval.py``."""
    return run(_evaluate, sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
