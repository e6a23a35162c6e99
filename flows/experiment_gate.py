"""How often does the gate catch a slice that got worse, and how often does it refuse for nothing?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.model_selection import KFold, train_test_split

from ratchet.data.batch import conform, read_table
from ratchet.data.splits import split
from ratchet.decision import gate
from ratchet.evaluation.champion import non_inferior_to_champion
from ratchet.evaluation.flips import negative_flips
from ratchet.evaluation.slices import slices
from ratchet.problem import Costs, Problem, find_problem
from ratchet.report import figures
from ratchet.report.results import Row, share
from ratchet.scoring import Scorer
from ratchet.settings import parameters, settings
from ratchet.simulation.regressions import plant

PROBLEM, REAL = "credit", "credit_card"
TRAINED_ON, SEED, FOLDS = 20000, 7, 3
POINTS, GAIN, MARGIN = 0.05, 0.002, 0.005
TEST_ROWS = 40000
CHURNS = (0.02, 0.06)
GATES = ("ours", "mean metric", "negative flips", "negative flips, told the churn")
HELD = 0.05


@dataclass(frozen=True)
class Case:
    """One candidate: the rows it is judged on, how much of the model changes, whether a slice was made worse.

    The rows are the simulated world's, `rows` of them, or all real ones of the file `source`.
    """

    rows: int
    churn: float
    points: float
    seed: int
    unequal: bool = False
    source: str = ""


def cases(runs: int, curve_runs: int) -> list[Case]:
    """The cases behind the bars, then those behind the curves."""
    made = [Case(TEST_ROWS, churn, points, seed) for churn, points, seed in product(CHURNS, (POINTS, 0.0), range(runs))]
    for points, seed in product((POINTS, 0.0), range(curve_runs)):
        made += [Case(TEST_ROWS, churn, points, seed, unequal=True) for churn in CHURNS]
        made += [Case(rows, churn, points, seed) for rows in (5000, 10000, 20000, 80000) for churn in CHURNS]
        made += [Case(TEST_ROWS, churn, points, seed) for churn in (0.04, 0.10)]
    return made


def real_cases(source: str, runs: int) -> list[Case]:
    """Candidates judged on every real row of a file; each seed makes another slice worse and churns otherwise."""
    rows = len(_real(source)[0])
    return [Case(rows, churn, points, seed, source=source) for churn, points, seed in product(CHURNS, (POINTS, 0.0), range(runs))]


def judge(case: Case) -> dict[str, Any]:
    """What each gate says of a case; `flips` is its negative flip rate."""
    folder = find_problem(REAL if case.source else PROBLEM, settings().problems)
    problem = framed(folder.problem, unequal=case.unequal)
    if case.source:
        rows, before = _real(case.source)
    else:
        rows = folder.open_source(None, 1000 + case.seed).traffic(case.rows, drifted=False)
        before = _champion(case.unequal).probability(rows)
    truth = rows[folder.contract.target].to_numpy(float)
    decided = (before >= problem.threshold).astype(float)
    planted = plant(
        rows, folder.contract, before, truth, problem.threshold, churn=case.churn, points=case.points, gain=GAIN, seed=case.seed
    )
    # Only decisions count here: a changed one lies on the other side of the threshold.
    other = np.where(planted.decided == 1, (1 + problem.threshold) / 2, problem.threshold / 2)
    after = np.where(planted.decided == decided, before, other)
    mean = non_inferior_to_champion(problem, after, before, truth)
    flips = negative_flips(problem, after, before, truth)
    sliced = slices(problem, folder.contract, rows, after, before, truth, case.seed)
    asked = {"ours": [mean, flips, sliced], "mean metric": [mean]}
    said = {name: gate(checks, "candidate", {}).action for name, checks in asked.items()}
    return {**asdict(case), "flips": flips.value, "mean": mean.value, "where": planted.where, **said}


def framed(problem: Problem, *, unequal: bool) -> Problem:
    """The problem with a margin for 40,000 rows; unless `unequal`, each wrong decision costs one: a point is a point of accuracy."""
    costs = problem.costs if unequal else Costs(false_positive=1.0, false_negative=1.0, unit="wrong decision")
    limits = {"margin": MARGIN, "slice_margin": 0.01, "slice_regression": POINTS, "slice_support": 0.03, "negative_flips": 0.1}
    return problem.model_copy(update={"costs": costs, "gate": problem.gate.model_copy(update=limits)})


@lru_cache(maxsize=2)
def _champion(unequal: bool) -> Scorer:
    """Boosted trees on the world's first rows: a real model, with its real errors."""
    from models.train import train

    folder = find_problem(PROBLEM, settings().problems)
    params = parameters()
    rows = conform(folder.open_source(None, SEED).traffic(TRAINED_ON, drifted=False), folder.contract, "the world")
    only = params["train"] | {"families": ["trees"], "threads": 1}
    threshold = framed(folder.problem, unequal=unequal).threshold
    encoder, (candidate,) = train(rows, split(rows[folder.contract.entity]), folder.contract, threshold, only, SEED)
    return Scorer(candidate.graph, encoder)


@lru_cache(maxsize=1)
def _real(source: str) -> tuple[pd.DataFrame, np.ndarray]:
    """All real rows, and what boosted trees that never saw the row say of it, shape (n,)."""
    from models.train import refit

    folder = find_problem(REAL, settings().problems)
    params = parameters()["train"] | {"threads": 1}
    rows = conform(read_table(Path(source)), folder.contract, source)
    rows = rows[rows[folder.contract.target].notna()].reset_index(drop=True)
    told = np.full(len(rows), np.nan)
    for others, fold in KFold(FOLDS, shuffle=True, random_state=SEED).split(rows):
        train, tune = train_test_split(others, test_size=0.2, random_state=SEED)
        answer = refit(rows.iloc[train], rows.iloc[tune], folder.contract, "trees", params, SEED)
        told[fold] = answer(rows.iloc[fold])
    return rows, told


def measure(judged: Sequence[dict[str, Any]]) -> list[Row]:
    """The shares caught, refused for nothing and left undecided, by gate, churn and test rows."""
    table = pd.DataFrame(judged)
    # The rows that most cases are judged on are those that the bars are about.
    clean = table[(table["points"] == 0) & ~table["unequal"] & (table["rows"] == table["rows"].mode()[0]) & table["churn"].isin(CHURNS)]
    limits = {"negative flips": float(np.quantile(clean["flips"], 1 - HELD))}
    return [row for _, cell in table.groupby(["unequal", "rows", "churn"], sort=True) for row in _cell(cell, limits)]


def _cell(cell: pd.DataFrame, limits: dict[str, float]) -> Iterator[Row]:
    rows, churn = int(cell["rows"].iloc[0]), float(cell["churn"].iloc[0])
    planted, clean = cell[cell["points"] > 0], cell[cell["points"] == 0]
    place = f"churn {churn:.0%}, {rows:,} test rows" + (", a miss costs four false alarms" if cell["unequal"].iloc[0] else "")
    # The best that negative flips alone can do: told how much a clean candidate of this very cell churns.
    limits = limits | {"negative flips, told the churn": float(np.quantile(clean["flips"], 1 - HELD))}
    for name in GATES:
        if name in limits:
            caught, held = int((planted["flips"] > limits[name]).sum()), int((clean["flips"] > limits[name]).sum())
        else:
            caught, held = int((planted[name] == "refuse").sum()), int((clean[name] != "promote").sum())
        yield share(f"{name}: caught, {place}", caught, len(planted))
        yield share(f"{name}: held for nothing, {place}", held, len(clean))
    yield share(f"ours: undecided with a planted slice, {place}", int((planted["ours"] == "undecided").sum()), len(planted))


def curves(rows: Sequence[Row]) -> Figure:
    """What ours catches, and holds for nothing, against the test rows and against the churn."""
    found = [(re.fullmatch(r"ours: (caught|held for nothing), churn (\d+)%, ([\d,]+) test rows", row.name), row) for row in rows]
    table = pd.DataFrame(
        [
            {"what": m[1], "churn": int(m[2]), "rows": int(m[3].replace(",", "")), "value": row.value, "low": row.low, "high": row.high}
            for m, row in found
            if m
        ]
    )
    by_rows = {
        f"{what}, churn {churn}%": part.sort_values("rows") for (what, churn), part in table.groupby(["what", "churn"]) if len(part) > 2
    }
    by_churn = {what: part.sort_values("churn") for what, part in table[table["rows"] == TEST_ROWS].groupby("what")}
    return figures.shares([("test rows", "rows", by_rows), ("churn of the rest of the model, %", "churn", by_churn)])
