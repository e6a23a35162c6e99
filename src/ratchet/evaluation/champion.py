"""Is the candidate no step back from the champion?"""

from __future__ import annotations

import numpy as np

from ratchet.check import Check, answered, not_applicable, undecided
from ratchet.evaluation.loss import defect, interval, per_row, smallest_detectable
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Is the candidate non-inferior to the champion on rows that neither has seen?"


@registered("non_inferior_to_champion", "release")
def non_inferior_to_champion(
    problem: Problem,
    candidate: np.ndarray,
    champion: np.ndarray | None,
    truth: np.ndarray,
    part: str | None = None,
    blocking: bool = True,
) -> Check:
    """Paired difference of loss, candidate minus champion, on n rows unseen by both, within the margin.

    The whole 95% interval must lie under the problem's non-inferiority margin. `part` names the rows.
    """
    name = "non_inferior_to_champion" + (f":{part}" if part else "")
    if champion is None:
        return not_applicable(name, QUESTION, "the first generation has no champion", blocking=blocking)
    n, limit = len(truth), problem.gate.margin
    if n < problem.gate.min_rows:
        needed = problem.gate.min_rows
        return undecided(name, QUESTION, f"{n} unseen rows; {needed} are needed", n, limit=limit, blocking=blocking)
    if wrong := defect(candidate, champion):
        return Check(name, QUESTION, "fail", wrong, limit=limit, n=n, blocking=blocking)
    difference = per_row(problem, candidate, truth) - per_row(problem, champion, truth)
    mean, low, high = interval(difference)
    smallest = smallest_detectable(difference)
    reason = (
        f"{problem.metric} differs from the champion's by {mean:+.4f} [{low:+.4f}, {high:+.4f}], margin {limit:+.4f}, "
        f"{n} paired rows, smallest detectable difference {smallest:.4f}"
    )
    unit, evidence = f"{problem.metric} per row", {"smallest_detectable": smallest}
    return answered(name, QUESTION, (mean, low, high), limit, "at_most", reason, n, unit, blocking=blocking, evidence=evidence)
