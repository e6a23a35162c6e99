"""How do the values that a service is sent come to differ from those that a model learns from? Known skews to plant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ratchet.contract import Column, Contract

HOURS_A_YEAR = 8766.0


@dataclass(frozen=True)
class Skew:
    """What an upstream does to its rows before it asks; `plant` gives the rows as they are then sent, shape as before."""

    name: str
    about: str
    plant: Callable[[pd.DataFrame], pd.DataFrame]


def skews(contract: Contract) -> Iterator[Skew]:
    """Ten ways, each in the columns of the contract for which it makes sense."""
    numbers = [c for c in contract.features if c.values is None and c.scale != "binary"]
    continuous = [c for c in numbers if c.scale == "continuous"] or numbers
    categories = [c for c in contract.features if c.values is not None and c.scale != "binary"]
    may_miss = [c for c in contract.features if c.missing > 0]
    years = next((c for c in continuous if c.unit == "years"), continuous[0])
    large = max(continuous, key=lambda c: (c.range or (0.0, 0.0))[1])
    pair = _alike(numbers)

    def change(column: Column, how: Callable[[pd.Series], pd.Series]) -> Callable[[pd.DataFrame], pd.DataFrame]:
        return lambda frame: frame.assign(**{column.name: how(frame[column.name])})

    said = (
        "in years, is reckoned from an hour later" if years.unit == "years" else "being no time, is off by as much as an hour is in years"
    )
    yield Skew("time zone", f"{years.name}, {said}", change(years, lambda x: x + 1 / HOURS_A_YEAR))
    if may_miss:
        gone = may_miss[0]
        yield Skew("null default", f"a missing {gone.name} is sent as 0", change(gone, lambda x: x.fillna(0)))
        yield Skew("missing-value code", f"a missing {gone.name} is sent as -999", change(gone, lambda x: x.fillna(-999)))
    if categories:
        known = categories[0].values or ()
        new = "not_known_yet" if isinstance(known[0], str) else max(int(value) for value in known) + 1
        yield Skew(
            "unknown category",
            f"a new value of {categories[0].name} that the model never saw",
            change(categories[0], lambda x: x.where(np.arange(len(x)) % 50 != 7, new)),
        )
    yield Skew("dtype", f"{large.name} passes through 32 bits", change(large, lambda x: x.astype(np.float32).astype(float)))
    yield Skew("rounding", f"{large.name} is rounded to whole numbers", change(large, lambda x: x.round(0)))
    if pair:
        one, other = (column.name for column in pair)
        yield Skew("column order", f"{one} and {other} change places", lambda f: f.assign(**{one: f[other], other: f[one]}))
    yield Skew("unit", f"{large.name} is sent in thousands", change(large, lambda x: x / 1000))
    yield Skew("locale", f"{large.name} is sent as text with a decimal comma", change(large, lambda x: x.map(_german, na_action="ignore")))
    yield Skew(
        "stale look-up",
        f"{continuous[-1].name} is that of the row before",
        change(continuous[-1], lambda x: x.shift(1, fill_value=x.iloc[0])),
    )


def _alike(numbers: list[Column]) -> tuple[Column, Column] | None:
    """Two columns of one scale, the likeliest to be mistaken for each other: those whose ranges are nearest."""
    found = [
        (abs((a.range or (0, 0))[1] - (b.range or (0, 0))[1]), place, a, b)
        for place, a in enumerate(numbers)
        for b in numbers[place + 1 :]
        if a.scale == b.scale
    ]
    return min(found, key=lambda item: item[:2])[2:] if found else None


def _german(value: float) -> str:
    return f"{value:,.2f}".translate(str.maketrans(",.", ".,"))
