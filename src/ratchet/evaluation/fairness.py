"""Are protected groups treated alike?"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame, count, false_positive_rate, selection_rate, true_positive_rate
from scipy import stats

from ratchet.check import Check, judge, not_applicable, undecided
from ratchet.data.values import as_text
from ratchet.evaluation.loss import Z
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Is the favourable decision given to every group at four fifths of the best group's rate or more?"


@registered("fairness", "release")
def fairness(problem: Problem, probability: np.ndarray, truth: np.ndarray, groups: pd.Series) -> Check:
    """The lowest ratio of two groups' rates of the favourable decision (label 0), with its interval.

    n rows; groups smaller than `min_group` are named and left out. The interval is that of a ratio of two
    proportions on the log scale (Katz et al., 1978), widened for the number of pairs (Bonferroni). Rates,
    true and false positive rates per group stand in the evidence.
    """
    name, limit, n = f"fairness:{groups.name}", problem.gate.approval_ratio, len(truth)
    known = groups.notna().to_numpy()
    favoured = (probability < problem.threshold)[known]
    label = groups[known].map(as_text)
    if not known.any():
        return undecided(name, QUESTION, "no row tells its group", 0, limit=limit)
    favour = MetricFrame(
        metrics={"rows": count, "rate": selection_rate},
        y_true=favoured,
        y_pred=favoured,
        sensitive_features=label,
    ).by_group
    errors = MetricFrame(
        metrics={"true_positive_rate": true_positive_rate, "false_positive_rate": false_positive_rate},
        y_true=truth[known],
        y_pred=~favoured,
        sensitive_features=label,
    ).by_group
    table = {
        str(group): {
            "rows": int(favour.loc[group, "rows"]),
            "favourable_rate": float(favour.loc[group, "rate"]),
            "true_positive_rate": float(errors.loc[group, "true_positive_rate"]),
            "false_positive_rate": float(errors.loc[group, "false_positive_rate"]),
        }
        for group in favour.index
    }
    judged = {group: row for group, row in table.items() if row["rows"] >= problem.gate.min_group}
    small = sorted(set(table) - set(judged))
    left_out = f"; too small for a verdict: {', '.join(small)}" if small else ""
    evidence = {"groups": table, "left_out": small}
    if len(judged) < 2:
        reason = f"fewer than two groups of {problem.gate.min_group} rows or more{left_out}"
        if n < problem.gate.min_rows:
            return undecided(name, QUESTION, reason, n, limit=limit, evidence=evidence)
        return not_applicable(name, QUESTION, reason, n=n, limit=limit, evidence=evidence)
    pairs = list(combinations(judged, 2))
    z = Z if len(pairs) == 1 else float(stats.norm.ppf(1 - 0.025 / len(pairs)))
    ratios = [_ratio(judged[a], judged[b], z) for a, b in pairs]
    value, low, high = min(ratios, key=lambda ratio: ratio[0])
    low = min(ratio[1] for ratio in ratios)
    return Check(
        name=name,
        question=QUESTION,
        verdict=judge(value, low, high, limit, "at_least"),
        reason=f"lowest ratio of favourable decisions {value:.3f} [{low:.3f}, {high:.3f}], limit {limit:.2f}{left_out}",
        value=value,
        low=low,
        high=high,
        limit=limit,
        n=n,
        unit="ratio",
        evidence=evidence,
    )


def _ratio(a: dict[str, float], b: dict[str, float], z: float) -> tuple[float, float, float]:
    low_group, high_group = sorted((a, b), key=lambda group: group["favourable_rate"])
    p, q = low_group["favourable_rate"], high_group["favourable_rate"]
    if q == 0:
        return 1.0, 1.0, 1.0
    # Half a success keeps a group without any favourable decision on the log scale.
    p_safe = max(p, 0.5 / low_group["rows"])
    error = np.sqrt((1 - p_safe) / (p_safe * low_group["rows"]) + (1 - q) / (q * high_group["rows"]))
    return p / q, float(p_safe / q * np.exp(-z * error)), float(min(1.0, p_safe / q * np.exp(z * error)))
