"""Do labels of one class come sooner than those of the other? Then rows that are young tell of that class alone."""

from __future__ import annotations

import numpy as np
from scipy import stats

# Delays are compared among so many rows that follow one another: of rows that were asked at different times they differ by that alone.
BLOCK = 100
# The probability that a label of one class comes sooner, less a half, from which on it matters.
MATTERS = 0.1
LEVEL = 1e-3


def hurried(delay: np.ndarray, truth: np.ndarray) -> bool:
    """Whether labels of one class come sooner than those of the other, by a difference that matters and beyond chance.

    `delay` is the time from each of n predictions to its label, in the order of the predictions, `truth` the label, 0 or 1; shapes (n,).
    Mann-Whitney within blocks of rows that follow one another, all blocks together (van Elteren, 1960).

    >>> rng = np.random.default_rng(0)
    >>> truth = (rng.random(1000) < 0.2).astype(float)
    >>> hurried(rng.exponential(30.0, 1000), truth), hurried(rng.exponential(30.0 + 60.0 * truth), truth)
    (False, True)
    """
    higher = expected = variance = 0.0
    for start in range(0, len(delay), BLOCK):
        part, told = delay[start : start + BLOCK], truth[start : start + BLOCK] == 1
        ones, noughts = int(told.sum()), int((~told).sum())
        if not (ones and noughts):
            continue
        _, ties = np.unique(part, return_counts=True)
        rows = len(part)
        tied = float((ties**3 - ties).sum()) / (rows * (rows - 1))
        higher += float(stats.rankdata(part)[told].sum()) - ones * (ones + 1) / 2
        expected += ones * noughts / 2
        variance += ones * noughts * (rows + 1 - tied) / 12
    if variance == 0:
        return False
    off = abs(higher - expected)
    return bool(off / (2 * expected) > MATTERS and 2 * stats.norm.sf(off / np.sqrt(variance)) < LEVEL)
