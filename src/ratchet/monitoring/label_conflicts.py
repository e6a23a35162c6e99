"""Do labels of one and the same prediction agree?"""

from __future__ import annotations

import numpy as np
from scipy import stats

from ratchet.check import Check, undecided
from ratchet.monitoring.decay import WINDOWS
from ratchet.monitoring.excess import beyond, level
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Do labels of one prediction agree, where it has several?"
# The share of labels beyond which conflicts matter: now and then somebody corrects a mistake.
MATTERS = 0.05


@registered("label_conflicts", "monitor")
def label_conflicts(problem: Problem, relabelled: np.ndarray) -> Check:
    """The share of labelled predictions that have had another label before the newest, audits aside, with its 95% interval.

    `relabelled` has shape (m,), bool, oldest first. It is asked of the newest `watch.window`, of as many as `decay` judges, and of all:
    the newest label counts everywhere, so older ones that are sent anew would pass for harm. Told is the stretch in which chance explains
    it least (`stretch`, in the evidence, so many of the newest), after Bonferroni. Which of two labels that contradict one another is right,
    nobody knows, so beyond a share that matters a person must look.
    """
    m, limit, unit = len(relabelled), MATTERS, "share of labels"
    if m < problem.watch.min_window:
        reason = f"{m} labels of this window are in; {problem.watch.min_window} are needed"
        return undecided("label_conflicts", QUESTION, reason, m, limit=limit, unit=unit, evidence={"stretch": m})
    stretches = sorted({min(m, problem.watch.window), min(m, WINDOWS * problem.watch.window), m})
    counts = {n: int(relabelled[-n:].sum()) for n in stretches}
    n = min(stretches, key=lambda n: float(stats.binom.sf(counts[n] - 1, n, MATTERS)))
    count = counts[n]
    found = stats.binomtest(count, n).proportion_ci(0.95)
    verdict = beyond(count, n, MATTERS, level(problem) / len(stretches))
    reason = f"{count:,} of {n:,} labels replaced another one that said otherwise; {MATTERS:.0%} matters beyond chance"
    share = (count / n, float(found.low), float(found.high))
    return Check("label_conflicts", QUESTION, verdict, reason, *share, limit=limit, n=m, unit=unit, evidence={"stretch": n})
