"""Are the logged values still of the kind that the contract promises?"""

from __future__ import annotations

import pandas as pd
from scipy import stats

from ratchet.check import Check, undecided
from ratchet.contract import LOGGED, Contract
from ratchet.monitoring.autocorrelation import inflation
from ratchet.monitoring.excess import level
from ratchet.problem import Problem
from ratchet.registry import registered

# Most columns vary among so many rows already.
FEW = 100
QUESTION = "Does every feature still vary, is none missing more often than the contract allows, and is every column the contract's?"


@registered("validity", "monitor")
def validity(problem: Problem, contract: Contract, reference: pd.DataFrame, window: pd.DataFrame) -> Check:
    """The share of features that are stuck on one value, or missing more often than the contract allows, beyond chance; and what is in no contract.

    Beyond chance is told by a one-sided binomial test, each column at an equal part of the level: for gaps against the contract's
    allowance, where those that come in runs count in full, for it is a limit whatever they come from; for one value against its share in
    the reference, where autocorrelated rows count as fewer. Retraining on such a window would learn the fault, so the policy blocks.
    """
    n, names = len(window), [column.name for column in contract.features]
    if n < problem.watch.min_window:
        reason = f"{n} predictions; {problem.watch.min_window} are needed"
        return undecided("validity", QUESTION, reason, n, limit=0.0, unit="share of features")
    alpha, faults, columns = of_column(problem, contract), list[str](), list[str]()
    for column in contract.features:
        if column.name not in window.columns:
            columns.append(column.name)
            faults.append(f"{column.name} is gone")
            continue
        values = window[column.name]
        missing = values.isna()
        if stats.binom.sf(missing.sum() - 1, n, column.missing) < alpha:
            columns.append(column.name)
            faults.append(f"{column.name} is missing in {missing.mean():.0%} of rows, where {column.missing:.0%} may be")
        elif stuck(values, reference[column.name], alpha):
            columns.append(column.name)
            faults.append(f"{column.name} is stuck on {values.dropna().iloc[0]}")
    for name in sorted(set(window.columns) - {column.name for column in contract.columns} - set(LOGGED)):
        # What nobody sends any more stands in older rows yet.
        if window[name].tail(FEW).notna().any():
            columns.append(name)
            faults.append(f"{name} is no column of the contract: add it there, or let nobody send it")
    return Check(
        name="validity",
        question=QUESTION,
        verdict="fail" if faults else "pass",
        reason="; ".join(faults) if faults else f"{len(names)} features vary and are there, {n} predictions",
        value=len(faults) / len(names),
        limit=0.0,
        n=n,
        unit="share of features",
        evidence={"faults": faults, "columns": columns},
    )


def of_column(problem: Problem, contract: Contract) -> float:
    """The level of one column."""
    return level(problem) / len(contract.features)


def stuck(values: pd.Series, reference: pd.Series, alpha: float) -> bool:
    """Whether all that is there is one value, in a column that varied; not where so many rows may have it by chance, at a level `alpha`."""
    if values.head(FEW).nunique() > 1:
        return False
    there = values.dropna()
    if there.empty or not (there == there.iloc[0]).all():
        return False
    had = (reference == there.iloc[0]).to_numpy()
    share = (had.sum() + 1) / (len(had) + 1)
    return _varies(reference) and bool(share ** (len(there) / inflation(had)) < alpha)


def _varies(values: pd.Series) -> bool:
    """Whether a column has more than one value, and none in nearly all rows: else that it has but one tells nothing."""
    shares = values.value_counts(normalize=True)
    return len(shares) > 1 and float(shares.iloc[0]) < 0.99
