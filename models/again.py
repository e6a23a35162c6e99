"""What would the same family have answered, had chance or other rows made it otherwise?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GroupKFold, GroupShuffleSplit

from models.train import refit
from ratchet.contract import Contract
from ratchet.evaluation.learning_curve import Point
from ratchet.evaluation.loss import per_row
from ratchet.problem import Problem

SHARES = (0.10, 0.25, 0.50, 1.0)
# The share of the entities that a training stops and calibrates on: about that of the split, 0.15 of 0.70.
TUNE = 0.2
# With fewer entities, or rows of a class, folds and shares of them cannot be drawn.
FEWEST = 50


def error_runs(
    rows: pd.DataFrame, contract: Contract, family: str, params: dict[str, Any], folds: int, seeds: int, seed: int
) -> np.ndarray:
    """The answers of models that never saw the row nor its entity, for n labelled rows, shape (n, seeds).

    For each seed the entities are divided into folds anew, and each fold is answered by a model made of the others.
    Shape (n, 0) where there are too few entities or labels for that.
    """
    told = np.full((len(rows), seeds), np.nan)
    entities = pd.factorize(rows[contract.entity])[0]
    if entities.max() + 1 < FEWEST or rows[contract.target].value_counts().reindex([0.0, 1.0]).fillna(0).min() < FEWEST:
        return told[:, :0]
    for run in range(seeds):
        for others, fold in GroupKFold(folds, shuffle=True, random_state=seed + run).split(rows, groups=entities):
            answer = _made(rows.iloc[others], contract, family, params, seed + run)
            told[fold, run] = answer(rows.iloc[fold])
    return told


def window_runs(
    older: pd.DataFrame, newer: pd.DataFrame, contract: Contract, family: str, params: dict[str, Any], folds: int, seed: int
) -> np.ndarray:
    """The answers of two models to each of n labelled `newer` rows: made of other newer ones alone, and of the older ones too; shape (n, 2).

    Neither saw the row nor its entity. Shape (0, 2) where there are too few entities or labels for that.
    """
    entities = pd.factorize(newer[contract.entity])[0]
    if entities.max(initial=-1) + 1 < FEWEST or newer[contract.target].value_counts().reindex([0.0, 1.0]).fillna(0).min() < FEWEST:
        return np.empty((0, 2))
    told = np.full((len(newer), 2), np.nan)
    for others, fold in GroupKFold(folds, shuffle=True, random_state=seed).split(newer, groups=entities):
        alone, asked = newer.iloc[others], newer.iloc[fold]
        before = older[~older[contract.entity].isin(set(asked[contract.entity]))]
        try:
            for column, rows in enumerate((alone, pd.concat([before, alone], ignore_index=True))):
                told[fold, column] = _made(rows, contract, family, params, seed)(asked)
        except ValueError:
            # A fold whose rows hold one class only, as where a few entities have them all.
            return told[:0]
    return told


def learning_runs(
    rows: pd.DataFrame,
    sides: np.ndarray,
    contract: Contract,
    problem: Problem,
    family: str,
    params: dict[str, Any],
    seeds: int,
    seed: int,
) -> list[Point]:
    """Trainings on 10, 25, 50 and 100% of the labels that may be learnt from, judged on the select rows.

    The smaller ones are drawn by entity, another draw for each seed; one whose rows hold one class only is left out.
    """
    learnt = rows[(sides == "train") | (sides == "tune")].reset_index(drop=True)
    select = rows[sides == "select"]
    truth = select[contract.target].to_numpy(float)
    entities = pd.factorize(learnt[contract.entity])[0]
    points: list[Point] = []
    if entities.max() + 1 < FEWEST:
        return points
    for share in SHARES:
        for run in range(seeds):
            drawn = learnt
            if share < 1:
                draw = GroupShuffleSplit(1, train_size=share, random_state=seed + run)
                drawn = learnt.iloc[next(draw.split(learnt, groups=entities))[0]]
            try:
                answer = _made(drawn, contract, family, params, seed + run)
            except ValueError:
                continue
            p = np.clip(answer(select), 1e-7, 1 - 1e-7)
            points.append(
                Point(
                    labels=len(drawn),
                    seed=seed + run,
                    log_loss=float(log_loss(truth, p, labels=[0, 1])),
                    accuracy=float(accuracy_score(truth, p >= problem.threshold)),
                    cost=float(per_row(problem, p, truth).mean()),
                )
            )
    return points


def _made(rows: pd.DataFrame, contract: Contract, family: str, params: dict[str, Any], seed: int) -> Any:
    """A model of these rows, a fifth of whose entities it stops and calibrates on."""
    groups = pd.factorize(rows[contract.entity])[0]
    train, tune = next(GroupShuffleSplit(1, test_size=TUNE, random_state=seed).split(rows, groups=groups))
    return refit(rows.iloc[train], rows.iloc[tune], contract, family, params, seed)
