"""What tells a window from the reference, and how much likelier is a row in the one than in the other?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from ratchet.evaluation.loss import Z
from ratchet.monitoring.autocorrelation import inflation

FOLDS = 5
# More rows than these a side tell little more, and take their time.
MOST_ROWS = 6000
# A reference row this much likelier in the window is counted as this: it says little of what the reference knows.
# A row of the window of which that is true has next to nothing alike in the reference.
MOST_LIKELY = 50.0
# A difference that chance brings about more often than this is none to weigh rows by.
CHANCE = 0.05


@dataclass(frozen=True)
class Domain:
    """What tells window and reference apart.

    `auc`: how well, 0.5 is not at all, with its 95% interval and its p-value against chance. `ratio`: for each of the n
    reference rows, how much likelier it is in the window, shape (n,), with mean 1. `foreign`: the share of the window's rows
    that the reference has next to nothing alike of.
    """

    auc: float
    low: float
    high: float
    p_value: float
    ratio: np.ndarray
    foreign: float

    @property
    def alike(self) -> bool:
        """Whether nothing speaks for a difference."""
        return self.p_value >= CHANCE

    def without_difference(self) -> Domain:
        """The same, every reference row being as likely in the one as in the other."""
        return replace(self, ratio=np.ones(len(self.ratio)), foreign=0.0)


def thinned(rows: int, most: int = MOST_ROWS) -> np.ndarray:
    """The places of at most so many rows, evenly spread and in their order.

    >>> thinned(7, 3).tolist()
    [0, 2, 4]
    """
    return np.arange(rows) if rows <= most else (np.arange(most) * (rows / most)).astype(int)


def domain(reference: np.ndarray, window: np.ndarray, seed: int = 0) -> Domain:
    """Tell n reference rows from m window rows, shapes (n, k) and (m, k) (Bickel, Brückner and Scheffer, 2009).

    Each row is judged by a classifier that has seen neither it nor its neighbours, so that neither chance nor
    autocorrelation is taken for a difference. Of more than 6,000 rows in the window, 6,000 are looked at.
    """
    window = window[thinned(len(window))]
    rows = np.concatenate([reference, window])
    n, m = len(reference), len(window)
    side = np.r_[np.zeros(n), np.ones(m)]
    fold = np.r_[np.arange(n) * FOLDS // n, np.arange(m) * FOLDS // m]
    score = np.empty(len(rows))
    # On so few rows a second thread costs more in waiting than it saves.
    with threadpool_limits(1):
        for part in range(FOLDS):
            inside = fold == part
            model = HistGradientBoostingClassifier(
                max_iter=60, learning_rate=0.1, max_leaf_nodes=8, min_samples_leaf=40, l2_regularization=5.0,
                early_stopping=True, validation_fraction=0.2, n_iter_no_change=5, random_state=seed,
            )  # fmt: skip
            model.fit(rows[~inside], side[~inside])
            score[inside] = model.predict_proba(rows[inside])[:, 1]
    # As if both sides were of one size.
    odds = score / np.maximum(1 - score, 1e-9) * n / m
    old, new = odds[side == 0], odds[side == 1]
    auc, error = _auc(old, new)
    ratio = np.minimum(old, MOST_LIKELY)
    return Domain(
        auc=auc,
        low=auc - Z * error,
        high=auc + Z * error,
        p_value=float(stats.norm.sf((auc - 0.5) / error)) if error > 0 else float(auc <= 0.5),
        ratio=ratio / ratio.mean(),
        foreign=float((new > MOST_LIKELY).mean()),
    )


def _auc(old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """The area under the curve and its standard error (DeLong et al., 1988); autocorrelated rows count as fewer.

    Classifiers of different folds have learnt from the same rows: their scores are correlated too (Nadeau and Bengio, 2003).
    """
    places = [_below(old, new), 1 - _below(new, old)]
    variance = sum(each.var() * inflation(each) / len(each) for each in places) * (1 + FOLDS / (FOLDS - 1))
    return float(places[0].mean()), float(np.sqrt(variance))


def _below(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The share of `ordered` that is below each value, ties counting half."""
    ordered = np.sort(ordered)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2 * len(ordered))
