"""Do predictions still arrive as they did: as many as usual, by a clock that runs forward?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import stats

from ratchet.check import Check, Verdict, undecided
from ratchet.monitoring.excess import level
from ratchet.problem import Problem
from ratchet.registry import registered

FEWER = "Do as many predictions arrive as usual?"
CLOCK = "Does the clock of the log run forward?"
# So many looks tell what is usual; a rate below this share of it matters.
LOOKS, MATTERS = 12, 0.5
# Several processes write the log, each by its own clock.
SLACK = timedelta(seconds=60)
RATE = "of the usual rate"


def intervals(looks: Sequence[tuple[datetime, int]], least: float) -> tuple[list[float], list[int]]:
    """Seconds and rows between looks, oldest first; looks that follow another within `least` seconds count as one with the next.

    `looks` tells when, and the last place of the log that was seen.
    """
    kept = list(looks[:1])
    for look in looks[1:]:
        if (look[0] - kept[-1][0]).total_seconds() >= least:
            kept.append(look)
    seconds = [(after[0] - before[0]).total_seconds() for before, after in pairwise(kept)]
    return seconds, [max(0, after[1] - before[1]) for before, after in pairwise(kept)]


@registered("volume", "monitor")
def volume(problem: Problem, seconds: Sequence[float], rows: Sequence[int]) -> Check:
    """Whether the newest interval between two looks brought as many rows as the earlier ones; both of length k, oldest first.

    Student's prediction interval of the logarithm of the rate, one-sided, which takes the rates' own ups and downs into account. It fails
    where the rate is less than half of the usual one, and that beyond chance.
    """
    n = len(rows) - 1
    if n < LOOKS:
        reason = f"{max(n, 0)} earlier looks at the log, {sum(rows):,} predictions; {LOOKS} tell how many rows are usual"
        return undecided("volume", FEWER, reason, int(sum(rows)), limit=level(problem), unit=RATE)
    rates = (np.asarray(rows, dtype=float) + 0.5) / np.asarray(seconds, dtype=float)
    earlier, usual = np.log(rates[:-1]), float(np.median(rates[:-1]))
    share = float(rates[-1] / usual)
    # Even where each interval brought the same number, one that is to come varies by chance.
    spread = max(float(earlier.std(ddof=1)), float(1 / np.sqrt(usual * seconds[-1] + 1)))
    p = float(stats.t.cdf((np.log(rates[-1]) - earlier.mean()) / (spread * np.sqrt(1 + 1 / n)), n - 1))
    verdict: Verdict = "fail" if p < level(problem) and share < MATTERS else "pass"
    reason = (
        f"{rows[-1]:,} predictions in {_span(seconds[-1])}, {share:.0%} of the usual rate ({usual * seconds[-1]:,.0f} in that time): "
        f"p = {p:.1e}, limit {level(problem):.1e}"
    )
    evidence = {"p_value": p, "rates": [float(rate) for rate in rates]}
    return Check("volume", FEWER, verdict, reason, share, limit=MATTERS, n=int(sum(rows)), unit=RATE, evidence=evidence)


@registered("clock", "monitor")
def clock(problem: Problem, window: pd.DataFrame, present: datetime, looked: tuple[datetime, int] | None) -> Check:
    """The share of n logged rows whose time cannot be: ahead of now, after its own label, or one at which the clock stands still.

    `window` has the columns `seq`, `at` and `label_at`, in the order in which rows were logged. `looked` is when an earlier look was,
    and the last place of the log that it saw. Undecided where rows stand after later ones: a clock that ran back looks like rows that
    waited on the service's disk while the store was away.
    """
    n = len(window)
    if n < problem.watch.min_window:
        return undecided("clock", CLOCK, f"{n} predictions; {problem.watch.min_window} are needed", n, limit=0.0, unit="share of rows")
    at, labelled = pd.to_datetime(window["at"]), pd.to_datetime(window["label_at"])
    faults = {
        "are ahead of now": at > pd.Timestamp(present) + SLACK,
        "are later than their own label": labelled < at - SLACK,
        "came since the last look, all with a time before it: the clock stands still": _stuck(window["seq"], at, looked),
    }
    wrong = np.logical_or.reduce([flags.to_numpy(bool) for flags in faults.values()])
    back = at < at.cummax() - SLACK
    said = "; ".join(f"{int(flags.sum()):,} rows {what}" for what, flags in faults.items() if flags.any())
    late = f"{int(back.sum()):,} rows stand after later ones: a clock ran back, or they waited while the store was away"
    told = f"{n:,} predictions from {at.min():%Y-%m-%d %H:%M:%S} to {at.max():%Y-%m-%d %H:%M:%S}"
    verdict: Verdict = "fail" if wrong.any() else "undecided" if back.any() else "pass"
    reason = said or (late if back.any() else f"{told}, in order")
    return Check("clock", CLOCK, verdict, reason, value=float(wrong.mean()), limit=0.0, n=n, unit="share of rows")


def _stuck(seq: pd.Series, at: pd.Series, looked: tuple[datetime, int] | None) -> pd.Series:
    """Which rows came after the last look, where not one says so: whoever wrote them has a clock that stands still."""
    if looked is None:
        return pd.Series(False, index=seq.index)
    new = seq > looked[1]
    return new & bool(new.any() and at[new].max() < pd.Timestamp(looked[0]) - SLACK)


def _span(seconds: float) -> str:
    for size, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
