"""Fills an index from sources: decode, embed, commit; only what is new or has changed.

A run may be killed at any moment: every commit is whole, and the next run skips what the index
holds by size and time of change, or by SHA-256 where these differ. A killed run's index is
the same in the end as that of a run left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from freestyle.errors import UserError
from freestyle.files import write_text
from freestyle.search.columns import TOLERANCE
from freestyle.search.decode import Broken, Decoded, Job
from freestyle.search.plan import BATCH, make_plan, refreshed
from freestyle.search.records import PhotoRecord

if TYPE_CHECKING:
    from freestyle.search.index import Index
    from freestyle.search.photo_encoder import PhotoEncoder
    from freestyle.search.sources import Listed, Listing

Work = list[tuple["Listed", str]]
Outcome = tuple["Listed", "PhotoRecord | Decoded | Broken"]
"""A photo with its record, with what its unchanged bytes say, or with why it is left out."""
SECONDS = 20.0  # a commit is made after so long, however few photos it has
KNOWN = 8  # times a batch: photos of known bytes that wait for a batch to become full
ERRORS = "errors.jsonl"


@dataclass
class Summary:
    """What a run did.

    Attributes:
        index: Its URI.
        photos: In the index now.
        added: New photos.
        changed: Photos whose bytes had changed.
        refreshed: Photos of which only file, caption or columns had changed.
        deleted: Photos that were no longer there.
        unchanged: Photos with nothing to do.
        broken: Photos that were left out.
        seconds: Of decoding, embedding and writing.
        errors: Per broken photo its source, path and reason.
        verb: What was done to added and changed photos.
    """

    index: str
    photos: int = 0
    added: int = 0
    changed: int = 0
    refreshed: int = 0
    deleted: int = 0
    unchanged: int = 0
    broken: int = 0
    seconds: float = 0.0
    errors: list[dict[str, str]] = field(default_factory=list)
    verb: str = "embedded"

    @property
    def embedded(self) -> int:
        """Photos that were embedded, or imported."""
        return self.added + self.changed

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rate = self.embedded / self.seconds if self.seconds and self.embedded else None
        values = {**asdict(self), self.verb: self.embedded, "photos_per_second": rate}
        del values["verb"]
        return values

    def table(self) -> str:
        """For people."""
        counts = ("added", "changed", "refreshed", "deleted", "unchanged", "broken")
        lines = [f"{name:<12}{getattr(self, name):>10,}" for name in counts]
        lines.append(f"{'in the index':<12}{self.photos:>10,}")
        if self.embedded:
            rate = self.embedded / max(self.seconds, 1e-9)
            lines.append(f"{self.seconds:.1f} s, {rate:.1f} photos/s {self.verb}")
        return "\n".join(lines)

    def note(self, photo: Listed, reason: str) -> None:
        """Record a photo that is left out."""
        self.broken += 1
        self.errors.append({"source": photo.source, "path": photo.path, "error": reason})


@dataclass(frozen=True)
class Pace:
    """How work is cut.

    Attributes:
        workers: Decoding processes; 0 decodes in this one.
        batch_size: Photos per pass of the encoder.
        commit: Photos per commit.
    """

    workers: int = 0
    batch_size: int = 32
    commit: int = 1000

    def __post_init__(self) -> None:
        for name, least in (("workers", 0), ("batch_size", 1), ("commit", 1)):
            if getattr(self, name) < least:
                raise UserError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}: use {least} or more"
                )


def fill(
    index: Index,
    listing: Listing,
    encoder: PhotoEncoder,
    *,
    pace: Pace | None = None,
    run: Any = None,
    strict: bool = False,
    keep_deleted: bool = False,
    quiet: bool = False,
) -> Summary:
    """Bring an index up to date with its sources; call it inside ``index.writing()``.

    Args:
        index: What is filled, made with this encoder.
        listing: The sources' photos.
        encoder: What embeds them.
        pace: How work is cut.
        run: A generator function from work, encoder and pace to outcomes; :func:`embed_here` where
            None.
        strict: Stop at the first broken photo; what was committed stays.
        keep_deleted: Whether photos that are no longer there stay.
        quiet: Show no progress.

    Raises:
        UserError: If a source's name is taken, or at a broken photo with ``strict``.
    """
    pace = pace or Pace()
    began = time.monotonic()
    known = index.fingerprints()
    plan = make_plan(index, listing, known, keep_deleted=keep_deleted)
    summary = Summary(index.uri, unchanged=plan.unchanged)
    for photo in listing.broken:
        if strict:
            raise UserError(photo.broken)
        summary.note(photo, photo.broken)
    for start in range(0, len(plan.refresh), BATCH):
        part = plan.refresh[start : start + BATCH]
        digests = [known[photo.id].digest for photo in part]
        index.upsert(refreshed(index, [(photo, {}) for photo in part], digests))
        summary.refreshed += len(part)
    writer = _Writer(index, summary, set(known), pace.commit)
    hidden = quiet or not plan.read
    with (
        contextlib.closing((run or embed_here)(plan.read, encoder, pace)) as outcomes,
        tqdm(total=len(plan.read), unit="photo", smoothing=0.05, disable=hidden) as bar,
    ):
        for photo, what in outcomes:
            if isinstance(what, Broken) and strict:
                writer.commit()
                raise UserError(what.reason)
            writer.add(photo, what)
            bar.update()
            if summary.broken:
                bar.set_postfix(broken=summary.broken, refresh=False)
    writer.commit()
    gone = [*plan.gone, *writer.spoilt]
    if gone:
        summary.deleted = index.delete(gone)
    index.optimise()  # even if nothing was written: a run before this one may have been killed
    summary.photos = len(index)
    summary.seconds = time.monotonic() - began
    return summary


class _Writer:
    """Gathers outcomes and commits them by number or by time."""

    def __init__(self, index: Index, summary: Summary, known: set[str], size: int) -> None:
        self.index, self.summary, self.known, self.size = index, summary, known, size
        self.records: list[PhotoRecord] = []
        self.same: list[tuple[Listed, Decoded]] = []
        self.spoilt: list[str] = []  # photos that were whole when they were indexed
        self.last = time.monotonic()

    def add(self, photo: Listed, what: PhotoRecord | Decoded | Broken) -> None:
        """Take one outcome."""
        if isinstance(what, Broken):
            self.summary.note(photo, what.reason)
            if photo.id in self.known and not what.unread:
                self.spoilt.append(photo.id)
        elif isinstance(what, PhotoRecord):
            self.records.append(what)
            changed = what.id in self.known
            self.summary.changed += changed
            self.summary.added += not changed
        else:
            self.same.append((photo, what))
            self.summary.refreshed += 1
        waiting = len(self.records) + len(self.same)
        if waiting >= self.size or (waiting and time.monotonic() - self.last > SECONDS):
            self.commit()

    def commit(self) -> None:
        """Write what was gathered as one commit."""
        changes = [
            (photo, {"size": what.size, "modified": what.modified, "date": what.date})
            for photo, what in self.same
        ]
        again = refreshed(self.index, changes, [what.digest for _, what in self.same])
        if self.records or again:
            self.index.upsert([*self.records, *again])
        self.records, self.same = [], []
        self.last = time.monotonic()


def embed_here(work: Work, encoder: PhotoEncoder, pace: Pace) -> Iterator[Outcome]:
    """Decode in processes of this machine and embed in this process, in order."""
    from freestyle.search.workers import decode

    jobs = [Job.of(photo, known) for photo, known in work]
    results = decode(
        encoder.decoder(),
        jobs,
        workers=pace.workers,
        ahead=max(2 * pace.batch_size, 8 * pace.workers),
    )
    photos = (photo for photo, _ in work)
    yield from embed_batches(zip(photos, results, strict=True), encoder, pace.batch_size)


def embed_batches(
    results: Iterable[tuple[Listed, Decoded | Broken]], encoder: PhotoEncoder, batch_size: int
) -> Iterator[Outcome]:
    """Photos with squares embedded in batches, all others passed on, in order."""
    waiting: list[tuple[Listed, Decoded | Broken]] = []
    count = 0
    for photo, what in results:
        waiting.append((photo, what))
        count += isinstance(what, Decoded) and what.squares is not None
        if count >= batch_size or len(waiting) >= KNOWN * batch_size:
            yield from _embedded(waiting, encoder)
            waiting, count = [], 0
    yield from _embedded(waiting, encoder)


def _embedded(
    waiting: list[tuple[Listed, Decoded | Broken]], encoder: PhotoEncoder
) -> Iterator[Outcome]:
    fresh = [(p, w) for p, w in waiting if isinstance(w, Decoded) and w.squares is not None]
    records = iter(encoder.records([p for p, _ in fresh], [w for _, w in fresh]))
    for photo, what in waiting:
        new = isinstance(what, Decoded) and what.squares is not None
        yield photo, _usable(next(records)) if new else what


def _usable(record: PhotoRecord) -> PhotoRecord | Broken:
    """A record, or why it cannot be compared with queries: one photo must not end the run."""
    vector = np.asarray(record.vector, dtype=np.float64)
    atoms = record.atoms
    if abs(np.linalg.norm(vector) - 1) <= TOLERANCE and (atoms is None or np.isfinite(atoms).all()):
        return record
    return Broken(
        f"{record.path} has an embedding without a direction (zero, or not finite): use "
        "--precision float32, or replace the photo"
    )


def write_errors(folder: Path, summary: Summary) -> None:
    """List the broken photos in the index's folder; no file where there are none."""
    path = folder / ERRORS
    if summary.errors:
        lines = (json.dumps(error, ensure_ascii=False) for error in summary.errors)
        write_text(path, "\n".join(lines) + "\n")
    elif path.exists():
        os.unlink(path)
