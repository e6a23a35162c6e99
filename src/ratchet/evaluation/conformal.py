"""How sure is the model of a single answer: which labels must be allowed for to be right nine times in ten?"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from mapie.classification import SplitConformalClassifier
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin

from ratchet.check import Check, answered, undecided
from ratchet.evaluation.loss import defect
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Do the conformal sets hold the truth as often as they promise?"


class Scores(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Scores that are known already, in the clothes of a fitted classifier: rows are probabilities, shape (n, 1)."""

    def __init__(self) -> None:
        self.classes_ = np.array([0, 1])
        self.is_fitted_ = True

    def fit(self, x: Any, y: Any) -> Scores:
        """Nothing is learnt."""
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Both classes' probabilities, shape (n, 2)."""
        p = np.asarray(x, float).reshape(-1)
        return np.column_stack([1 - p, p])

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The likelier class, shape (n,)."""
        return np.asarray((np.asarray(x, float).reshape(-1) >= 0.5).astype(int))


def sets(held_out: np.ndarray, held_out_truth: np.ndarray, probability: np.ndarray, coverage: float) -> np.ndarray:
    """Which of the two labels each of n rows' set holds, shape (n, 2), bool (split conformal; Sadinle et al., 2019).

    `held_out` are probabilities of rows that the model was not fitted on, with their truth.
    """
    classifier = SplitConformalClassifier(Scores(), confidence_level=coverage, conformity_score="lac", prefit=True)
    with warnings.catch_warnings():
        # Quantiles at the end of a short list are warned of; the check's own interval says the same.
        warnings.simplefilter("ignore")
        classifier.conformalize(held_out.reshape(-1, 1), held_out_truth.astype(int))
        _, found = classifier.predict_set(probability.reshape(-1, 1))
    return np.asarray(found[:, :, 0], dtype=bool)


@registered("conformal", "release")
def conformal(problem: Problem, held_out: np.ndarray, held_out_truth: np.ndarray, probability: np.ndarray, truth: np.ndarray) -> Check:
    """Share of n rows whose conformal set holds the truth, against the coverage promised less what chance may take off.

    The sets are made from held-out rows (m,), so coverage varies with them too: the problem's `coverage_slack`.
    """
    gate, n = problem.gate, len(truth)
    limit = gate.coverage - gate.coverage_slack
    if min(n, len(held_out)) < gate.min_rows:
        few = min(n, len(held_out))
        return undecided("conformal", QUESTION, f"{few} labelled rows; {gate.min_rows} are needed", few, limit=limit)
    if wrong := defect(held_out, probability):
        return Check("conformal", QUESTION, "fail", wrong, limit=limit, n=n)
    if np.unique(held_out_truth).size < 2:
        return undecided("conformal", QUESTION, f"the {len(held_out)} held-out rows hold one class only", n, limit=limit)
    found = sets(held_out, held_out_truth, probability, gate.coverage)
    held = found[np.arange(n), truth.astype(int)]
    within = stats.binomtest(int(held.sum()), n).proportion_ci(method="wilson")
    sizes = found.sum(axis=1)
    shares = {name: float((sizes == size).mean()) for name, size in (("empty", 0), ("one label", 1), ("both labels", 2))}
    numbers = (float(held.mean()), float(within.low), float(within.high))
    reason = (
        f"the sets hold the truth in {numbers[0]:.1%} [{numbers[1]:.1%}, {numbers[2]:.1%}] of {n} rows, {gate.coverage:.0%} promised, "
        f"{limit:.0%} asked for; {shares['one label']:.0%} name one label, {shares['both labels']:.0%} allow both"
    )
    return answered("conformal", QUESTION, numbers, limit, "at_least", reason, n, "share of rows", evidence={"sizes": shares})
