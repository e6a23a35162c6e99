"""What may a prediction request be? The contract's answer, for the service, the samples and the load test."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pandas as pd

from ratchet.contract import Column, Contract

LONGEST_NAME = 128
_PLACE = re.compile(r" - at `\$(?:\[(?P<row>\d+|\.\.\.)\])?(?:\.(?P<field>\w+))?`")


def request_type(contract: Contract) -> type[msgspec.Struct]:
    """The type of one record: features are required; columns that may miss, protected groups and what is watched besides may be null.

    A record may name its entity, where the contract has one.
    """
    fields: list[Any] = []
    for column in contract.requested:
        kind = _field_type(column)
        if column.may_miss:
            fields.append((column.name, kind | None, None))
        else:
            fields.append((column.name, kind))
    if contract.entity != contract.id:
        about = f"{contract.column(contract.entity).description}; whoever is named is answered by the same version every time"
        name = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME, description=about)]
        fields.append((contract.entity, name | int | msgspec.UnsetType, msgspec.UNSET))
    # Required fields stand before optional ones; the names keep their meaning.
    fields.sort(key=len)
    title = "".join(part.capitalize() for part in contract.name.split("_")) + "Record"
    return msgspec.defstruct(title, fields, forbid_unknown_fields=True, kw_only=True)


def _field_type(column: Column) -> Any:
    if column.scale == "binary":
        return Annotated[int, msgspec.Meta(ge=0, le=1, description=column.description)]
    if column.values is not None:
        if all(isinstance(value, int) for value in column.values):
            return Annotated[Literal[column.values], msgspec.Meta(description=column.description)]
        texts = tuple(str(value) for value in column.values)
        return Annotated[Literal[texts], msgspec.Meta(description=column.description)]
    if column.is_words:
        return Annotated[str, msgspec.Meta(description=column.description)]
    assert column.range is not None
    low, high = column.range
    about = f"{column.description} ({column.unit})" if column.unit else column.description
    if column.scale == "discrete":
        return Annotated[int, msgspec.Meta(ge=int(low), le=int(high), description=about)]
    return Annotated[float, msgspec.Meta(ge=low, le=high, description=about)]


def explain(error: msgspec.DecodeError | UnicodeDecodeError, contract: Contract) -> dict[str, Any]:
    """A decoding error as a sentence with the field and the row (counted from 0) where they are known."""
    text = str(error)
    place = _PLACE.search(text)
    reason = _PLACE.sub("", text)
    row = place["row"] if place else None
    field = place["field"] if place else None
    unknown = re.search(r"unknown field `(.+?)`", reason)
    absent = re.search(r"missing required field `(.+?)`", reason)
    if unknown:
        names = ", ".join(column.name for column in contract.requested)
        field, sentence = unknown[1], f"Field {unknown[1]!r} is not in the contract; it knows {names}."
    elif absent:
        field, sentence = absent[1], f"Field {absent[1]!r} is missing; it must be {contract.column(absent[1]).may_be}."
    elif field and any(column.name == field for column in contract.requested):
        sentence = f"Field {field!r}: {reason}; it must be {contract.column(field).may_be}."
    elif "malformed" in reason or "truncated" in reason:
        sentence = f"The body is not JSON: {reason}. NaN and Infinity are no JSON; send null for a missing value."
    else:
        sentence = f"{reason}; send one JSON object of the contract's features, or an array of them."
    told: dict[str, Any] = {"error": sentence}
    if field:
        told["field"] = field
    if row and row.isdigit():
        told["row"] = int(row)
    return told


def records(frame: pd.DataFrame, contract: Contract) -> list[dict[str, Any]]:
    """The rows of a frame as JSON records of the contract: whole numbers as integers, missing values as None."""
    names = [column.name for column in contract.requested]
    columns = [_values(frame[column.name], _is_whole(column)) for column in contract.requested]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def as_sent(frame: pd.DataFrame, contract: Contract) -> list[dict[str, Any]]:
    """As `records`, whatever an upstream has made of the values."""
    try:
        return records(frame, contract)
    except (TypeError, ValueError):
        rows = frame[[column.name for column in contract.requested]].astype(object).to_dict("records")
        return [{str(name): _as_is(value) for name, value in row.items()} for row in rows]


def _as_is(value: Any) -> Any:
    return None if pd.isna(value) else value.item() if isinstance(value, np.generic) else value


def accepted(sent: list[dict[str, Any]], contract: Contract) -> np.ndarray:
    """Which of n records the service would take, shape (n,), bool: the others are no requests of the contract."""
    kind = request_type(contract)

    def fits(record: dict[str, Any]) -> bool:
        try:
            msgspec.convert(record, kind)
        except msgspec.ValidationError:
            return False
        return True

    return np.array([fits(record) for record in sent], dtype=bool)


def _is_whole(column: Column) -> bool:
    return column.scale in ("discrete", "binary") or (column.values is not None and all(isinstance(value, int) for value in column.values))


def _values(values: pd.Series, whole: bool) -> list[Any]:
    if values.dtype.kind == "f":
        kind = int if whole else float
        return [None if value != value else kind(value) for value in values.tolist()]
    return [_plain(value, whole) for value in values.tolist()]


def _plain(value: Any, whole: bool) -> Any:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if whole:
        return int(value)
    return float(value) if isinstance(value, float | np.floating) else value
