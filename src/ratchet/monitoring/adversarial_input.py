"""Does somebody try the model out: rows that hardly differ, answers close to the threshold, mixes of values that nobody has?"""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from ratchet.check import Check, undecided
from ratchet.contract import Contract
from ratchet.data.encoding import Encoder
from ratchet.evaluation.loss import log_odds
from ratchet.monitoring.excess import MOST_ROWS, RARE, halves, level, more_often
from ratchet.problem import Problem
from ratchet.registry import registered

# Rows that differ from their nearest neighbour in so few columns and are otherwise equal to the last digit.
FEW = 3
# So near the threshold, in log-odds, a small change turns the decision; they are compared with those around them.
NEAR, AROUND = 0.1, 0.5
# A column's values are looked at in so many parts when they are paired.
PARTS = 8
ALIKE = "Do more rows hardly differ from one another than did at release?"
HUGGING = "Of the answers near the threshold, do more lie at its very edge than did at release?"
MIXED = "Do more rows mix values that did not go together at release?"


@registered("probes", "monitor")
def probes(
    problem: Problem,
    contract: Contract,
    encoder: Encoder,
    held: pd.DataFrame,
    window: pd.DataFrame,
    following: pd.DataFrame | None = None,
    spread: pd.DataFrame | None = None,
) -> list[Check]:
    """What an attacker's questions look like, of n rows in their order; `held` are the release's held-out rows.

    Rows that are alike are compared with those of the release that were `following` one another, the held-out ones where they are left out;
    mixes, which count as drift, are looked for in predictions that are `spread` over a cycle, the window where they are left out.
    Who looks for the threshold asks for one row with small changes again and again (Tramèr et al., 2016), and ends close to it; who
    changes what pleases him sends mixes that nobody has.
    """
    names, least = [column.name for column in contract.features], problem.watch.min_window
    mixed = window if spread is None else spread
    if min(len(window), len(held), len(mixed)) < least or not set(names) <= set(window.columns) & set(mixed.columns):
        reason = f"{len(window)} predictions with every feature, {len(held)} rows of the release; {least} of each are needed"
        asked = {"duplicates": ALIKE, "boundary": HUGGING, "mixes": MIXED}
        return [undecided(f"probes:{p}", q, reason, len(window), limit=level(problem), unit="p-value") for p, q in asked.items()]
    held, window = held.tail(MOST_ROWS), window.tail(MOST_ROWS)
    following = held if following is None else following
    size = min(len(following), len(window))

    def seen(rows: pd.DataFrame, view: Literal["dense", "bins"]) -> np.ndarray:
        return np.asarray(encoder.encode({name: rows[name] for name in names}, (view,))[view])

    alike = [_alike(rows[names], seen(rows, "dense")) for rows in (following.tail(size), window.tail(size))]
    margins = [np.abs(log_odds(rows["probability"].to_numpy(float)) - log_odds(problem.threshold)) for rows in (held, window)]
    # Among those around it: a population that moved has more or fewer rows there, but not more at the very threshold.
    hugging = [margin[margin < AROUND] < NEAR for margin in margins]
    mixed = mixed.tail(MOST_ROWS)
    learnt, told = halves(seen(held, "bins"))
    strange = _oddness(learnt, [told, seen(mixed, "bins")])
    rare = float(np.quantile(strange[0], 1 - RARE))
    n, told_of = len(window), "at the very threshold, of those near it"
    few = f"equal to an earlier one in all but {FEW} columns"
    return [
        more_often("probes:duplicates", ALIKE, few, alike[0], alike[1], problem, n=n, bursts=True),
        more_often("probes:boundary", HUGGING, told_of, hugging[0], hugging[1], problem, n=n, bursts=True),
        more_often("probes:mixes", MIXED, "mixes like next to none before", strange[0] > rare, strange[1] > rare, problem, n=len(mixed)),
    ]


def _alike(rows: pd.DataFrame, places: np.ndarray) -> np.ndarray:
    """Whether each of n rows differs from its nearest neighbour in a few columns, but not in none, and came after it; shape (n,).

    `places` are the rows as numbers. Two that are alike are one event. Rows sent twice are asked for elsewhere, so each counts once.
    """
    codes = np.column_stack([pd.factorize(rows[name])[0] for name in rows])
    distinct, first, place = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    if len(distinct) < 2:
        return np.zeros(len(rows), dtype=bool)
    with threadpool_limits(1):
        found = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(places[first]).kneighbors(places[first], return_distance=False)
    # Where two are at the same place, either may come first.
    other = np.where(found[:, 0] == np.arange(len(distinct)), found[:, 1], found[:, 0])
    differing = (distinct != distinct[other]).sum(axis=1)
    return np.asarray(((differing > 0) & (differing <= FEW) & (first[other] < first))[place.ravel()])


def _oddness(learnt: np.ndarray, asked: list[np.ndarray]) -> list[np.ndarray]:
    """How much rarer the pairs of each row's values are among the learnt rows than their values alone let expect; each of shape (n,).

    The sum over all pairs of columns of log(expected / found), columns cut into a few parts: minus the pointwise mutual information
    (Church and Hanks, 1990), with one row added to each count. Values that are rare themselves are not odd, only their mix is.
    """
    made = [np.zeros(len(rows)) for rows in asked]
    cuts = [np.unique(np.quantile(column, np.linspace(0, 1, PARTS + 1)[1:-1])) for column in learnt.T]
    codes = [np.column_stack([np.searchsorted(cut, column) for cut, column in zip(cuts, rows.T, strict=True)]) for rows in (learnt, *asked)]
    for one, other in combinations(range(learnt.shape[1]), 2):
        pairs = [each[:, one] * (PARTS + 1) + each[:, other] for each in codes]
        found = np.bincount(pairs[0], minlength=(PARTS + 1) ** 2).reshape(PARTS + 1, PARTS + 1)
        expected = np.outer(found.sum(axis=1), found.sum(axis=0)) / len(learnt)
        odd = np.log((expected + 1) / (found + 1)).ravel()
        for total, pair in zip(made, pairs[1:], strict=True):
            total += odd[pair]
    return made
