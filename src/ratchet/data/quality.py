"""How good are these rows? The dimensions of data quality that can be told row by row."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd

from ratchet.contract import CATEGORICAL, Column, Contract
from ratchet.data.rules import keeps, used
from ratchet.data.values import as_text


def flaws(contract: Contract, rows: pd.DataFrame, known: Collection[str]) -> dict[str, np.ndarray]:
    """By dimension (DAMA UK, 2013), which of n rows is flawed, shape (n,), bool; what can be told from the rows alone.

    completeness: a feature is missing that may not be. validity: a value is none that its column may have. consistency: a rule across
    columns is broken, of those that are about the `known` columns alone. uniqueness: every feature is that of another row. A column that
    is gone is missing in every row.
    """
    names = [column.name for column in contract.features if column.name in rows]
    nowhere = np.zeros(len(rows), dtype=bool)
    missing, invalid, broken = nowhere.copy(), nowhere.copy(), nowhere.copy()
    for column in contract.features:
        if column.name not in rows:
            missing |= True
            continue
        if column.missing == 0:
            missing |= rows[column.name].isna().to_numpy()
        invalid |= _invalid(column, rows[column.name])
    for rule in contract.rules:
        if used(rule, contract) <= set(known):
            broken |= ~keeps(rows, rule, contract)
    again = rows[names].astype(object).duplicated(keep=False).to_numpy() if names else nowhere
    return {"completeness": missing, "consistency": broken, "uniqueness": again, "validity": invalid}


def with_values(columns: Iterable[Column], rows: pd.DataFrame) -> list[str]:
    """The names of those columns of which any row has a value."""
    return [column.name for column in columns if column.name in rows and rows[column.name].notna().any()]


def copies(contract: Contract, rows: pd.DataFrame) -> float:
    """How often a row of which there are several, all features equal, is there, on average over such rows; 1 where there is none.

    One that comes a hundred times counts a hundred times: it is what makes the number of such rows vary.
    """
    names = [column.name for column in contract.features if column.name in rows]
    if not names or rows.empty:
        return 1.0
    sizes = rows[names].astype(object).groupby(names, dropna=False, sort=False).size().to_numpy(float)
    several = sizes[sizes > 1]
    return float((several**2).sum() / several.sum()) if len(several) else 1.0


def _invalid(column: Column, values: pd.Series) -> np.ndarray:
    """Whether each value is there and none of those that the contract allows, shape (n,)."""
    there = values.notna().to_numpy()
    if column.scale in CATEGORICAL:
        return np.asarray(there & ~values.map(as_text, na_action="ignore").isin({as_text(value) for value in column.values or ()}))
    if column.scale not in ("continuous", "discrete", "binary"):
        return np.zeros(len(values), dtype=bool)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(float)
    wrong = there & ~np.isfinite(numbers)
    if column.scale == "binary":
        return np.asarray(wrong | (there & ~np.isin(numbers, (0.0, 1.0))))
    if column.scale == "discrete":
        wrong |= np.isfinite(numbers) & (numbers != np.round(numbers))
    low, high = column.range or (-np.inf, np.inf)
    with np.errstate(invalid="ignore"):
        return np.asarray(wrong | (numbers < low) | (numbers > high))
