"""Do predictions still arrive as they did: as many as usual, by a clock that runs forward?"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

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
# How long an interval may be beside the newest one, and up to how many seconds longer ones are asked.
SHORTER, LONGER, LONGEST = 0.9, 1.5, 86_400.0
# Days that tell what is usual by themselves, where there are enough looks.
LATELY = 28
# Traffic within so many seconds of a time of day is alike; looks of other days that far from it are none of that time.
NEARBY, APART = 3600.0, 900.0
# Where clocks are put on, what is usual comes an hour sooner or later, give or take.
SHIFTED = NEARBY + APART
# When the log was looked at, its last place, and how many rows had come since the look before.
Look = tuple[datetime, int, int]


@dataclass(frozen=True)
class Span:
    """An interval between two looks, and how many rows came in it."""

    begun: datetime
    ended: datetime
    rows: int

    @property
    def seconds(self) -> float:
        """How long it was."""
        return (self.ended - self.begun).total_seconds()


def intervals(looks: Sequence[Look], least: float, shifted: bool = False) -> list[Span]:
    """The newest interval between two looks of so many seconds or more, and those before it of that time of such a day, newest first.

    They do not overlap, and are about as long as the newest one: while nobody looked, rows of many hours came. Such days are working days,
    or weekends; short intervals within an hour of that time count as well. Where they may be `shifted`, so do long ones that come up to an
    hour and a quarter sooner or later, and overlap.
    """
    at, came = [look[0] for look in looks], np.cumsum([look[2] for look in looks])

    def span(ended: datetime, seconds: float, slack: float) -> Span | None:
        """The interval that ended then, or nearly."""
        after = bisect_left(at, ended)
        end = min((place for place in (after - 1, after) if 0 <= place < len(at)), key=lambda place: abs(at[place] - ended))
        begin = bisect_right(at, at[end] - timedelta(seconds=seconds)) - 1
        # A clock that was set back leaves looks in no order.
        if abs((at[end] - ended).total_seconds()) > slack or not 0 <= begin < end:
            return None
        return Span(at[begin], at[end], int(came[end] - came[begin]))

    newest = span(at[-1], least, 0.0) if looks else None
    if newest is None:
        return []
    made, long = [newest], newest.seconds
    steps = math.ceil(SHIFTED / long) if shifted else int(NEARBY // long)
    pace = SHIFTED / steps if shifted else long
    for day in range(1, (newest.ended - at[0]).days + 2):
        # What is long ago is asked only where there is too little of lately.
        if day > LATELY and len(made) > LOOKS:
            break
        for step in range(steps, -steps - 1, -1):
            found = span(newest.ended - timedelta(days=day) + step * timedelta(seconds=pace), SHORTER * long, min(long / 2, APART))
            if found is None or found.ended > made[0 if shifted else -1].begun or found.seconds > LONGER * long:
                continue
            if (_weekend(found.begun), _weekend(found.ended)) == (_weekend(newest.begun), _weekend(newest.ended)):
                made.append(found)
    return made


@registered("volume", "monitor")
def volume(problem: Problem, looks: Sequence[Look]) -> Check:
    """Whether the newest interval between two looks brought as many rows as is usual at that hour of such a day.

    `looks` are oldest first, the last one is the present. Student's prediction interval of the logarithm of the rate, one-sided, by the
    median and the median deviation of intervals of the same hour of earlier days, working days or weekends: an outage of before does not
    widen it much. Of few rows the tail of Poisson's distribution is more, and counts. It fails where the rate is less than half of the
    usual one, and that beyond chance; and less than half of the quietest about an hour sooner or later on a usual day, for traffic may begin
    and end with the hour, and clocks are put on. Longer intervals are asked as well, each twice the one before, up to a day (Bonferroni):
    few rows tell nothing, or not whether there are half as many. Undecided where even the longest would be no alarm if none came.
    """
    every, total = problem.watch.every_seconds, sum(came for _, _, came in looks[1:])
    least, reason, found = every / 2, _few(0, 0, total), list[Check]()
    limit = level(problem) / max(1, math.ceil(math.log2(2 * LONGEST / every)))
    while least <= max(every, LONGEST):
        if not (spans := intervals(looks, least)):
            break
        newest, *earlier = spans
        n, days = len(earlier), len({span.ended.date() for span in earlier})
        if n < LOOKS or days < DAYS:
            reason = _few(n, days, total)
            break
        share, p, usual = _beside(newest, earlier, newest.rows)
        if _beside(newest, earlier, 0)[1] < limit:
            few = (
                p < limit
                and share < MATTERS
                and (newest.rows + 0.5) / newest.seconds < MATTERS * _quietest(intervals(looks, least, True)[1:])
            )
            verdict: Verdict = "fail" if few else "pass"
            said = f"{newest.rows:,} predictions in {_span(newest.seconds)}, {share:.0%} of what is usual at this hour ({usual:,.0f})"
            evidence = {"p_value": p, "usual": usual}
            reason = f"{said}: p = {p:.1e}, limit {limit:.1e}"
            found.append(Check("volume", FEWER, verdict, reason, share, limit=MATTERS, n=total, unit=RATE, evidence=evidence))
        else:
            reason = f"{usual:,.1f} predictions are usual in {_span(newest.seconds)}: that none comes would not be beyond chance"
        least = 2 * newest.seconds
    if not found:
        return undecided("volume", FEWER, reason, total, limit=MATTERS, unit=RATE)
    return next((check for check in found if check.verdict == "fail"), found[0])


def _quietest(earlier: Sequence[Span]) -> float:
    """The median, over days, of the lowest rate among that day's intervals; rows a second."""
    by_day: dict[date, float] = {}
    for span in earlier:
        by_day[span.ended.date()] = min((span.rows + 0.5) / span.seconds, by_day.get(span.ended.date(), float("inf")))
    return float(np.median(list(by_day.values())))


def _few(looks: int, days: int, total: int) -> str:
    return f"{looks} earlier looks at this time of such a day, on {days} days, {total:,} predictions; {LOOKS} on {DAYS} tell how many are usual"


def _beside(newest: Span, earlier: Sequence[Span], came: int) -> tuple[float, float, float]:
    """So many rows in the newest interval as a share of what is usual, how likely chance leaves so few, and how many are usual."""
    logs = np.log([(span.rows + 0.5) / span.seconds for span in earlier])
    middle = float(np.median(logs))
    usual = float(np.exp(middle)) * newest.seconds
    # Even where each interval brought the same number, one that is to come varies by chance.
    spread = max(float(stats.median_abs_deviation(logs, scale="normal")), float(1 / np.sqrt(usual + 1)))
    # A median is less certain than a mean.
    distance = (np.log((came + 0.5) / newest.seconds) - middle) / (spread * np.sqrt(1 + np.pi / 2 / len(earlier)))
    # Of few the logarithm is no normal number: then what a Poisson process leaves to chance is more.
    p = max(float(stats.t.cdf(distance, len(earlier) - 1)), float(stats.poisson.cdf(came, usual)))
    return (came + 0.5) / usual, p, usual


def _weekend(at: datetime) -> bool:
    return at.weekday() >= 5


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
    # Rows of one request that waited on a disk have one time as well, but not that of the row before them.
    return new if stands and (not (~new).any() or at[new].max() == at[~new].max()) else none


def _span(seconds: float) -> str:
    for size, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
