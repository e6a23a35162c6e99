"""Which of many rows may be asked about, and why not the others? The request's rules, column by column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ratchet.contract import Column, Contract
from ratchet.data.encoding import factorised
from ratchet.data.rules import keeps, used


def defects(columns: Mapping[str, Any] | pd.DataFrame, contract: Contract) -> np.ndarray:
    """Why each of n rows is no valid request, shape (n,), object; None where it is one.

    `columns` holds at least the requested columns. What `request_type` refuses record by record is refused here for
    a whole file at once; the first defect of a row is told.
    """
    rows = len(columns[contract.requested[0].name])
    told = np.full(rows, None, dtype=object)
    for column in contract.requested:
        _judge(columns[column.name], column, told)
    asked = {column.name for column in contract.requested}
    for rule in contract.rules:
        if asked >= used(rule, contract):
            _tell(told, ~keeps(columns, rule, contract), f"{rule.reason} (rule {rule.name!r})")
    return told


def _judge(values: Any, column: Column, told: np.ndarray) -> None:
    named = f"Field {column.name!r}"
    if column.values is not None:
        codes, found = factorised(values)
        known = np.array([value in column.values for value in found] + [True], dtype=bool)
        _tell(told, ~known[codes], f"{named} must be {column.allowed}")
        gone = codes < 0
    elif column.is_words:
        gone = np.asarray(pd.isna(values))
    else:
        number = np.asarray(values, dtype=np.float64)
        gone = np.isnan(number)
        low, high = column.range or (0.0, 1.0)
        with np.errstate(invalid="ignore"):
            _tell(told, (number < low) | (number > high), f"{named} must be {column.allowed}")
            if column.scale in ("discrete", "binary"):
                _tell(told, ~gone & (number != np.floor(number)), f"{named} must be {column.allowed}")
    if not column.may_miss:
        _tell(told, gone, f"{named} is missing; it must be {column.allowed}")


def _tell(told: np.ndarray, wrong: np.ndarray, reason: str) -> None:
    places = np.flatnonzero(wrong)
    if places.size:
        places = places[[told[place] is None for place in places]]
        told[places] = reason
