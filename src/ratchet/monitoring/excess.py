"""Does something happen more often in the window than it did in the rows of the release?"""

from __future__ import annotations

import numpy as np
from scipy import stats

from ratchet.check import Check, Verdict, undecided
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


def halves(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first half of n rows in their order, to learn from, and the second, which tells what is rare.

    Every second row would be the neighbour of one that was learnt from: of autocorrelated rows those look more usual than any new one.
    """
    return rows[: (len(rows) + 1) // 2], rows[(len(rows) + 1) // 2 :]


def fisher(inside: tuple[int, int], outside: tuple[int, int]) -> float:
    """How likely chance brings about so many flagged rows inside, one-sided; both are flagged rows and others (Fisher, 1922)."""
    return float(stats.fisher_exact(np.array([inside, outside]), alternative="greater").pvalue)


def could_tell(inside: tuple[int, int], outside: tuple[int, int], limit: float) -> bool:
    """Whether the p-value would be below a limit, were every row inside a flagged one."""
    return fisher((sum(inside), 0), outside) < limit


def beyond(count: int, n: int, limit: float, alpha: float) -> Verdict:
    """Whether a share, `count` of n, is larger than a limit beyond chance at level `alpha` (exact, Clopper and Pearson, 1934).

    It passes where its 95% interval leaves no room for that; between the two it is undecided.

    >>> beyond(0, 100, 0.05, 1e-6), beyond(10, 100, 0.05, 1e-6), beyond(30, 100, 0.05, 1e-6)
    ('pass', 'undecided', 'fail')
    """
    if stats.binom.sf(count - 1, n, limit) < alpha:
        return "fail"
    return "pass" if stats.binomtest(count, n).proportion_ci(0.95).high <= limit else "undecided"


def more_often(
    name: str, question: str, what: str, before: np.ndarray, now: np.ndarray, problem: Problem, *, n: int, bursts: bool = False
) -> Check:
    """Whether a share is larger among rows of the window than among rows of the release, both of them flags in their order.

    Fisher's exact test, one-sided; where rows are autocorrelated, fewer count, unless `bursts` are what is looked for. `what` names what
    the flags say, in the plural; `n` counts the window's rows. Undecided where the release has no row to compare with, or too few.
    """
    limit = level(problem)
    if not len(before):
        reason = f"{len(now):,} predictions, but none of the release's rows, could be {what}: there is nothing to compare with"
        return undecided(name, question, reason, n, limit=limit, unit="p-value")
    worth = [1.0 if bursts else inflation(flags) for flags in (now, before)]
    inside, outside = ((round(flags.sum() / each), round((~flags).sum() / each)) for flags, each in zip((now, before), worth, strict=True))
    p = fisher(inside, outside)
    if now.any() and not could_tell(inside, outside, limit):
        reason = (
            f"{now.sum():,} of {len(now):,} predictions are {what}; the release's {len(before):,} rows are too few to tell whether more are"
        )
        return undecided(name, question, reason, n, limit=limit, unit="p-value")
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
