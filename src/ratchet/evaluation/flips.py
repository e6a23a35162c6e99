"""How many rows that the champion decided rightly does the candidate decide wrongly?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from ratchet.check import Check, answered, not_applicable, undecided
from ratchet.data.values import as_text
from ratchet.evaluation.loss import defect
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Are decisions that the champion had right kept right?"


@registered("negative_flips", "release")
def negative_flips(
    problem: Problem, candidate: np.ndarray, champion: np.ndarray | None, truth: np.ndarray, groups: pd.Series | None = None
) -> Check:
    """The negative flip rate (Yan et al., 2021) on n rows unseen by both, or with `groups` that of the worst group.

    Wilson's interval; over groups it is widened for their number (Bonferroni), and groups smaller than `min_group`
    are named and left out.
    """
    name = "negative_flips" + (f":{groups.name}" if groups is not None else "")
    limit, n = problem.gate.negative_flips, len(truth)
    if champion is None:
        return not_applicable(name, QUESTION, "the first generation has no champion")
    if n < problem.gate.min_rows:
        return undecided(name, QUESTION, f"{n} unseen rows; {problem.gate.min_rows} are needed", n, limit=limit)
    if wrong := defect(candidate, champion):
        return Check(name, QUESTION, "fail", wrong, limit=limit, n=n)
    mistaken, was_mistaken = ((p >= problem.threshold) != (truth == 1) for p in (candidate, champion))
    flipped = mistaken & ~was_mistaken
    fixed = int((was_mistaken & ~mistaken).sum())
    if groups is None:
        interval = _rate(flipped, 0.95)
        reason = f"{int(flipped.sum())} negative flips and {fixed} positive ones in {n} rows: {interval[0]:.2%} [{interval[1]:.2%}, {interval[2]:.2%}], limit {limit:.0%}"
        return answered(name, QUESTION, interval, limit, "at_most", reason, n, "share of rows", evidence={"fixed": fixed})
    label = groups.map(as_text, na_action=None).to_numpy()
    sizes = {group: int((label == group).sum()) for group in sorted(set(label)) if group != "missing"}
    judged = [group for group, rows in sizes.items() if rows >= problem.gate.min_group]
    small = sorted(set(sizes) - set(judged))
    left_out = f"; too small for a verdict: {', '.join(small)}" if small else ""
    if not judged:
        return not_applicable(name, QUESTION, f"no group has {problem.gate.min_group} rows or more{left_out}", n=n, limit=limit)
    rates = {group: _rate(flipped[label == group], 1 - 0.05 / len(judged)) for group in judged}
    worst = max(judged, key=lambda group: rates[group][0])
    value, low, high = rates[worst][0], max(r[1] for r in rates.values()), max(r[2] for r in rates.values())
    reason = f"worst group {worst}: {value:.2%} negative flips [{low:.2%}, {high:.2%}], limit {limit:.0%}{left_out}"
    told = {group: {"rows": sizes[group], "rate": rate[0], "low": rate[1], "high": rate[2]} for group, rate in rates.items()}
    return answered(
        name,
        QUESTION,
        (value, min(low, value), high),
        limit,
        "at_most",
        reason,
        n,
        "share of rows",
        evidence={"groups": told, "left_out": small},
    )


def _rate(flipped: np.ndarray, confidence: float) -> tuple[float, float, float]:
    found = stats.binomtest(int(flipped.sum()), len(flipped)).proportion_ci(confidence, method="wilson")
    return float(flipped.mean()), float(found.low), float(found.high)
