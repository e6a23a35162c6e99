"""What should a retraining learn from: every row, those since the change, or the champion's own trees and then those?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

from flows.experiment_watch import CONTRACT, FIRST, PROBLEM, standing
from flows.ingest import FAMILY, FOLDS
from models.again import window_runs
from models.train import refit
from ratchet.data.encoding import fit as fit_encoder
from ratchet.lesson import Lesson, settled
from ratchet.report.results import Row, measured, share
from ratchet.settings import parameters
from ratchet.simulation.population import Moved, draw

ASKED, TUNED = 20_000, 0.2
LABELS = (500, 1500, 5000)
CHANGES = {
    "the population moved": Moved(active=0.3),
    "the prior rose": Moved(prior=1.0),
    "the concept turned": Moved(concept=0.9),
    "both": Moved(active=0.3, concept=0.5),
}
EVERYTHING, WINDOW, WARM, OURS = "every row", "rows since the change", "the champion's trees, then rows since", "as the policy chooses"
LESSONS = (EVERYTHING, WINDOW, WARM, OURS)
Answer = Callable[[pd.DataFrame], np.ndarray]


@dataclass(frozen=True)
class Case:
    """A change, so many labelled rows since, and a seed."""

    change: str
    labels: int
    seed: int


def cases(runs: int) -> list[Case]:
    """Every change with every number of labels, so many times."""
    return [Case(change, labels, seed) for seed in range(runs) for change in CHANGES for labels in LABELS]


def judge(case: Case) -> dict[str, Any]:
    """By lesson, the share of decisions that are wrong on fresh rows of the new population, and of the champion's errors that stay."""
    moved = CHANGES[case.change]
    _, champion = standing(case.seed, 0.0)
    old, new = _old(case.seed), draw(case.labels, moved, case.seed, 1_000_000)
    asked = draw(ASKED, moved, case.seed, 2_000_000)
    both = [pd.concat(parts, ignore_index=True) for parts in zip(old, _sides(new), strict=True)]
    answers = {
        "none": champion,
        EVERYTHING: refit(*both, CONTRACT, FAMILY, _params(), case.seed),
        WINDOW: refit(*_sides(new), CONTRACT, FAMILY, _params(), case.seed),
        WARM: _grown(case.seed)(*_sides(new)),
    }
    decided = {name: answer(asked) >= PROBLEM.threshold for name, answer in answers.items()}
    told = window_runs(pd.concat(old, ignore_index=True), new, CONTRACT, FAMILY, _params(), FOLDS, case.seed)
    pays = settled(Lesson(since=1), told, new[CONTRACT.target].to_numpy(float), new["row"].to_numpy(object), PROBLEM.threshold)[0].since > 0
    decided[OURS] = decided[WINDOW if pays else EVERYTHING]
    truth, p = asked[CONTRACT.target].to_numpy(float) == 1, asked["p"].to_numpy(float)
    before = decided["none"] != truth
    return {
        **asdict(case),
        "pays": pays,
        "wrong": {name: float(np.where(yes, 1 - p, p).mean()) for name, yes in decided.items()},
        "inherited": {name: float((yes != truth)[before].mean()) for name, yes in decided.items()},
    }


def _params() -> dict[str, Any]:
    params: dict[str, Any] = parameters()["train"]
    return params


def _sides(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    tuned = np.arange(len(rows)) % round(1 / TUNED) == 0
    return rows[~tuned].reset_index(drop=True), rows[tuned].reset_index(drop=True)


def _old(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    return _sides(draw(FIRST, Moved(), seed))


@lru_cache(maxsize=1)
def _grown(seed: int) -> Callable[[pd.DataFrame, pd.DataFrame], Answer]:
    """A way to grow further trees on new rows, after those of the old ones: as many as their own tuning rows ask for."""
    train, _ = _old(seed)
    params, target = _params()[FAMILY], CONTRACT.target
    encoder = fit_encoder(train, CONTRACT)
    # The trees number the values that they meet: rows that count for nothing let them meet the same ones each time.
    highest = encoder.encode(train)["bins"].max(axis=0)
    every = np.minimum(np.arange(highest.max() + 1)[:, None], highest)

    def grown(before: HistGradientBoostingClassifier | None, train: pd.DataFrame, tune: pd.DataFrame) -> HistGradientBoostingClassifier:
        made = deepcopy(before) if before is not None else HistGradientBoostingClassifier(early_stopping=False, random_state=seed, **params)
        first = made.n_iter_ if before is not None else 0
        bins = np.concatenate([encoder.encode(train)["bins"], every])
        truth = np.concatenate([train[target].to_numpy(), np.arange(len(every)) % 2])
        weight = np.concatenate([np.ones(len(train)), np.zeros(len(every))])
        asked, sign = encoder.encode(tune)["bins"], 2 * tune[target].to_numpy() - 1
        made.set_params(max_iter=first + params["max_iter"], warm_start=True).fit(bins, truth, sample_weight=weight)
        losses = [float(np.logaddexp(0, -sign * logit.reshape(-1)).mean()) for logit in made._staged_raw_predict(asked)]
        # At least the trees that it has, and at least one.
        least = max(first, 1)
        kept = least + int(np.argmin(losses[least - 1 :]))
        made._predictors = made._predictors[:kept]
        return made

    def warm(train: pd.DataFrame, tune: pd.DataFrame) -> Answer:
        model = grown(first, train, tune)
        return lambda rows: np.asarray(model.predict_proba(encoder.encode(rows)["bins"])[:, 1])

    first = grown(None, *_old(seed))
    return warm


def measure(judged: Sequence[dict[str, Any]]) -> list[Row]:
    """By change and labels: how much less is wrong than with the champion, how many of its errors stay, and what a better choice would save."""
    enough = [told for told in judged if told["labels"] == PROBLEM.watch.min_labels]
    beyond = [told["wrong"][OURS] - min(told["wrong"][name] for name in (EVERYTHING, WINDOW)) for told in enough]
    rows = [
        measured(
            f"{PROBLEM.watch.min_labels:,} labels, all changes: the policy's choice less the better of the two", beyond, "of decisions"
        )
    ]
    for change in CHANGES:
        for labels in LABELS:
            mine = [told for told in judged if (told["change"], told["labels"]) == (change, labels)]
            if not mine:
                continue
            where = f"{change}, {labels:,} labels"
            rows.append(measured(f"{where}: wrong decisions of the champion", [told["wrong"]["none"] for told in mine], "of decisions"))
            for name in LESSONS:
                less = [told["wrong"][name] - told["wrong"]["none"] for told in mine]
                rows.append(measured(f"{where}: wrong decisions less the champion's, {name}", less, "of decisions"))
            for name in (EVERYTHING, WINDOW, WARM):
                stay = [told["inherited"][name] for told in mine]
                rows.append(measured(f"{where}: the champion's errors that stay, {name}", stay, "of its errors"))
            rows.append(share(f"{where}: the policy leaves out older rows", sum(told["pays"] for told in mine), len(mine)))
    return rows
