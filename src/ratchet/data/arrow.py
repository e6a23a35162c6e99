"""How do many rows come in columns, and how do their answers go back? Arrow, for files and for the service."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ratchet.contract import Column, Contract
from ratchet.errors import BatchError


def missing_column(names: list[str], contract: Contract) -> str | None:
    """The first column that is asked for and is not there; protected groups may be left out."""
    there = set(names)
    return next((column.name for column in contract.features if column.name not in there), None)


def is_text(column: Column) -> bool:
    """Whether a column's values are words."""
    return column.values is not None and isinstance(column.values[0], str)


def typed(batch: pa.RecordBatch, contract: Contract, origin: str) -> pd.DataFrame:
    """The requested columns of n rows, words as categories and numbers as float64; id and entity as text where they are there.

    BatchError names the column that is not there, or of another kind than the contract's.
    """
    names = batch.schema.names
    if (gone := missing_column(names, contract)) is not None:
        raise BatchError(f"{origin}: column {gone!r} is missing. The contract asks for: {', '.join(c.name for c in contract.requested)}.")
    made: dict[str, Any] = {}
    for name in (contract.id, contract.entity):
        if name in names:
            made[name] = batch.column(names.index(name)).cast(pa.string()).to_pandas()
    for column in contract.requested:
        if column.name not in names:
            made[column.name] = pd.Categorical([None] * len(batch))
            continue
        values = batch.column(names.index(column.name))
        made[column.name] = _words(values, column, origin) if is_text(column) else _numbers(values, column, origin)
    return pd.DataFrame(made)


def read_stream(body: bytes, contract: Contract) -> pd.DataFrame:
    """The rows of an Arrow stream, typed. BatchError where the bytes are none, or a column is missing or of another kind."""
    try:
        with pa.ipc.open_stream(body) as reader:
            table = reader.read_all()
    except (pa.ArrowException, OSError) as error:
        # A stream that was cut off is an OSError.
        raise BatchError(f"The body is no Arrow stream: {str(error).splitlines()[0].rstrip('.')}.") from error
    batches = table.combine_chunks().to_batches()
    return typed(batches[0], contract, "The table") if batches else pd.DataFrame(columns=[column.name for column in contract.requested])


def write_stream(columns: dict[str, Any]) -> bytes:
    """Columns as an Arrow stream."""
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _words(values: pa.Array, column: Column, origin: str) -> pd.Categorical:
    if values.null_count == len(values):
        return pd.Categorical([None] * len(values))
    if not pa.types.is_dictionary(values.type) and (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        values = values.dictionary_encode()
    if pa.types.is_dictionary(values.type):
        return pd.Categorical(values.to_pandas())
    raise BatchError(f"{origin}: column {column.name!r} holds {values.type}; the contract asks for {column.allowed}.")


def _numbers(values: pa.Array, column: Column, origin: str) -> np.ndarray:
    kind = values.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or values.null_count == len(values):
        number: np.ndarray = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return number
    raise BatchError(f"{origin}: column {column.name!r} holds {kind}; the contract asks for {column.allowed}.")
