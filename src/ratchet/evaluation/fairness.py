"""Are protected groups treated alike?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame, count, false_positive_rate, selection_rate, true_positive_rate
from scipy import stats

from ratchet.check import Check, Side, answered, not_applicable, undecided
from ratchet.data.values import as_text
from ratchet.evaluation.loss import Z, defect
from ratchet.problem import Problem
from ratchet.registry import registered

PARITY = "Is the favourable decision given to every group at four fifths of the best group's rate or more?"
MERIT = "Is the favourable decision given alike to those of every group who deserve it?"
ODDS = "Are the error rates of every two groups about the same?"
CALIBRATED = "Does a probability mean the same in every group?"
Interval = tuple[float, float, float]
# What is compared, the interval, and the standard error that it would have were the groups alike (of a ratio, of its logarithm).
Compared = tuple[str, Interval, float]


def intersection(groups: pd.DataFrame) -> pd.Series:
    """Two or more protected columns as one, named `a x b`; missing where one of them is.

    >>> intersection(pd.DataFrame({"sex": ["f", "m"], "age": ["young", None]})).tolist()
    ['f, young', None]
    """
    text = groups.map(as_text, na_action="ignore")
    joined = [", ".join(row) if all(isinstance(part, str) for part in row) else None for row in text.itertuples(index=False)]
    return pd.Series(joined, index=groups.index, name=" x ".join(groups.columns), dtype=object)


def group_table(problem: Problem, probability: np.ndarray, truth: np.ndarray, groups: pd.Series) -> dict[str, dict[str, float]]:
    """Rows, favourable rate (label 0), true and false positive rate, and calibration gap of every group that is told."""
    known = groups.notna().to_numpy()
    decided = (probability >= problem.threshold)[known]
    label = groups[known].map(as_text)
    found = MetricFrame(
        metrics={
            "rows": count,
            "unfavourable": selection_rate,
            "true_positive_rate": true_positive_rate,
            "false_positive_rate": false_positive_rate,
        },
        y_true=truth[known].astype(int),
        y_pred=decided.astype(int),
        sensitive_features=label,
    ).by_group
    gap = pd.Series(probability[known] - truth[known], index=label.to_numpy()).groupby(level=0).agg(["mean", "std"])
    positives = pd.Series(truth[known], index=label.to_numpy()).groupby(level=0).sum()
    return {
        str(group): {
            "rows": int(row["rows"]),
            "positives": int(positives[group]),
            "favourable_rate": 1.0 - float(row["unfavourable"]),
            "true_positive_rate": float(row["true_positive_rate"]),
            "false_positive_rate": float(row["false_positive_rate"]),
            "calibration_gap": float(gap.loc[group, "mean"]),
            "calibration_gap_error": float(gap.loc[group, "std"]) / float(np.sqrt(row["rows"])),
        }
        for group, row in found.iterrows()
    }


@registered("fairness", "release")
def fairness(problem: Problem, probability: np.ndarray, truth: np.ndarray, groups: pd.Series) -> Check:
    """The lowest ratio of two groups' rates of the favourable decision (label 0): demographic parity, four fifths.

    n rows; groups smaller than `min_group` are named and left out. The interval is that of a ratio of two proportions
    on the log scale (Katz et al., 1978), widened for the number of pairs (Bonferroni).
    """

    def ratios(table: dict[str, dict[str, float]], z: float) -> Iterator[Compared]:
        for a, b in combinations(table, 2):
            p, q = ((table[g]["favourable_rate"], table[g]["rows"]) for g in (a, b))
            yield f"{a} and {b}", _ratio(p, q, z), _alike(p, q)

    return _judge("fairness", PARITY, problem, probability, truth, groups, ratios, problem.gate.approval_ratio, "at_least", "ratio")


@registered("equal_merit", "release")
def equal_merit(problem: Problem, probability: np.ndarray, truth: np.ndarray, groups: pd.Series) -> Check:
    """The lowest ratio of two groups' rates of the favourable decision among rows that deserve it (truth 0).

    Equality of opportunity (Hardt et al., 2016). As merit is held equal, the limit is stricter than four fifths.
    """

    def ratios(table: dict[str, dict[str, float]], z: float) -> Iterator[Compared]:
        for a, b in combinations(table, 2):
            p, q = ((1 - table[g]["false_positive_rate"], table[g]["rows"] - table[g]["positives"]) for g in (a, b))
            yield f"{a} and {b}", _ratio(p, q, z), _alike(p, q)

    return _judge("equal_merit", MERIT, problem, probability, truth, groups, ratios, problem.gate.merit_ratio, "at_least", "ratio")


@registered("equalised_odds", "release")
def equalised_odds(problem: Problem, probability: np.ndarray, truth: np.ndarray, groups: pd.Series) -> Check:
    """The largest gap between two groups' true positive or false positive rates (Hardt et al., 2016)."""

    def gaps(table: dict[str, dict[str, float]], z: float) -> Iterator[Compared]:
        for a, b in combinations(table, 2):
            for rate, of in (("true_positive_rate", "positives"), ("false_positive_rate", "negatives")):
                sizes = [table[g]["positives"] if of == "positives" else table[g]["rows"] - table[g]["positives"] for g in (a, b)]
                where = f"{a} and {b}, {rate.replace('_', ' ')}"
                if min(sizes) < 2:
                    yield where, (0.0, 0.0, 1.0), 1.0
                    continue
                p, q = table[a][rate], table[b][rate]
                # Agresti and Caffo's (2000) one success and one failure each: rates of 0 and 1 must not look certain.
                safe = [(r * m + 1) / (m + 2) for r, m in zip((p, q), sizes, strict=True)]
                error = z * float(np.sqrt(sum(r * (1 - r) / (m + 2) for r, m in zip(safe, sizes, strict=True))))
                pooled = (p * sizes[0] + q * sizes[1] + 1) / (sum(sizes) + 2)
                gap = abs(p - q)
                alike = float(np.sqrt(pooled * (1 - pooled) * sum(1 / m for m in sizes)))
                yield where, (gap, max(gap - error, 0.0), gap + error), alike

    return _judge(
        "equalised_odds", ODDS, problem, probability, truth, groups, gaps, problem.gate.odds_gap, "at_most", "difference of rates"
    )


@registered("group_calibration", "release")
def group_calibration(problem: Problem, probability: np.ndarray, truth: np.ndarray, groups: pd.Series) -> Check:
    """The largest gap, in any group, between the mean probability and the share of label 1 (calibration in the large)."""

    def gaps(table: dict[str, dict[str, float]], z: float) -> Iterator[Compared]:
        for group, row in table.items():
            gap, error = abs(row["calibration_gap"]), z * row["calibration_gap_error"]
            yield group, (gap, max(gap - error, 0.0), gap + error), row["calibration_gap_error"]

    limit = problem.gate.group_calibration_gap
    return _judge("group_calibration", CALIBRATED, problem, probability, truth, groups, gaps, limit, "at_most", "probability")


def _judge(
    kind: str,
    question: str,
    problem: Problem,
    probability: np.ndarray,
    truth: np.ndarray,
    groups: pd.Series,
    measure: Any,
    limit: float,
    side: Side,
    unit: str,
) -> Check:
    """The worst of what `measure` tells of the groups that are large enough, with the widest bounds of all of them."""
    name, n = f"{kind}:{groups.name}", len(truth)
    if not groups.notna().any():
        return undecided(name, question, "no row tells its group", 0, limit=limit)
    if wrong := defect(probability):
        return Check(name, question, "fail", wrong, limit=limit, n=n)
    table = group_table(problem, probability, truth, groups)
    judged = {group: row for group, row in table.items() if row["rows"] >= problem.gate.min_group}
    small = sorted(set(table) - set(judged))
    left_out = f"; too small for a verdict: {', '.join(small)}" if small else ""
    evidence = {"groups": table, "left_out": small}
    compared = max(len(list(measure(judged, Z))), 1)
    z = float(stats.norm.ppf(1 - 0.025 / compared))
    every = list(measure(judged, z)) if len(judged) > 1 else []
    if not every:
        reason = f"fewer than two groups of {problem.gate.min_group} rows or more{left_out}"
        if n < problem.gate.min_rows:
            return undecided(name, question, reason, n, limit=limit, evidence=evidence)
        return not_applicable(name, question, reason, n=n, limit=limit, evidence=evidence)
    # Groups that are too small to tell are left out, as long as there are others that tell.
    found = [item for item in every if _tells(item[1], item[2], limit, side, z, compared)] or every
    if unclear := [item[0] for item in every if item not in found]:
        left_out += f"; too few rows to tell: {', '.join(unclear[:3])}" + (f" and {len(unclear) - 3} more" if len(unclear) > 3 else "")
        evidence["too_few_to_tell"] = unclear
    pick = min if side == "at_least" else max
    where, (value, low, high), _ = pick(found, key=lambda item: item[1][0])
    bound = pick(item[1][1 if side == "at_least" else 2] for item in found)
    low, high = (bound, high) if side == "at_least" else (low, bound)
    word = "lowest" if side == "at_least" else "largest"
    reason = f"{word} {unit} {value:.3f} [{low:.3f}, {high:.3f}] between {where}, limit {limit:.2f}{left_out}"
    if kind == "group_calibration":
        reason = f"largest gap {value:.3f} [{low:.3f}, {high:.3f}] in {where}, limit {limit:.2f}{left_out}"
    return answered(name, question, (value, low, high), limit, side, reason, n, unit, evidence=evidence)


def _tells(interval: Interval, alike: float, limit: float, side: Side, z: float, compared: int) -> bool:
    """Whether rows are enough: were the groups alike, would all of so many comparisons pass four times in five?

    That hangs on the rows, not on what was observed. What differs beyond chance is told, however few the rows: it may be
    undecided then, but it is not left out.
    """
    value, low, high = interval
    enough = (z + float(stats.norm.ppf(1 - 0.1 / compared))) * alike
    if side == "at_least":
        differs = value < limit and np.log(max(value, 1e-9)) < -z * alike
        return bool(high < limit or differs or np.exp(-enough) >= limit)
    return bool(low > limit or (value > limit and value > z * alike) or enough <= limit)


def _alike(a: tuple[float, float], b: tuple[float, float]) -> float:
    """The standard error of the logarithm of the ratio of two rates, each given with its rows, if both had the pooled rate."""
    rows = a[1] + b[1]
    pooled = min(max((a[0] * a[1] + b[0] * b[1]) / max(rows, 1), 0.5 / max(rows, 1)), 1 - 0.5 / max(rows, 1))
    return float(np.sqrt((1 - pooled) / pooled * (1 / max(a[1], 1) + 1 / max(b[1], 1))))


def _ratio(a: tuple[float, float], b: tuple[float, float], z: float) -> Interval:
    """The lower of two rates over the higher, each given with its rows, with its interval."""
    (p, rows_p), (q, rows_q) = sorted((a, b))
    if q == 0 or min(rows_p, rows_q) == 0:
        return 1.0, 0.0, 1.0
    # Half a success keeps a group without any favourable decision on the log scale.
    p_safe = max(p, 0.5 / rows_p)
    error = np.sqrt((1 - p_safe) / (p_safe * rows_p) + (1 - q) / (q * rows_q))
    return p / q, float(p_safe / q * np.exp(-z * error)), float(min(1.0, p_safe / q * np.exp(z * error)))
