"""What does each answer cost? The metric of record, row by row, so that two models can be paired."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats
from scipy.special import logit

from ratchet.problem import Problem

Z = float(stats.norm.ppf(0.975))
POWER = 0.8


def per_row(problem: Problem, probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The loss of each of n rows, shape (n,), in the metric of record; lower is better.

    ValueError where a probability is missing or not finite: a missing answer is no answer.
    """
    probability, truth = np.asarray(probability, float), np.asarray(truth, float)
    if not np.isfinite(probability).all():
        row = int(np.flatnonzero(~np.isfinite(probability))[0])
        raise ValueError(f"row {row + 1} has no finite probability")
    if problem.metric == "brier":
        return np.asarray((probability - truth) ** 2)
    if problem.metric == "log_loss":
        p = np.clip(probability, 1e-7, 1 - 1e-7)
        return np.asarray(-(truth * np.log(p) + (1 - truth) * np.log(1 - p)))
    decided = probability >= problem.threshold
    costs = problem.costs
    wrong_yes = costs.false_positive * (decided & (truth == 0))
    return np.asarray(wrong_yes + costs.false_negative * (~decided & (truth == 1)))


def log_odds(p: np.ndarray | float) -> np.ndarray:
    """The log-odds of probabilities, same shape; those of 0 and 1 are those of a millionth."""
    return np.asarray(logit(np.clip(p, 1e-6, 1 - 1e-6)))


def defect(*scores: np.ndarray) -> str | None:
    """What is wrong with any of these scores, each of shape (n,): a missing answer is no answer; None where nothing is."""
    for found in scores:
        missing = np.flatnonzero(~np.isfinite(np.asarray(found, float)))
        if missing.size:
            return f"{missing.size} of {len(found)} scores are missing or not finite, the first in row {missing[0] + 1}"
    return None


def bootstrap(statistic: Callable[[np.ndarray], float], n: int, seed: int, resamples: int = 200) -> tuple[float, float, float]:
    """A statistic of row numbers, shape (n,), with its 95% percentile interval over resampled rows (Efron, 1979)."""
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(0, n, n)) for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return statistic(np.arange(n)), float(low), float(high)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95% interval of n independent values (normal approximation).

    >>> mean, low, high = interval(np.array([0.0, 1.0] * 200))
    >>> low < mean < high
    True
    """
    mean = float(np.mean(values))
    half = Z * float(np.std(values, ddof=1)) / float(np.sqrt(len(values)))
    return mean, mean - half, mean + half


def smallest_detectable(values: np.ndarray) -> float:
    """The smallest mean difference that a two-sided 5% test on these paired values sees with power 0.8."""
    error = float(np.std(values, ddof=1)) / float(np.sqrt(len(values)))
    return float((Z + stats.norm.ppf(POWER)) * error)
