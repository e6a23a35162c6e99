"""Which features decide, is there a reason that they should, and what has changed since the champion?"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from ratchet.check import Check, undecided
from ratchet.contract import Contract
from ratchet.evaluation.loss import Z, defect
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Does every feature that matters have a stated reason to?"
REPEATS = 5
BACKGROUND = 50
Probability = Callable[[pd.DataFrame], np.ndarray]


@dataclass(frozen=True)
class Importance:
    """The ROC AUC that a model loses when a feature is shuffled, with its 95% interval over the shuffles."""

    feature: str
    value: float
    low: float
    high: float


def permutation_importance(
    contract: Contract, frame: pd.DataFrame, truth: np.ndarray, probability: Probability, seed: int, repeats: int = REPEATS
) -> list[Importance]:
    """The importance of every feature on n rows (Breiman, 2001), most important first. ValueError on one class only."""
    rng = np.random.default_rng(seed)
    clean = float(roc_auc_score(truth, probability(frame)))
    found = []
    for column in contract.features:
        drops = []
        for _ in range(repeats):
            shuffled = frame.assign(**{column.name: frame[column.name].to_numpy()[rng.permutation(len(frame))]})
            drops.append(clean - float(roc_auc_score(truth, probability(shuffled))))
        mean, error = float(np.mean(drops)), float(np.std(drops, ddof=1) / np.sqrt(repeats)) if repeats > 1 else 0.0
        found.append(Importance(column.name, mean, mean - Z * error, mean + Z * error))
    return sorted(found, key=lambda item: -item.value)


def shapley(contract: Contract, frame: pd.DataFrame, background: pd.DataFrame, probability: Probability, seed: int) -> pd.DataFrame:
    """What each feature adds to each of n answers, in probability, shape (n, features): SHAP (Lundberg & Lee, 2017).

    By permutations over the raw columns against `background`, so that any family is explained alike. A row's values
    add up to its answer less the background's mean.
    """
    shap = _interpreted_shap()
    names = [column.name for column in contract.features]
    levels = {name: pd.Index(pd.concat([frame[name], background[name]]).astype(object).unique()) for name in names}

    def coded(rows: pd.DataFrame) -> np.ndarray:
        return np.column_stack([levels[name].get_indexer(rows[name].astype(object)) for name in names]).astype(float)

    def answer(codes: np.ndarray) -> np.ndarray:
        columns = {name: levels[name].to_numpy()[codes[:, place].astype(int)] for place, name in enumerate(names)}
        return probability(pd.DataFrame(columns).infer_objects())

    masker = shap.maskers.Independent(coded(background), max_samples=BACKGROUND)
    explainer = shap.explainers.Permutation(answer, masker, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = explainer(coded(frame), max_evals=2 * len(names) + 1, silent=True)
    return pd.DataFrame(found.values, columns=names, index=frame.index)


def _interpreted_shap() -> Any:
    """SHAP without numba's compilation: it takes ten seconds, and the arrays here are small."""
    import numba

    configuration: Any = numba.config
    before, configuration.DISABLE_JIT = configuration.DISABLE_JIT, True
    try:
        import shap
    finally:
        configuration.DISABLE_JIT = before
    return shap


def ranking(frame: pd.DataFrame, truth: np.ndarray, probability: Probability) -> float:
    """The model's own ROC AUC on n rows."""
    return float(roc_auc_score(truth, probability(frame)))


def changed(now: Sequence[Importance], before: Sequence[Importance]) -> list[dict[str, Any]]:
    """Every feature's importance now and in the champion, the largest change first; None where one does not know it."""
    old, new = ({item.feature: item.value for item in some} for some in (before, now))
    told = [{"feature": name, "now": new.get(name), "before": old.get(name)} for name in dict.fromkeys([*new, *old])]
    return sorted(told, key=lambda item: -abs((item["now"] or 0.0) - (item["before"] or 0.0)))


@registered("leakage", "release")
def leakage(
    problem: Problem, contract: Contract, importances: Sequence[Importance], truth: np.ndarray, alone: dict[str, float], auc: float
) -> Check:
    """The largest importance among features for which the contract states no `cause`: what matters without one may leak.

    `alone` is each feature's own ROC AUC; one that ranks the n rows by itself nearly as well as the model's `auc` does
    is suspected too, whatever its cause.
    """
    limit, n = problem.gate.importance, len(truth)
    if n < problem.gate.min_rows or np.unique(truth).size < 2:
        lacking = f"{n} labelled rows of {np.unique(truth).size} classes; {problem.gate.min_rows} rows of 2 are needed"
        return undecided("leakage", QUESTION, lacking, n, limit=limit)
    if wrong := defect(np.array([item.value for item in importances])):
        return Check("leakage", QUESTION, "fail", wrong, limit=limit, n=n)
    without = [item for item in importances if contract.column(item.feature).cause is None]
    suspects = [f"{item.feature} (shuffled, {item.value:.3f} of ROC AUC)" for item in without if item.low > limit]
    telling = [name for name, own in alone.items() if own - 0.5 > 0.95 * (auc - 0.5) and len(alone) > 1]
    suspects += [f"{name} (alone it ranks as well as the model: {alone[name]:.3f}; a cause does not explain that)" for name in telling]
    worst = max(without, key=lambda item: item.value, default=Importance("none", 0.0, 0.0, 0.0))
    evidence = {
        "importance": [{"feature": i.feature, "value": i.value, "low": i.low, "high": i.high} for i in importances],
        "alone": alone,
        "suspects": suspects,
    }
    numbers = (worst.value, worst.low, worst.high)
    if suspects:
        reason = f"leakage suspects: {', '.join(suspects)}; take them out, or where a shuffled one has a `cause`, state it in contract.yaml"
        return Check("leakage", QUESTION, "fail", reason, *numbers, limit=limit, n=n, unit="ROC AUC", evidence=evidence)
    reason = f"of {len(importances)} features, {len(without)} have no stated cause; the most important of these is {worst.feature} ({worst.value:.4f}, limit {limit:g})"
    return Check("leakage", QUESTION, "pass", reason, *numbers, limit=limit, n=n, unit="ROC AUC", evidence=evidence)


def alone(contract: Contract, frame: pd.DataFrame, truth: np.ndarray) -> dict[str, float]:
    """Each feature's own ROC AUC on n rows, at least 0.5: of its number, or of its values' share of label 1 (half on half)."""
    half = np.arange(len(frame)) % 2 == 0
    told = {}
    for column in contract.features:
        values = frame[column.name]
        if column.is_numeric:
            score = values.fillna(values.median()).fillna(0.0).to_numpy(float)
            own = float(roc_auc_score(truth, score))
            told[column.name] = max(own, 1 - own)
            continue
        shares = pd.Series(truth[half]).groupby(values[half].astype(str).to_numpy()).mean()
        score = values[~half].astype(str).map(shares).fillna(float(truth[half].mean())).to_numpy(float)
        told[column.name] = float(roc_auc_score(truth[~half], score)) if np.unique(truth[~half]).size == 2 else 0.5
    return told
