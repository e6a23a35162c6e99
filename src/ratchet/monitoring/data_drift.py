"""Does live traffic come from the population that the model was trained on?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from ratchet.check import Check, undecided
from ratchet.contract import Column, Contract
from ratchet.data.values import as_text
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Could this window's values come from the population of training?"


@registered("data_drift", "monitor")
def data_drift(problem: Problem, contract: Contract, reference: pd.DataFrame, window: pd.DataFrame) -> list[Check]:
    """One check per feature, without labels: the two-sample test that its measurement scale calls for.

    Numbers: Kolmogorov-Smirnov. Categories and binary: chi-squared on the counts, missing being a category of
    its own; a column that may be missing is also tested for its share of missing values. The p-value's limit
    spends the year's false-alarm budget over the year's checks and all columns (Bonferroni), so the limit moves
    with the sample size by itself; the effect size stands in the evidence.
    """
    tests = problem.watch.checks_per_year * len(contract.features)
    alpha = problem.watch.false_alarms_per_year / tests
    return [_column(problem, column, reference, window, alpha) for column in contract.features]


def _column(problem: Problem, column: Column, reference: pd.DataFrame, window: pd.DataFrame, alpha: float) -> Check:
    name, n = f"data_drift:{column.name}", len(window)
    shape = {"limit": alpha, "unit": "p-value"}
    if column.name not in window.columns:
        return Check(name, QUESTION, "fail", f"{column.name} is gone from the log", n=n, **shape)  # type: ignore[arg-type]
    if n < problem.watch.min_window:
        return undecided(name, QUESTION, f"{n} predictions; {problem.watch.min_window} are needed", n, **shape)
    old, new = reference[column.name], window[column.name]
    if column.is_numeric and column.scale != "binary":
        p, effect, measure = _numbers(old, new, column)
    else:
        p, effect, measure = _categories(old, new)
    moved = "moved" if p < alpha else "did not move beyond chance"
    return Check(
        name=name,
        question=QUESTION,
        verdict="fail" if p < alpha else "pass",
        reason=f"{column.name} {moved}: {measure} {effect:.3f}, p = {p:.1e}, limit {alpha:.1e}, {n} predictions",
        value=p,
        limit=alpha,
        n=n,
        unit="p-value",
        evidence={"effect": effect, "measure": measure},
    )


def _numbers(old: pd.Series, new: pd.Series, column: Column) -> tuple[float, float, str]:
    before, after = old.dropna().to_numpy(float), pd.to_numeric(new, errors="coerce").dropna().to_numpy(float)
    if after.size == 0:
        return 0.0, 1.0, "share of missing values"
    test = stats.ks_2samp(before, after, method="asymp")
    p, effect, measure = float(test.pvalue), float(test.statistic), "Kolmogorov-Smirnov distance"
    if column.missing > 0:
        counts = np.array([[old.isna().sum(), old.notna().sum()], [new.isna().sum(), new.notna().sum()]])
        gone = float(stats.fisher_exact(counts).pvalue)
        # Two questions were asked of one column: the smaller p-value counts twice.
        if gone < p:
            return min(1.0, 2 * gone), float(abs(new.isna().mean() - old.isna().mean())), "change in missing share"
        p = min(1.0, 2 * p)
    return p, effect, measure


def _categories(old: pd.Series, new: pd.Series) -> tuple[float, float, str]:
    before = old.map(as_text, na_action=None).value_counts()
    after = new.map(as_text, na_action=None).value_counts()
    table = pd.DataFrame({"old": before, "new": after}).fillna(0.0)
    # The chi-squared limit needs five expected rows per cell: rarer categories are counted together.
    expected = table.sum(axis=1) * min(len(old), len(new)) / (len(old) + len(new))
    rare = expected < 5
    if rare.sum() > 1:
        table = pd.concat([table[~rare], table[rare].sum().to_frame("rare").T])
    if len(table) < 2:
        return 1.0, 0.0, "Cramér's V"
    test = stats.chi2_contingency(table.to_numpy(), correction=False)
    effect = float(np.sqrt(test.statistic / table.to_numpy().sum()))
    return float(test.pvalue), effect, "Cramér's V"
