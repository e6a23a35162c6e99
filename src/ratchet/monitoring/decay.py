"""Does the model do worse on live rows than it did when it was released?"""

from __future__ import annotations

import numpy as np
from scipy import stats

from ratchet.check import Check, undecided
from ratchet.evaluation.loss import Z, per_row
from ratchet.monitoring.autocorrelation import inflation
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Does each decision cost more on labelled live rows than on the release's test rows?"


@registered("decay", "monitor")
def decay(problem: Problem, probability: np.ndarray, truth: np.ndarray, released_mean: float, released_error: float) -> Check:
    """One-sided Welch test of the live loss (n labelled rows) against the loss measured at release.

    `released_mean` and `released_error` (its standard error) are those of the release's test rows. The level spends half of the year's
    false-alarm budget over the year's checks (the other half is left to the detector of concept drift, whose rate is measured:
    docs/results/concept.md); the rise must also exceed the problem's margin, so that a rise too small to matter does not fire at any sample
    size. It passes where the rise's 95% interval leaves no room for one that would matter. Where rows are autocorrelated, fewer count. It is
    `passing` (in the evidence) where the newer half of the rows does not show it.
    """
    n = len(truth)
    alpha = problem.watch.false_alarms_per_check / 2
    limit, unit = problem.gate.margin, f"{problem.metric} per row"
    if n < problem.watch.min_window:
        reason = f"{n} labels of this window are in; {problem.watch.min_window} are needed"
        return undecided("decay", QUESTION, reason, n, limit=limit, unit=unit)
    if not (np.isfinite(released_mean) and np.isfinite(released_error)):
        return Check("decay", QUESTION, "fail", "the release does not tell its own loss", n=n, limit=limit, unit=unit)
    losses = per_row(problem, probability, truth)
    worth = inflation(losses)
    mean = float(losses.mean())
    error = float(np.hypot(released_error, losses.std(ddof=1) * np.sqrt(worth / n)))
    rise = float(mean - released_mean)
    p = float(stats.norm.sf(rise / error)) if error > 0 else float(rise <= 0)
    low, high = rise - Z * error, rise + Z * error
    lately = float(losses[n // 2 :].mean() - released_mean)
    return Check(
        name="decay",
        question=QUESTION,
        # A rise that would matter but may be chance is neither harm nor its absence; nor is one that may matter.
        verdict="pass" if high <= limit else "fail" if rise > limit and p < alpha else "undecided",
        reason=f"{problem.metric} {mean:.4f} on {n} labelled rows against {released_mean:.4f} at release: {rise:+.4f} "
        f"[{low:+.4f}, {high:+.4f}], p = {p:.1e}, limit {alpha:.1e}, margin {limit:.4f}",
        value=rise,
        low=low,
        high=high,
        limit=limit,
        n=n,
        unit=unit,
        evidence={"p_value": p, "p_limit": alpha, "live": mean, "released": released_mean, "lately": lately, "passing": lately <= limit},
    )
