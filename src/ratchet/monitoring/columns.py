"""Does each column hold what it held, in its unit, its place, and nothing where nothing is known? Else it looks like a population that moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from ratchet.check import Check, Verdict, undecided
from ratchet.contract import Column, Contract
from ratchet.data.quality import with_values
from ratchet.data.values import as_text
from ratchet.monitoring.data_drift import MOST_ROWS, dependence, difference, of_flags, of_numbers
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Does each column hold what it held, in its unit and its place, and nothing where nothing is known?"
# What units of one quantity differ by: decimal prefixes, percent, minutes, hours, days, weeks and months.
FACTORS = tuple(sorted({factor**sign for factor in (10, 100, 1000, 1e6, 60, 3600, 24, 7, 12) for sign in (1, -1)}))
# A difference is none where chance brings about a larger one this often. Few rows are like much: of two that changed places, each is also this
# much nearer to what the other was than to what it was itself (in Kolmogorov's distance).
ALIKE, NEARER = 1e-3, 0.2


@registered("columns", "monitor")
def columns(problem: Problem, contract: Contract, reference: pd.DataFrame, window: pd.DataFrame, moved: Sequence[Check]) -> Check:
    """The share of columns whose values are another column's, in another unit, or fill what was missing, in a window of n rows.

    `reference` are training rows, `moved` the checks of `data_drift`. Of the columns that moved beyond chance, a number's is in another
    unit where its values, times what units differ by, tell no longer from those of before; two have changed places where each is like
    what the other was, and far nearer to it than to what it was itself; gaps are filled where fewer are missing, and a value with which
    all is as it was if it counts as missing. A population that moves does none of it. Where that happens while the population moves as
    well, it is not told.
    """
    n, window = len(window), window.tail(MOST_ROWS)
    found = {check.name.removeprefix("data_drift:"): check.verdict for check in moved}
    if n < problem.watch.min_window or not moved or all(verdict == "undecided" for verdict in found.values()):
        reason = f"{n} predictions; {problem.watch.min_window} are needed"
        return undecided("columns", QUESTION, reason, n, limit=0.0, unit="share of columns")
    if not with_values(contract.features, window):
        return undecided("columns", QUESTION, "no feature is there to be looked at", n, limit=0.0, unit="share of columns")
    asked = [c for c in contract.features if found.get(c.name) == "fail" and c.name in window and c.name in reference]
    told = _mistaken(contract, reference, window, asked) if asked else {}
    share = len(told) / len(contract.features)
    others = sum(verdict == "fail" for verdict in found.values()) - len(told)
    reason = "; ".join(dict.fromkeys(told.values())) or (
        f"{others} columns moved, and are like no other unit or column of before, nor filled gaps"
        if others
        else "no column moved beyond chance"
    )
    verdict: Verdict = "fail" if told else "pass"
    return Check(
        "columns", QUESTION, verdict, reason, value=share, limit=0.0, n=n, unit="share of columns", evidence={"columns": sorted(told)}
    )


def _is_amount(column: Column) -> bool:
    return column.is_numeric and column.values is None and column.scale != "binary"


def _mistaken(contract: Contract, reference: pd.DataFrame, window: pd.DataFrame, asked: Sequence[Column]) -> dict[str, str]:
    """By column, what is wrong with it in words."""
    least, numbers = (dependence(contract, reference), dependence(contract, window)), [column for column in asked if _is_amount(column)]
    old, new = ({c.name: pd.to_numeric(rows[c.name], errors="coerce").astype(float) for c in numbers} for rows in (reference, window))

    def alike(column: Column, before: pd.Series, after: pd.Series) -> bool:
        return before.nunique() > 1 and difference(column, before, after, least).p > ALIKE

    def moved_there(column: Column, there: Column) -> bool:
        before, own, after = old[there.name], old[column.name], new[column.name]
        return alike(there, before, after) and _distance(before, after) <= NEARER * _distance(own, after)

    told: dict[str, str] = {}
    for column in asked:
        before, after = reference[column.name], window[column.name]
        value = _filler(before, after)
        # Where no value fills the gaps, each is as frequent among those that are there as it was.
        if value is None or not _oftener(value, before.dropna(), after.dropna(), least):
            continue
        if alike(column, before.mask(before == value), after.mask(after == value)):
            told[column.name] = f"{column.name} is {as_text(value)} where it was missing: gaps are filled"
    for column in [column for column in numbers if column.name not in told]:
        size = [_size(values) for values in (old[column.name], new[column.name])]
        ratio = size[0] / size[1] if min(size) > 0 else 0.0
        if 0 < ratio < math.inf:
            factor = _nearest(ratio)
            # Whole numbers are compared one by one.
            if alike(column, old[column.name], (new[column.name] * factor).round(9)):
                times = f"{1 / factor:g} times as large" if factor < 1 else f"{factor:g} times smaller"
                told[column.name] = f"{column.name} is as it was, but {times}: its unit changed"
    for one, other in combinations([column for column in numbers if column.name not in told], 2):
        if moved_there(one, other) and moved_there(other, one):
            told[one.name] = told[other.name] = (
                f"{one.name} is what {other.name} was, and {other.name} what {one.name} was: they changed places"
            )
    return told


def _filler(before: pd.Series, after: pd.Series) -> Any:
    """The value that has become more frequent than any other, where fewer are missing than before; else None.

    >>> float(_filler(pd.Series([1.0, 2.0, None, None]), pd.Series([1.0, 2.0, 0.0, 0.0])))
    0.0
    """
    if after.isna().mean() >= before.isna().mean() or after.isna().all():
        return None
    shares = [values.value_counts() / len(values) for values in (before, after)]
    return shares[1].sub(shares[0], fill_value=0.0).idxmax()


def _oftener(value: Any, before: pd.Series, after: pd.Series, least: tuple[float, float]) -> bool:
    """Whether the value that rose most is more frequent than before, beyond chance."""
    old, new = (before == value).to_numpy(), (after == value).to_numpy()
    if not len(old) or (rise := new.mean() - old.mean()) <= 0:
        return False
    # By so much none could rise that is not so frequent now: these are the values that were asked.
    asked = (after.value_counts(normalize=True) >= rise).sum()
    return bool(of_flags(old, new, least).p * asked < ALIKE)


def _distance(before: pd.Series, after: pd.Series) -> float:
    """Kolmogorov's, of those values that are there."""
    return of_numbers(before.dropna().to_numpy(), after.dropna().to_numpy()).effect


def _size(values: pd.Series) -> float:
    """How large values are that are not nought; 0 where there is none."""
    sizes = values.abs()[values.ne(0) & values.notna()]
    return float(sizes.median()) if len(sizes) else 0.0


def _nearest(ratio: float) -> float:
    """The factor between two units that comes nearest.

    >>> _nearest(950.0), _nearest(0.11)
    (1000, 0.1)
    """
    return min(FACTORS, key=lambda factor: abs(math.log(factor / ratio)))
