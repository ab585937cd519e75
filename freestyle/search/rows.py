"""Photos as rows of Arrow tables: what the two back ends in folders store of a photo.

File names that are no UTF-8 (Python reads them with lone surrogates) are stored with characters of
the last private plane in their place, and read back as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from freestyle.search.columns import OWN, key, name_of, stored_key
from freestyle.search.records import COLUMNS, Fingerprint, IndexSettings, PhotoRecord, Scalar

if TYPE_CHECKING:
    import pyarrow as pa

    from freestyle.search.filters import Filter

BYTES = 0x10FF80  # stands for byte 0x80; the surrogate is U+DC80
TO_STORED = {0xDC80 + byte: BYTES + byte for byte in range(128)}
FROM_STORED = {stored: given for given, stored in TO_STORED.items()}
FINGERPRINT = ("id", "size", "modified", "digest")


def stored_text(text: str) -> str:
    """Text that can be written as UTF-8."""
    return text if text.isascii() else text.translate(TO_STORED)


def given_text(text: str) -> str:
    """What :func:`stored_text` was given."""
    return text if text.isascii() else text.translate(FROM_STORED)


def schema(types: Mapping[str, type]) -> pa.Schema:
    """Columns of a table: a photo's own, then the further ones of these types, by name."""
    import pyarrow as pa

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    own = [(name, kinds[kind]) for name, kind in OWN.items()]
    fixed = [("id", pa.string()), ("origin", pa.string()), ("offset", pa.int64())]
    bulk = [("digest", pa.string()), ("thumbnail", pa.large_binary())]
    further = [(key(name), kinds[types[name]]) for name in sorted(types)]
    return pa.schema([*fixed, *own, *bulk, *further])


def further_types(schema: pa.Schema) -> dict[str, type]:
    """Types of the further columns of a table."""
    import pyarrow as pa

    kinds = {pa.string(): str, pa.int64(): int, pa.float64(): float, pa.bool_(): bool}
    return {name_of(f.name): kinds[f.type] for f in schema if f.name.startswith(("c_", "x_"))}


def to_batch(
    photos: Sequence[PhotoRecord], extras: Sequence[dict[str, Scalar]], types: Mapping[str, type]
) -> pa.RecordBatch:
    """Rows of photos whose further columns are :func:`~freestyle.search.columns.checked`."""
    import pyarrow as pa

    def stored(value: Any) -> Any:
        return stored_text(value) if isinstance(value, str) else value

    fields = schema(types)
    values = {
        name: [stored(getattr(photo, name)) for photo in photos]
        for name in ("id", "origin", "offset", *OWN, "digest", "thumbnail")
    }
    for name in types:
        values[key(name)] = [stored(extra.get(name)) for extra in extras]
    return pa.RecordBatch.from_pydict(values, schema=fields)


def given_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as a photo gave it: texts and names of further columns, missing ones left out."""
    given: dict[str, Any] = {}
    for name, value in row.items():
        further = name.startswith(("c_", "x_"))
        if value is None and further:
            continue
        text = given_text(value) if isinstance(value, str) else value
        given[name_of(name) if further else name] = text
    return given


def to_metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    """:meth:`PhotoRecord.metadata` of a row, with ``origin`` and ``offset``."""
    given = given_row(row)
    rest = {name: given[name] for name in (*COLUMNS, "origin", "offset")}
    hidden = {"id", "digest", "thumbnail", *rest}
    return {"id": given["id"], **{n: v for n, v in given.items() if n not in hidden}, **rest}


def to_record(row: Mapping[str, Any], vector: np.ndarray, atoms: np.ndarray | None) -> PhotoRecord:
    """A photo of its row and arrays."""
    given = given_row(row)
    own = ("id", "path", "origin", "offset", "size", "modified", "digest", "width", "height")
    fixed = {name: given.pop(name) for name in (*own, "caption", "date", "thumbnail")}
    extra = {n: v for n, v in given.items() if n not in OWN}
    return PhotoRecord(vector=vector, atoms=atoms, extra=extra, **fixed)


def to_fingerprints(table: pa.Table) -> dict[str, Fingerprint]:
    """Of a table with the columns :data:`FINGERPRINT`."""
    columns = [table[name].to_pylist() for name in FINGERPRINT]
    return {
        given_text(name): Fingerprint(size, modified, digest)
        for name, size, modified, digest in zip(*columns, strict=True)
    }


def gathered(
    sources: Sequence[pa.Table], places: Sequence[tuple[int, int]], fields: pa.Schema
) -> pa.Table:
    """Rows of several tables in the order of ``places`` (table, row), with all of ``fields``."""
    import pyarrow as pa

    wanted: dict[int, list[int]] = {}
    for part, row in places:
        wanted.setdefault(part, []).append(row)
    tables, at, total = [], {}, 0
    for part, rows in sorted(wanted.items()):
        rows = sorted(set(rows))
        low = rows[0]  # only these rows are copied, whatever lies between them
        near = sources[part].slice(low, rows[-1] + 1 - low).combine_chunks()
        tables.append(widened(near.take([row - low for row in rows]), fields))
        at |= {(part, row): total + place for place, row in enumerate(rows)}
        total += len(rows)
    return pa.concat_tables(tables).take([at[place] for place in places]).combine_chunks()


def widened(table: pa.Table, fields: pa.Schema) -> pa.Table:
    """A table with further columns that its part was written without."""
    import pyarrow as pa

    columns = [
        table[f.name] if f.name in table.column_names else pa.nulls(len(table), f.type)
        for f in fields
    ]
    return pa.table(columns, schema=fields)


def matching(table: pa.Table, where: Filter) -> np.ndarray:
    """Which rows match ``(N,)``: each condition is asked once per different value."""
    mask = np.ones(len(table), dtype=bool)
    for condition in where.conditions:
        name = stored_key(condition.column)
        if name not in table.column_names:
            return np.zeros(len(table), dtype=bool)
        encoded = table[name].combine_chunks().dictionary_encode()
        values = encoded.dictionary.to_pylist()
        texts = [given_text(v) if isinstance(v, str) else v for v in values]
        holds = np.array([*map(condition.holds, texts), False], dtype=bool)
        mask &= holds[encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)]
    return mask


def table_schema(types: dict[str, type], settings: IndexSettings) -> pa.Schema:
    """Columns of :func:`schema`, then vectors and flattened sets as lists of fixed size."""
    import pyarrow as pa

    fields = schema(types).append(pa.field("vector", pa.list_(pa.float32(), settings.width)))
    if settings.atoms:
        size = settings.atoms * settings.width
        fields = fields.append(pa.field("atoms", pa.list_(pa.float16(), size)))
    return fields


def fixed_lists(arrays: Sequence[np.ndarray], dtype: type) -> pa.Array:
    """Rows of equal length as an Arrow column."""
    import pyarrow as pa

    rows = np.stack(arrays).astype(dtype, copy=False)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def matrix(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """An Arrow column of equally long lists as rows ``(N, width)``."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    dtype = column.type.value_type.to_pandas_dtype()
    return np.concatenate([np.empty(0, dtype), *chunks]).reshape(-1, width)
