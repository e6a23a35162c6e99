"""Does live traffic come from the population that the model was trained on? All columns together."""

from __future__ import annotations

from ratchet.check import Check, undecided
from ratchet.monitoring.domain import Domain
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Can a classifier tell this window's rows from those of training?"


@registered("joint_drift", "monitor")
def joint_drift(problem: Problem, found: Domain | None, n: int) -> Check:
    """How well a classifier tells n rows of the window from the reference (domain classifier; Rabanser et al., 2019).

    It sees what no column shows alone. `found` is None where there were too few rows to learn from. Half of the year's budget
    of false alarms is spent over the year's checks.
    """
    limit, unit = problem.watch.false_alarms_per_check / 2, "p-value"
    if found is None or n < problem.watch.min_window:
        reason = f"{n} predictions with every feature, or the release's rows, are fewer than the {problem.watch.min_window} that are needed"
        return undecided("joint_drift", QUESTION, reason, n, limit=limit, unit=unit)
    moved = found.p_value < limit
    reason = (
        f"all columns together {'moved' if moved else 'did not move beyond chance'}: area under the curve {found.auc:.3f} "
        f"[{found.low:.3f}, {found.high:.3f}], p = {found.p_value:.1e}, limit {limit:.1e}, {n} predictions"
    )
    return Check(
        name="joint_drift",
        question=QUESTION,
        verdict="fail" if moved else "pass",
        reason=reason,
        value=found.p_value,
        limit=limit,
        n=n,
        unit=unit,
        evidence={"effect": found.auc, "measure": "area under the curve", "foreign": found.foreign},
    )
