"""Is the candidate better than a rule, and no worse than a simple model?"""

from __future__ import annotations

import numpy as np
from sklearn import metrics

from ratchet.check import Check, judge, undecided
from ratchet.evaluation.loss import interval, per_row, smallest_detectable
from ratchet.problem import Problem
from ratchet.registry import registered

RULE = "Does the candidate cost less than the hand-written rule?"
SIMPLE = "Is the candidate no worse than the simple model?"


def scores(problem: Problem, probability: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The field's usual numbers on n rows; those that need both classes are left out where one is missing."""
    decided = (probability >= problem.threshold).astype(int)
    clipped = np.clip(probability, 1e-7, 1 - 1e-7)
    told = {
        problem.metric: float(per_row(problem, probability, truth).mean()),
        "accuracy": float(metrics.accuracy_score(truth, decided)),
        "precision": float(metrics.precision_score(truth, decided, zero_division=0)),
        "recall": float(metrics.recall_score(truth, decided, zero_division=0)),
        "f1": float(metrics.f1_score(truth, decided, zero_division=0)),
        "brier": float(np.mean((probability - truth) ** 2)),
        "log_loss": float(metrics.log_loss(truth, clipped, labels=[0, 1])),
    }
    if 0 < truth.mean() < 1:
        told["roc_auc"] = float(metrics.roc_auc_score(truth, probability))
        told["pr_auc"] = float(metrics.average_precision_score(truth, probability))
    return told


@registered("beats_rule", "release")
def beats_rule(problem: Problem, candidate: np.ndarray, rule: np.ndarray, truth: np.ndarray) -> Check:
    """Paired difference of loss, candidate minus rule, on n rows; its interval must lie below zero."""
    return _against("beats_rule", RULE, problem, candidate, rule, truth, limit=0.0, other="the rule")


@registered("not_worse_than_simple", "release")
def not_worse_than_simple(problem: Problem, candidate: np.ndarray, simple: np.ndarray, truth: np.ndarray) -> Check:
    """Paired difference of loss, candidate minus logistic regression, within the problem's margin."""
    return _against("not_worse_than_simple", SIMPLE, problem, candidate, simple, truth, problem.gate.margin, "the logistic regression")


def _against(
    name: str,
    question: str,
    problem: Problem,
    candidate: np.ndarray,
    other_scores: np.ndarray,
    truth: np.ndarray,
    limit: float,
    other: str,
) -> Check:
    n = len(truth)
    if n < problem.gate.min_rows:
        return undecided(name, question, f"{n} labelled rows; {problem.gate.min_rows} are needed", n, limit=limit)
    difference = per_row(problem, candidate, truth) - per_row(problem, other_scores, truth)
    mean, low, high = interval(difference)
    return Check(
        name=name,
        question=question,
        verdict=judge(mean, low, high, limit, "at_most"),
        reason=f"{problem.metric} differs from {other}'s by {mean:+.4f} [{low:+.4f}, {high:+.4f}], limit {limit:+.4f}, {n} rows",
        value=mean,
        low=low,
        high=high,
        limit=limit,
        n=n,
        unit=f"{problem.metric} per row",
        evidence={"smallest_detectable": smallest_detectable(difference)},
    )
