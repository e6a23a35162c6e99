"""How many trials does a warm start save when a drifted world is tuned for anew?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from models.objectives import objective
from models.tune import Trial, search
from ratchet.data.batch import conform
from ratchet.problem import find_problem
from ratchet.report.results import Row, measured, share
from ratchet.settings import parameters, settings

PROBLEM, FAMILY, OBJECTIVE = "credit", "trees", "log_loss"
# The rows of the first generation, and those of the drifted population that a retraining adds, as in the demonstration.
ROWS, ADDED, FOLDS = 12000, 3600, 3
# A tenth of a point: 0.001 of log loss.
NEAR = 0.001
BAR = 0.30


@dataclass(frozen=True)
class Case:
    """One world: tuned for as it was, then for what a retraining has, from nothing and from the first search's best.

    A retraining has the old rows and those of the drifted population; with `forgets`, of the new ones only.
    """

    seed: int
    trials: int
    forgets: bool = False


def cases(runs: int, trials: int) -> list[Case]:
    """The worlds behind the bar, and half as many in which the old rows are forgotten."""
    return [Case(seed, trials) for seed in range(runs)] + [Case(seed, trials, forgets=True) for seed in range(runs // 2)]


def judge(case: Case) -> dict[str, Any]:
    """The cold optimum on the retraining's rows, and after how many trials each start came within 0.1 points of it."""
    folder = find_problem(PROBLEM, settings().problems)
    params = parameters()
    source = folder.open_source(None, 5000 + case.seed)
    old, new = (
        conform(source.traffic(rows, drifted=drifted), folder.contract, "the world")
        for rows, drifted in ((ROWS, False), (ROWS if case.forgets else ADDED, True))
    )
    after = new if case.forgets else pd.concat([old, new], ignore_index=True)
    told = {}
    earlier: list[Trial] = []
    for name, rows in (("before", old), ("cold", after), ("warm", after)):
        evaluate = objective(
            rows, folder.contract, folder.problem, FAMILY, params["train"] | {"threads": 1}, [OBJECTIVE], folds=FOLDS, seed=case.seed
        )
        found = search(
            evaluate,
            params["tune"]["space"][FAMILY],
            objectives=1,
            trials=case.trials,
            seed=case.seed + (1000 if name == "warm" else 0),
            name=name,
            earlier=earlier if name == "warm" else (),
        )
        told[name] = [trial.values[0] for trial in found.trials]
        if name == "before":
            earlier = found.trials
    optimum = min(told["cold"])
    reached = {
        name: next((place for place, value in enumerate(told[name], 1) if value <= optimum + NEAR), None) for name in ("cold", "warm")
    }
    return {**asdict(case), "optimum": optimum, "warm_optimum": min(told["warm"]), **reached}


def measure(judged: Sequence[dict[str, Any]]) -> list[Row]:
    """Shares of the cold search's trials; a start that never came near counts as all of them."""
    return [row for forgets in (False, True) for row in _rows([told for told in judged if told["forgets"] is forgets], forgets)]


def _rows(judged: Sequence[dict[str, Any]], forgets: bool) -> list[Row]:
    if not judged:
        return []
    where = ", the old rows forgotten" if forgets else ""
    spent = {name: [(told[name] or told["trials"]) / told["trials"] for told in judged] for name in ("cold", "warm")}
    return [
        measured(f"warm start: share of the trials until within 0.1 points of the cold optimum{where}", spent["warm"], "of the trials"),
        measured(f"cold start: share of the trials until within 0.1 points of its own optimum{where}", spent["cold"], "of the trials"),
        share(f"warm start: reached within 30% of the trials{where}", int(np.sum(np.array(spent["warm"]) <= BAR)), len(judged)),
        share(f"warm start: never came within 0.1 points{where}", sum(told["warm"] is None for told in judged), len(judged)),
        measured(f"warm optimum less cold optimum{where}", [told["warm_optimum"] - told["optimum"] for told in judged], "log loss"),
    ]
