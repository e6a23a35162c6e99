"""Does the service see and answer what the training would? Features and scores of the same rows, value by value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ratchet.check import Check, Verdict, undecided
from ratchet.contract import Column, Contract
from ratchet.problem import Problem
from ratchet.registry import registered

SEES = "Does the service see the values that the training sees?"
ANSWERS = "Does the training path answer logged rows as the service did?"


@registered("skew", "monitor")
def skew(problem: Problem, contract: Contract, offline: pd.DataFrame, online: pd.DataFrame) -> Check:
    """The share of rows of which a feature differs at all; rows are aligned, n in both, named by `id` in `online`.

    `offline` holds the features as the training path has them, `online` as they were logged. Values are equal or they
    are not: a difference in the last bit counts, so a clean service gives no alarm however many rows are compared.
    """
    different = {column.name: differs(offline[column.name], online[column.name], column) for column in contract.features}
    rows = np.logical_or.reduce(list(different.values()))
    if not rows.any():
        return _judge("skew:features", SEES, problem, rows, f"{len(contract.features)} features of {len(rows):,} rows are the same", {})
    first = int(np.flatnonzero(rows)[0])
    names = [name for name, wrong in different.items() if wrong[first]]
    pairs = {name: (_plain(offline[name].iloc[first]), _plain(online[name].iloc[first])) for name in names}
    said = ", ".join(f"{name} is {there!r} offline and {here!r} online" for name, (there, here) in pairs.items())
    touched = [name for name, wrong in different.items() if wrong.any()]
    identity = str(online["id"].iloc[first])
    reason = f"{rows.sum():,} of {len(rows):,} rows differ in {', '.join(touched)}; the first is {identity}: {said}"
    return _judge("skew:features", SEES, problem, rows, reason, {"first": identity, "row": first, "values": pairs, "columns": touched})


def score_skew(problem: Problem, logged: pd.DataFrame, replayed: np.ndarray) -> Check:
    """The share of n logged rows whose probability, replayed through the training path, is not the same to the last bit.

    `logged` has the columns `id` and `probability`; `replayed` has shape (n,).
    """
    told = logged["probability"].to_numpy(float)
    rows = ~(told == replayed)
    if not rows.any():
        return _judge("skew:scores", ANSWERS, problem, rows, f"{len(rows):,} rows are answered as they were", {})
    first = int(np.flatnonzero(rows)[0])
    identity, gap = str(logged["id"].iloc[first]), float(np.nanmax(np.abs(told - replayed)))
    reason = (
        f"{rows.sum():,} of {len(rows):,} rows are answered otherwise, by up to {gap:.2g}; the first is {identity}: "
        f"{told[first]:.9f} was answered, {replayed[first]:.9f} is"
    )
    return _judge("skew:scores", ANSWERS, problem, rows, reason, {"first": identity, "row": first, "largest": gap})


def differs(offline: pd.Series, online: pd.Series, column: Column) -> np.ndarray:
    """Whether each of n pairs of values differs, shape (n,). Missing is equal to missing alone."""
    if column.values is None:
        try:
            one, other = (np.asarray(values, dtype=np.float64) for values in (offline, online))
        except (TypeError, ValueError):
            one, other = (np.asarray(values, dtype=object) for values in (offline, online))
            return np.array([not _same(a, b) for a, b in zip(one, other, strict=True)], dtype=bool)
        same: np.ndarray = (one == other) | (np.isnan(one) & np.isnan(other))
        return ~same
    same = (offline.astype(object).to_numpy() == online.astype(object).to_numpy()) | (offline.isna() & online.isna()).to_numpy()
    return ~same


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or (bool(pd.isna(one)) and bool(pd.isna(other)))


def _plain(value: Any) -> Any:
    return None if pd.isna(value) else value.item() if isinstance(value, np.generic) else value


def _judge(name: str, question: str, problem: Problem, rows: np.ndarray, reason: str, evidence: dict[str, Any]) -> Check:
    n = len(rows)
    # That few rows are the same tells little; that one differs is proof.
    if n < problem.watch.min_window and not rows.any():
        needed = problem.watch.min_window
        return undecided(name, question, f"{n} rows; {needed} are needed; {reason}", n, limit=0.0, unit="share of rows")
    share = float(rows.mean())
    verdict: Verdict = "fail" if rows.any() else "pass"
    return Check(name, question, verdict, reason, value=share, limit=0.0, n=n, unit="share of rows", evidence=evidence)
