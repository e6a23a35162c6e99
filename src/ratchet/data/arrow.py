"""How do many rows come in columns, and how do their answers go back? Arrow, for files and for the service."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from flatbuffers.table import Table

from ratchet.contract import Column, Contract
from ratchet.errors import BatchError


def missing_column(names: list[str], contract: Contract) -> str | None:
    """The first column that is asked for and is not there; protected groups and what is watched besides may be left out."""
    there = set(names)
    return next((column.name for column in contract.features if column.name not in there), None)


def _names(values: pa.Array, name: str, origin: str) -> pd.Series:
    try:
        return pd.Series(values.cast(pa.string()).to_pandas())
    except pa.ArrowException as error:
        raise BatchError(f"{origin}: column {name!r} holds {values.type}; a name is text or a whole number.") from error


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
            made[name] = _names(batch.column(names.index(name)), name, origin)
    for column in contract.requested:
        if column.name not in names:
            made[column.name] = pd.Categorical([None] * len(batch))
            continue
        values = batch.column(names.index(column.name))
        made[column.name] = _words(values, column, origin) if column.is_words else _numbers(values, column, origin)
    return pd.DataFrame(made)


def read_stream(body: bytes, contract: Contract, most: int) -> pd.DataFrame:
    """The rows of an Arrow stream, typed.

    BatchError where the bytes are no sound stream, hold no row or more than `most`, are compressed, or where a column is
    missing or of another kind.
    """
    try:
        # What a message claims is read before it is believed: a few bytes can stand for any number of rows.
        rows = sum(_claimed(message) for message in pa.ipc.MessageReader.open_stream(body) if message.type != "schema")
        if not 0 < rows <= most:
            raise BatchError(f"The table holds {rows} rows; send 1 to {most}.")
        with pa.ipc.open_stream(body) as reader:
            table = reader.read_all()
        # Offsets that point outside of their column would be followed.
        table.validate(full=True)
        return typed(table.combine_chunks().to_batches()[0], contract, "The table")
    except (pa.ArrowException, OSError, struct.error) as error:
        # A stream that was cut off is an OSError.
        raise BatchError(f"The body is no Arrow stream: {str(error).splitlines()[0].rstrip('.')}.") from error


def _claimed(message: pa.ipc.Message) -> int:
    """The rows of a record batch's message; 0 for a dictionary's. BatchError where it is compressed.

    A message is a flatbuffer: Message(version, header_type, header, ...), RecordBatch(length, nodes, buffers, compression),
    DictionaryBatch(id, data, ...); field i of a table stands at 4 + 2 i of its virtual table.
    """
    metadata = message.metadata.to_pybytes()
    root = Table(metadata, struct.unpack_from("<I", metadata)[0])
    batch = Table(metadata, 0)
    root.Union(batch, root.Offset(8))
    dictionary = message.type == "dictionary"
    if dictionary:
        batch = Table(metadata, batch.Indirect(batch.Offset(6) + batch.Pos))
    if batch.Offset(10):
        raise BatchError("The table is compressed; send it as it is.")
    place = batch.Offset(4)
    length = struct.unpack_from("<q", metadata, place + batch.Pos)[0] if place else 0
    return 0 if dictionary else int(length)


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
