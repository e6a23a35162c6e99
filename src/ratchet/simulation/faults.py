"""Which known faults can be planted into a window of the log?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from ratchet.contract import Column, Contract


@dataclass(frozen=True)
class Planted:
    """A window with one fault: what was done, to which column, and the monitor's check that must see it."""

    fault: str
    column: str
    window: pd.DataFrame
    seen_by: str


def plant(contract: Contract, window: pd.DataFrame) -> Iterator[Planted]:
    """Each feature stuck, gone missing, and shifted, one at a time; `window` itself stays as it is.

    Shifted: a number by one standard deviation of the window, a category that half of the rows now hold.
    """
    for column in contract.features:
        values = window[column.name]
        if values.nunique() > 1:
            yield Planted("stuck", column.name, window.assign(**{column.name: values.mode().iloc[0]}), "validity")
        yield Planted("missing", column.name, window.assign(**{column.name: None}), "validity")
        moved = _shift(column, values)
        if moved is not None:
            yield Planted("shifted", column.name, window.assign(**{column.name: moved}), f"data_drift:{column.name}")


def _shift(column: Column, values: pd.Series) -> pd.Series | None:
    if column.is_numeric and column.scale != "binary":
        numbers = pd.to_numeric(values, errors="coerce")
        spread = float(numbers.std())
        return numbers + spread if spread > 0 else None
    shares = values.value_counts()
    if len(shares) < 2:
        return None
    # Every second row takes the category that is rarest now.
    every_second = pd.Series(range(len(values)), index=values.index) % 2 == 0
    return values.mask(every_second, shares.index[-1])
