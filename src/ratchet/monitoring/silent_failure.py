"""Does something fail that no average shows: rows like none before, a confidence that is not the model's, one slice?"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import optimize
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from ratchet.check import Check, Verdict, undecided
from ratchet.contract import Contract
from ratchet.data.encoding import Encoder
from ratchet.data.entities import newest_of_each
from ratchet.data.quality import with_values
from ratchet.evaluation.loss import per_row
from ratchet.evaluation.pairs import pairs
from ratchet.evaluation.slices import FEWEST, Slice, inside_of, search, view
from ratchet.monitoring.data_drift import of_numbers
from ratchet.monitoring.domain import thinned
from ratchet.monitoring.estimate import Held, calibration
from ratchet.monitoring.excess import MOST_ROWS, RARE, halves, level, more_often
from ratchet.problem import Problem
from ratchet.registry import registered

NEIGHBOURS = 5
# A slice in which that share of the labelled rows lies is looked for.
SUPPORT = 0.02
# Numbers are looked at in so many bins.
FINE = 20
# Where confidence is nearly certain a single error would count for ever so many.
LEAST_SPREAD = 0.1
SURE = "Is the model as sure of its answers as it was at release?"
STRANGE = "Are there more rows like none before than there were at release?"
SLICE = "Is any slice of the rows decided worse than the model's confidence says?"


@registered("silent", "monitor")
def silent(problem: Problem, contract: Contract, encoder: Encoder, held: pd.DataFrame, window: pd.DataFrame) -> list[Check]:
    """What needs no label: confidence, and rows out of the distribution, of n rows in their order.

    `held` are the release's held-out rows; both frames have the features and `probability`.
    """
    names = [column.name for column in contract.features]
    least = problem.watch.min_window
    if min(len(window), len(held)) < least or not set(names) <= set(window.columns):
        reason = f"{len(window)} predictions with every feature, {len(held)} rows of the release; {least} of each are needed"
        told = {"limit": level(problem), "unit": "p-value"}
        asked = {"confidence": SURE, "outliers": STRANGE}
        return [undecided(f"silent:{part}", question, reason, len(window), **told) for part, question in asked.items()]
    return [_confidence(problem, held, window), _outliers(problem, encoder, names, held, window)]


def _confidence(problem: Problem, held: pd.DataFrame, window: pd.DataFrame) -> Check:
    """Kolmogorov-Smirnov of the model's probabilities: a graph that was changed or read its columns wrongly shows here first."""
    found = of_numbers(held["probability"].to_numpy(float), window["probability"].to_numpy(float))
    limit, n = level(problem), len(window)
    moved = "has moved" if found.p < limit else "has not moved beyond chance"
    reason = f"the model's confidence {moved}: {found.measure} {found.effect:.3f}, p = {found.p:.1e}, limit {limit:.1e}, {n:,} predictions"
    verdict: Verdict = "fail" if found.p < limit else "pass"
    evidence = {"effect": found.effect, "measure": found.measure}
    return Check("silent:confidence", SURE, verdict, reason, value=found.p, limit=limit, n=n, unit="p-value", evidence=evidence)


def _outliers(problem: Problem, encoder: Encoder, names: list[str], held: pd.DataFrame, window: pd.DataFrame) -> Check:
    """The share of rows that are further from their neighbours, or sooner alone, than the rarest hundredth of rows held out at release.

    Distance to the fifth nearest neighbour (Ramaswamy et al., 2000) and isolation forest (Liu et al., 2008), both learnt on the
    first half of the held-out rows; the second tells what is rare.
    """
    window = window.iloc[thinned(len(window), MOST_ROWS)]
    before, now = (encoder.encode({name: rows[name] for name in names}, ("dense",))["dense"] for rows in (held, window))
    learnt, told = halves(before)
    with threadpool_limits(1):
        near = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(learnt)
        forest = IsolationForest(n_estimators=50, random_state=0).fit(learnt)
        scores = [(near.kneighbors(rows)[0][:, -1], -forest.score_samples(rows)) for rows in (told, now)]
    limits = [np.quantile(each, 1 - RARE) for each in scores[0]]
    flags = [(distance > limits[0]) | (alone > limits[1]) for distance, alone in scores]
    return more_often("silent:outliers", STRANGE, "like next to none before", flags[0], flags[1], problem, n=len(window))


@registered("live_slices", "monitor")
def live_slices(problem: Problem, contract: Contract, held: Held, labelled: pd.DataFrame, seed: int = 0) -> Check:
    """The slice of n labelled predictions whose decisions cost most beyond what the model's own confidence expects.

    What is hard is hard everywhere, and confidence says so; a slice that costs more fails though the mean may look well. Slices are
    found on one half of the rows and tested on the other (Holm), at a level that spends the year's budget over the year's checks, against
    the margin `gate.slice_margin`. Of an entity that comes again the newest row counts. Where none fails, it is undecided as long as a slice
    of 2% of the rows might have too few of them to be tested.
    """
    # Rows of one entity would prove on one half what was found on the other.
    labelled = newest_of_each(contract, labelled).reset_index(drop=True)
    n, limit, unit = len(labelled), problem.gate.slice_margin, f"{problem.metric} per row"
    if n < max(problem.gate.min_rows, problem.watch.min_window) or np.unique(held.truth).size < 2:
        reason = f"{n} labelled predictions; {max(problem.gate.min_rows, problem.watch.min_window)} are needed"
        return undecided("live_slices", SLICE, reason, n, limit=limit, unit=unit)
    if not with_values(contract.requested, labelled):
        return undecided("live_slices", SLICE, "no column is there to be sliced by", n, limit=limit, unit=unit)
    found = worst_slices(problem, contract, held, labelled, seed)
    alpha = problem.watch.false_alarms_per_check
    told = [
        {"slice": each.name, "rows": each.rows, "support": each.support, "value": each.value, "error": each.error, "p": each.p}
        for each in found[:5]
    ]
    bad = [each for each in found if each.p < alpha]
    # Of a slice that was not tested its own rows tell too bad a number.
    worst = next(iter(bad or [each for each in found if each.p < 1]), None)
    numbers = worst.interval if worst else (0.0, 0.0, 0.0)
    said = (
        f"{worst.name}: {problem.metric} {worst.value:+.4f} beyond what confidence expects on {worst.rows} rows, p = {worst.p:.1e}"
        if worst
        else "none"
    )
    reason = (
        f"{said}, limit {alpha:.1e}, margin {limit:.4f}" if bad else f"no slice is provably worse than expected; the worst found is {said}"
    )
    evidence = {"slices": told}
    # Each half must have the fewest rows of a slice that can be tested, and by chance it has some fewer than half.
    smallest = 2 * (FEWEST + 2 * FEWEST**0.5) / n
    if not bad and smallest > SUPPORT:
        reason += f"; of {n:,} rows one of less than {smallest:.1%} may have too few to be tested, and {SUPPORT:.0%} is asked for"
        more = math.ceil(smallest * n / SUPPORT) - n
        return Check("live_slices", SLICE, "undecided", reason, *numbers, limit=limit, n=n, unit=unit, needed=more, evidence=evidence)
    return Check("live_slices", SLICE, "fail" if bad else "pass", reason, *numbers, limit=limit, n=n, unit=unit, evidence=evidence)


def worst_slices(problem: Problem, contract: Contract, held: Held, labelled: pd.DataFrame, seed: int = 0) -> list[Slice]:
    """The slices of n labelled predictions that cost most beyond what confidence expects, the one that stands out most first, each once.

    Two halves of the rows each find slices that the other tests: p-values are of the test alone. All rows find more than halves do, but no
    row is left to test those on: their p-value is 1. The order is that of all rows.
    """
    probability, n = labelled["probability"].to_numpy(float), len(labelled)
    sure = calibration(held, np.ones(len(held.truth)))(probability)
    one, nought = (per_row(problem, probability, np.full(n, value)) for value in (1.0, 0.0))
    excess = per_row(problem, probability, labelled["truth"].to_numpy(float)) - (sure * one + (1 - sure) * nought)
    # In units of what chance makes of one row: what is hard varies more.
    residual = excess / np.maximum(np.abs(one - nought) * np.sqrt(sure * (1 - sure)), LEAST_SPREAD * max(np.abs(one - nought).max(), 1e-12))
    support, categories = max(SUPPORT, 2 * FEWEST / n), view(labelled, contract, FINE)

    def chance(inside: np.ndarray) -> float:
        return by_chance((one - nought)[inside], sure[inside], float(excess[inside].sum()) - problem.gate.slice_margin * int(inside.sum()))

    found = search(
        categories, excess, problem.gate.slice_margin, seed, lambda half: pairs(categories[half], residual[half], support), chance
    )
    for where in pairs(categories, residual, support):
        values = excess[inside_of(categories, where)]
        error = float(values.std(ddof=1) / np.sqrt(len(values)))
        found.append(Slice(where, len(values), len(values) / n, float(values.mean()), error, 1.0))
    # The same one may be found again; the smaller p-value comes first.
    each_once = {each.name: each for each in reversed(found)}.values()

    def strength(of: Slice) -> float:
        inside = residual[inside_of(categories, of.where)]
        return float(inside.sum() / np.sqrt(max(len(inside), 1)))

    return sorted(each_once, key=strength, reverse=True)


def by_chance(cost: np.ndarray, sure: np.ndarray, beyond: float) -> float:
    """At most how likely n rows cost so much more than expected, where each costs `cost` more with probability `sure`, both of shape (n,).

    Chernoff's bound (1952). A few rows of which some cost much are far from normal: their mean's tail is heavier.

    >>> rare, costly = np.full(40, 0.05), np.full(40, 4.0)
    >>> 1e-6 < by_chance(costly, rare, 4 * 9 - 4 * 2) < 1e-2
    True
    """
    if beyond <= 0:
        return 1.0
    yes, no = np.log(np.clip(sure, 1e-12, 1.0)), np.log(np.clip(1 - sure, 1e-12, 1.0))
    expected = float((cost * sure).sum())

    def exponent(tilt: float) -> float:
        return float(np.logaddexp(no, yes + tilt * cost).sum()) - tilt * (expected + beyond)

    steepest = 50 / max(float(np.abs(cost).max()), 1e-12)
    return float(np.exp(min(0.0, optimize.minimize_scalar(exponent, bounds=(0.0, steepest), method="bounded").fun)))
