"""Do labels tell of both outcomes?"""

from __future__ import annotations

import numpy as np
from scipy import stats

from ratchet.check import Check, Verdict, undecided
from ratchet.monitoring.excess import level
from ratchet.problem import Problem
from ratchet.registry import registered

# From here on a class that has become rarer is taken for a source of labels that has failed.
RARER = 10
QUESTION = "Do labels of both outcomes come, as they did at release?"


@registered("label_classes", "monitor")
def label_classes(problem: Problem, held: np.ndarray, truth: np.ndarray) -> Check:
    """The probability that chance alone would bring so few labels of one class, by its share among the release's `held` labels.

    Both are 0 or 1, shapes (m,) and (n,); of the newest labels, `truth`, none is an audit's. Where a source of labels has failed, decisions
    may look better than ever. A few stray labels do not hide that: some may be ten times as rare as they were, no rarer. Undecided where
    one class alone has come and chance may bring that about, or the release had but one itself.
    """
    n, limit, unit = len(truth), level(problem), "p-value"
    least = problem.watch.min_window
    if min(n, len(held)) < least or np.ptp(held) == 0:
        reason = f"{n} labels of this window that are no audit's are in, {len(held)} of the release; {least} of each are needed, the release's of both classes"
        return undecided("label_classes", QUESTION, reason, n, limit=limit, unit=unit)
    share = float(truth.mean())
    if 0 < share < 1:
        p = min(float(stats.binom.cdf((truth == label).sum(), n, (held == label).mean() / RARER)) for label in (0, 1))
        told: Verdict = "fail" if p < limit else "pass"
        reason = f"{share:.1%} of {n:,} labels are 1; {held.mean():.1%} of the release's were; a class {RARER} times as rare matters: p = {p:.1e}"
        return Check("label_classes", QUESTION, told, f"{reason}, limit {limit:.1e}", value=p, limit=limit, n=n, unit=unit)
    alike = float((held == share).mean())
    p = alike**n
    verdict: Verdict = "fail" if p < limit else "undecided"
    reason = f"every one of {n:,} labels is {share:.0f}; {alike:.1%} of the release's were: p = {p:.1e}, limit {limit:.1e}"
    return Check("label_classes", QUESTION, verdict, reason, value=p, limit=limit, n=n, unit=unit)
