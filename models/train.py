"""Which models are made from these rows? Every family on the same ones, calibrated and exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from threadpoolctl import threadpool_limits

from models import calibration
from models.fitted import Fitted, Views
from ratchet.contract import Contract
from ratchet.data.encoding import Encoder
from ratchet.data.encoding import fit as fit_encoder
from ratchet.errors import BatchError
from ratchet.scoring import Scorer

Native = Callable[[pd.DataFrame], np.ndarray]
FAMILIES = ("logistic", "trees", "network")
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Candidate:
    """A trained family: its ONNX graph (probability out) and what is known of its making.

    `gap` is the largest difference between the graph's and the native model's probabilities; `flips` counts the
    rows that they decide differently. A candidate with flips, or a gap above 1e-6, cannot be champion.
    """

    family: str
    graph: bytes
    slope: float
    intercept: float
    gap: float
    flips: int
    stopped: str
    kept: int | None = None
    curves: dict[str, list[float]] = field(default_factory=dict)
    # The model before its export: a frame's probabilities of label 1, shape (n,).
    native: Native | None = field(default=None, compare=False, repr=False)
    # The row, from 0, that the export answers worst; None where every one is within the tolerance.
    first: int | None = None

    @property
    def exportable(self) -> bool:
        """Whether the export decides as the native model does."""
        return self.flips == 0 and self.gap <= TOLERANCE


def train(
    frame: pd.DataFrame, sides: np.ndarray, contract: Contract, threshold: float, params: dict[str, Any], seed: int
) -> tuple[Encoder, list[Candidate]]:
    """Train every family that `params["families"]` names on the labelled rows of side `train`.

    `frame` holds n labelled rows, `sides` their side, shape (n,). BatchError where the training rows hold one
    class only, or a side is empty.
    """
    target = frame[contract.target].to_numpy(float)
    parts = {side: np.flatnonzero(sides == side) for side in ("train", "tune", "select", "test")}
    for side, rows in parts.items():
        if np.unique(target[rows]).size < 2:
            raise BatchError(
                f"snapshot: the {rows.size} labelled rows of side {side!r} hold fewer than two classes of "
                f"{contract.target!r}; more labelled rows are needed before a model can be trained."
            )
    encoder = fit_encoder(frame.iloc[parts["train"]], contract)
    views = {side: encoder.encode(frame.iloc[rows]) for side, rows in parts.items()}
    candidates = []
    for family in params["families"]:
        fitted, slope, intercept = _fit(family, encoder, views, {side: target[rows] for side, rows in parts.items()}, params, seed)
        graph = calibration.append(fitted.export(), slope, intercept).SerializeToString(deterministic=True)
        native = _native(encoder, fitted, slope, intercept)
        before, after = native(frame), Scorer(graph, encoder).probability(frame)
        gaps, flipped = np.abs(before - after), (before >= threshold) != (after >= threshold)
        wrong = np.flatnonzero((gaps > TOLERANCE) | flipped)
        candidates.append(
            Candidate(
                family=family,
                graph=graph,
                slope=slope,
                intercept=intercept,
                gap=float(gaps.max()),
                flips=int(flipped.sum()),
                stopped=fitted.stopped,
                kept=fitted.kept,
                curves=fitted.curves,
                native=native,
                first=int(wrong[0]) if wrong.size else None,
            )
        )
    return encoder, candidates


def _native(encoder: Encoder, fitted: Fitted, slope: float, intercept: float) -> Native:
    return lambda frame: np.asarray(expit(slope * fitted.logit(encoder.encode(frame)) + intercept))


def refit(
    train: pd.DataFrame, tune: pd.DataFrame, contract: Contract, family: str, params: dict[str, Any], seed: int
) -> Callable[[pd.DataFrame], np.ndarray]:
    """The same family made of other rows, without an export: answers a frame's probabilities of label 1, shape (n,).

    It learns from the labelled rows `train`, and stops and calibrates on `tune`. ValueError where one of them holds one
    class only.
    """
    sides = {"train": train, "tune": tune}
    truth = {side: rows[contract.target].to_numpy(float) for side, rows in sides.items()}
    for side, labels in truth.items():
        if np.unique(labels).size < 2:
            raise ValueError(f"the {labels.size} rows to {side} on hold fewer than two classes")
    encoder = fit_encoder(train, contract)
    views = {side: encoder.encode(rows) for side, rows in sides.items()}
    fitted, slope, intercept = _fit(family, encoder, views, truth, params, seed)
    return _native(encoder, fitted, slope, intercept)


def _fit(
    family: str, encoder: Encoder, views: dict[str, Views], truth: dict[str, np.ndarray], params: dict[str, Any], seed: int
) -> tuple[Fitted, float, float]:
    """A family, fitted on the views of `train` and `tune`, with Platt's slope and intercept."""
    if family not in FAMILIES:
        raise BatchError(f"params.yaml: train.families: {family!r} is not known; there are {', '.join(FAMILIES)}.")
    module = __import__(f"models.{family}", fromlist=["fit"])
    settings = params[family] | {"threads": params["threads"], "levels": [len(c.values) + 1 for c in encoder.categories]}
    # One number of threads everywhere: sums in another order would give other bytes.
    with threadpool_limits(params["threads"]):
        fitted = module.fit(views["train"], truth["train"], views["tune"], truth["tune"], settings, seed)
    return fitted, *calibration.platt(fitted.logit(views["tune"]), truth["tune"])
