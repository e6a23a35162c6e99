"""Do the model's probabilities mean what they say?"""

from __future__ import annotations

import numpy as np

from ratchet.check import Check, judge, undecided
from ratchet.evaluation.loss import Z
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Is the expected calibration error within its limit?"
BINS = 10
RESAMPLES = 200


def bin_table(probability: np.ndarray, truth: np.ndarray, bins: int = BINS) -> list[dict[str, float]]:
    """Equal-mass bins: mean probability, observed share of label 1, and rows."""
    order = np.argsort(probability, kind="stable")
    return [
        {"predicted": float(probability[part].mean()), "observed": float(truth[part].mean()), "rows": int(part.size)}
        for part in np.array_split(order, bins)
        if part.size
    ]


def calibration_error(probability: np.ndarray, truth: np.ndarray, bins: int = BINS) -> tuple[float, float, float]:
    """Root mean square calibration error over equal-mass bins, debiased, with its 95% interval.

    The plug-in estimate of a perfect model's squared error is positive; each bin's sampling variance is taken off
    (Kumar, Liang & Ma, 2019). A bin's gap is about normal, so its square has variance 2 v^2 + 4 g^2 v.
    """
    order = np.argsort(probability, kind="stable")
    squared = variance = 0.0
    for part in np.array_split(order, bins):
        if part.size < 2:
            continue
        predicted, observed = float(probability[part].mean()), float(truth[part].mean())
        weight, gap = part.size / len(order), predicted - observed
        # The variance that the predicted share implies: an empty bin must not look certain.
        noise = max(observed * (1 - observed), predicted * (1 - predicted)) / (part.size - 1)
        squared += weight * (gap**2 - noise)
        variance += weight**2 * (2 * noise**2 + 4 * gap**2 * noise)
    half = Z * float(np.sqrt(variance))
    low, high = (float(np.sqrt(max(bound, 0.0))) for bound in (squared - half, squared + half))
    return float(np.sqrt(max(squared, 0.0))), low, high


@registered("calibration", "release")
def calibration(problem: Problem, probability: np.ndarray, truth: np.ndarray, seed: int = 0) -> Check:
    """Debiased calibration error on n rows with its interval, against the problem's limit.

    Undecided below the size at which a perfect model would pass four times in five (simulated).
    """
    n, limit = len(truth), problem.gate.calibration_limit
    if n < problem.gate.min_rows:
        return undecided("calibration", QUESTION, f"{n} labelled rows; {problem.gate.min_rows} are needed", n, limit=limit)
    if not np.isfinite(probability).all():
        return Check("calibration", QUESTION, "fail", "a probability is missing or not finite", limit=limit, n=n)
    rng = np.random.default_rng(seed)
    perfect = [calibration_error(probability, rng.random(n) < probability)[2] for _ in range(RESAMPLES)]
    ceiling = float(np.quantile(perfect, 0.8))
    value, low, high = calibration_error(probability, truth)
    if ceiling > limit:
        reason = f"even a perfect model's upper bound reaches {ceiling:.3f} on {n} rows, above the limit {limit:.3f}"
        return undecided("calibration", QUESTION, reason, n, value=value, low=low, high=high, limit=limit)
    return Check(
        name="calibration",
        question=QUESTION,
        verdict=judge(value, low, high, limit, "at_most"),
        reason=f"calibration error {value:.3f} [{low:.3f}, {high:.3f}], limit {limit:.3f}, {n} rows",
        value=value,
        low=low,
        high=high,
        limit=limit,
        n=n,
        unit="probability",
        evidence={"bins": bin_table(probability, truth), "perfect_model_high": ceiling},
    )
