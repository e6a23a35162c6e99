"""Do labels of one and the same prediction agree?"""

from __future__ import annotations

import numpy as np
from scipy import stats

from ratchet.check import Check, undecided
from ratchet.monitoring.excess import beyond, level
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Do labels of one prediction agree, where it has several?"
# The share of labels beyond which conflicts matter: now and then somebody corrects a mistake.
MATTERS = 0.05


@registered("label_conflicts", "monitor")
def label_conflicts(problem: Problem, relabelled: np.ndarray) -> Check:
    """The share of n labelled predictions that have had another label before the newest, audits aside, with its 95% interval.

    `relabelled` has shape (n,), bool. The newest label counts everywhere; which of two that contradict one another is right, nobody
    knows, so beyond a share that matters a person must look.
    """
    n, limit, unit = len(relabelled), MATTERS, "share of labels"
    if n < problem.watch.min_window:
        reason = f"{n} labels of this window are in; {problem.watch.min_window} are needed"
        return undecided("label_conflicts", QUESTION, reason, n, limit=limit, unit=unit)
    count = int(relabelled.sum())
    found = stats.binomtest(count, n).proportion_ci(0.95)
    verdict = beyond(count, n, MATTERS, level(problem))
    reason = f"{count:,} of {n:,} labels replaced another one that said otherwise; {MATTERS:.0%} matters beyond chance"
    return Check("label_conflicts", QUESTION, verdict, reason, count / n, float(found.low), float(found.high), limit=limit, n=n, unit=unit)
