"""Within what does a probability lie? Two bounds from rows that the model did not learn from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Interval:
    """The Venn-Abers bounds at k scores, each of shape (k,), rising; between two scores the wider ones hold."""

    scores: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def of(self, probability: np.ndarray) -> np.ndarray:
        """The bounds of n probabilities, shape (n, 2). They hold the probability itself, so they may be wider than need be."""
        lows, highs = self._ends
        bounds = np.empty((len(probability), 2))
        np.minimum(lows[self.scores.searchsorted(probability, side="right")], probability, out=bounds[:, 0])
        np.maximum(highs[self.scores.searchsorted(probability, side="left")], probability, out=bounds[:, 1])
        return bounds

    @cached_property
    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The bounds with those of what lies outside all scores: 0 below them, 1 above them."""
        return np.append(0.0, self.low), np.append(self.high, 1.0)

    def as_dict(self) -> dict[str, Any]:
        """The bounds as plain data, exact to the last bit."""
        return {"scores": self.scores.tolist(), "low": self.low.tolist(), "high": self.high.tolist()}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Interval:
        """The bounds that `as_dict` made plain."""
        return Interval(*(np.asarray(data[name], dtype=float) for name in ("scores", "low", "high")))


def fit(probability: np.ndarray, truth: np.ndarray) -> Interval:
    """The bounds from n probabilities and their labels, both of shape (n,) (Vovk and Petej, Venn-Abers predictors, 2014).

    One of the two bounds is perfectly calibrated whatever the distribution, as long as live rows are drawn like these; how
    far they lie apart says how little the rows can tell. ValueError where they hold one class only.
    """
    from mapie.calibration import VennAbersCalibrator

    from ratchet.evaluation.conformal import Scores

    if np.unique(truth).size < 2:
        raise ValueError(f"{truth.size} rows hold fewer than two classes")
    scores = np.unique(probability)
    with warnings.catch_warnings():
        # It divides by the distance of points that coincide, and passes over the result.
        warnings.simplefilter("ignore", RuntimeWarning)
        calibrator = VennAbersCalibrator(estimator=Scores(), cv="prefit").fit(probability.reshape(-1, 1), truth.astype(int))
        _, bounds = calibrator.predict_proba(scores.reshape(-1, 1), p0_p1_output=True)
    low, high = np.asarray(bounds, dtype=float).T
    # Only where a bound changes does a score tell anything; both ends of a step are kept.
    steps = np.flatnonzero((np.diff(low) != 0) | (np.diff(high) != 0))
    kept = np.unique(np.concatenate([[0], steps, steps + 1, [scores.size - 1]]))
    return Interval(scores[kept], low[kept], high[kept])
