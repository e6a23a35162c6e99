"""Do the model's probabilities mean what they say, over all rows and within every slice?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

from ratchet.check import Check, answered, not_applicable, undecided
from ratchet.evaluation.loss import Z, defect
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Is the expected calibration error within its limit?"
SLICES = "Is the expected calibration error within its limit in every slice that is large enough to tell?"
BINS = 10
RESAMPLES = 400
MANY = 10_000


def bin_table(probability: np.ndarray, truth: np.ndarray, bins: int = BINS) -> list[dict[str, float]]:
    """Equal-mass bins: mean probability, observed share of label 1, and rows."""
    order = np.argsort(probability, kind="stable")
    return [
        {"predicted": float(probability[part].mean()), "observed": float(truth[part].mean()), "rows": int(part.size)}
        for part in np.array_split(order, bins)
        if part.size
    ]


def calibration_error(probability: np.ndarray, truth: np.ndarray, z: float = Z) -> tuple[float, float, float]:
    """Expected calibration error over equal-mass bins (mean absolute gap), debiased, with its interval of +-z.

    The plug-in estimate of a perfect model's error is positive, as the absolute value folds each bin's sampling noise
    over (Bröcker, 2012); each bin is given back what folding adds at its debiased gap. The lower bound takes off all
    that folding could have added. The upper bound is that of the root mean square error, which is never smaller, and
    whose square can be estimated without bias (Kumar, Liang & Ma, 2019).
    """
    value, low, high = (float(part[0]) for part in _estimate(*_bins(probability, truth[None, :]), z))
    return value, low, max(high, value)


def _bins(probability: np.ndarray, truths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gap and variance of every bin for m labellings of n rows, shape (m, bins), and the bins' weights.

    Half as many bins where there are few rows: what a bin resolves is paid for with noise.
    """
    order = np.argsort(probability, kind="stable")
    bins = BINS if len(probability) >= MANY else BINS // 2
    parts = [part for part in np.array_split(order, bins) if part.size > 1]
    predicted = np.array([probability[part].mean() for part in parts])
    observed = np.column_stack([truths[:, part].mean(axis=1) for part in parts])
    sizes = np.array([part.size for part in parts], dtype=float)
    # The variance that the predicted share implies counts too: an empty bin must not look certain.
    variance = np.maximum(observed * (1 - observed), predicted * (1 - predicted)) / (sizes - 1)
    return np.abs(predicted - observed), variance, sizes / sizes.sum()


def _estimate(gap: np.ndarray, variance: np.ndarray, weight: np.ndarray, z: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The error and its bounds for each of m labellings, shape (m,), by the moments of the (folded) normal."""
    noise = np.maximum(np.sqrt(variance), 1e-12)
    centre = np.sqrt(np.maximum(gap**2 - variance, 0.0))
    ratio = centre / noise
    folded = noise * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + centre * (1 - 2 * stats.norm.cdf(-ratio))
    value = np.maximum(((gap - (folded - centre)) * weight).sum(axis=1), 0.0)
    spread = np.sqrt(np.maximum(((centre**2 + variance - folded**2) * weight**2).sum(axis=1), 0.0))
    low = ((gap - noise * np.sqrt(2 / np.pi)) * weight).sum(axis=1) - z * spread
    squared = ((gap**2 - variance) * weight).sum(axis=1)
    # A gap is about normal, so its square has variance 2 v^2 + 4 g^2 v.
    error = np.sqrt(((2 * variance**2 + 4 * centre**2 * variance) * weight**2).sum(axis=1))
    high = np.sqrt(np.maximum(squared + z * error, 0.0))
    return value, np.minimum(np.maximum(low, 0.0), value), high


def perfect_ceiling(probability: np.ndarray, seed: int, z: float = Z, quantile: float = 0.8) -> float:
    """The upper bound that a perfectly calibrated model with these n probabilities stays under, as a rule four times in five."""
    rng = np.random.default_rng(seed)
    truths = (rng.random((RESAMPLES, len(probability))) < probability).astype(float)
    return float(np.quantile(_estimate(*_bins(probability, truths), z)[2], quantile))


def brier_parts(probability: np.ndarray, truth: np.ndarray, bins: int = BINS) -> dict[str, float]:
    """Murphy's decomposition (1973) over equal-mass bins: Brier is about reliability - resolution + uncertainty."""
    table = pd.DataFrame(bin_table(probability, truth, bins))
    weight, base = table["rows"] / table["rows"].sum(), float(truth.mean())
    return {
        "brier": float(np.mean((probability - truth) ** 2)),
        "reliability": float((weight * (table["predicted"] - table["observed"]) ** 2).sum()),
        "resolution": float((weight * (table["observed"] - base) ** 2).sum()),
        "uncertainty": base * (1 - base),
    }


@registered("calibration", "release")
def calibration(problem: Problem, probability: np.ndarray, truth: np.ndarray, seed: int = 0) -> Check:
    """Debiased calibration error on n rows with its interval, against the problem's limit.

    Undecided below the size at which a perfect model would pass four times in five (simulated).
    """
    n, limit = len(truth), problem.gate.calibration_limit
    if n < problem.gate.min_rows:
        return undecided("calibration", QUESTION, f"{n} labelled rows; {problem.gate.min_rows} are needed", n, limit=limit)
    if wrong := defect(probability):
        return Check("calibration", QUESTION, "fail", wrong, limit=limit, n=n)
    interval = calibration_error(probability, truth)
    ceiling = perfect_ceiling(probability, seed)
    value, low, high = interval
    evidence = {"bins": bin_table(probability, truth), "perfect_model_high": ceiling, "brier": brier_parts(probability, truth)}
    if ceiling > limit and low <= limit:
        reason = f"even a perfect model's upper bound reaches {ceiling:.3f} on {n} rows, above the limit {limit:.3f}"
        more = int(np.ceil(n * (ceiling / limit) ** 2)) - n
        told = {"value": value, "low": low, "high": high, "limit": limit, "needed": more, "evidence": evidence}
        return undecided("calibration", QUESTION, reason, n, unit="probability", **told)
    reason = f"expected calibration error {value:.3f} [{low:.3f}, {high:.3f}], limit {limit:.3f}, {n} rows"
    return answered("calibration", QUESTION, interval, limit, "at_most", reason, n, "probability", evidence=evidence)


@registered("calibration_slices", "release")
def calibration_slices(problem: Problem, probability: np.ndarray, truth: np.ndarray, categories: pd.DataFrame, seed: int = 0) -> Check:
    """The worst slice's calibration error, over the values of every column of `categories` (n rows of text).

    Intervals are widened for the number of slices (Bonferroni). A slice so small that a perfect model would not pass in
    all of its kind four times in five is too small to tell: it is counted, and left out.
    """
    name, limit, n = "calibration_slices", problem.gate.slice_calibration_limit, len(truth)
    if n < problem.gate.min_rows:
        return undecided(name, SLICES, f"{n} labelled rows; {problem.gate.min_rows} are needed", n, limit=limit)
    if wrong := defect(probability):
        return Check(name, SLICES, "fail", wrong, limit=limit, n=n)
    every = [(said, rows) for said, rows in _by_value(categories) if len(rows) >= problem.gate.min_group]
    z = float(stats.norm.ppf(1 - 0.025 / max(len(every), 1)))
    told: list[tuple[str, int, tuple[float, float, float]]] = []
    small = 0
    for said, rows in every:
        if perfect_ceiling(probability[rows], seed, z, 1 - 0.2 / len(every)) > limit:
            small += 1
        else:
            told.append((said, len(rows), calibration_error(probability[rows], truth[rows], z=z)))
    left_out = f"; {small} more are too small to tell" if small else ""
    if not told:
        return not_applicable(name, SLICES, f"no slice is large enough to tell{left_out}", n=n, limit=limit)
    said, rows_in, worst = max(told, key=lambda item: item[2][0])
    low, high = max(item[2][1] for item in told), max(item[2][2] for item in told)
    evidence = {
        "slices": [{"slice": s, "rows": k, "value": i[0], "low": i[1], "high": i[2]} for s, k, i in told],
        "too_small": small,
    }
    reason = f"worst of {len(told)} slices, {said}: {worst[0]:.3f} [{worst[1]:.3f}, {worst[2]:.3f}] on {rows_in} rows, limit {limit:.3f}{left_out}"
    return answered(name, SLICES, (worst[0], min(low, worst[0]), high), limit, "at_most", reason, n, "probability", evidence=evidence)


def _by_value(categories: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    for column in categories.columns:
        codes, values = pd.factorize(categories[column], sort=True)
        for code, value in enumerate(values):
            yield f"{column} = {value}", np.flatnonzero(codes == code)
