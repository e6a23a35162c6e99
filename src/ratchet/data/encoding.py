"""How does a row become numbers? One definition, offline and online."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from ratchet.contract import CATEGORICAL, Contract
from ratchet.errors import BatchError

MAX_BINS = 254


@dataclass(frozen=True)
class Numeric:
    """A numeric column: its median, its interquartile range and the float64 edges of its bins."""

    name: str
    center: float
    spread: float
    edges: tuple[float, ...]
    may_miss: bool


@dataclass(frozen=True)
class Category:
    """A nominal or ordinal column: its values in the contract's order. Code 0 is missing or unseen."""

    name: str
    values: tuple[str | int | float, ...]


@dataclass(frozen=True)
class Encoder:
    """Turns rows into four views, each a matrix with one row per input row.

    codes: int64, one column per categorical. numeric: float32, scaled numbers, then 0 or 1 for missing.
    dense: float32, numeric and one-hot categories. bins: float32 whole numbers, one column per feature, 0 for
    missing; a tree that splits bin codes is exact in float32, one that splits raw values is not.
    """

    numeric: tuple[Numeric, ...]
    categories: tuple[Category, ...]

    def encode(self, columns: Mapping[str, Sequence[Any] | np.ndarray | pd.Series]) -> dict[str, np.ndarray]:
        """The views of n rows given column by column; None and NaN are missing."""
        numbers = [np.asarray(columns[c.name], dtype=np.float64) for c in self.numeric]
        gone = [np.isnan(x) for x in numbers]
        scaled = [
            np.where(g, 0.0, np.clip((x - c.center) / c.spread, -8.0, 8.0)) for c, x, g in zip(self.numeric, numbers, gone, strict=True)
        ]
        flags = [g for c, g in zip(self.numeric, gone, strict=True) if c.may_miss]
        rows = len(columns[self.numeric[0].name] if self.numeric else columns[self.categories[0].name])
        numeric = _stack([*scaled, *flags], rows, np.float32)
        codes = _stack([_codes(columns[c.name], c) for c in self.categories], rows, np.int64)
        hot = [codes[:, [i]] == np.arange(len(c.values) + 1) for i, c in enumerate(self.categories)]
        dense = np.concatenate([numeric, *hot], axis=1).astype(np.float32)
        binned = [
            np.where(g, 0, np.searchsorted(np.asarray(c.edges), x, side="left") + 1)
            for c, x, g in zip(self.numeric, numbers, gone, strict=True)
        ]
        bins = np.concatenate([_stack(binned, rows, np.float32), codes.astype(np.float32)], axis=1)
        return {"codes": codes, "numeric": numeric, "dense": dense, "bins": bins}

    @property
    def names(self) -> list[str]:
        """The features in the order of the `bins` view."""
        return [c.name for c in self.numeric] + [c.name for c in self.categories]

    def as_dict(self) -> dict[str, Any]:
        """The encoder as plain data, exact to the last bit."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Encoder:
        """The encoder that `as_dict` made plain."""
        return Encoder(
            tuple(Numeric(**{**item, "edges": tuple(item["edges"])}) for item in data["numeric"]),
            tuple(Category(item["name"], tuple(item["values"])) for item in data["categories"]),
        )


def fit(frame: pd.DataFrame, contract: Contract) -> Encoder:
    """Learn an encoder from training rows: medians, ranges and quantile edges of the numeric features."""
    numeric, categories = [], []
    for column in contract.features:
        if column.scale in CATEGORICAL:
            assert column.values is not None
            categories.append(Category(column.name, column.values))
            continue
        values = frame[column.name].dropna().to_numpy(float)
        if values.size == 0:
            raise BatchError(f"snapshot: column {column.name!r} is empty in every training row; a model cannot learn from it.")
        low, center, high = np.quantile(values, [0.25, 0.5, 0.75])
        spread = float(high - low) or float(values.std()) or 1.0
        distinct = np.unique(values)
        if distinct.size > MAX_BINS:
            distinct = np.unique(np.quantile(values, np.linspace(0, 1, MAX_BINS)[1:-1]))
        edges = tuple(float(edge) for edge in distinct)
        numeric.append(Numeric(column.name, float(center), spread, edges, column.missing > 0))
    return Encoder(tuple(numeric), tuple(categories))


def _stack(columns: list[np.ndarray], rows: int, dtype: type) -> np.ndarray:
    return np.column_stack(columns).astype(dtype) if columns else np.zeros((rows, 0), dtype)


def _codes(values: Any, category: Category) -> np.ndarray:
    index: dict[Any, int] = {value: code for code, value in enumerate(category.values, start=1)}
    return np.array([index.get(value, 0) for value in values], dtype=np.int64)
