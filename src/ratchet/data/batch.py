"""Can this table be taken as a batch of this contract?"""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np
import pandas as pd

from ratchet.contract import Column, Contract
from ratchet.data.values import as_text
from ratchet.errors import BatchError


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV or Parquet file. BatchError where it is missing, empty or no table."""
    if not path.is_file():
        raise BatchError(f"{path}: {'this is a folder, not a file' if path.is_dir() else 'there is no such file'}.")
    try:
        # The text of a CSV is kept as it stands; the contract says what each column is.
        frame = (
            pd.read_parquet(path)
            if path.suffix == ".parquet"
            else pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""], index_col=False)
        )
    except pd.errors.EmptyDataError as error:
        raise BatchError(f"{path}: the file is empty; expected a header and rows.") from error
    except (pd.errors.ParserError, UnicodeDecodeError, OSError, ValueError) as error:
        raise BatchError(f"{path}: cannot be read as a table: {str(error).strip()}.") from error
    if frame.empty:
        raise BatchError(f"{path}: the file has a header but no rows.")
    if frame.shape[1] == 1 and any(separator in str(frame.columns[0]) for separator in ";\t"):
        raise BatchError(f"{path}: the columns are parted by semicolons or tabs; save the file with commas.")
    return frame


def conform(frame: pd.DataFrame, contract: Contract, origin: str) -> pd.DataFrame:
    """The batch with the contract's columns, in order, in the types that their scales call for.

    Numbers are float64, categories and ids keep the contract's own values, times are timestamps in UTC, and
    a missing value is missing. BatchError names the file, the column and the first row (counted from 1, below
    the header) where a column is missing, unknown, of the wrong type, or a row id is empty or there twice.
    Values outside the contract's range stay: they are a matter for quarantine.
    """
    names = [column.name for column in contract.columns]
    missing = [name for name in names if name not in frame.columns]
    unknown = [str(name) for name in frame.columns if name not in names]
    if missing:
        close = difflib.get_close_matches(missing[0], unknown, n=1)
        hint = f" Is {close[0]!r} a misspelling of it?" if close else ""
        raise BatchError(f"{origin}: column {missing[0]!r} is missing.{hint} The contract asks for: {', '.join(names)}.")
    if unknown:
        raise BatchError(f"{origin}: column {unknown[0]!r} is not in the contract. Remove it, or declare it there.")
    if frame.empty:
        raise BatchError(f"{origin}: there are no rows.")
    typed = pd.DataFrame({c.name: _typed(frame[c.name], c, origin) for c in contract.columns}, index=frame.index)
    typed = typed.reset_index(drop=True)
    _check_ids(typed[contract.id], contract.id, origin)
    return typed


def _typed(values: pd.Series, column: Column, origin: str) -> pd.Series:
    if column.role == "time":
        parsed = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601").dt.tz_localize(None)
        _refuse_first(values, parsed.isna() & values.notna(), column, origin, "a time such as 2026-03-01T12:00:00")
        return parsed.astype("datetime64[us]")
    if column.role in ("id", "entity"):
        return values.map(as_text, na_action="ignore").astype(object)
    if column.is_numeric or (column.values and all(isinstance(v, int | float) for v in column.values)):
        number = pd.to_numeric(values, errors="coerce").astype(float)
        _refuse_first(values, number.isna() & values.notna(), column, origin, "a number")
        _refuse_first(values, number.abs() == np.inf, column, origin, "a finite number")
        return number
    return values.map(as_text, na_action="ignore").astype(object)


def _refuse_first(values: pd.Series, wrong: pd.Series, column: Column, origin: str, expected: str) -> None:
    rows = np.flatnonzero(wrong.to_numpy())
    if rows.size:
        more = f" ({rows.size} rows like it)" if rows.size > 1 else ""
        first = str(values.iloc[rows[0]])[:40]
        raise BatchError(
            f"{origin}: column {column.name!r}, row {rows[0] + 1}: {first!r} is not {expected}{more}. "
            f"The contract asks for {column.allowed}."
        )


def _check_ids(ids: pd.Series, name: str, origin: str) -> None:
    empty = np.flatnonzero(ids.isna().to_numpy())
    if empty.size:
        raise BatchError(f"{origin}: column {name!r}, row {empty[0] + 1}: a row id is missing. Every row needs one.")
    twice = np.flatnonzero(ids.duplicated().to_numpy())
    if twice.size:
        first = int(np.flatnonzero((ids == ids.iloc[twice[0]]).to_numpy())[0])
        raise BatchError(
            f"{origin}: column {name!r}, row {twice[0] + 1}: the id {ids.iloc[twice[0]]!r} stands in row {first + 1} "
            f"already ({twice.size} repeated ids). Row ids must be unique."
        )
