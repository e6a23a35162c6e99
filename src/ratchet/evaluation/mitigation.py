"""What would it take to treat the groups alike, and what would it cost?"""

from __future__ import annotations

import warnings
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from fairlearn.postprocessing import ThresholdOptimizer

from ratchet.data.values import as_text
from ratchet.evaluation.conformal import Scores
from ratchet.evaluation.fairness import group_table
from ratchet.evaluation.loss import per_row
from ratchet.problem import Problem

# fairlearn's names of what group-wise thresholds can hold equal.
OFFERED = {"equal rates of decisions": "demographic_parity", "equal error rates": "equalized_odds"}


def mitigations(
    problem: Problem,
    held_out: tuple[np.ndarray, np.ndarray, pd.Series],
    tested: tuple[np.ndarray, np.ndarray, pd.Series],
    seed: int,
) -> list[dict[str, Any]]:
    """What group-wise thresholds (Hardt et al., 2016) would do to cost and fairness; the model as it is stands first.

    `held_out` and `tested` are (probabilities, truth, groups) of m and n rows: thresholds are found on the one and
    measured on the other. Groups smaller than `min_group` in either are left out; nothing is offered for fewer than two.
    They need the group at the time of the decision, which may be unlawful: that is for a person to say.
    """
    (p_fit, y_fit, g_fit), (p_test, y_test, g_test) = held_out, tested
    label_fit, label_test = (g.map(as_text, na_action=None) for g in (g_fit, g_test))
    sizes = pd.concat([label_fit.value_counts(), label_test.value_counts()], axis=1).min(axis=1, skipna=False)
    groups = [group for group, rows in sizes.items() if rows >= problem.gate.min_group and group != "missing"]
    if len(groups) < 2 or np.unique(y_fit).size < 2:
        return []
    keep_fit, keep_test = label_fit.isin(groups).to_numpy(), label_test.isin(groups).to_numpy()
    p_test, y_test, label_test = p_test[keep_test], y_test[keep_test], label_test[keep_test]
    told = [_measured("as it is", problem, (p_test >= problem.threshold).astype(float), y_test, label_test)]
    for name, constraint in OFFERED.items():
        optimiser = ThresholdOptimizer(
            estimator=Scores(), constraints=constraint, objective="balanced_accuracy_score", prefit=True, predict_method="predict_proba"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                optimiser.fit(p_fit[keep_fit].reshape(-1, 1), y_fit[keep_fit].astype(int), sensitive_features=label_fit[keep_fit])
            except ValueError as error:
                told.append({"mitigation": name, "reason": f"cannot be made: {error}"})
                continue
            decided = optimiser.predict(p_test.reshape(-1, 1), sensitive_features=label_test, random_state=seed)
        told.append(_measured(name, problem, np.asarray(decided, float), y_test, label_test))
    return told


def _measured(name: str, problem: Problem, decided: np.ndarray, truth: np.ndarray, groups: pd.Series) -> dict[str, Any]:
    table = group_table(problem, np.where(decided == 1, 1.0, 0.0), truth, groups)
    rates = [row["favourable_rate"] for row in table.values()]
    gaps = [abs(a[rate] - b[rate]) for a, b in combinations(table.values(), 2) for rate in ("true_positive_rate", "false_positive_rate")]
    costs = problem.model_copy(update={"metric": "cost"})
    return {
        "mitigation": name,
        "cost": float(per_row(costs, np.where(decided == 1, 1.0, 0.0), truth).mean()),
        "favourable_ratio": min(rates) / max(rates) if max(rates) else 1.0,
        "odds_gap": max(gaps),
        "rows": len(truth),
    }
