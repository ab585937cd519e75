"""The index of a LanceDB table's vectors: an inverted file of RaBitQ codes (IVF_RQ).

The candidates' scores are computed anew from their vectors, so that they are exact and equal ones
are ordered by id.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from freestyle.search.ranking import SLACK, ranked
from freestyle.search.records import Hits
from freestyle.search.rows import given_text, matrix

INDEXED = 20_000  # photos from which a search reads the index
PARTITIONS = 1 / 3  # of the square root of the number of photos: 105 of 100,000
BITS = 2  # per number in the index
PROBED = 50  # partitions read per query
CANDIDATES = 40  # beyond the k, or half of them, whose scores are computed exactly
TIES = 10_000  # equal scores at the last place that are still put in order


def is_used(rows: int) -> bool:
    """Whether so many photos are searched through the index."""
    return rows >= INDEXED


def train(table: Any, rows: int) -> None:
    """Index the vectors, unless an index of half as many partitions or more is there.

    Args:
        table: Of LanceDB.
        rows: Photos in it.
    """
    from lancedb.index import IvfRq

    partitions = max(1, round(PARTITIONS * rows**0.5))
    names = {i.name for i in table.list_indices() if i.columns == ["vector"]}
    sizes = [int(name.rpartition("_")[2]) for name in names]
    kept = max(sizes, default=0)
    if partitions >= 2 * kept:  # none, or four times as many photos
        kept = partitions
        config = IvfRq("dot", num_partitions=partitions, num_bits=BITS)
        table.create_index("vector", config=config, name=f"vector_{partitions}")
    for name in names - {f"vector_{kept}"}:
        table.drop_index(name)


def nearest_indexed(table: Any, query: np.ndarray, k: int, sql: str | None, width: int) -> Hits:
    """The k photos of the largest inner product with a query, as far as the index finds.

    Args:
        table: Of LanceDB.
        query: ``(E,)`` float32.
        k: Photos.
        sql: A condition on them.
        width: E.

    Returns:
        Exact scores; of equal ones at the last place the smallest ids among :data:`TIES`.
    """
    limit = k + max(k // 2, CANDIDATES)
    while True:
        search = table.search(query, vector_column_name="vector").distance_type("dot")
        search = search.minimum_nprobes(PROBED).maximum_nprobes(0 if sql else PROBED)
        search = search.select(["id", "vector", "_distance"]).limit(limit)
        found = (search.where(sql) if sql else search).to_arrow()
        vectors = matrix(found["vector"], width)
        ids = [given_text(name) for name in found["id"].to_pylist()]
        hits = ranked(ids, vectors, query, k)
        if len(found) < limit or limit > k + TIES:
            return hits
        worst = 1 - found["_distance"].to_numpy().max()  # dot distance is 1 - inner product
        if worst < hits.scores[-1] - SLACK * np.linalg.norm(query):
            return hits
        limit *= 4
