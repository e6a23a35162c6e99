"""What did this generation cost, and what is a point of improvement worth?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ratchet.check import Check, Verdict, not_applicable, undecided
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Is the generation better than its parent, for its seconds, its money and in every segment?"


@registered("cost", "release")
def cost(
    problem: Problem,
    seconds: float,
    new_labels: int,
    difference: tuple[float, float, float] | None,
    n: int,
    history: Sequence[float],
    segments: dict[str, float],
) -> Check:
    """Seconds and money for each point (0.01) of the metric of record that the candidate improves on its parent.

    `difference` is candidate less champion with its interval on n rows (lower is better); `new_labels` came in since
    the parent; `history` are the improvements of earlier generations over their parents, `segments` the difference in
    every segment. Passes where the improvement is beyond chance. Advisory.
    """
    name, prices = "cost", problem.prices
    hours = seconds / 3600
    money = None if prices is None else prices.compute_hour * hours + prices.label * new_labels
    evidence: dict[str, Any] = {"seconds": seconds, "money": money, "unit": prices.unit if prices else "", "new_labels": new_labels}
    evidence["minutes_of_people"] = prices.label_minutes * new_labels if prices else None
    spent = f"{seconds:.0f} s of computing and {new_labels:,} new labels"
    spent += f", {money:,.2g} {prices.unit}" if money is not None and prices is not None else " (no prices are stated)"
    if difference is None:
        return not_applicable(
            name, QUESTION, f"there is no parent, or none that could be compared; it took {spent}", blocking=False, evidence=evidence
        )
    if n < problem.gate.min_rows:
        return undecided(
            name, QUESTION, f"{n} paired rows; {problem.gate.min_rows} are needed; it took {spent}", n, limit=0.0, blocking=False
        )
    value, low, high = difference
    points = -100 * value
    better = [segment for segment, found in segments.items() if found < 0]
    evidence |= {"points": points, "segments": segments, "better_segments": len(better)}
    evidence["speed"] = [-100 * improvement for improvement in (*history, value)]
    if points > 0:
        evidence |= {"seconds_per_point": seconds / points, "money_per_point": money / points if money is not None else None}
    per = (
        f"{seconds / points:,.0f} s" + (f" and {money / points:,.2g} {prices.unit}" if money is not None and prices else "")
        if points > 0
        else ""
    )
    told = f"{points:+.2f} points of {problem.metric} [{-100 * high:+.2f}, {-100 * low:+.2f}] for {spent}"
    told += f": {per} a point" if per else ""
    if history:
        told += f"; generations before improved by {np.mean([-100 * h for h in history]):+.2f} points on average"
    if segments:
        told += f"; better in {len(better)} of {len(segments)} segments"
    verdict: Verdict = "pass" if high < 0 else "fail" if low > 0 else "undecided"
    return Check(name, QUESTION, verdict, told, value, low, high, 0.0, n, f"{problem.metric} per row", blocking=False, evidence=evidence)
