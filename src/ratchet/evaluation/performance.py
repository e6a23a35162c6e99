"""Is the candidate good enough, better than a rule, and no worse than a simple model?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn import metrics

from ratchet.check import Check, Side, answered, undecided
from ratchet.evaluation.loss import bootstrap, defect, interval, per_row, smallest_detectable
from ratchet.problem import Problem
from ratchet.registry import registered

RULE = "Does the candidate cost less than the hand-written rule?"
FLOOR = "Does the metric keep to the floor (for a loss: the ceiling) that the problem states?"
SIMPLE = "Is the candidate no worse than the simple model?"


@dataclass(frozen=True)
class Metric:
    """A metric of n rows: from the scores, the truth and the decision threshold; whether more is better."""

    value: Callable[[np.ndarray, np.ndarray, float], float]
    side: Side = "at_least"
    two_classes: bool = False


def _decided(metric: Callable[..., float], **more: object) -> Callable[[np.ndarray, np.ndarray, float], float]:
    return lambda score, truth, threshold: float(metric(truth, (score >= threshold).astype(int), **more))


# How each of `registry.FLOORS` is told; some are those of a number that is predicted, not a class.
OF_NUMBERS = ("mse", "mae")
METRICS = {
    "accuracy": Metric(_decided(metrics.accuracy_score)),
    "precision": Metric(_decided(metrics.precision_score, zero_division=0)),
    "recall": Metric(_decided(metrics.recall_score, zero_division=0), two_classes=True),
    "f1": Metric(_decided(metrics.f1_score, zero_division=0), two_classes=True),
    "roc_auc": Metric(lambda score, truth, _: float(metrics.roc_auc_score(truth, score)), two_classes=True),
    "pr_auc": Metric(lambda score, truth, _: float(metrics.average_precision_score(truth, score)), two_classes=True),
    "brier": Metric(lambda score, truth, _: float(np.mean((score - truth) ** 2)), "at_most"),
    "log_loss": Metric(lambda score, truth, _: float(metrics.log_loss(truth, np.clip(score, 1e-7, 1 - 1e-7), labels=[0, 1])), "at_most"),
    "mse": Metric(lambda score, truth, _: float(metrics.mean_squared_error(truth, score)), "at_most"),
    "mae": Metric(lambda score, truth, _: float(metrics.mean_absolute_error(truth, score)), "at_most"),
}


def scores(problem: Problem, probability: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """What n rows cost each, and the field's usual numbers of a class; those that need both classes are left out where one is missing."""
    costs = problem.model_copy(update={"metric": "cost"})
    told = {"cost": float(per_row(costs, probability, truth).mean())}
    both = 0 < truth.mean() < 1
    return told | {
        name: metric.value(probability, truth, problem.threshold)
        for name, metric in METRICS.items()
        if name not in OF_NUMBERS and (both or not metric.two_classes)
    }


@registered("floor", "release")
def floors(problem: Problem, score: np.ndarray, truth: np.ndarray, seed: int = 0) -> list[Check]:
    """One check for each floor in problem.yaml, on n rows, with a bootstrap interval."""
    return [_floor(problem, name, limit, score, truth, seed) for name, limit in problem.gate.floors.items()]


def _floor(problem: Problem, name: str, limit: float, score: np.ndarray, truth: np.ndarray, seed: int) -> Check:
    metric, n, called = METRICS[name], len(truth), f"floor:{name}"
    if n < problem.gate.min_rows:
        return undecided(called, FLOOR, f"{n} labelled rows; {problem.gate.min_rows} are needed", n, limit=limit)
    if wrong := defect(score):
        return Check(called, FLOOR, "fail", wrong, limit=limit, n=n)
    if metric.two_classes and np.unique(truth).size < 2:
        return undecided(called, FLOOR, f"the {n} rows hold one class only, and {name} needs two", n, limit=limit)

    def value(rows: np.ndarray) -> float:
        if metric.two_classes and np.unique(truth[rows]).size < 2:
            return float("nan")
        return metric.value(score[rows], truth[rows], problem.threshold)

    found = bootstrap(value, n, seed)
    if not np.isfinite(found).all():
        return undecided(called, FLOOR, f"the {n} rows hold too few of one class to tell the interval of {name}", n, limit=limit)
    word = "at least" if metric.side == "at_least" else "at most"
    reason = f"{name} {found[0]:.4f} [{found[1]:.4f}, {found[2]:.4f}], {word} {limit:g} is asked for, {n} rows"
    return answered(called, FLOOR, found, limit, metric.side, reason, n, name)


@registered("beats_rule", "release")
def beats_rule(problem: Problem, candidate: np.ndarray, rule: np.ndarray, truth: np.ndarray) -> Check:
    """Paired difference of loss, candidate minus rule, on n rows; its interval must lie below zero."""
    return _against("beats_rule", RULE, problem, candidate, rule, truth, limit=0.0, other="the rule", strict=True)


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
    strict: bool = False,
) -> Check:
    """The paired difference within `limit`; `strict`: below it, so that what only equals the other fails."""
    n = len(truth)
    if n < problem.gate.min_rows:
        return undecided(name, question, f"{n} labelled rows; {problem.gate.min_rows} are needed", n, limit=limit)
    if wrong := defect(candidate, other_scores):
        return Check(name, question, "fail", wrong, limit=limit, n=n)
    difference = per_row(problem, candidate, truth) - per_row(problem, other_scores, truth)
    mean, low, high = interval(difference)
    reason = f"{problem.metric} differs from {other}'s by {mean:+.4f} [{low:+.4f}, {high:+.4f}], limit {limit:+.4f}, {n} rows"
    evidence = {"smallest_detectable": smallest_detectable(difference)}
    if strict and mean == high == limit:
        reason = f"it decides every one of {n} rows as {other} does"
        return Check(name, question, "fail", reason, mean, low, high, limit, n, f"{problem.metric} per row", evidence=evidence)
    return answered(name, question, (mean, low, high), limit, "at_most", reason, n, f"{problem.metric} per row", evidence=evidence)
