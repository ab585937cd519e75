"""Embeddings that somebody has made already become an index, without touching the photos.

That works because photos are embedded by the untouched encoder: who has embedded them with the same
weights has the index's vectors. That the weights are the same is the user's word; where photos are
at hand, eight of them are embedded and compared.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from freestyle.errors import UserError
from freestyle.search.decode import Decoded, Job
from freestyle.search.fill import Summary
from freestyle.search.lists import CAPTION_COLUMNS, PATH_COLUMNS, first_text, further_columns
from freestyle.search.records import PhotoRecord, Scalar, photo_id
from freestyle.search.sources import Listed, iso_date

if TYPE_CHECKING:
    from freestyle.search.clip_retrieval import Embeddings
    from freestyle.search.index import Index
    from freestyle.search.photo_encoder import PhotoEncoder

COMPARED = 8
AGREE = 0.99  # least cosine between an imported vector and the encoder's own
LOOKED_AT = 4096  # entries among which photos for the comparison are sought


class Places:
    """Where imported photos lie.

    Args:
        name: Source of photos that are in none of the roots.
        roots: Folders of photos by the name of their source.
    """

    def __init__(self, name: str, roots: Mapping[str, Path]) -> None:
        self.name, self.roots = name, dict(roots)

    def find(self, image: str) -> tuple[str, str, str]:
        """Source, path below it, and the file, which is empty where there is none."""
        for name, root in self.roots.items():
            inside = os.path.relpath(image, root) if os.path.isabs(image) else image
            file = root / inside
            if not inside.startswith("..") and file.is_file():
                return name, Path(inside).as_posix(), str(file)
        file = image if os.path.isabs(image) and os.path.isfile(image) else ""
        path = "/".join(part for part in image.split("/") if part not in ("", ".", ".."))
        return self.name, path, file


def import_vectors(
    index: Index, embeddings: Embeddings, places: Places, *, quiet: bool = False
) -> Summary:
    """Write embeddings into an index; call it inside ``index.writing()``.

    Args:
        index: Of the embeddings' width and views.
        embeddings: What to import.
        places: Where the photos lie.
        quiet: Show no progress.

    Raises:
        UserError: If arrays and lists do not fit each other.
    """
    began = time.monotonic()
    summary = Summary(index.uri, verb="imported")
    known = set(index.fingerprints())
    with tqdm(total=embeddings.count, unit="photo", disable=quiet, delay=1) as bar:
        for batch in embeddings.batches():
            records = []
            vectors, good = unit_rows(batch.vectors)
            for at, row in enumerate(batch.rows):
                photo, record = _record(row, vectors[at], batch.atoms, at, places)
                if good[at] and photo.path:
                    records.append(record)
                else:
                    reason = "no image_path" if good[at] else "a vector that has no direction"
                    summary.note(photo, f"{photo.path or 'an entry'} has {reason}: embed it again")
            _upsert(index, records, known, summary)
            bar.update(len(batch.rows))
    index.optimise()  # even if nothing was written: a run before this one may have been killed
    summary.photos, summary.seconds = len(index), time.monotonic() - began
    return summary


def unit_rows(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``(N, E)`` of any norm as float32 of norm 1, and which of them have a direction.

    Rows that have norm 1 within float32's rounding stay as they are, to the bit.
    """
    rows = vectors.astype(np.float32)
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    good = np.isfinite(norms) & (norms > 1e-6)
    off = good & (np.abs(norms - 1) > 1e-6)
    rows[off] = (rows[off] / norms[off, None]).astype(np.float32)
    return rows, good


def compare(embeddings: Embeddings, places: Places, encoder: PhotoEncoder) -> int:
    """Embed up to eight of the photos and compare them with what is imported.

    Returns:
        How many were at hand.

    Raises:
        UserError: If one differs: other weights made the embeddings, or the lists are mixed up.
    """
    decoder = encoder.decoder()
    compared = 0
    for row, vector in _at_hand(embeddings, places):
        image = first_text(row, PATH_COLUMNS)
        decoded = decoder(Job(image, places.find(image)[2]))
        if not isinstance(decoded, Decoded):
            continue
        own, _ = encoder.embed(decoded.squares[None])
        cosine = float(own[0] @ unit_rows(vector[None])[0][0])
        if not cosine >= AGREE:
            raise UserError(
                f"{image} embedded with {encoder.model.encoder.name} has cosine {cosine:.3f} with "
                f"its imported vector, not {AGREE} or more: name the --encoder that made "
                f"{embeddings.folder}, or say --trust"
            )
        compared += 1
        if compared == COMPARED:
            break
    return compared


def _at_hand(
    embeddings: Embeddings, places: Places
) -> Iterator[tuple[dict[str, Scalar], np.ndarray]]:
    """Entries whose photos are files here, from all over the first ones."""
    batch = next(embeddings.batches(LOOKED_AT), None)
    if batch is None:
        return
    there = [
        at for at, row in enumerate(batch.rows) if places.find(first_text(row, PATH_COLUMNS))[2]
    ]
    spread = np.linspace(0, len(there) - 1, 4 * COMPARED).astype(int) if there else []
    for at in dict.fromkeys([*spread[::4], *spread]):  # the rest where some cannot be read
        yield batch.rows[there[at]], batch.vectors[there[at]]


def _record(
    row: Mapping[str, Scalar],
    vector: np.ndarray,
    atoms: np.ndarray | None,
    at: int,
    places: Places,
) -> tuple[Listed, PhotoRecord]:
    """The record of one entry; of an index's export as it was."""
    source, path, origin = places.find(first_text(row, PATH_COLUMNS))
    size, modified = -1, 0.0
    if origin:
        status = os.stat(origin)
        size, modified = status.st_size, status.st_mtime
    values: dict[str, Any] = {
        "id": photo_id(f"{source}/{path}"),
        "path": path,
        "origin": origin,
        "size": size,
        "modified": modified,
        "width": _whole(row.get("width")),
        "height": _whole(row.get("height")),
        "caption": first_text(row, CAPTION_COLUMNS),
        "date": iso_date(row.get("date")),
    }
    if "id" in row and "path" in row:  # an export of an index
        texts = ("id", "path", "origin", "digest", "date")
        values |= {name: str(row.get(name, "")) for name in texts}
        values |= {"offset": int(row.get("offset", -1)), "size": int(row.get("size", -1))}
        values |= {"modified": float(row.get("modified", 0.0))}
        source = str(row.get("source", source))
    record = PhotoRecord(
        vector=vector,
        atoms=None if atoms is None else atoms[at],
        extra={**further_columns(row), "source": source},
        **values,
    )
    return Listed(source, record.path, record.origin), record


def _whole(value: Scalar | None) -> int:
    """A number of pixels; 0 where there is none."""
    return int(value) if isinstance(value, int | float) and value > 0 else 0


def _upsert(index: Index, records: list[PhotoRecord], known: set[str], summary: Summary) -> None:
    """Write what is new or differs."""
    there = [record for record in records if record.id in known]
    same = set()
    if there:
        ids = [record.id for record in there]
        rows, vectors = index.metadata(ids), index.vectors(ids)
        for record, row, vector in zip(there, rows, vectors, strict=True):
            told = {**record.metadata(), "origin": record.origin, "offset": record.offset}
            if told == row and np.allclose(vector, record.vector, atol=1e-6):
                same.add(record.id)
    fresh = [record for record in records if record.id not in same]
    if fresh:
        index.upsert(fresh)
    changed = sum(record.id in known for record in fresh)
    summary.changed += changed
    summary.added += len(fresh) - changed
    summary.unchanged += len(same)
    known.update(record.id for record in fresh)
