"""How good is a set of parameters? Cross-validated by entity, in as many objectives as are asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, GroupShuffleSplit

from models.again import TUNE
from models.train import refit
from ratchet.contract import Contract
from ratchet.errors import BatchError
from ratchet.evaluation.calibration import calibration_error
from ratchet.evaluation.loss import per_row
from ratchet.problem import Problem

OBJECTIVES = ("log_loss", "cost", "negative_flips", "calibration", "latency")
TIMED_ROWS, TIMINGS = 200, 5


def objective(
    rows: pd.DataFrame,
    contract: Contract,
    problem: Problem,
    family: str,
    params: dict[str, Any],
    wanted: Sequence[str],
    *,
    folds: int,
    seed: int,
    champion: tuple[str, dict[str, Any]] | None = None,
) -> Callable[[dict[str, Any]], list[float]]:
    """A function from a family's parameters to the objectives wanted, each to be low, on n labelled rows.

    log_loss, cost (the problem's, per row) and calibration (its error) are of answers by models that never saw the
    row's entity. negative_flips: the share of rows that such a model has wrong and the champion's own family and parameters
    (`champion`), trained on the same folds, have right: the champion itself has learnt from the rows. latency:
    microseconds a row. BatchError where an objective is not known, or cannot be measured.
    """
    if unknown := [name for name in wanted if name not in OBJECTIVES]:
        raise BatchError(f"objective {unknown[0]!r} is not known; there are {', '.join(OBJECTIVES)}.")
    if "negative_flips" in wanted and champion is None:
        raise BatchError("objective 'negative_flips': there is no champion yet whose right decisions could be kept.")
    truth = rows[contract.target].to_numpy(float)
    groups = pd.factorize(rows[contract.entity])[0]
    divided = list(GroupKFold(folds, shuffle=True, random_state=seed).split(rows, groups=groups))

    def answers(of: str, made: dict[str, Any], seconds: list[float] | None = None) -> np.ndarray:
        """What models that never saw the row's entity say of each row, shape (n,)."""
        told = np.full(len(rows), np.nan)
        for others, fold in divided:
            inner = GroupShuffleSplit(1, test_size=TUNE, random_state=seed)
            train, tune = next(inner.split(others, groups=groups[others]))
            answer = refit(rows.iloc[others[train]], rows.iloc[others[tune]], contract, of, made, seed)
            told[fold] = answer(rows.iloc[fold])
            if seconds is not None:
                seconds.append(_seconds(answer, rows.iloc[fold[:TIMED_ROWS]]))
        return told

    @cache
    def before() -> np.ndarray:
        assert champion is not None
        of, settings = champion
        return answers(of, params | {of: params[of] | settings})

    def evaluate(tried: dict[str, Any]) -> list[float]:
        seconds: list[float] | None = [] if "latency" in wanted else None
        told = answers(family, params | {family: params[family] | tried}, seconds)
        clipped = np.clip(told, 1e-7, 1 - 1e-7)
        values = {
            "log_loss": lambda: float(log_loss(truth, clipped, labels=[0, 1])),
            "cost": lambda: float(per_row(problem, told, truth).mean()),
            "calibration": lambda: calibration_error(told, truth)[0],
            "negative_flips": lambda: _flips(problem, told, before(), truth),
            "latency": lambda: 1e6 * float(np.median(seconds or [np.nan])) / TIMED_ROWS,
        }
        return [values[name]() for name in wanted]

    return evaluate


def _flips(problem: Problem, candidate: np.ndarray, champion: np.ndarray, truth: np.ndarray) -> float:
    wrong, was_wrong = ((p >= problem.threshold) != (truth == 1) for p in (candidate, champion))
    return float((wrong & ~was_wrong).mean())


def _seconds(answer: Callable[[pd.DataFrame], np.ndarray], rows: pd.DataFrame) -> float:
    found = []
    for _ in range(TIMINGS):
        begun = time.perf_counter()
        answer(rows)
        found.append(time.perf_counter() - begun)
    return min(found)
