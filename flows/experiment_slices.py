"""Is a slice that fails found among the labelled rows, and are those that are found bad?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from flows.experiment_watch import CONTRACT, OFTEN, PROBLEM, SCHEDULES, standing
from ratchet.evaluation.slices import BINS, inside_of, view
from ratchet.monitoring.estimate import Held
from ratchet.monitoring.silent_failure import FINE, worst_slices
from ratchet.report.results import Row, share
from ratchet.simulation.population import Moved, draw

ROWS, MODELS, TOP = 20_000, 5, 3
SUPPORT = (0.02, 0.10)
DROP = 0.10
# A slice that was found is the planted one where they share so much of their rows (Jaccard).
SAME = 0.5


@dataclass(frozen=True)
class Case:
    """Labelled rows in which one slice loses ten points of accuracy, or none does."""

    planted: bool
    seed: int


def cases(runs: int) -> list[Case]:
    """So many with a planted slice, and so many without."""
    return [Case(planted, seed) for planted in (True, False) for seed in range(runs)]


def plant(frame: pd.DataFrame, right: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A slice of one or two columns with 2 to 10% of n rows, and which decisions in it are to become wrong, each of shape (n,).

    Of a number it is an interval that begins and ends anywhere; of a category one value.
    """
    while True:
        chosen = rng.choice(len(CONTRACT.features), rng.integers(1, 3), replace=False)
        inside = np.logical_and.reduce([_part(frame[CONTRACT.features[place].name], rng) for place in chosen])
        if SUPPORT[0] <= inside.mean() <= SUPPORT[1]:
            break
    turned = np.zeros(len(frame), dtype=bool)
    places = np.flatnonzero(inside & right)
    turned[rng.choice(places, min(len(places), round(DROP * inside.sum())), replace=False)] = True
    return inside, turned


def _part(column: pd.Series, rng: np.random.Generator) -> np.ndarray:
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > BINS + 1:
        first, length = rng.uniform(0, 1), rng.uniform(SUPPORT[0], 0.5)
        low, high = column.quantile([first * (1 - length), first * (1 - length) + length])
        return column.between(low, high).to_numpy()
    return (column == rng.choice(column.dropna())).to_numpy()


def judge(case: Case) -> dict[str, Any]:
    """Whether the planted slice is among the first three found, and of those that are called bad how many are it."""
    released, answer = standing(case.seed % MODELS, 0.0)
    frame = draw(ROWS, Moved(), 500_000 + case.seed, 10_000_000)
    probability, truth = answer(frame), frame[CONTRACT.target].to_numpy(float)
    categories = view(frame, CONTRACT, FINE)
    inside = turned = np.zeros(ROWS, dtype=bool)
    if case.planted:
        right = (probability >= PROBLEM.threshold) == (truth == 1)
        inside, turned = plant(frame, right, np.random.default_rng(case.seed))
        truth = np.where(turned, 1 - truth, truth)
    held = Held(released.held["probability"].to_numpy(float), released.held["truth"].to_numpy(float))
    found = worst_slices(PROBLEM, CONTRACT, held, frame.assign(probability=probability, truth=truth), case.seed)
    alike = [_jaccard(inside, inside_of(categories, each.where)) >= SAME for each in found]
    # What overlaps the planted slice is as bad as what was planted into it; below the margin it is a false discovery.
    harmed = [float(turned[inside_of(categories, each.where)].mean()) > PROBLEM.gate.slice_margin for each in found]
    alpha = PROBLEM.watch.false_alarms_per_check
    bad = [place for place, each in enumerate(found) if each.p < alpha]
    return {
        **asdict(case),
        "top": any(alike[:TOP]),
        "first": any(alike[:1]),
        # Those that were tested, on rows that did not propose them.
        "top_tested": any([same for same, each in zip(alike, found, strict=True) if each.p < 1][:TOP]),
        "raised": bool(bad),
        "raised_often": any(each.p < SCHEDULES[OFTEN].watch.false_alarms_per_check for each in found),
        "bad": len(bad),
        "false": sum(not harmed[place] for place in bad),
    }


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1))


def measure(judged: Sequence[dict[str, Any]]) -> list[Row]:
    """Found, raised, and called bad without being so."""
    planted, clean = ([told for told in judged if told["planted"] is which] for which in (True, False))
    bad, wrong = sum(told["bad"] for told in judged), sum(told["false"] for told in judged)
    return [
        share("planted slices among the first three found", sum(told["top"] for told in planted), len(planted)),
        share("planted slices found first", sum(told["first"] for told in planted), len(planted)),
        share("planted slices among the first three that were tested", sum(told["top_tested"] for told in planted), len(planted)),
        share("planted slices: the check fails", sum(told["raised"] for told in planted), len(planted)),
        share("planted slices: the check fails, looked at every 5 minutes", sum(told["raised_often"] for told in planted), len(planted)),
        share("slices called bad that lose no more than the margin by what was planted", wrong, max(bad, 1)),
        share("no slice planted: the check fails", sum(told["raised"] for told in clean), len(clean)),
    ]
