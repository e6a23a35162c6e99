"""Do predictions still arrive as they did: as many as usual, by a clock that runs forward?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
from scipy import stats

from ratchet.check import Check, Verdict, undecided
from ratchet.monitoring.excess import level
from ratchet.problem import Problem
from ratchet.registry import registered

FEWER = "Do as many predictions arrive as usual?"
CLOCK = "Does the clock of the log run forward?"
# So many looks on so many days tell what is usual; a rate below this share of it matters.
LOOKS, DAYS, MATTERS = 12, 3, 0.5
# Several processes write the log, each by its own clock.
SLACK = timedelta(seconds=60)
RATE = "of the usual rate"
# When the log was looked at, its last place, and how many rows had come since the look before.
Look = tuple[datetime, int, int]


def intervals(looks: Sequence[Look], least: float) -> list[tuple[datetime, float, int]]:
    """Of each interval between two looks its end, its seconds and its rows, oldest first; looks within `least` seconds of another count as one."""
    made = []
    begun, rows = (looks[0][0], 0) if looks else (None, 0)
    for at, _, came in looks[1:]:
        rows += came
        if begun is not None and (seconds := (at - begun).total_seconds()) >= least:
            made.append((at, seconds, rows))
            begun, rows = at, 0
    return made


@registered("volume", "monitor")
def volume(problem: Problem, looks: Sequence[Look]) -> Check:
    """Whether the newest interval between two looks brought as many rows as is usual at that hour of such a day.

    `looks` are oldest first, the last one is the present. Student's prediction interval of the logarithm of the rate, one-sided, by the
    median and the median deviation of intervals of the same hour of earlier days, working days or weekends: an outage of before does not
    widen it much. It fails where the rate is less than half of the usual one, and that beyond chance.
    """
    spans = intervals(looks, problem.watch.every_seconds / 2)
    earlier = [span for span in spans[:-1] if _alike(span[0], spans[-1][0])]
    n, days = len(earlier), len({at.date() for at, _, _ in earlier})
    total = sum(rows for _, _, rows in spans)
    if n < LOOKS or days < DAYS:
        reason = f"{n} earlier looks at this hour of such a day, on {days} days, {total:,} predictions; {LOOKS} on {DAYS} tell how many are usual"
        return undecided("volume", FEWER, reason, total, limit=MATTERS, unit=RATE)
    (_, seconds, came), logs = spans[-1], np.log([(rows + 0.5) / seconds for _, seconds, rows in earlier])
    middle = float(np.median(logs))
    usual = float(np.exp(middle)) * seconds
    # Even where each interval brought the same number, one that is to come varies by chance.
    spread = max(float(stats.median_abs_deviation(logs, scale="normal")), float(1 / np.sqrt(usual + 1)))
    # A median is less certain than a mean.
    distance = (np.log((came + 0.5) / seconds) - middle) / (spread * np.sqrt(1 + np.pi / 2 / n))
    share, p = (came + 0.5) / usual, float(stats.t.cdf(distance, n - 1))
    verdict: Verdict = "fail" if p < level(problem) and share < MATTERS else "pass"
    reason = (
        f"{came:,} predictions in {_span(seconds)}, {share:.0%} of what is usual at this hour ({usual:,.0f}): p = {p:.1e}, "
        f"limit {level(problem):.1e}"
    )
    return Check("volume", FEWER, verdict, reason, float(share), limit=MATTERS, n=total, unit=RATE, evidence={"p_value": p, "usual": usual})


def _alike(one: datetime, other: datetime) -> bool:
    """Whether two moments are of the same hour, or nearly, of the same kind of day."""
    apart = abs((one.hour * 60 + one.minute) - (other.hour * 60 + other.minute))
    return min(apart, 24 * 60 - apart) <= 60 and (one.weekday() >= 5) == (other.weekday() >= 5)


@registered("clock", "monitor")
def clock(problem: Problem, window: pd.DataFrame, present: datetime, looked: Look | None) -> Check:
    """The share of n logged rows whose time cannot be: ahead of now, after its own label, or one at which the clock stands still.

    `window` has the columns `seq`, `at` and `label_at`, in the order in which rows were logged. `looked` is an earlier look.
    Undecided where rows stand after later ones: a clock that ran back looks like rows that waited on the service's disk while the store
    was away.
    """
    n = len(window)
    if n < problem.watch.min_window:
        return undecided("clock", CLOCK, f"{n} predictions; {problem.watch.min_window} are needed", n, limit=0.0, unit="share of rows")
    at, labelled = pd.to_datetime(window["at"]), pd.to_datetime(window["label_at"])
    faults = {
        "are ahead of now": at > pd.Timestamp(present) + SLACK,
        "are later than their own label": labelled < at - SLACK,
        "came since the last look, all with one time before it: the clock stands still": _stuck(window["seq"], at, looked),
    }
    wrong = np.logical_or.reduce([flags.to_numpy(bool) for flags in faults.values()])
    back = at < at.cummax() - SLACK
    said = "; ".join(f"{int(flags.sum()):,} rows {what}" for what, flags in faults.items() if flags.any())
    late = f"{int(back.sum()):,} rows stand after later ones: a clock ran back, or they waited while the store was away"
    told = f"{n:,} predictions from {at.min():%Y-%m-%d %H:%M:%S} to {at.max():%Y-%m-%d %H:%M:%S}"
    verdict: Verdict = "fail" if wrong.any() else "undecided" if back.any() else "pass"
    reason = said or (late if back.any() else f"{told}, in order")
    return Check("clock", CLOCK, verdict, reason, value=float(wrong.mean()), limit=0.0, n=n, unit="share of rows")


def _stuck(seq: pd.Series, at: pd.Series, looked: Look | None) -> pd.Series:
    """Which rows came after an earlier look, where all of them have one time, that of before: rows that waited on a disk have their own."""
    none = pd.Series(False, index=seq.index)
    if looked is None:
        return none
    new = seq > looked[1]
    stands = new.any() and at[new].nunique() == 1 and at[new].max() < pd.Timestamp(looked[0]) - SLACK
    return new if stands and (not (~new).any() or at[new].max() <= at[~new].max()) else none


def _span(seconds: float) -> str:
    for size, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
