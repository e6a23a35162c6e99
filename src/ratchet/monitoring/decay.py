"""Does the model do worse on live rows than it did when it was released?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ratchet.check import Check, undecided
from ratchet.evaluation.loss import Z, per_row
from ratchet.monitoring.autocorrelation import inflation, standard_error
from ratchet.monitoring.cycle import spanning
from ratchet.problem import Problem, counted
from ratchet.registry import registered

QUESTION = "Does each decision cost more on labelled live rows than on the release's held-out rows?"
# Beside the newest window of labelled rows so many together are looked at: a smaller rise shows in them.
WINDOWS = 3


@dataclass(frozen=True)
class _Rise:
    """By how much decisions cost more on the newest n labelled rows than at release, with its standard error."""

    n: int
    live: float
    value: float
    error: float

    @property
    def p(self) -> float:
        """One-sided: that chance brings about such a rise."""
        return float(stats.norm.sf(self.value / self.error)) if self.error > 0 else float(self.value <= 0)


@registered("decay", "monitor")
def decay(
    problem: Problem,
    probability: np.ndarray,
    truth: np.ndarray,
    released_mean: float,
    released_error: float,
    released_rows: float = float("inf"),
    at: np.ndarray | None = None,
) -> Check:
    """One-sided Welch test of the live loss (n labelled rows, oldest first) against the loss measured at release.

    `released_mean` and `released_error` (its standard error) are those of `released_rows` rows that were held out at release. Where costly
    errors are rare these may hold few or none by chance, and seem to be sure: they are no surer than live rows would make so many. The
    newest `watch.window` rows are looked at, and up to three times as many: a rise near the margin shows in more rows alone. Where `at`,
    shape (n,), tells when each was, both are spread over a cycle of `watch.cycle_hours` that has more of them. The level
    spends half of the year's false-alarm budget over the year's checks and both (the other half is left to the detector of concept drift,
    whose rate is measured: docs/results/concept.md); the rise must also exceed the problem's margin, so that a rise too small to matter
    does not fire at any sample size. It passes where the 95% interval of the newest window's rise leaves no room for one that would matter.
    Where rows are autocorrelated, fewer count. It is `passing` (in the evidence) where the newer half of the newest window does not show
    it.
    """
    alpha = problem.watch.false_alarms_per_check / 2 / 2
    window, limit, unit = problem.watch.window, problem.gate.margin, f"{problem.metric} per row"
    n = min(len(truth), window)
    if n < problem.watch.min_window:
        reason = f"{n} labels of this window are in; {problem.watch.min_window} are needed"
        return undecided("decay", QUESTION, reason, n, limit=limit, unit=unit)
    if not (np.isfinite(released_mean) and np.isfinite(released_error)):
        return Check("decay", QUESTION, "fail", "the release does not tell its own loss", n=n, limit=limit, unit=unit)
    losses, times = per_row(problem, probability, truth), np.zeros(len(truth), "datetime64[ns]") if at is None else at
    hours = 0.0 if at is None else problem.watch.cycle_hours
    lately, longer = (losses[spanning(times, rows, hours)] for rows in (n, WINDOWS * window))
    newest, most = (_rise(rows, released_mean, released_error, released_rows) for rows in (lately, longer))
    failing = [rise for rise in (newest, most) if rise.value > limit and rise.p < alpha]
    told = min(failing, key=lambda rise: rise.p) if failing else newest
    low, high = told.value - Z * told.error, told.value + Z * told.error
    newer = float(lately[n // 2 :].mean() - released_mean)
    return Check(
        name="decay",
        question=QUESTION,
        # A rise that would matter but may be chance is neither harm nor its absence; nor is one that may matter.
        verdict="fail" if failing else "pass" if high <= limit else "undecided",
        reason=f"{problem.metric} {told.live:.4f} on {told.n} labelled rows against {released_mean:.4f} at release: {told.value:+.4f} "
        f"[{low:+.4f}, {high:+.4f}], p = {told.p:.1e}, limit {alpha:.1e}, margin {limit:.4f}",
        value=told.value,
        low=low,
        high=high,
        limit=limit,
        n=told.n,
        unit=unit,
        evidence={
            "p_value": told.p,
            "p_limit": alpha,
            "live": told.live,
            "released": released_mean,
            "lately": newer,
            "passing": newer <= limit,
        },
    )


def at_release(problem: Problem, probability: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """What n rows that were held out at release tell, in their order: `mean` loss, its standard `error`, and how it was `counted`.

    Not a number where there are fewer than two.
    """
    losses = per_row(problem, probability, truth)
    mean, error = (float(losses.mean()), standard_error(losses)) if len(losses) > 1 else (float("nan"), float("nan"))
    return {"mean": mean, "error": error, "counted": counted(problem)}


def _rise(losses: np.ndarray, released_mean: float, released_error: float, released_rows: float) -> _Rise:
    n, mean, spread = len(losses), float(losses.mean()), float(losses.std(ddof=1))
    error = float(np.hypot(max(released_error, spread / np.sqrt(released_rows)), spread * np.sqrt(inflation(losses) / n)))
    return _Rise(n, mean, mean - released_mean, error)
