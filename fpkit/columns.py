"""Columns of tables, whoever made them: pandas, polars and pyarrow are told apart by what they do.

None of the three is imported here, only asked; embeddings to and from Arrow.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pyarrow

EMBEDDING = "embedding"  # the column, in every table of fpkit


def column_names(table: Any) -> list[str]:
    """Names of a table's columns; none of what is no table.

    Examples
    --------
    >>> column_names([1, 2])
    []
    """
    if hasattr(table, "column_names"):  # pyarrow: its `columns` are the data
        return list(table.column_names)
    return list(getattr(table, "columns", ()))


def column(table: Any, name: str) -> list[Any]:
    """Values of one column, as Python objects or whatever the table holds."""
    found = table[name]
    for method in ("to_pylist", "to_list"):
        if hasattr(found, method):
            return list(getattr(found, method)())
    return list(found)


def embedding_matrix(values: Any) -> Any:
    """(n, d) of a table's column ``embedding``, or of an Arrow array of lists; all else as it is.

    Raises
    ------
    ValueError
        If a row of the column is missing (an image that could not be read), or lengths differ.
    """
    named = EMBEDDING in column_names(values)
    if named:
        values = values[EMBEDDING]
    if hasattr(values, "to_pylist") and not column_names(values):
        return from_arrow(values)
    if not named:
        return values
    rows = [np.asarray(row) for row in values]
    missing = sum(row.ndim == 0 for row in rows)  # None, or NaN in pandas
    if missing:
        raise ValueError(_missing(missing, len(rows)))
    _one_length({len(row) for row in rows})
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def to_arrow(embeddings: ArrayLike) -> pyarrow.FixedSizeListArray:
    """(n, d) embeddings as one Arrow column of lists of d float32, for a table or a Parquet file.

    Raises
    ------
    ImportError
        If there is no pyarrow.
    ValueError
        If the shape is another.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError("pyarrow is not installed: pip install 'fpkit[corpus]'") from error
    rows = np.ascontiguousarray(embeddings, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] < 1:
        raise ValueError(f"embeddings must have shape (n, d) with d >= 1, got {rows.shape}")
    return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.ravel()), rows.shape[1])


def from_arrow(array: Any) -> NDArray[np.floating]:
    """(n, d) of an Arrow array, chunked or not, of n lists of d numbers.

    Raises
    ------
    ValueError
        If a row is missing, or lengths differ.
    """
    import pyarrow.compute

    if array.null_count:
        raise ValueError(_missing(array.null_count, len(array)))
    lengths = pyarrow.compute.unique(pyarrow.compute.list_value_length(array)).to_pylist()
    _one_length(lengths)
    chunks = array.chunks if hasattr(array, "chunks") else [array]
    flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in chunks]
    if not lengths:
        return np.zeros((0, 0), np.float32)
    return np.concatenate(flat).reshape(len(array), lengths[0])


def _one_length(lengths: Collection[int]) -> None:
    if len(lengths) > 1:
        raise ValueError(f"embeddings must have one length, got {sorted(lengths)}")


def _missing(missing: int, count: int) -> str:
    return (
        f"{missing} of {count} rows have no embedding (images that could not be read): leave them "
        "out first"
    )
