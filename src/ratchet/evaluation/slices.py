"""In which slice of the rows does the candidate do worse than the champion, though the mean looks well?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sliceline.slicefinder import Slicefinder

from ratchet.check import Check, not_applicable, undecided
from ratchet.contract import PROJECTED, Contract
from ratchet.data.values import as_text
from ratchet.evaluation.loss import POWER, Z, defect, per_row
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Does the candidate cost more than the champion in any slice that can be found?"
BINS = 5
SLICES = 5
PREDICATES = 2
STRATA = 20
# SliceLine looks for pieces this much smaller than the slices wanted: an interval may lie across several bins.
PIECE = 0.3
# SliceLine's weight of a slice's error against its size: small slices are what is looked for.
ALPHA = 0.98
LEVEL = 0.05
# The fewest rows of a slice for which a mean is about normal.
FEWEST = 30
MISSING = "missing"
# A conjunction: each column's values.
Where = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Slice:
    """A conjunction of `column = value`, the test rows in it, and what the candidate costs more there.

    `p` is that of "the loss is at most the margin", adjusted for all slices tested (Holm, 1979); 1 where these very rows proposed it.
    """

    where: Where
    rows: int
    support: float
    value: float
    error: float
    p: float

    @property
    def name(self) -> str:
        """The slice as a person reads it."""
        return " and ".join(f"{column} {_said(values)}" for column, values in self.where.items())

    @property
    def interval(self) -> tuple[float, float, float]:
        """What it costs more there, with the ends of its 95% interval."""
        return self.value, self.value - Z * self.error, self.value + Z * self.error


def _said(values: tuple[str, ...]) -> str:
    """One value, several, or neighbouring intervals as one.

    >>> _said(("0 to 1", "1 to 3")), _said(("web", "app"))
    ('0 to 3', 'web or app')
    """
    ends = [value.split(" to ") for value in values]
    return f"{ends[0][0]} to {ends[-1][1]}" if all(len(end) == 2 for end in ends) else " or ".join(values)


def view(frame: pd.DataFrame, contract: Contract, bins: int = BINS) -> pd.DataFrame:
    """The rows as categories: what a request holds but texts and images, numbers in bins of equal mass, shape (n, columns).

    Numbers and ordinal columns are ordered categories, so that neighbours can be joined. Columns that are gone are left out.
    """
    made: dict[str, Any] = {}
    for column in contract.requested:
        if column.name not in frame or column.scale in PROJECTED:
            continue
        values = frame[column.name]
        if not column.is_numeric:
            text, ordered = values.map(as_text, na_action=None), column.scale == "ordinal"
            known = [as_text(value) for value in column.values or ()]
            names = [*known, *sorted(set(text) - set(known))]
            made[column.name] = _joined(text, names, bins) if ordered and len(names) > bins + 1 else pd.Categorical(text, names, ordered)
            continue
        numbers = values.to_numpy(float)
        told = np.unique(numbers[~np.isnan(numbers)])
        if len(told) <= bins + 1:
            made[column.name] = pd.Categorical(values.map(as_text, na_action=None), [*map(as_text, told), MISSING], ordered=True)
            continue
        edges = np.unique(np.nanquantile(numbers, np.linspace(0, 1, bins + 1)))
        names = [f"{low} to {high}" for low, high in pairwise(_written(edges))]
        place = np.clip(np.searchsorted(edges, numbers, side="left") - 1, 0, len(names) - 1)
        binned = np.array([*names, MISSING], dtype=object)[np.where(np.isnan(numbers), len(names), place)]
        made[column.name] = pd.Categorical(binned, [*names, MISSING], ordered=True)
    return pd.DataFrame(made, index=frame.index)


def _joined(text: pd.Series, names: list[str], bins: int) -> Any:
    """Values in their order, neighbours joined so that about as many rows are in each of so many bins; missing is none of them."""
    order = [name for name in names if name != MISSING]
    counts = text.value_counts().reindex(order, fill_value=0).to_numpy(float)
    # By the middle of its rows a value falls into a bin.
    place = np.minimum(((counts.cumsum() - counts / 2) / max(counts.sum(), 1.0) * bins).astype(int), bins - 1)
    runs = [[name for name, at in zip(order, place, strict=True) if at == one] for one in np.unique(place)]
    said = {name: run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs for name in run} | {MISSING: MISSING}
    return pd.Categorical(text.map(said), [*dict.fromkeys(said.values())], ordered=True)


def _written(edges: np.ndarray) -> list[str]:
    """The edges of bins in as few digits as tell them apart, six at least.

    >>> _written(np.array([1700000.25, 1700000.5, 2.0]))
    ['1700000.2', '1700000.5', '2']
    """
    for digits in range(6, 17):
        written = [f"{edge:.{digits}g}" for edge in edges]
        if len(set(written)) == len(edges):
            return written
    return [repr(float(edge)) for edge in edges]


def find(categories: pd.DataFrame, errors: np.ndarray, support: float) -> list[Where]:
    """The slices of at most two predicates that SliceLine (Sagadeeva & Boehm, 2021) ranks first by `errors`, shape (n,).

    SliceLine knows one value a column; a predicate on an ordered one takes in its neighbours while that makes the
    slice stand out more.
    """
    if not errors.any():
        return []
    finder = Slicefinder(alpha=ALPHA, k=SLICES, max_l=PREDICATES, min_sup=max(int(support * len(errors)), 2), verbose=False)
    finder.fit(categories.astype(object).to_numpy(), errors)
    columns = list(categories.columns)
    found: list[Where] = [
        {columns[place]: (str(value),) for place, value in enumerate(row) if value is not None} for row in finder.top_slices_
    ]
    fitted = [_fitted(categories, errors, where) for where in found]
    return [where for place, where in enumerate(fitted) if where not in fitted[:place]]


def _fitted(categories: pd.DataFrame, errors: np.ndarray, where: Where) -> Where:
    """The slice with its runs of neighbours on ordered columns drawn in or out by one, while that makes it stand out more."""
    strength = _standing_out(errors, inside_of(categories, where))
    while True:
        masks = [(inside_of(categories, option), option) for option in _neighbours(categories, where)]
        tried = [(_standing_out(errors, inside), option) for inside, option in masks if inside.any()]
        best = max(tried, key=lambda pair: pair[0], default=(strength, where))
        if best[0] <= strength:
            return where
        strength, where = best


def _neighbours(categories: pd.DataFrame, where: Where) -> list[Where]:
    options = []
    for column, values in where.items():
        kind = categories[column].dtype
        if not isinstance(kind, pd.CategoricalDtype) or not kind.ordered or values[0] == MISSING:
            continue
        order = [str(value) for value in kind.categories if value != MISSING]
        first, last = order.index(values[0]), order.index(values[-1]) + 1
        ends = ((first - 1, last), (first, last + 1), (first + 1, last), (first, last - 1))
        options += [{**where, column: tuple(order[low:high])} for low, high in ends if 0 <= low < high <= len(order)]
    return options


def _standing_out(errors: np.ndarray, inside: np.ndarray) -> float:
    values = errors[inside]
    return float((values.mean() - errors.mean()) * np.sqrt(len(values)))


def surprise(difference: np.ndarray, champion: np.ndarray) -> np.ndarray:
    """How surprising each row's loss is, shape (n,): its excess in units of what rows of its probability vary by.

    Near the threshold decisions flip easily, this way and that; far from it a flip says more.
    """
    place = np.searchsorted(np.unique(np.quantile(champion, np.linspace(0, 1, STRATA + 1)[1:-1])), champion)
    rows = np.bincount(place)
    squares = np.bincount(place, weights=difference**2) / np.maximum(rows, 1)
    floor = float((difference**2).max()) / np.maximum(rows, 1)
    return np.asarray(np.maximum(difference, 0.0) / np.sqrt(np.maximum(np.maximum(squares, floor), 1e-12))[place])


def search(
    categories: pd.DataFrame,
    difference: np.ndarray,
    margin: float,
    seed: int,
    propose: Callable[[np.ndarray], list[Where]],
    least: Callable[[np.ndarray], float] = lambda _: 0.0,
) -> list[Slice]:
    """Slices found on one half of n rows and tested on the other, in both directions, worst first.

    `difference` is each row's loss beyond what it is compared with, of shape (n,); `propose` finds slices among the rows of a mask, and
    `least` bounds the p-value of those of a mask from below. Each direction spends half of the error rate.
    """
    first = np.random.default_rng(seed).permutation(len(difference)) < len(difference) / 2
    found = []
    for half in (first, ~first):
        tested = []
        for where in propose(half):
            inside = inside_of(categories, where) & ~half
            values = difference[inside]
            if len(values) < FEWEST:
                continue
            error = float(values.std(ddof=1) / np.sqrt(len(values)))
            error = max(error, 1.0 / len(values))  # a slice without any difference must not look certain
            p = max(float(stats.norm.sf((values.mean() - margin) / error)), least(inside))
            tested.append(Slice(where, len(values), float(inside[~half].mean()), float(values.mean()), error, p))
        found += [replace(s, p=p) for s, p in zip(tested, _holm([s.p for s in tested]), strict=True)]
    return sorted((replace(s, p=min(1.0, 2 * s.p)) for s in found), key=lambda s: s.p)


def inside_of(categories: pd.DataFrame, where: Where) -> np.ndarray:
    """Which of n rows are in the slice, shape (n,); each column of `categories` is categorical."""
    inside = np.ones(len(categories), dtype=bool)
    for column, values in where.items():
        told = categories[column].cat
        # The last one is for codes of -1, rows of no category.
        wanted = np.append(told.categories.isin(values), False)
        inside &= wanted[told.codes.to_numpy()]
    return inside


def _plainly(categories: pd.DataFrame, found: Slice) -> Slice:
    """The same slice without the predicates that every row inside the others meets: no decision hangs on this."""
    where = found.where
    for column in list(where):
        less = {other: values for other, values in where.items() if other != column}
        if less and inside_of(categories, less).sum() == inside_of(categories, where).sum():
            where = less
    return replace(found, where=where)


def _holm(values: list[float]) -> list[float]:
    order = np.argsort(values)
    adjusted, reached = np.empty(len(values)), 0.0
    for rank, place in enumerate(order):
        reached = max(reached, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = reached
    return [float(value) for value in adjusted]


def rows_for(difference: np.ndarray, margin: float, regression: float) -> int:
    """Rows that a slice needs in one half for a loss of `regression` to be told from `margin` with power 0.8.

    After Holm over the slices of a half; either half may see it, so each needs less power than both together have.
    """
    z = stats.norm.ppf(1 - LEVEL / 2 / SLICES) + stats.norm.ppf(1 - np.sqrt(1 - POWER))
    # Inside such a slice the losses vary as they do everywhere, and by the regression itself.
    largest = float(np.abs(difference).max()) or 1.0
    variance = float(difference.var()) + regression * largest
    return int(np.ceil(variance * (z / (regression - margin)) ** 2))


@registered("slices", "release")
def slices(
    problem: Problem,
    contract: Contract,
    frame: pd.DataFrame,
    candidate: np.ndarray,
    champion: np.ndarray | None,
    truth: np.ndarray,
    seed: int = 0,
) -> Check:
    """The worst slice's excess of loss over the champion, on n rows unseen by both.

    Fails where a slice provably loses more than `slice_margin`; how much of each was flipped from right to wrong is told beside it.
    Undecided where a loss of `slice_regression` in a share `slice_support` of the rows could not have been seen.
    """
    gate, n = problem.gate, len(truth)
    if champion is None:
        return not_applicable("slices", QUESTION, "the first generation has no champion")
    if n < gate.min_rows:
        return undecided("slices", QUESTION, f"{n} unseen rows; {gate.min_rows} are needed", n, limit=gate.slice_margin)
    if wrong := defect(candidate, champion):
        return Check("slices", QUESTION, "fail", wrong, limit=gate.slice_margin, n=n)
    difference = per_row(problem, candidate, truth) - per_row(problem, champion, truth)
    needed = rows_for(difference, gate.slice_margin, gate.slice_regression)
    smallest = 2 * needed / n
    categories = view(frame, contract)
    support = gate.slice_support * PIECE
    found = search(
        categories,
        difference,
        gate.slice_margin,
        seed,
        lambda half: find(categories[half], surprise(difference[half], champion[half]), support),
    )
    found = [_plainly(categories, s) for s in found]
    mistaken, was_mistaken = ((p >= problem.threshold) != (truth == 1) for p in (candidate, champion))
    flipped = mistaken & ~was_mistaken
    told = [
        {
            "slice": s.name,
            "rows": s.rows,
            "support": s.support,
            **dict(zip(("value", "low", "high"), s.interval, strict=True)),
            "p": s.p,
            "negative_flips": float(flipped[inside_of(categories, s.where)].mean()),
        }
        for s in found
    ]
    evidence = {"slices": told, "smallest_support": smallest}
    unit = f"{problem.metric} per row"
    if found and found[0].p < LEVEL:
        bad = [s for s in found if s.p < LEVEL]
        worst = bad[0]
        reason = f"{worst.name}: {problem.metric} {worst.value:+.4f} against the champion on {worst.rows} rows (p = {worst.p:.1e} after Holm, margin {gate.slice_margin:+.4f})"
        reason += f"; and {len(bad) - 1} more" if len(bad) > 1 else ""
        return Check("slices", QUESTION, "fail", reason, *worst.interval, limit=gate.slice_margin, n=n, unit=unit, evidence=evidence)
    largest = max(found, key=lambda s: s.value, default=None)
    numbers = largest.interval if largest else (0.0, 0.0, 0.0)
    if smallest > gate.slice_support:
        more = int(np.ceil(2 * needed / gate.slice_support)) - n
        reason = f"no slice is provably worse, but on {n} rows one smaller than {smallest:.1%} is too small to tell; {gate.slice_support:.0%} is asked for"
        return Check(
            "slices",
            QUESTION,
            "undecided",
            reason,
            *numbers,
            limit=gate.slice_margin,
            n=n,
            unit=unit,
            needed=max(more, 1),
            evidence=evidence,
        )
    worst_told = f"the worst of {len(found)} found, {largest.name}, differs by {largest.value:+.4f}" if largest else "none was found"
    reason = f"no slice of {gate.slice_support:.0%} or more is provably worse: {worst_told}; {gate.slice_regression:.2f} in {smallest:.1%} of the rows would have been seen"
    return Check("slices", QUESTION, "pass", reason, *numbers, limit=gate.slice_margin, n=n, unit=unit, evidence=evidence)
