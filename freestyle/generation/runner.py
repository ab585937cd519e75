"""Runs the parts: split over shards, in processes, on Ray Data, or one after the other."""

from __future__ import annotations

import hashlib
import importlib.util
import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from freestyle.datasets.photos import Photo
from freestyle.errors import UserError
from freestyle.generation.catalogue import LIGHT_ENGINES, build
from freestyle.generation.engine import Engine
from freestyle.generation.journal import PHOTOS, Journal
from freestyle.generation.parts import Part, Recipe, make_part


@dataclass(frozen=True)
class Shard:
    """One of ``count`` equal shares of the photos, chosen by hash of their ids."""

    number: int = 0
    count: int = 1

    @property
    def name(self) -> str:
        """For file names."""
        return f"{self.number}-of-{self.count}"

    def holds(self, name: str) -> bool:
        """Whether a photo belongs to this shard, whatever else there is."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[8:16], "big") % self.count == self.number


def parse_shard(text: str | None) -> Shard:
    """``i/n`` with i from 0, or what torchrun or SLURM say about this process.

    Raises:
        UserError: If it is no such pair.
    """
    if text is None:
        for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
            if os.environ.get(rank, "").isdigit() and os.environ.get(size, "").isdigit():
                return _shard(int(os.environ[rank]), int(os.environ[size]), f"{rank}/{size}")
        return Shard()
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit()):
        raise UserError(f"--shard {text} is no share: write 0/8 for the first of eight")
    return _shard(int(number), int(count), f"--shard {text}")


def _shard(number: int, count: int, source: str) -> Shard:
    if count < 1 or number >= count:
        raise UserError(f"{source} is no share: the first number must be below the second")
    return Shard(number, count)


def local_rank() -> int:
    """Which device of its machine this process has, by torchrun or SLURM; 0 without them."""
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def plan(
    photos: Sequence[Photo],
    styles: Iterable[str],
    done: dict[str, set[str]],
    broken: Iterable[str],
    shard: Shard,
    part_size: int,
    first: int,
) -> list[Part]:
    """Cut what is not finished into parts.

    Args:
        photos: All photos, sorted by id.
        styles: What to make of each.
        done: Finished ids by style.
        broken: Ids of photos that cannot be used.
        shard: Which photos are this run's.
        part_size: Photos per part.
        first: Number of the first part.
    """
    wanted = (PHOTOS, *styles)
    useless = set(broken)
    empty: set[str] = set()
    left = []
    for photo in photos:
        if photo.id in useless or not shard.holds(photo.id):
            continue
        missing = tuple(style for style in wanted if photo.id not in done.get(style, empty))
        if missing:
            left.append((photo, missing))
    parts = []
    for start in range(0, len(left), part_size):
        piece = left[start : start + part_size]
        number = first + len(parts)
        parts.append(
            Part(number, shard.name, tuple(p for p, _ in piece), tuple(m for _, m in piece))
        )
    return parts


def build_engines(recipe: Recipe, device: str) -> dict[str, Engine]:
    """All engines of a recipe, captions first, since others read them."""
    order = sorted(recipe.styles, key=lambda style: style != "text")
    return {style: build(recipe.styles[style], device) for style in order}


def is_light(recipe: Recipe) -> bool:
    """Whether every engine runs in processes of one thread, without a network."""
    return all(
        spec["engine"] in LIGHT_ENGINES or (spec["engine"] == "caption" and not spec.get("model"))
        for spec in recipe.styles.values()
    )


class PartMaker:
    """The mapper: makes one part after the other; what every way of running calls."""

    def __init__(self, recipe: Recipe, root: str, device: str, strict: bool) -> None:
        import cv2

        if is_light(recipe):
            cv2.setNumThreads(1)
        self.recipe, self.strict = recipe, strict
        self.journal = Journal(Path(root))
        self.engines = build_engines(recipe, device)

    def __call__(self, part: Part) -> tuple[int, int]:
        """Make a part; return how many photos it had and how many of them were broken."""
        broken = make_part(part, self.recipe, self.engines, self.journal, strict=self.strict)
        return len(part.photos), broken


def run_parts(
    parts: Sequence[Part],
    recipe: Recipe,
    root: Path,
    *,
    workers: int,
    device: str = "cpu",
    strict: bool = False,
    engine: str = "local",
) -> int:
    """Make all parts, with progress.

    Args:
        parts: From `plan`.
        recipe: The settings.
        root: Output folder.
        workers: Processes; 0 makes all in this one.
        device: For networks.
        strict: Stop at the first broken photo.
        engine: ``local`` or ``ray``.

    Returns:
        Number of broken photos.

    Raises:
        UserError: What stopped the run; finished parts stay.
    """
    if not parts:
        return 0
    settings = (recipe, str(root), device, strict)
    if engine == "ray":
        results = _on_ray(parts, settings, workers)
    elif workers > 0:
        results = _in_processes(parts, settings, min(workers, len(parts)))
    else:
        results = map(PartMaker(*settings), parts)
    broken = 0
    with tqdm(total=sum(len(part.photos) for part in parts), unit="photo", smoothing=0.1) as bar:
        for photos, bad in results:
            broken += bad
            bar.update(photos)
            if broken:
                bar.set_postfix(broken=broken)
    return broken


_maker: PartMaker | None = None


def _start_worker(settings: tuple[Any, ...]) -> None:
    """Build the engines of a process, and end it as soon as its parent is gone."""
    global _maker
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
    _maker = PartMaker(*settings)


def _make_in_worker(part: Part) -> tuple[int, int]:
    assert _maker is not None, "set by the initialiser"
    return _maker(part)


def _in_processes(
    parts: Sequence[Part], settings: tuple[Any, ...], workers: int
) -> Iterator[tuple[int, int]]:
    """Processes of one thread each; few parts wait at a time, so that a stop is soon."""
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    before = {name: os.environ.get(name) for name in threads}
    os.environ.update(threads)  # read by the processes' libraries when they load
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (settings,))
    try:
        waiting = iter(parts)
        running = {pool.submit(_make_in_worker, part) for part in islice(waiting, 2 * workers)}
        while running:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                yield future.result()
                part = next(waiting, None)
                if part is not None:
                    running.add(pool.submit(_make_in_worker, part))
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was ended from outside, often for lack of memory: give fewer "
            "--workers, then --resume"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _RayMaker:
    """`PartMaker` as Ray Data calls it: columns in, columns out."""

    def __init__(self, settings: tuple[Any, ...]) -> None:
        self.make = PartMaker(*settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import pickle

        import numpy as np

        results = [self.make(pickle.loads(part)) for part in batch["part"]]
        return {"result": np.array(results, dtype=np.int64)}


def _on_ray(
    parts: Sequence[Part], settings: tuple[Any, ...], workers: int
) -> Iterator[tuple[int, int]]:
    """The same mapper on Ray Data; the output folder must be shared by all machines."""
    if importlib.util.find_spec("ray") is None:
        raise UserError("--engine ray needs Ray Data: pip install 'ray[data]', or use local")
    import pickle

    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"part": pickle.dumps(part)} for part in parts]  # read back by our own actors only
    heavy = settings[2].startswith("cuda")
    try:
        made = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _RayMaker,
            fn_constructor_args=(settings,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=max(1, workers)),
            num_cpus=1,
            num_gpus=1 if heavy else 0,
        )
        for row in made.iter_rows():
            yield int(row["result"][0]), int(row["result"][1])
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, UserError):
            raise cause from error
        raise
