"""What should a retraining learn from: every row, those since the change, or the champion's own trees and then those?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import yaml
from sklearn.ensemble import HistGradientBoostingClassifier

from models.train import refit
from ratchet.data.encoding import fit as fit_encoder
from ratchet.report.results import Row, measured
from ratchet.settings import ROOT
from ratchet.simulation.population import Moved, contract, draw, problem

PROBLEM, CONTRACT = problem(), contract()
FAMILY, OLD, ASKED, TUNED = "trees", 20_000, 20_000, 0.2
LABELS = (500, 1500, 5000, 15_000)
CHANGES = {
    "the population moved": Moved(active=0.3),
    "the concept turned a little": Moved(concept=0.3),
    "the concept turned": Moved(concept=0.9),
    "both": Moved(active=0.3, concept=0.5),
}
EVERYTHING, WINDOW, WARM = "every row", "rows since the change", "the champion's trees, then rows since the change"
# Of so many of the newest models' errors is told which were the champion's.
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
    old, new = _old(case.seed), draw(case.labels, moved, case.seed, 1_000_000)
    asked = draw(ASKED, moved, case.seed, 2_000_000)
    champion, trees = _champion(case.seed)
    both = [pd.concat(parts, ignore_index=True) for parts in zip(old, _sides(new), strict=True)]
    answers = {
        "none": champion,
        EVERYTHING: refit(*both, CONTRACT, FAMILY, _params(), case.seed),
        WINDOW: refit(*_sides(new), CONTRACT, FAMILY, _params(), case.seed),
        WARM: trees(*_sides(new)),
    }
    decided = {name: answer(asked) >= PROBLEM.threshold for name, answer in answers.items()}
    truth, p = asked[CONTRACT.target].to_numpy(float) == 1, asked["p"].to_numpy(float)
    before = decided["none"] != truth
    return {
        **asdict(case),
        "wrong": {name: float(np.where(yes, 1 - p, p).mean()) for name, yes in decided.items()},
        "inherited": {name: float((yes != truth)[before].mean()) for name, yes in decided.items()},
    }


def _params() -> dict[str, Any]:
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["train"]
    return params


def _sides(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    tuned = np.arange(len(rows)) % round(1 / TUNED) == 0
    return rows[~tuned].reset_index(drop=True), rows[tuned].reset_index(drop=True)


def _old(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    return _sides(draw(OLD, Moved(), seed))


@lru_cache(maxsize=1)
def _champion(seed: int) -> tuple[Answer, Callable[[pd.DataFrame, pd.DataFrame], Answer]]:
    """Trees of the old rows, and a way to grow further ones on new rows: as many as their own tuning rows ask for."""
    train, tune = _old(seed)
    champion = refit(train, tune, CONTRACT, FAMILY, _params(), seed)
    params, target = _params()[FAMILY], CONTRACT.target
    encoder = fit_encoder(train, CONTRACT)

    def grown(before: HistGradientBoostingClassifier | None, train: pd.DataFrame, tune: pd.DataFrame) -> HistGradientBoostingClassifier:
        first = before.n_iter_ if before is not None else 0
        bins, truth = encoder.encode(train)["bins"], train[target].to_numpy()
        asked, sign = encoder.encode(tune)["bins"], 2 * tune[target].to_numpy() - 1
        made = HistGradientBoostingClassifier(early_stopping=False, random_state=seed, warm_start=True, **params)
        if before is not None:
            made.__dict__.update(before.__dict__)
        made.set_params(max_iter=first + params["max_iter"]).fit(bins, truth)
        losses = [float(np.logaddexp(0, -sign * logit.reshape(-1)).mean()) for logit in made._staged_raw_predict(asked)]
        kept = max(first, int(np.argmin(losses)) + 1)
        made._predictors = made._predictors[:kept]
        return made

    def warm(train: pd.DataFrame, tune: pd.DataFrame) -> Answer:
        model = grown(grown(None, *_old(seed)), train, tune)
        return lambda rows: np.asarray(model.predict_proba(encoder.encode(rows)["bins"])[:, 1])

    return champion, warm


def measure(judged: Sequence[dict[str, Any]]) -> list[Row]:
    """Wrong decisions by change, labels and lesson; how much of the champion's errors stay; the window against every row, paired."""
    rows = []
    for change in CHANGES:
        for labels in LABELS:
            mine = [told for told in judged if (told["change"], told["labels"]) == (change, labels)]
            if not mine:
                continue
            where = f"{change}, {labels:,} labels"
            for name in ("none", EVERYTHING, WINDOW, WARM):
                said = "the champion" if name == "none" else name
                rows.append(measured(f"{where}: wrong decisions, {said}", [told["wrong"][name] for told in mine], "of decisions"))
            for name in (EVERYTHING, WINDOW, WARM):
                rows.append(
                    measured(f"{where}: the champion's errors that stay, {name}", [t["inherited"][name] for t in mine], "of its errors")
                )
            for name in (EVERYTHING, WARM):
                less = [told["wrong"][WINDOW] - told["wrong"][name] for told in mine]
                rows.append(measured(f"{where}: {WINDOW} less {name}", less, "of decisions"))
    return rows
