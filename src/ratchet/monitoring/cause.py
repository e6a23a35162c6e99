"""Did the population move, or has the truth itself turned? The first a model's confidence foresees, the second it does not."""

from __future__ import annotations

import numpy as np
from scipy import stats

from ratchet.check import Check, undecided
from ratchet.evaluation.loss import Z, per_row
from ratchet.monitoring.autocorrelation import inflation
from ratchet.monitoring.domain import Domain
from ratchet.monitoring.estimate import Held, calibration, expected_loss
from ratchet.problem import Problem
from ratchet.registry import registered

# It is asked where there is harm, a few times a year, and either answer may be wrong: this is no alarm's level.
LEVEL = 0.01
QUESTION = "Do labels show what the model's confidence expects of this population, or has the truth of a row turned?"


@registered("cause", "monitor")
def cause(problem: Problem, held: Held, found: Domain | None, probability: np.ndarray, truth: np.ndarray) -> Check:
    """What n labelled decisions, `probability` and `truth` of shape (n,), cost beyond what confidence expects of them.

    Confidence is calibrated on held-out rows, each as often as the window has rows like it (`found`; None where there are too few): where
    only the population has moved it holds, and what is beyond it is a change of P(y | x). Fails beyond the margin and beyond
    chance. Nothing is done because of it alone: it tells what a retraining should learn from.
    """
    n, limit, unit = len(truth), problem.gate.margin, f"{problem.metric} per row"
    if found is None or n < problem.watch.min_window or np.unique(held.truth).size < 2:
        reason = f"{n} labels of this population and {len(held.truth)} held-out rows are in; {problem.watch.min_window} of each are needed"
        return undecided("cause", QUESTION, reason, n, limit=limit, unit=unit, blocking=False)
    calibrate, weight = calibration(held, found.ratio), found.ratio / found.ratio.sum()

    def beyond(p: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.asarray(per_row(problem, p, y) - expected_loss(lambda a, b: per_row(problem, a, b), p, calibrate(p)))

    live, told = beyond(probability, truth), beyond(held.probability, held.truth)
    excess = float(live.mean())
    # What chance has put into the labels, and what it had put into those that confidence was calibrated on.
    error = float(np.hypot(live.std(ddof=1) * np.sqrt(inflation(live) / n), np.sqrt(np.square(weight * told).sum())))
    p = float(stats.norm.sf(excess / error)) if error > 0 else float(excess <= 0)
    turned = excess > limit and p < LEVEL
    low, high = excess - Z * error, excess + Z * error
    said = "the truth of a row has turned" if turned else "no change of the truth of a row is told from chance and the margin"
    reason = (
        f"{problem.metric} {excess:+.4f} [{low:+.4f}, {high:+.4f}] beyond what confidence expects of {n} labelled rows, "
        f"p = {p:.1e}, limit {LEVEL}, margin {limit:.4f}: {said}"
    )
    return Check("cause", QUESTION, "fail" if turned else "pass", reason, excess, low, high, limit, n, unit=unit, blocking=False)
