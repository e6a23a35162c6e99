"""Did the training go as it should: stopped in time, without spikes, without learning the noise by heart?"""

from __future__ import annotations

import numpy as np

from ratchet.check import Check, not_applicable, undecided
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Was the training kept where the tuning loss was lowest, without spikes and without memorising?"
# A step beyond this many times the curve's usual one is a spike; a tuning loss this much above its lowest has degraded.
SPIKE = 10.0
DEGRADED = 0.01
FEWEST = 5


@registered("training", "release")
def training(problem: Problem, curves: dict[str, list[float]], kept: int | None, stopped: str, n: int) -> Check:
    """The gap between the log loss on training and on tuning rows where the training was kept, and what else went wrong.

    `curves` has a value per epoch or iteration: `train_log_loss`, `tune_log_loss` and, for a network, `gradient_norm`.
    `kept` is the epoch or iteration, counted from 1, whose model was kept. `n` counts the tuning rows. Fails where that
    is not where the tuning loss was lowest (the tuning loss degraded while training went on), where loss or gradient
    spike or are not finite, or where the training rows were memorised: their loss is lower by more than `memorised`
    (Arpit et al., 2017).
    """
    name, limit = "training", problem.gate.memorised
    if not curves or kept is None:
        return not_applicable(name, QUESTION, f"solved in closed steps, without epochs: {stopped}", n=n, limit=limit)
    if n < problem.gate.min_rows or len(curves["tune_log_loss"]) < FEWEST:
        lacking = f"{n} tuning rows and {len(curves['tune_log_loss'])} epochs; {problem.gate.min_rows} rows and {FEWEST} epochs are needed"
        return undecided(name, QUESTION, lacking, n, limit=limit)
    for curve, values in curves.items():
        if not np.isfinite(values).all():
            reason = f"{curve.replace('_', ' ')} is not finite from epoch {int(np.flatnonzero(~np.isfinite(values))[0]) + 1} on"
            return Check(name, QUESTION, "fail", reason, limit=limit, n=n)
    tune, train = np.array(curves["tune_log_loss"]), np.array(curves["train_log_loss"])
    gap = float(tune[kept - 1] - train[kept - 1])
    best = int(tune.argmin()) + 1
    faults = []
    if tune[kept - 1] > tune.min() * (1 + DEGRADED):
        faults.append(f"the tuning loss was lowest at {best} ({tune.min():.4f}), but {kept} was kept ({tune[kept - 1]:.4f})")
    faults += [f"{curve.replace('_', ' ')} spikes at {at}" for curve, values in curves.items() if (at := spike(values))]
    if gap > limit:
        faults.append(f"the training rows' loss is {gap:.3f} below the tuning rows': they were learnt by heart")
    evidence = {"kept": kept, "best": best, "stopped": stopped}
    if faults:
        return Check(name, QUESTION, "fail", "; ".join(faults), gap, gap, gap, limit, n, "log loss", evidence=evidence)
    reason = (
        f"kept at {kept} of {len(tune)}, where the tuning loss is lowest; train and tune differ by {gap:.3f}, {limit:g} is borne; {stopped}"
    )
    return Check(name, QUESTION, "pass", reason, gap, gap, gap, limit, n, "log loss", evidence=evidence)


def spike(values: list[float]) -> int | None:
    """The first place (from 1) where a curve jumps up by more than ten times its usual step; None where it never does.

    >>> spike([1.0, 0.9, 0.8, 5.0, 0.7, 0.65]), spike([1.0, 0.9, 0.8, 0.75, 0.7])
    (4, None)
    """
    steps = np.diff(values)
    usual = max(float(np.median(np.abs(steps))), 0.01 * float(np.median(np.abs(values))), 1e-12)
    jumps = np.flatnonzero(steps > SPIKE * usual)
    return int(jumps[0]) + 2 if jumps.size else None
