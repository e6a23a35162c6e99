"""Which slices of one or two columns stand out most among all there are?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from ratchet.evaluation.slices import MISSING, SLICES, Where, inside_of

# Standard errors that sums of a slice's residuals may differ from 0 by where they are 0.
ROUNDING = 1e-3


@dataclass(frozen=True)
class _Column:
    """A column of n rows as codes of its k values, k where it has none of them, and its predicates, shape (predicates, k): 1 for a value in it."""

    name: str
    values: tuple[str, ...]
    codes: np.ndarray
    predicates: np.ndarray


def pairs(categories: pd.DataFrame, residual: np.ndarray, support: float) -> list[Where]:
    """The slices of one predicate, or of one each on two columns, in which the mean of n residuals stands out most; five at most.

    `residual` has shape (n,), mean 0 and variance 1 where nothing is wrong; what all rows share is no slice's. A predicate is a value or,
    of an ordered column, a run of neighbours. Every pair of predicates that at least a share `support` of the rows meets is looked at: sums
    over runs are products of small matrices with the sums over values. What the best one explains is taken out before the next is looked
    for (matching pursuit; Mallat and Zhang, 1993).
    """
    least = max(support * len(residual), 2)
    columns = [column for name in categories if len((column := _column(categories[name], least)).predicates)]
    # A column with itself: the predicates of one column.
    asked = list(combinations_with_replacement(columns, 2))
    left = residual - max(float(residual.mean()), 0.0) if columns else residual
    found: list[Where] = []
    # What is taken out leaves no slice standing out more than before, so most pairs of columns need not be asked again (Minoux, 1978).
    queue: list[tuple[float, int, int, Where]] = [(-np.inf, place, -1, {}) for place in range(len(asked))]
    # For such small matrices a second thread costs more in waiting than it saves.
    with threadpool_limits(1):
        while queue and len(found) < SLICES:
            weakness, place, known, where = heappop(queue)
            if known < len(found):
                strength, where = _strongest(*asked[place], left, least)
                heappush(queue, (-strength, place, len(found), where))
                continue
            if weakness > -ROUNDING:
                break
            heappush(queue, (weakness, place, known, where))
            found.append(where)
            inside = inside_of(categories, where)
            left = np.where(inside, left - left[inside].mean(), left)
    return found


def _column(column: pd.Series, least: float) -> _Column:
    """Of unordered values those that enough rows have; of a predicate that every row meets nothing is asked."""
    told, codes = [str(value) for value in column.cat.categories], column.cat.codes.to_numpy()
    counts = np.bincount(codes[codes >= 0], minlength=len(told))
    kept = np.arange(len(told)) if column.cat.ordered else np.flatnonzero(counts >= least)
    place = np.full(len(told) + 1, len(kept))
    place[kept] = np.arange(len(kept))
    runs = list(_predicates([told[value] for value in kept], bool(column.cat.ordered)))
    predicates = np.array(runs, np.float32).reshape(len(runs), len(kept))
    met = predicates @ counts[kept]
    enough = (met >= least) & (met < len(column))
    return _Column(str(column.name), tuple(told[value] for value in kept), place[codes], predicates[enough])


def _predicates(values: list[str], ordered: bool) -> Iterator[np.ndarray]:
    """Each value and, of ordered ones, each run of neighbours; missing is no neighbour."""
    neighbours = len(values) - values.count(MISSING) if ordered else 0
    for first in range(len(values)):
        for end in range(first + 1, max(neighbours, first + 1) + 1):
            yield (first <= np.arange(len(values))) & (np.arange(len(values)) < end)


def _strongest(one: _Column, other: _Column, residual: np.ndarray, least: float) -> tuple[float, Where]:
    """Of all predicates on one column each the two whose rows' residuals stand out most from 0, and by how many standard errors."""
    k, m = len(one.values) + 1, len(other.values) + 1
    cells = one.codes * m + other.codes
    tables = (np.bincount(cells, weights, k * m).reshape(k, m)[:-1, :-1] for weights in (None, residual))
    rows, total = (one.predicates @ table.astype(np.float32) @ other.predicates.T for table in tables)
    strength = np.where(rows >= least, total / np.sqrt(np.maximum(rows, 1)), -np.inf)
    best = np.unravel_index(int(strength.argmax()), strength.shape)
    where: Where = {}
    for column, predicate in zip((one, other), best, strict=True):
        run = tuple(value for value, inside in zip(column.values, column.predicates[predicate], strict=True) if inside)
        where[column.name] = tuple(value for value in run if value in where.get(column.name, run))
    return float(strength[best]), where
