"""What all composers that ask a model share: prompts, and a cache that survives a killed run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path

import yaml

from freestyle.code_cache import default_folder
from freestyle.datasets.composed import ComposedQuery, picture_key, read_json
from freestyle.errors import UserError
from freestyle.files import write_json
from freestyle.transport.captions import Composition, parse_composition

PROMPTS = Path(__file__).with_name("composer_prompts")
FIELDS = ("system", "single", "several", "from_caption")


def read_prompts(benchmark: str) -> dict[str, str]:
    """The prompts of a benchmark, or of a YAML file of the user's own.

    Args:
        benchmark: ``emoji``, ``cirr``, ``circo``, ``fashioniq``, ``genecis``, or a path.

    Raises:
        UserError: If there are none, or a field is missing.
    """
    path = PROMPTS / f"{benchmark}.yaml"
    if not path.is_file():
        path = Path(benchmark)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        known = ", ".join(sorted(p.stem for p in PROMPTS.glob("*.yaml")))
        raise UserError(
            f"cannot read the prompts {benchmark}: use {known}, or a YAML file"
        ) from error
    for name in FIELDS:
        if not isinstance(values, dict) or not isinstance(values.get(name), str):
            raise UserError(f"the prompts {path} lack the text '{name}': write it")
    return {name: " ".join(values[name].split()) for name in FIELDS}


class CaptionCache:
    """Compositions on disk, one small file each, written atomically.

    Args:
        folder: Where they lie; None for ``captions`` in the cache folder.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder else default_folder() / "captions"

    def key(self, model: str, prompt: str, query: ComposedQuery) -> str:
        """Names a composition by model, prompt, the reference's content and the text."""
        digest = hashlib.sha256()
        for part in (model, prompt, query.text, query.concept):
            digest.update(part.encode() + b"\0")
        digest.update(picture_key(query.reference))
        return digest.hexdigest()[:32]

    def get(self, key: str) -> Composition | None:
        """What was written under a key; None where there is nothing, or half a file."""
        path = self.folder / f"{key}.json"
        if not path.is_file():
            return None
        try:
            return parse_composition(read_json(path, dict, "a cached caption"), path, key)
        except UserError:
            return None

    def put(self, key: str, composition: Composition) -> None:
        """Keep a composition."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(composition).items()}
        write_json(self.folder / f"{key}.json", values)


def compose_cached(
    queries: Sequence[ComposedQuery],
    cache: CaptionCache,
    model: str,
    prompt: str,
    write: Callable[[ComposedQuery], Composition],
    *,
    concurrency: int = 1,
) -> dict[str, Composition]:
    """Every query's composition; what is in the cache is not asked for again.

    Args:
        queries: All queries.
        cache: Where finished ones are kept, each as soon as it is there.
        model: Name for the keys.
        prompt: All that the model is told besides picture and text, for the keys.
        write: Asks the model.
        concurrency: How many at a time.

    Raises:
        UserError: The first that ``write`` raises; what was finished before stays in the cache.
    """
    keys = {query.id: cache.key(model, prompt, query) for query in queries}
    found = {key: cache.get(key) for key in dict.fromkeys(keys.values())}
    todo = {keys[q.id]: q for q in queries if found[keys[q.id]] is None}

    def work(key: str, query: ComposedQuery) -> None:
        found[key] = write(query)
        cache.put(key, found[key])

    pool = ThreadPoolExecutor(concurrency)
    try:
        jobs = [pool.submit(work, key, query) for key, query in todo.items()]
        done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
        for job in done:
            job.result()
    finally:
        pool.shutdown(cancel_futures=True)  # also when interrupted: only what runs is waited for
    return {query.id: found[keys[query.id]] for query in queries}


def parse_answer(text: str, query: ComposedQuery) -> Composition:
    """A model's JSON answer, also where a fence or a sentence stands around it.

    Raises:
        ValueError: If it holds no such JSON object.
    """
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end <= start:
        raise ValueError("the answer holds no JSON object")
    values = json.loads(text[start : end + 1])
    if not isinstance(values, dict):
        raise ValueError("the answer is no JSON object")
    values["modification"] = query.text
    return parse_composition(values, Path("answer"), query.id)
