"""What does a candidate look like that is better on average and worse in one slice? Planted, with known truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ratchet.contract import Contract
from ratchet.data.values import as_text
from ratchet.evaluation.loss import log_odds

SUPPORT = (0.03, 0.08)
TRIES = 1000


@dataclass(frozen=True)
class Regression:
    """A slice by its conditions, which of n rows lie in it, and the candidate's decisions on all of them, shape (n,)."""

    where: str
    inside: np.ndarray
    decided: np.ndarray


def plant(
    frame: pd.DataFrame,
    contract: Contract,
    champion: np.ndarray,
    truth: np.ndarray,
    threshold: float,
    *,
    churn: float,
    points: float,
    gain: float,
    seed: int,
) -> Regression:
    """A candidate that decides a share `churn` of the rows outside a slice otherwise, and is `points` less accurate inside.

    `champion` are its probabilities for n rows. The slice is drawn anew for each seed: one or two conditions, a
    category or an interval of a number, 3 to 8% of the rows. Inside it, right decisions turn wrong. Outside, decisions
    change as two trainings differ: noise on the log-odds, so that what lies near the threshold flips, as often to the
    right as to the wrong; and wrong decisions are put right, so many that the accuracy over all rows rises by
    `gain`. With `points` 0 no slice is made worse. ValueError where the changes asked for cannot be made.
    """
    rng = np.random.default_rng(seed)
    where, inside = _slice(frame, contract, rng)
    decided = (champion >= threshold).astype(float)
    right = decided == truth
    outside = ~inside if points else np.ones(len(truth), dtype=bool)
    lost = _some(rng, inside & right, round(points * inside.sum()))
    mended = _some(rng, outside & ~right, len(lost) + round(gain * len(truth)))
    churned = _churn(champion, threshold, right, outside, round(churn * outside.sum()) - len(mended), rng)
    # A wrong decision that was put right twice stays put right.
    changed = np.isin(np.arange(len(truth)), np.concatenate([lost, mended, churned]))
    return Regression(where, inside, np.where(changed, 1 - decided, decided))


def _churn(
    champion: np.ndarray, threshold: float, right: np.ndarray, among: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """About `count` rows whose decision noise on the log-odds turns around, as many right ones as wrong ones.

    They are balanced within fiftieths of the rows by probability, so that no slice is worse for it.
    """
    margin = log_odds(champion) - log_odds(threshold)
    push = -np.sign(margin) * rng.normal(size=len(margin))
    # The noise that it takes to turn each row around; rows pushed away from the threshold never are.
    scale = np.where((push > 0) & among, np.abs(margin) / np.maximum(push, 1e-12), np.inf)
    bins = np.searchsorted(np.quantile(margin, np.linspace(0, 1, 51)[1:-1]), margin)
    chosen: list[np.ndarray] = []
    for reach in np.quantile(scale[np.isfinite(scale)], np.linspace(0.005, 1, 200)):
        chosen = []
        for place in range(50):
            near = (bins == place) & (scale <= reach)
            pairs = min(int((near & right).sum()), int((near & ~right).sum()))
            chosen += [_some(rng, near & side, pairs) for side in (right, ~right)]
        if sum(map(len, chosen)) >= count:
            break
    return np.concatenate(chosen)


def _some(rng: np.random.Generator, eligible: np.ndarray, count: int) -> np.ndarray:
    places = np.flatnonzero(eligible)
    if count > len(places):
        raise ValueError(f"{count} decisions are to be changed, {len(places)} can be")
    return rng.choice(places, count, replace=False)


def _slice(frame: pd.DataFrame, contract: Contract, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    told = contract.features + contract.protected
    for _ in range(TRIES):
        chosen = rng.choice(len(told), rng.integers(1, 3), replace=False)
        inside, said = np.ones(len(frame), dtype=bool), []
        for place in chosen:
            column = told[place]
            values = frame[column.name]
            if column.is_numeric and column.scale != "binary":
                start = rng.uniform(0, 0.8)
                low, high = np.nanquantile(values.to_numpy(float), [start, min(1.0, start + rng.uniform(0.15, 0.5))])
                inside &= ((values >= low) & (values <= high)).to_numpy()
                said.append(f"{low:g} <= {column.name} <= {high:g}")
            else:
                text = values.map(as_text, na_action=None)
                value = rng.choice(np.sort(text.unique()))
                inside &= (text == value).to_numpy()
                said.append(f"{column.name} = {value}")
        if SUPPORT[0] <= inside.mean() <= SUPPORT[1]:
            return " and ".join(said), inside
    raise ValueError("no slice of the wanted size was found")
