"""Does something happen more often in the window than it did in the rows of the release?"""

from __future__ import annotations

import numpy as np
from scipy import stats

from ratchet.check import Check, undecided
from ratchet.monitoring.autocorrelation import inflation
from ratchet.problem import Problem

# What is watched beside drift and harm, each with an equal part of the year's budget of false alarms.
QUESTIONS = (
    "silent:confidence", "silent:outliers", "probes:duplicates", "probes:boundary", "probes:mixes", "quality:accuracy", "quality:completeness",
    "quality:consistency", "quality:timeliness", "quality:uniqueness", "quality:validity", "feedback:labels", "feedback:slice",
    "feedback:exposure", "volume", "validity", "label_classes", "label_conflicts",
)  # fmt: skip
# A sample this rare among the release's own rows counts as out of the ordinary.
RARE = 0.01
# More rows than these take their time, and tell little more.
MOST_ROWS = 6000


def level(problem: Problem) -> float:
    """The level of one question, where the year's budget of false alarms is spent over all of them and all checks."""
    return problem.watch.false_alarms_per_check / len(QUESTIONS)


def more_often(
    name: str, question: str, what: str, before: np.ndarray, now: np.ndarray, problem: Problem, *, n: int, bursts: bool = False
) -> Check:
    """Whether a share is larger among rows of the window than among rows of the release, both of them flags in their order.

    Fisher's exact test, one-sided; where rows hang together, fewer count, unless `bursts` are what is looked for. `what` names what
    the flags say, in the plural; `n` counts the window's rows. Undecided where the release has no row to compare with.
    """
    limit = level(problem)
    if not len(before):
        reason = f"{len(now):,} predictions, but none of the release's rows, could be {what}: there is nothing to compare with"
        return undecided(name, question, reason, n, limit=limit, unit="p-value")
    counts = []
    for flags in (now, before):
        worth = 1.0 if bursts else inflation(flags)
        counts.append([round(flags.sum() / worth), round((~flags).sum() / worth)])
    p = float(stats.fisher_exact(np.array(counts), alternative="greater").pvalue)
    found = bool(p < limit)
    shares = [float(flags.mean()) if len(flags) else 0.0 for flags in (now, before)]
    reason = (
        f"{shares[0]:.1%} of {len(now):,} predictions are {what}, {shares[1]:.1%} of the release's {len(before):,} rows are: "
        f"{'more' if found else 'not more'} than chance would have it, p = {p:.1e}, limit {limit:.1e}"
    )
    return Check(
        name=name,
        question=question,
        verdict="fail" if found else "pass",
        reason=reason,
        value=p,
        limit=limit,
        n=n,
        unit="p-value",
        evidence={"share": shares[0], "before": shares[1]},
    )
