"""Speed of the prompted query path against the plain encoder, on this machine.

    python benchmarks/encode.py                                   # mini, ViT-B/32, ViT-L/14
    python benchmarks/encode.py --encoders random:clip-vit-l-14 --batch-size 16 --max-overhead 0.15

Prompted: pixels -> style reader -> style space -> prompt tokens -> frozen blocks -> embedding, that
is ``FreestyleRet.query_from(*prepare(pixels))``. Plain: Hugging Face's own
``CLIPModel.get_image_features`` with the same weights, batch, type and threads, on pixels that are
normalised already; for ``freestyle-mini`` its plain forward. ``freestyle-mini default`` is the
demo's own form, which passes a picture through the encoder twice, whole and framed. Style and
prompt settings are those of the shipped configs; speed does not depend on weights, which are
random where they would have to be downloaded. The two run in turns, so that a slow spell of the
machine hits both, and the overhead is the median over rounds of their ratio, less one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
import yaml
from torch import Tensor

from freestyle.baselines import settings
from freestyle.config import PromptConfig, StyleConfig
from freestyle.encoders import DualEncoder
from freestyle.errors import UserError
from freestyle.model import FreestyleRet

ROOT = Path(__file__).resolve().parents[1]
MINI = "freestyle-mini"
DEFAULT = "freestyle-mini default"  # the demo's own form: two framings and a styled map, no tokens
ENCODERS = (MINI, DEFAULT, "random:clip-vit-b-32", "random:clip-vit-l-14")
CONFIGS = {MINI: "emoji_mini_prompt_tokens.yaml", DEFAULT: "emoji_mini_freestyle.yaml"}
REQUIRED = "random:clip-vit-l-14"  # the encoder that --max-overhead applies to, where it is timed
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Result:
    """Timings of one encoder, in milliseconds per image; medians over rounds.

    Attributes:
        encoder: Its name.
        plain: The plain encoder.
        prompted: The prompted query path.
        reader: The style reader alone, a part of ``prompted``.
        tokens: Style space and prompt tokens alone, another part.
        blocks: What is left of ``prompted - plain``: longer sequences, putting tokens in and out.
        overhead: Median over rounds of ``prompted / plain - 1``.
        lowest: Smallest such overhead of a round.
        highest: Largest such overhead of a round.
    """

    encoder: str
    plain: float
    prompted: float
    reader: float
    tokens: float
    blocks: float
    overhead: float
    lowest: float
    highest: float


def build_model(name: str) -> FreestyleRet:
    """The model of the shipped config around an encoder, its style space filled with noise."""
    file = CONFIGS.get(name, "dsr_clip_l14.yaml")
    values = yaml.safe_load((ROOT / "configs" / file).read_text(encoding="utf-8"))["model"]
    style = dict(values["style"])
    if name not in CONFIGS:
        style["weights"] = "random"
    own = name == DEFAULT
    config = settings(
        "freestyle",
        MINI if own else name,
        style=StyleConfig(**style),
        prompts=PromptConfig(**values["prompts"]),
        query_map=values["query_map"] if own else "none",
        framing=values["framing"] if own else "whole",
    )
    model = FreestyleRet(config).eval()
    generator = torch.Generator().manual_seed(0)
    for buffer in (model.space.axes, model.space.bases):
        if buffer is not None:
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
    model.space.factor.fill_(1.0)
    return model


def plain_forward(encoder: DualEncoder) -> Callable[[Tensor], object]:
    """Hugging Face's own forward where there is one, else the encoder's."""
    model = getattr(encoder, "model", None)
    return getattr(model, "get_image_features", encoder.embed_image)


def measure(
    name: str,
    *,
    batch_size: int = 8,
    repeats: int = 10,
    warmup: int = 2,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Result:
    """Time one encoder's plain and prompted paths in turns.

    Args:
        name: Encoder name for :func:`freestyle.encoders.create`, a CLIP or ``freestyle-mini``; or
            :data:`DEFAULT`.
        batch_size: Images per pass.
        repeats: Timed rounds; each runs everything once, in alternating order.
        warmup: Untimed rounds before.
        dtype: Of weights and pixels.
        device: Where to compute.

    Raises:
        UserError: If the encoder is unknown.
    """
    model = build_model(name).to(device)
    model.encoder.to(dtype)
    model.reader.features.network.to(dtype)
    encoder, side = model.encoder, model.encoder.image_size
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(batch_size, 3, side, side, generator=generator).to(device, dtype)
    plain = plain_forward(encoder)
    own = plain == encoder.embed_image
    given = pixels if own else encoder.normalise_pixels(pixels)
    codes = model.reader(pixels)
    steps: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(given),
        "prompted": lambda: model.query_from(*model.prepare(pixels)),
        "reader": lambda: model.reader(pixels),
        "tokens": lambda: (model.prompt_tokens if model.prompts else model.style_inputs)(
            codes, batch_size
        ),
    }
    times: dict[str, list[float]] = {step: [] for step in steps}
    with torch.inference_mode():
        for turn in range(warmup + repeats):
            order = list(steps) if turn % 2 == 0 else list(steps)[::-1]
            for step in order:
                seconds = _timed(steps[step], device)
                if turn >= warmup:
                    times[step].append(1000 * seconds / batch_size)
    return summarise(name, times)


def summarise(name: str, times: dict[str, Sequence[float]]) -> Result:
    """Medians of the rounds, and the overhead of each round against its own plain run."""
    over = [b / a - 1 for a, b in zip(times["plain"], times["prompted"], strict=True)]
    middle = {step: median(values) for step, values in times.items()}
    rest = middle["prompted"] - middle["plain"] - middle["reader"] - middle["tokens"]
    return Result(name, **middle, blocks=rest, overhead=median(over), lowest=min(over),
                  highest=max(over))  # fmt: skip


def _timed(step: Callable[[], object], device: str) -> float:
    """Seconds of one run, the device's queue emptied before and after."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    wait()
    start = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - start


def setting(options: argparse.Namespace) -> dict[str, object]:
    """What the numbers depend on."""
    on_gpu = options.device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(options.device) if on_gpu else _processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "dtype": options.dtype,
        "batch_size": options.batch_size,
        "repeats": options.repeats,
    }


def _processor() -> str:
    """Name of the CPU, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(li.split(":", 1)[1].strip() for li in lines if li.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def table(results: Sequence[Result]) -> str:
    """The results as text, one line per encoder."""
    heads = ("encoder", "plain", "prompted", "images/s", "images/s", "reader", "tokens", "blocks")
    units = ("", "ms/image", "ms/image", "plain", "prompted", *["ms/image"] * 3)
    lines = [[*heads, "overhead (lowest to highest)"], [*units, "prompted / plain - 1"]]
    for r in results:
        parts = (r.reader, r.tokens, r.blocks)
        lines.append(
            [
                r.encoder,
                f"{r.plain:.2f}",
                f"{r.prompted:.2f}",
                f"{1000 / r.plain:.1f}",
                f"{1000 / r.prompted:.1f}",
                *(f"{part:.2f}" for part in parts),
                f"{r.overhead:+.1%} ({r.lowest:+.1%} to {r.highest:+.1%})",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def too_slow(results: Sequence[Result], limit: float | None) -> list[str]:
    """Encoders whose overhead is above a limit.

    The limit is for ViT-L/14; where that is not among the results, for every other encoder but the
    mini, whose plain forward is as small as the style reader.
    """
    if limit is None:
        return []
    judged = [r for r in results if r.encoder == REQUIRED]
    judged = judged or [r for r in results if r.encoder not in CONFIGS]
    return [r.encoder for r in judged if r.overhead > limit]


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--encoders", default=",".join(ENCODERS), help="names, comma-separated")
    p.add_argument("--batch-size", type=int, default=8)
    p.add_argument("--repeats", type=int, default=10, help="timed rounds")
    p.add_argument("--warmup", type=int, default=2, help="rounds before")
    p.add_argument("--threads", type=int, help="CPU threads; default: as PyTorch chooses")
    p.add_argument("--dtype", choices=tuple(DTYPES), default="float32")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--json", help="write setting and results here")
    p.add_argument(
        "--max-overhead",
        type=float,
        help="exit 1 where the prompted path takes longer than this share, e.g. 0.15, at ViT-L/14 "
        "(at every timed encoder but the mini where ViT-L/14 is not timed)",
    )
    return p


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, 1 where ``--max-overhead`` is exceeded, or 2 at bad input."""
    options = parser().parse_args(args)
    if options.batch_size < 1 or options.repeats < 1:
        sys.stderr.write("error: --batch-size and --repeats must be at least 1\n")
        return 2
    if options.threads:
        torch.set_num_threads(options.threads)
    where = setting(options)
    print(", ".join(f"{key} {value}" for key, value in where.items()), flush=True)
    results = []
    for name in filter(None, map(str.strip, options.encoders.split(","))):
        try:
            results.append(
                measure(
                    name,
                    batch_size=options.batch_size,
                    repeats=options.repeats,
                    warmup=options.warmup,
                    dtype=DTYPES[options.dtype],
                    device=options.device,
                )
            )
        except UserError as error:
            sys.stderr.write(f"error: {error}\n")
            return 2
        print(f"timed {name}", flush=True)
    print(f"\n{table(results)}")
    if options.json:
        values = {**where, "results": [asdict(result) for result in results]}
        Path(options.json).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    slow = too_slow(results, options.max_overhead)
    for name in slow:
        print(f"{name}: overhead above {options.max_overhead:.0%}")
    return 1 if slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
