"""How does a row become numbers? One definition, offline and online."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ratchet.contract import CATEGORICAL, Contract
from ratchet.errors import BatchError

MAX_BINS = 254
# From so many values on it is quicker to look each distinct one up once.
MANY = 256
VIEWS = ("codes", "numeric", "dense", "bins")


@dataclass(frozen=True)
class Numeric:
    """A numeric column: its median, its interquartile range and the float64 edges of its bins."""

    name: str
    center: float
    spread: float
    edges: tuple[float, ...]
    may_miss: bool

    @cached_property
    def borders(self) -> np.ndarray:
        """The edges, ready to search."""
        return np.asarray(self.edges, dtype=np.float64)


@dataclass(frozen=True)
class Category:
    """A nominal or ordinal column: its values in the contract's order. Code 0 is missing or unseen."""

    name: str
    values: tuple[str | int | float, ...]

    @cached_property
    def codes(self) -> dict[Any, int]:
        """The code of each value."""
        return {value: code for code, value in enumerate(self.values, start=1)}


@dataclass(frozen=True)
class Encoder:
    """Turns rows into four views, each a matrix with one row per input row.

    codes: int64, one column per categorical. numeric: float32, scaled numbers, then 0 or 1 for missing.
    dense: float32, numeric and one-hot categories. bins: float32 whole numbers, one column per feature, 0 for
    missing; a tree that splits bin codes is exact in float32, one that splits raw values is not.
    """

    numeric: tuple[Numeric, ...]
    categories: tuple[Category, ...]

    def encode(
        self, columns: Mapping[str, Sequence[Any] | np.ndarray | pd.Series], views: Collection[str] = VIEWS
    ) -> dict[str, np.ndarray]:
        """Those views of n rows given column by column; None and NaN are missing."""
        rows = len(columns[self.numeric[0].name] if self.numeric else columns[self.categories[0].name])
        numbers = _stack([columns[c.name] for c in self.numeric], rows, np.float64)
        gone = np.isnan(numbers)
        codes = _stack([_codes(columns[c.name], c) for c in self.categories], rows, np.int64)
        made = {"codes": codes}
        if "numeric" in views or "dense" in views:
            centers, spreads = (np.array([getattr(c, name) for c in self.numeric], dtype=float) for name in ("center", "spread"))
            scaled = np.where(gone, 0.0, np.clip((numbers - centers) / spreads, -8.0, 8.0))
            flags = gone[:, [c.may_miss for c in self.numeric]]
            made["numeric"] = np.concatenate([scaled, flags], axis=1, dtype=np.float32, casting="unsafe")
        if "dense" in views:
            hot = [codes[:, [i]] == np.arange(len(c.values) + 1) for i, c in enumerate(self.categories)]
            made["dense"] = np.concatenate([made["numeric"], *hot], axis=1, dtype=np.float32, casting="unsafe")
        if "bins" in views:
            bins = np.empty((rows, len(self.names)), dtype=np.float32)
            for place, c in enumerate(self.numeric):
                bins[:, place] = c.borders.searchsorted(numbers[:, place], side="left")
            # 0 is missing, so the first bin is 1.
            bins[:, : len(self.numeric)] += 1
            bins[:, : len(self.numeric)][gone] = 0
            bins[:, len(self.numeric) :] = codes
            made["bins"] = bins
        return {name: made[name] for name in views}

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


def _stack(columns: Sequence[Any], rows: int, dtype: type) -> np.ndarray:
    made: np.ndarray = np.empty((rows, len(columns)), dtype=dtype)
    for place, values in enumerate(columns):
        made[:, place] = values
    return made


def _codes(values: Any, category: Category) -> np.ndarray | list[int]:
    code = category.codes.get
    if len(values) < MANY:
        return [code(value, 0) for value in values]
    found, names = factorised(values)
    known = [code(name, 0) for name in names]
    return np.take(np.array([*known, 0], dtype=np.int64), found)


def factorised(values: Any) -> tuple[np.ndarray, Any]:
    """Codes of n values, shape (n,), and the values that they stand for; -1 is missing."""
    if isinstance(values, pd.Series) and isinstance(values.dtype, pd.CategoricalDtype):
        return values.cat.codes.to_numpy(), values.cat.categories
    # All others as objects, so that they stay what they are: of a mixed list, an array would make text.
    quick = getattr(values, "dtype", None) in (np.float64, np.int64, np.bool_)
    codes, found = pd.factorize(np.asarray(values, dtype=None if quick else object))
    return codes, found
