"""How much does the model lose when rows go wrong on their way to it?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ratchet.check import Check, answered, undecided
from ratchet.contract import Contract
from ratchet.evaluation.loss import bootstrap, defect, per_row
from ratchet.problem import Problem
from ratchet.registry import registered
from ratchet.simulation.corruptions import SEVERITIES, corruptions

QUESTION = "Does the model keep its ranking when rows are corrupted at severity 3?"
JUDGED = 3
RESAMPLES = 100
Probability = Callable[[pd.DataFrame], np.ndarray]


@registered("robustness", "release")
def robustness(
    problem: Problem, contract: Contract, frame: pd.DataFrame, truth: np.ndarray, probability: Probability, seed: int = 0
) -> list[Check]:
    """One check for each kind of corruption, on n rows: the worst measurement scale's relative loss of ROC AUC.

    The loss is (clean - corrupted) / clean, paired, with a bootstrap interval; the whole curve over five severities,
    with the metric of record, stands in the evidence (after Hendrycks & Dietterich, 2019).
    """
    n, limit = len(truth), problem.gate.robust_drop
    found = list(corruptions(contract))
    kinds = list(dict.fromkeys(corruption.kind for corruption in found))
    if n < problem.gate.min_rows or np.unique(truth).size < 2:
        lacking = (
            f"{n} labelled rows; {problem.gate.min_rows} are needed" if n < problem.gate.min_rows else f"the {n} rows hold one class only"
        )
        return [undecided(f"robustness:{kind.replace(' ', '_')}", QUESTION, lacking, n, limit=limit) for kind in kinds]
    clean = probability(frame)
    if wrong := defect(clean):
        return [Check(f"robustness:{kind.replace(' ', '_')}", QUESTION, "fail", wrong, limit=limit, n=n) for kind in kinds]
    best, cost = _auc(truth, clean), float(per_row(problem, clean, truth).mean())
    ranked = bootstrap(lambda rows: _auc(truth[rows], clean[rows]), n, seed, RESAMPLES)
    if not ranked[1] > 0.5:
        # What ranks no better than chance has nothing to lose.
        lacking = f"the model does not rank {n} clean rows provably better than chance (ROC AUC {best:.3f})"
        return [undecided(f"robustness:{kind.replace(' ', '_')}", QUESTION, lacking, n, limit=limit) for kind in kinds]
    checks = []
    for kind in kinds:
        curves: dict[str, list[dict[str, float]]] = {}
        worst: tuple[tuple[float, float, float], str] | None = None
        broken = None
        for corruption in (c for c in found if c.kind == kind):
            curve = []
            for severity in SEVERITIES:
                rows, origin = corruption.apply(frame, severity, seed)
                scores = probability(rows)
                broken = broken or defect(scores)
                if broken:
                    break
                told = truth[origin]
                point = {
                    "severity": severity,
                    "drop": (best - _auc(told, scores)) / best,
                    problem.metric: float(per_row(problem, scores, told).mean()),
                }
                if severity == JUDGED:
                    drop = bootstrap(_drop(truth, clean, told, scores), n, seed, RESAMPLES)
                    point |= {"low": drop[1], "high": drop[2]}
                    if worst is None or drop[0] > worst[0][0]:
                        worst = (drop, corruption.scale)
                curve.append(point)
            curves[corruption.scale] = curve
        name = f"robustness:{kind.replace(' ', '_')}"
        if broken or worst is None:
            checks.append(Check(name, QUESTION, "fail", f"{kind}: {broken}", limit=limit, n=n))
            continue
        (value, low, high), scale = worst
        where = f" in {scale} columns" if scale != "all" else ""
        reason = f"{kind}{where} takes {value:.1%} [{low:.1%}, {high:.1%}] off the ROC AUC of {best:.3f}, {limit:.0%} is borne, {n} rows"
        evidence: dict[str, Any] = {"curves": curves, "clean": {"roc_auc": best, problem.metric: cost}}
        checks.append(answered(name, QUESTION, (value, low, high), limit, "at_most", reason, n, "share of ROC AUC", evidence=evidence))
    return checks


def _auc(truth: np.ndarray, scores: np.ndarray) -> float:
    """The area by ranks (Mann & Whitney, 1947): a thousand resamples need no curve; nan where one class is missing."""
    positives = float(truth.sum())
    pairs = positives * (len(truth) - positives)
    if not pairs:
        return float("nan")
    return float((stats.rankdata(scores)[truth == 1].sum() - positives * (positives + 1) / 2) / pairs)


def _drop(truth: np.ndarray, clean: np.ndarray, told: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], float]:
    def value(rows: np.ndarray) -> float:
        before = _auc(truth[rows], clean[rows])
        return (before - _auc(told[rows], scores[rows])) / before

    return value
