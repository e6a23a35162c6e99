"""How many independent rows are rows worth that follow one another?"""

from __future__ import annotations

import numpy as np
from scipy import stats

# Blocks of consecutive rows, about as many as each has rows: long enough to hold the dependence, and many enough.
FEWEST = 10
# From here on what blocks vary more than chance would have them is taken for dependence.
SURE = 0.95


def standard_error(values: np.ndarray) -> float:
    """Of the mean of n values, shape (n,) with n of 2 or more, in their order: autocorrelated ones count as fewer."""
    return float(values.std(ddof=1) * np.sqrt(inflation(values) / len(values)))


def inflation(values: np.ndarray, several: bool = False) -> float:
    """By how much dependence blows up the variance of a mean of n rows in their order; 1 where they are independent.

    `values` has shape (n,) or (n, k): then the k columns are looked at together. Where they are of `several` things, and not of one, the
    more of them there are that do not go together, the less dependence is needed to be seen. n rows tell as much as n divided by it would
    that are independent. From batch means (Alexopoulos and Seila, 1996): the variance of the means of blocks over what it would
    be by chance, by the differences of neighbours (von Neumann, 1941), which a single step within the rows hardly moves. Where that is
    more than chance brings about, its upper 95% bound counts, so that it is not underestimated.

    >>> inflation(np.random.default_rng(0).normal(size=2000))
    1.0
    >>> inflation(np.repeat(np.random.default_rng(0).normal(size=400), 5)) > 4
    True
    """
    blocks, size = _cut(len(values))
    if size < 2:
        return 1.0
    values = values.reshape(len(values), -1)
    means = values[: blocks * size].reshape(blocks, size, -1).mean(axis=1, dtype=float)
    # Of flags the share tells the variance.
    share = means.mean(axis=0)
    return _of_blocks(means, share * (1 - share) if values.dtype == bool else values.var(axis=0), len(values), several)


def inflation_of_shares(codes: np.ndarray, kinds: int, higher: bool = False) -> float:
    """The `inflation` of n rows' flags, by their codes alone: for each of k `kinds`, whether a row is of that kind, or of a `higher` one.

    `codes` has shape (n,), 0 or more; those from k on are of none of the kinds, and higher than all.

    >>> codes = np.random.default_rng(0).integers(0, 3, 2000).repeat(5)
    >>> inflation_of_shares(codes, 2) == inflation(codes[:, None] == [0, 1]) > 4
    True
    """
    blocks, size = _cut(len(codes))
    if size < 2:
        return 1.0
    places = np.repeat(np.arange(blocks) * (kinds + 1), size) + np.minimum(codes[: blocks * size], kinds)
    counts = np.bincount(places, minlength=blocks * (kinds + 1)).reshape(blocks, kinds + 1)[:, :kinds]
    means = (size - np.cumsum(counts, axis=1) if higher else counts) / size
    share = means.mean(axis=0)
    return _of_blocks(means, share * (1 - share), len(codes), several=False)


def _cut(rows: int) -> tuple[int, int]:
    """Into how many blocks so many rows are cut, and of how many rows each."""
    blocks = max(int(0.9 * rows**0.5), FEWEST)
    return blocks, rows // blocks


def _of_blocks(means: np.ndarray, within: np.ndarray, rows: int, several: bool) -> float:
    """The inflation that the means of blocks tell, shape (blocks, k), of so many rows that vary by `within`, shape (k,)."""
    blocks = len(means)
    size = rows // blocks
    told = within > 0
    if not told.any():
        return 1.0
    steps = np.diff(means[:, told], axis=0)
    squares = np.square(steps).sum(axis=0)
    found = float(np.mean(squares * size / within[told])) / (2 * (blocks - 1))
    # So many independent squares vary as much as these, of which neighbours share a block.
    freedom = 2 * (blocks - 1) / 3
    if several:
        # Columns that go together tell one thing.
        alike = np.square(steps.T @ steps) / np.maximum(np.outer(squares, squares), np.finfo(float).tiny)
        freedom *= len(squares) ** 2 / max(float(alike.sum()), 1.0)
    if found <= stats.chi2.ppf(SURE, freedom) / freedom:
        return 1.0
    return float(min(max(found * freedom / stats.chi2.ppf(1 - SURE, freedom), 1.0), rows))
