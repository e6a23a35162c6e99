"""Do labels find their predictions?"""

from __future__ import annotations

from scipy import stats

from ratchet.check import Check, undecided
from ratchet.monitoring.excess import beyond, level
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Do labels name predictions that the log knows?"
# The share of labels beyond which it matters: now and then somebody sends a label of another service's prediction.
MATTERS = 0.05


@registered("label_ids", "monitor")
def label_ids(problem: Problem, known: int, strays: int, example: str | None = None) -> Check:
    """The share of the labels that came of late whose prediction the log does not know, with its 95% interval; audits aside.

    `known` labels named a prediction of the log, `strays` none, `example` being the newest such id. What they say is lost, and who sends
    wrong ids may send those of other predictions as well: beyond a share that matters a person must look. Where every label finds its
    prediction there are none, so it takes no part of the year's false alarms; at the level of one it answers for a share near the limit.
    """
    n, unit = known + strays, "share of labels"
    if n < problem.watch.min_window:
        reason = f"{n} labels came of late; {problem.watch.min_window} are needed"
        return undecided("label_ids", QUESTION, reason, n, limit=MATTERS, unit=unit)
    found = stats.binomtest(strays, n).proportion_ci(0.95)
    verdict = beyond(strays, n, MATTERS, level(problem))
    named = f", the newest {example!r}" if strays else ""
    reason = (
        f"{strays:,} of {n:,} labels that came of late name no prediction that the log knows{named}; {MATTERS:.0%} matters beyond chance"
    )
    return Check("label_ids", QUESTION, verdict, reason, strays / n, float(found.low), float(found.high), limit=MATTERS, n=n, unit=unit)
