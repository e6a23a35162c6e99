"""What would more labels bring, and what would fewer have cost?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import curve_fit

from ratchet.check import Check, answered, undecided
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Would another thousand labels bring next to nothing?"
MORE = 1000
RESAMPLES = 200


@dataclass(frozen=True)
class Point:
    """One training: how many labelled rows, and the loss and accuracy on rows that no training saw."""

    labels: int
    seed: int
    log_loss: float
    accuracy: float
    cost: float


def power_law(labels: Sequence[float], losses: Sequence[float]) -> tuple[float, float, float]:
    """(a, b, c) of loss = a + b * (labels / 1000) ** -c, least squares with b >= 0 and 0.05 <= c <= 2 (Viering & Loog, 2023).

    RuntimeError where no such curve is found.
    """
    x, y = np.asarray(labels, float) / 1000, np.asarray(losses, float)
    start = (float(y.min()), max(float(y.max() - y.min()), 1e-6), 0.5)
    (a, b, c), _ = curve_fit(_curve, x, y, p0=start, bounds=([0, 0, 0.05], [np.inf, np.inf, 2]), maxfev=20000)
    return float(a), float(b), float(c)


def _curve(x: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    return np.asarray(a + b * x**-c)


@registered("learning_curve", "release")
def learning_curve(problem: Problem, points: Sequence[Point], tested: int, seed: int = 0) -> Check:
    """The log loss that another thousand labels would take off, by the power law through the points, with its interval.

    The interval is that of a residual bootstrap. `tested` counts the rows behind each loss. Advisory.
    """
    limit, name = problem.gate.label_gain, "learning_curve"
    sizes = sorted({point.labels for point in points})
    if len(sizes) < 3 or tested < problem.gate.min_rows:
        lacking = f"{len(sizes)} sizes and {tested} test rows; 3 sizes and {problem.gate.min_rows} rows are needed"
        return undecided(name, QUESTION, lacking, tested, limit=limit, blocking=False)
    labels, losses = np.array([p.labels for p in points], float), np.array([p.log_loss for p in points])
    if not np.isfinite(losses).all():
        return Check(name, QUESTION, "fail", "a training ended without a finite loss", limit=limit, n=tested, blocking=False)
    try:
        law = power_law(list(labels), list(losses))
        fitted = _curve(labels / 1000, *law)
        rng = np.random.default_rng(seed)
        residuals = (losses - fitted) * np.sqrt(len(points) / max(len(points) - 3, 1))
        drawn = [_gain(power_law(list(labels), list(fitted + rng.choice(residuals, len(points)))), sizes[-1]) for _ in range(RESAMPLES)]
    except RuntimeError:
        return undecided(name, QUESTION, "no curve fits the points", tested, limit=limit, blocking=False)
    value = _gain(law, sizes[-1])
    low, high = (float(q) for q in np.quantile(drawn, [0.025, 0.975]))
    by_size = {size: [p for p in points if p.labels == size] for size in sizes}
    told = [
        {
            "labels": size,
            **{key: float(np.mean([getattr(p, key) for p in some])) for key in ("log_loss", "accuracy", "cost")},
            "runs": len(some),
        }
        for size, some in by_size.items()
    ]
    half = min(told, key=lambda item: abs(item["labels"] - sizes[-1] / 2))
    reason = (
        f"with {sizes[-1]:,} labels the log loss is {told[-1]['log_loss']:.4f}, with {half['labels']:,} it was {half['log_loss']:.4f}; "
        f"{MORE:,} more would take off {value:.4f} [{low:.4f}, {high:.4f}], {limit:g} is worth their while"
    )
    evidence = {"points": told, "law": {"a": law[0], "b": law[1], "c": law[2]}, "half": half, "all": told[-1]}
    numbers = (value, min(low, value), max(high, value))
    return answered(name, QUESTION, numbers, limit, "at_most", reason, tested, "log loss", blocking=False, evidence=evidence)


def _gain(law: tuple[float, float, float], labels: float) -> float:
    return float(_curve(np.array(labels / 1000), *law) - _curve(np.array((labels + MORE) / 1000), *law))
