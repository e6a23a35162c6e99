"""How do rows go wrong on their way to the model? One corruption per way and measurement scale, in five severities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ratchet.contract import Column, Contract

SEVERITIES = (1, 2, 3, 4, 5)
# Share of the cells (or rows) that are touched, and size of the noise in interquartile ranges, by severity.
SHARES = dict(zip(SEVERITIES, (0.01, 0.03, 0.10, 0.20, 0.40), strict=True))
NOISE = dict(zip(SEVERITIES, (0.05, 0.10, 0.20, 0.40, 0.80), strict=True))
# How strongly rows are drawn by their place along a random direction, in standard deviations.
PULL = dict(zip(SEVERITIES, (0.2, 0.4, 0.6, 0.8, 1.0), strict=True))
UNSEEN = "never seen before"
# Thousands for units, cents for euros, pounds for stone.
FACTORS = (1000.0, 100.0, 0.001, 14.0)


@dataclass(frozen=True)
class Corruption:
    """A way to go wrong, on the columns of one measurement scale; `apply` makes the rows of a severity from clean ones.

    It answers a frame and the numbers of the clean rows that its rows were made from.
    """

    kind: str
    scale: str
    apply: Callable[[pd.DataFrame, int, int], tuple[pd.DataFrame, np.ndarray]]


def corruptions(contract: Contract) -> Iterator[Corruption]:
    """Every corruption that a contract's features can suffer."""
    by_scale: dict[str, list[Column]] = {}
    for column in contract.features:
        by_scale.setdefault(column.scale, []).append(column)
    for scale, columns in by_scale.items():
        yield Corruption("missing", scale, _cells(columns, _missing))
        if scale in ("continuous", "discrete"):
            yield Corruption("noise", scale, _noise(columns))
        if scale == "binary":
            yield Corruption("noise", scale, _cells(columns, _turned))
        if scale == "continuous":
            yield Corruption("unit error", scale, _cells(columns, _unit))
        if scale in ("ordinal", "nominal"):
            yield Corruption("typo", scale, _cells(columns, _misspelt))
            yield Corruption("unseen category", scale, _rows(columns))
    numeric = [column for column in contract.features if column.is_numeric]
    if numeric:
        yield Corruption("shifted population", "all", _pulled(numeric))


Cell = Callable[[Column, pd.Series, np.random.Generator], pd.Series]


def _cells(columns: list[Column], change: Cell) -> Callable[[pd.DataFrame, int, int], tuple[pd.DataFrame, np.ndarray]]:
    def apply(frame: pd.DataFrame, severity: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
        rng = np.random.default_rng(seed)
        made = frame.copy()
        for column in columns:
            # The same draw for every severity: a worse one touches the same cells, and more.
            touched = rng.random(len(frame)) < SHARES[severity]
            made[column.name] = frame[column.name].where(~touched, change(column, frame[column.name], rng))
        return made, np.arange(len(frame))

    return apply


def _missing(column: Column, values: pd.Series, rng: np.random.Generator) -> pd.Series:
    return pd.Series([None] * len(values), index=values.index, dtype=object if not column.is_numeric else float)


def _turned(column: Column, values: pd.Series, rng: np.random.Generator) -> pd.Series:
    return 1 - values


def _unit(column: Column, values: pd.Series, rng: np.random.Generator) -> pd.Series:
    return values * float(FACTORS[rng.integers(0, len(FACTORS))])


def _misspelt(column: Column, values: pd.Series, rng: np.random.Generator) -> pd.Series:
    # What was meant can no longer be read: letters change places, a number's digit is doubled.
    return values.map(lambda value: f"{value}"[::-1] + "~", na_action="ignore")


def _noise(columns: list[Column]) -> Callable[[pd.DataFrame, int, int], tuple[pd.DataFrame, np.ndarray]]:
    def apply(frame: pd.DataFrame, severity: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
        rng = np.random.default_rng(seed)
        made = frame.copy()
        for column in columns:
            values = frame[column.name].to_numpy(float)
            low, high = np.nanquantile(values, [0.25, 0.75])
            spread = float(high - low) or float(np.nanstd(values))
            moved = values + NOISE[severity] * spread * rng.normal(size=len(values))
            if column.scale == "discrete":
                moved = np.round(moved)
            made[column.name] = np.clip(moved, *(column.range or (-np.inf, np.inf)))
        return made, np.arange(len(frame))

    return apply


def _rows(columns: list[Column]) -> Callable[[pd.DataFrame, int, int], tuple[pd.DataFrame, np.ndarray]]:
    def apply(frame: pd.DataFrame, severity: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
        touched = np.random.default_rng(seed).random(len(frame)) < SHARES[severity]
        made = frame.assign(**{column.name: frame[column.name].astype(object).where(~touched, UNSEEN) for column in columns})
        return made, np.arange(len(frame))

    return apply


def _pulled(columns: list[Column]) -> Callable[[pd.DataFrame, int, int], tuple[pd.DataFrame, np.ndarray]]:
    def apply(frame: pd.DataFrame, severity: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
        rng = np.random.default_rng(seed)
        ranks = frame[[column.name for column in columns]].rank(pct=True).fillna(0.5).to_numpy()
        place = ranks @ rng.normal(size=len(columns))
        weight = np.exp(PULL[severity] * (place - place.mean()) / (place.std() or 1.0))
        rows = rng.choice(len(frame), len(frame), p=weight / weight.sum())
        return frame.iloc[rows].reset_index(drop=True), rows

    return apply
