"""Does live traffic come from the population that the model was trained on? Column by column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from ratchet.check import Check, undecided
from ratchet.contract import CATEGORICAL, Column, Contract
from ratchet.data.encoding import factorised
from ratchet.data.entities import newest_of_each
from ratchet.data.values import as_text
from ratchet.monitoring import projection
from ratchet.monitoring.autocorrelation import inflation, inflation_of_shares
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Could this window's values come from the population of training?"
# Whole numbers of no more values than these are counted, not ranked: ties would hide what moved.
COUNTED = 30
# More rows than these tell little more of their autocorrelation.
MOST_ROWS = 20_000
# Categories are counted apart where so many rows of each are expected; the chi-squared limit holds far out in its tail, where a year of
# checks looks, from so many on.
EXPECTED, PLENTY = 5.0, 100.0
TENTHS = np.linspace(0.1, 0.9, 9)


@dataclass(frozen=True)
class Difference:
    """What tells two samples of one column apart: a p-value, an effect size, and what that size measures."""

    p: float
    effect: float
    measure: str
    inflation: float = 1.0


@registered("data_drift", "monitor")
def data_drift(problem: Problem, contract: Contract, reference: pd.DataFrame, window: pd.DataFrame) -> list[Check]:
    """One check per feature and watched column, without labels: the two-sample test that its measurement scale calls for.

    Half of the year's budget of false alarms is spent over the year's checks and all columns (Bonferroni), so the limit of
    the p-value moves with the sample size by itself; the effect size stands in the evidence. Rows of both frames are in their
    order: where they are autocorrelated, fewer count. Of each entity, where rows tell it, the newest counts.
    """
    n = len(window)
    reference, window = newest_of_each(contract, reference), newest_of_each(contract, window)
    columns = contract.features + contract.watched
    alpha = problem.watch.false_alarms_per_check / 2 / len(columns)
    least = dependence(contract, reference), dependence(contract, window)
    return [_check(problem, column, reference, window, alpha, least, n) for column in columns]


def dependence(contract: Contract, rows: pd.DataFrame) -> float:
    """How autocorrelated rows in their order are, by all features: a single column may by chance not show it.

    Of more than 20,000 rows the newest are looked at: longer dependence, each column shows by itself.
    """
    rows, told = rows.tail(MOST_ROWS), []
    for column in contract.features:
        if column.name not in rows:
            continue
        if column.values is None:
            numbers = pd.to_numeric(rows[column.name], errors="coerce").to_numpy(float)
            if not np.isnan(numbers).all():
                # A tenth as good as a rank: means and ranks are more autocorrelated than whether a value is high.
                told.append(np.searchsorted(np.nanquantile(numbers, TENTHS), numbers))
        else:
            codes, _ = factorised(rows[column.name])
            if (codes >= 0).any():
                told.append(codes == np.bincount(codes[codes >= 0]).argmax())
    return inflation(np.column_stack(told).astype(float), several=True) if told and len(rows) else 1.0


def _check(
    problem: Problem, column: Column, reference: pd.DataFrame, window: pd.DataFrame, alpha: float, least: tuple[float, float], n: int
) -> Check:
    name, rows = f"data_drift:{column.name}", len(window)
    told = f"{n} predictions" + (f" of {rows} entities" if rows < n else "")
    if rows < problem.watch.min_window:
        reason = f"{told}; {problem.watch.min_window} are needed"
        return undecided(name, QUESTION, reason, n, limit=alpha, unit="p-value")
    if column.name not in reference.columns:
        return undecided(
            name, QUESTION, f"{column.name} was not watched yet when this version was released", n, limit=alpha, unit="p-value"
        )
    if column.name not in window.columns:
        return Check(name, QUESTION, "fail", f"{column.name} is gone from the log", value=0.0, limit=alpha, n=n, unit="p-value")
    found = difference(column, reference[column.name], window[column.name], least)
    moved = "moved" if found.p < alpha else "did not move beyond chance"
    worth = f" that tell as much as {rows / found.inflation:.0f} independent ones" if found.inflation > 1 else ""
    return Check(
        name=name,
        question=QUESTION,
        verdict="fail" if found.p < alpha else "pass",
        reason=f"{column.name} {moved}: {found.measure} {found.effect:.3f}, p = {found.p:.1e}, limit {alpha:.1e}, {told}{worth}",
        value=found.p,
        limit=alpha,
        n=n,
        unit="p-value",
        evidence={"effect": found.effect, "measure": found.measure, "inflation": found.inflation},
    )


def difference(column: Column, old: pd.Series, new: pd.Series, least: tuple[float, float] = (1.0, 1.0)) -> Difference:
    """What tells n new values from m old ones, by the column's measurement scale; both in the order of their rows.

    Continuous: Kolmogorov-Smirnov. Discrete and ordinal: Mann-Whitney and chi-squared. Nominal and binary: chi-squared, missing
    being a category of its own. Text and images: Kolmogorov-Smirnov of each of their projections; those of text are learnt on the first
    half of the old values, and told of the second. Where several questions are asked
    of one column, the smallest p-value counts so many times. `least` is how autocorrelated the rows of both are as their other
    columns tell.
    """
    if column.scale == "text":
        # What directions were made of lies along them more than anything new does.
        learnt, old = (old.iloc[: len(old) // 2], old.iloc[len(old) // 2 :])
        project: Callable[[pd.Series], dict[str, np.ndarray]] = projection.text(learnt)
    elif column.scale == "image":
        project = projection.image
    elif column.scale in CATEGORICAL or column.scale == "binary":
        (before_codes, after_codes), names = _codes(old, new)
        ordered = [as_text(value) for value in column.values or ()] if column.scale == "ordinal" else []
        return _counted(before_codes, after_codes, names, ordered, least)
    else:
        before, after = (pd.to_numeric(values, errors="coerce").to_numpy(float) for values in (old, new))
        return of_numbers(before, after, least, discrete=column.scale == "discrete")
    before_of, after_of = project(old), project(new)
    found = {name: of_numbers(before_of[name], after_of[name], least) for name in before_of}
    part, worst = min(found.items(), key=lambda pair: pair[1].p)
    return Difference(min(1.0, len(found) * worst.p), worst.effect, f"{worst.measure} of its {part}", worst.inflation)


def of_numbers(before: np.ndarray, after: np.ndarray, least: tuple[float, float] = (1.0, 1.0), discrete: bool = False) -> Difference:
    """What tells n new numbers from m old ones, shapes (n,) and (m,), NaN where missing: as `difference` does."""
    gone = [np.isnan(values) for values in (before, after)]
    old, new = before[~gone[0]], after[~gone[1]]
    if old.size == 0 or new.size == 0:
        return _lacking(gone[0], gone[1], least)
    if discrete and (distinct := np.unique(new)).size <= COUNTED and (distinct := np.union1d(distinct, old)).size <= COUNTED:
        names = [*map(as_text, distinct), "missing"]
        codes = [
            np.where(lost, len(distinct), np.searchsorted(distinct, values)) for values, lost in zip((before, after), gone, strict=True)
        ]
        return _counted(codes[0], codes[1], names, names[:-1], least)
    found = _kolmogorov_smirnov(old, new, least)
    if not (gone[0].any() or gone[1].any()):
        return found
    lacking = _lacking(gone[0], gone[1], least)
    # Two questions were asked of one column.
    clearer = lacking if lacking.p < found.p else found
    return replace(clearer, p=min(1.0, 2 * clearer.p))


def of_flags(before: np.ndarray, after: np.ndarray, least: tuple[float, float] = (1.0, 1.0)) -> Difference:
    """What tells n new flags from m old ones, shapes (n,) and (m,): as `difference` does."""
    return _counted(before.astype(int), after.astype(int), ["no", "yes"], [], least)


def _lacking(old: np.ndarray, new: np.ndarray, least: tuple[float, float]) -> Difference:
    """Two arrays of flags, True where a value is missing."""
    return replace(of_flags(old, new, least), effect=float(abs(new.mean() - old.mean())), measure="change in missing share")


def _kolmogorov_smirnov(old: np.ndarray, new: np.ndarray, least: tuple[float, float]) -> Difference:
    edges = np.unique(np.quantile(old, TENTHS))
    # Of many numbers and few edges, comparing is quicker than searching.
    worth = [
        max(inflation_of_shares((edges[:, None] < values).sum(axis=0), len(edges), higher=True), at)
        for values, at in zip((old, new), least, strict=True)
    ]
    steps, counts = np.unique(old, return_counts=True)
    ordered = np.sort(new)
    reached = np.cumsum(counts) / old.size
    # Between two of the old values one distribution stands still, and the other is largest or smallest at the ends.
    above = np.abs(reached - np.searchsorted(ordered, steps, side="right") / new.size)
    below = np.abs(reached - counts / old.size - np.searchsorted(ordered, steps, side="left") / new.size)
    distance = float(max(above.max(), below.max()))
    m, n = old.size / worth[0], new.size / worth[1]
    p = float(stats.kstwo.sf(distance, max(round(m * n / (m + n)), 1)))
    return Difference(p, distance, "Kolmogorov-Smirnov distance", worth[1])


def _codes(old: pd.Series, new: pd.Series) -> tuple[list[np.ndarray], list[str]]:
    """Codes of both samples' categories, and what those are called; missing is one of them."""
    made, places = [], dict[str, int]()
    for values in (old, new):
        codes, found = factorised(values)
        told = [places.setdefault(name, len(places)) for name in (*map(as_text, found), "missing")]
        made.append(np.take(told, codes))
    return made, list(places)


def _counted(old: np.ndarray, new: np.ndarray, names: list[str], order: list[str], least: tuple[float, float]) -> Difference:
    """Two arrays of codes of categories that are called `names`; `order` names those that have one."""
    kinds = min(len(names), COUNTED)
    worth = [max(inflation_of_shares(codes, kinds), at) for codes, at in zip((old, new), least, strict=True)]
    counts = [np.bincount(codes, minlength=len(names)) / each for codes, each in zip((old, new), worth, strict=True)]
    effective = np.column_stack(counts)
    p, effect = _chi_squared(effective)
    found = Difference(p, effect, "Cramér's V", worth[1])
    if not order:
        return found
    known = [*order, *(name for name in names if name not in {*order, "missing"})]
    places = np.array([names.index(name) for name in known if name in names], dtype=int)
    # Values in their order are more autocorrelated than each of them.
    worth = [max(inflation(_ranked(codes, places, len(names))), at) for codes, at in zip((old, new), worth, strict=True)]
    counts = [np.bincount(codes, minlength=len(names)) / each for codes, each in zip((old, new), worth, strict=True)]
    ordered = np.column_stack(counts)[places]
    if _beside_the_commonest(ordered) < PLENTY:
        return found
    p, effect = _mann_whitney(ordered)
    ranks = Difference(p, effect, "probability of a higher value, less a half", worth[1])
    best = min(found, ranks, key=lambda each: each.p)
    return Difference(min(1.0, 2 * best.p), best.effect, best.measure, best.inflation)


def _beside_the_commonest(counts: np.ndarray) -> float:
    """How many rows the smaller sample is expected to have of other values than the most frequent one; counts of shape (values, 2).

    Where these are few, ranks are far from normal where a year of checks looks: of 300 rows with 1% of them a limit of 2e-8 is passed 200
    times too often.
    """
    total = counts.sum(axis=1)
    return float((total.sum() - total.max()) * counts.sum(axis=0).min() / total.sum()) if total.any() else 0.0


def _ranked(codes: np.ndarray, places: np.ndarray, kinds: int) -> np.ndarray:
    """The mean rank of each code's value, of those whose order `places` tells; a code that has none is left out."""
    counts = np.bincount(codes, minlength=kinds)
    ranks = np.full(len(counts), np.nan)
    ranks[places] = np.cumsum(counts[places]) - counts[places] / 2
    told = ranks[codes]
    return np.asarray(told[np.isfinite(told)])


def _chi_squared(counts: np.ndarray) -> tuple[float, float]:
    """p-value and Cramér's V of counts of shape (categories, 2).

    Rare categories are counted together with others as rare, in groups that are large enough. Where they are too few for that, they are
    tested exactly against all others, and those among each other: two questions, of which the clearer answer counts twice. Where no group
    is large enough, one half of the categories is tested exactly against the other.
    """
    counts = counts[counts.sum(axis=1) > 0]
    if len(counts) < 2:
        return 1.0, 0.0
    smaller = float(counts.sum(axis=0).min() / counts.sum())
    rare = counts.sum(axis=1) * smaller < EXPECTED
    often, seldom = counts[~rare], counts[rare].sum(axis=0)
    table = np.vstack([often, *_grouped(counts[rare], EXPECTED / smaller if smaller else np.inf)])
    if len(table) < 2:
        table = _halved(counts)
        p = float(stats.fisher_exact(np.round(table).astype(int)).pvalue)
        return p, float(abs(np.subtract(*(table[0] / table.sum(axis=0))))) if smaller else 0.0
    effect = float(np.sqrt(stats.chi2_contingency(table, correction=False).statistic / counts.sum()))
    if not rare.any() or seldom.sum() * smaller >= EXPECTED:
        return _of_table(table), effect
    exact = float(stats.fisher_exact(np.round([often.sum(axis=0), seldom]).astype(int)).pvalue)
    if len(often) == 1:
        return exact, effect
    if not often.sum(axis=0).all():
        # One side has rare ones alone.
        return min(1.0, 2 * exact), effect
    return min(1.0, 2 * min(exact, _of_table(often))), effect


def _of_table(table: np.ndarray) -> float:
    """p-value of counts of shape (k, 2), k of 2 or more.

    The chi-squared limit is far too small where a year of checks looks (by a hundred times at 2e-8, with six rows expected). So
    categories of which fewer than 100 are expected are each tested exactly against all others (Bonferroni), and enter chi-squared in
    groups of so many: two questions, of which the clearer answer counts twice.
    """
    smaller = float(table.sum(axis=0).min() / table.sum())
    thin = table.sum(axis=1) * smaller < PLENTY
    grouped = [row for row in (*table[~thin], *_grouped(table[thin], PLENTY / smaller)) if row.sum() * smaller >= PLENTY]
    asked = [float(stats.chi2_contingency(np.array(grouped), correction=False).pvalue)] if len(grouped) > 1 else []
    if thin.any():
        # Of two categories one tells what the other does.
        asked.append(float(_exactly(table)[thin].min()) * (1 if len(table) == 2 else int(thin.sum())))
    return min(1.0, len(asked) * min(asked))


def _exactly(table: np.ndarray) -> np.ndarray:
    """Two-sided p-values of each row of counts, shape (k, 2), against all others (Fisher, 1922; the smaller side, twice), shape (k,)."""
    counts = np.round(table).astype(int)
    rows, (m, n) = counts.sum(axis=1), counts.sum(axis=0)
    above = stats.hypergeom.sf(counts[:, 1] - 1, m + n, rows, n)
    below = stats.hypergeom.cdf(counts[:, 1], m + n, rows, n)
    return np.asarray(np.minimum(1.0, 2 * np.minimum(above, below)))


def _grouped(counts: np.ndarray, least: float) -> list[np.ndarray]:
    """Categories, rows of counts, in groups of so many at least, the most frequent first."""
    groups: list[np.ndarray] = []
    for count in _by_frequency(counts):
        if groups and groups[-1].sum() < least:
            groups[-1] = groups[-1] + count
        else:
            groups.append(count)
    if len(groups) > 1 and groups[-1].sum() < least:
        last = groups.pop()
        groups[-1] = groups[-1] + last
    return groups


def _halved(counts: np.ndarray) -> np.ndarray:
    """Two categories or more, rows of counts, as two of about as many rows."""
    told = _by_frequency(counts)
    reached = np.cumsum(told.sum(axis=1))
    cut = min(max(int(np.searchsorted(reached, reached[-1] / 2)), 1), len(told) - 1)
    return np.vstack([told[:cut].sum(axis=0), told[cut:].sum(axis=0)])


def _by_frequency(counts: np.ndarray) -> np.ndarray:
    """The most frequent category first; those that are as frequent by lot, not by the sample in which they came first."""
    shuffled = counts[np.random.default_rng(0).permutation(len(counts))]
    return np.asarray(shuffled[np.argsort(-shuffled.sum(axis=1), kind="stable")])


def _mann_whitney(counts: np.ndarray) -> tuple[float, float]:
    """Two-sided p-value, and how much likelier than a half a new value is the higher one; counts of shape (values, 2) in order."""
    m, n = counts.sum(axis=0)
    total = counts.sum(axis=1)
    if m == 0 or n == 0 or (total > 0).sum() < 2:
        return 1.0, 0.0
    before = np.cumsum(counts[:, 0]) - counts[:, 0] / 2
    higher = float((counts[:, 1] * before).sum() / (m * n)) - 0.5
    rows = m + n
    ties = float((total**3 - total).sum() / (rows**3 - rows))
    error = float(np.sqrt((rows + 1) / (12 * m * n) * max(1 - ties, 0.0)))
    return float(2 * stats.norm.sf(abs(higher) / error)) if error > 0 else 1.0, higher
