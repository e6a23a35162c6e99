"""What does traffic look like of which everything is known? Thirty columns of every scale, their true probability, and knobs that move them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.signal import lfilter
from scipy.special import ndtr

from ratchet.contract import Column, Contract, Scale
from ratchet.problem import Costs, Gate, Outcome, Problem, Watch

CONTINUOUS, DISCRETE, ORDINAL, NOMINAL, BINARY = 14, 6, 4, 4, 2
KINDS_OF_COLUMNS: tuple[Scale, ...] = ("continuous", "discrete", "ordinal", "nominal", "binary")
GRADES = ("lowest", "low", "middle", "high", "highest")
KINDS = ("a", "b", "c", "d", "e", "f")
WEEK = 7 * 24 * 3600.0
# Every second column of each kind has no part in the outcome.
SIGN = {
    0: 1.0,
    2: -0.8,
    4: 0.7,
    6: 0.6,
    8: -0.5,
    10: 0.5,
    12: 0.4,
    14: 0.5,
    16: -0.4,
    18: 0.4,
    20: 0.4,
    22: -0.4,
    24: 0.5,
    26: 0.4,
    28: 0.5,
}
WIDTH = CONTINUOUS + DISCRETE + ORDINAL + NOMINAL + BINARY


@dataclass(frozen=True)
class Moved:
    """How far a population is from the one at first.

    `idle` and `active`: by how many standard deviations the columns without and with a part in the outcome move, the latter towards
    where the outcome is hard to tell. `prior`: the rise of the log-odds everywhere. `concept`: how far (0 to 1) two
    in three effects are turned around: P(y | x) changes. `autocorrelation`: of neighbouring rows (AR(1), 0 to 1).
    """

    idle: float = 0.0
    active: float = 0.0
    prior: float = 0.0
    concept: float = 0.0
    autocorrelation: float = 0.0


def contract() -> Contract:
    """The thirty columns, with an id, a time and the target."""
    columns = [Column(name="row", role="id", scale="nominal"), Column(name="happened", role="time", scale="continuous")]
    for place in range(WIDTH):
        name, kind = f"x{place:02d}", _kind(place)
        if kind == "continuous":
            # What may be missing has no part in the outcome, so that P(y | x) stays what is told.
            columns.append(Column(name=name, scale=kind, range=(-1000, 1000), missing=0.06 if place % 6 == 1 else 0.0))
        elif kind == "discrete":
            columns.append(Column(name=name, scale=kind, range=(0, 100)))
        elif kind in ("ordinal", "nominal"):
            columns.append(Column(name=name, scale=kind, values=GRADES if kind == "ordinal" else KINDS))
        else:
            columns.append(Column(name=name, scale=kind))
    return Contract(name="population", columns=(*columns, Column(name="outcome", role="target", scale="binary")))


def problem(watch: Watch | None = None, margin: float = 0.02) -> Problem:
    """A frame in which every error costs one, so that cost is the share of wrong decisions; checked once a week."""
    return Problem(
        name="population",
        title="A population",
        question="Will it happen?",
        outcome=Outcome(positive="happened", negative="did not"),
        costs=Costs(false_positive=1.0, false_negative=1.0),
        gate=Gate(margin=margin),
        watch=watch or Watch(every_seconds=WEEK, label_delay_days=14, min_labels=1500, min_window=200, cycle_hours=0),
    )


def draw(rows: int, moved: Moved, seed: int, first: int = 0) -> pd.DataFrame:
    """Rows with their outcome and `p`, the true P(y | x); ids count from `first`, one row a second."""
    rng = np.random.default_rng([seed, first])
    latent = _latent(rng, rows, moved.autocorrelation)
    active = np.isin(np.arange(WIDTH), list(SIGN))
    direction = np.zeros(WIDTH)
    for place, sign in SIGN.items():
        direction[place] = np.sign(sign)
    latent = latent + moved.idle * ~active + moved.active * direction
    made: dict[str, np.ndarray] = {"row": np.array([f"r{first + n:09d}" for n in range(rows)], dtype=object)}
    seen = np.empty((rows, WIDTH))
    for place in range(WIDTH):
        made[f"x{place:02d}"], seen[:, place] = _column(place, latent[:, place], rng)
    z = _log_odds(seen, moved)
    p = 1 / (1 + np.exp(-z))
    at = pd.Timestamp("2025-01-01") + pd.to_timedelta(first + np.arange(rows), unit="s")
    frame = pd.DataFrame(made)
    frame.insert(1, "happened", np.asarray(at).astype("datetime64[us]"))
    return frame.assign(outcome=(rng.random(rows) < p).astype(float), p=p)


def _kind(place: int) -> Scale:
    edges = np.cumsum([CONTINUOUS, DISCRETE, ORDINAL, NOMINAL, BINARY])
    return KINDS_OF_COLUMNS[int(np.searchsorted(edges, place, side="right"))]


def _latent(rng: np.random.Generator, rows: int, autocorrelation: float) -> np.ndarray:
    """Normal numbers of shape (rows, 30): three common factors, and what is each column's own."""
    warm = 200 if autocorrelation else 0
    own, common = rng.normal(size=(rows + warm, WIDTH)), rng.normal(size=(rows + warm, 3))
    both = np.sqrt(0.75) * own + 0.5 * common[:, np.arange(WIDTH) % 3]
    if not autocorrelation:
        return np.asarray(both)
    return np.asarray(lfilter([np.sqrt(1 - autocorrelation**2)], [1, -autocorrelation], both, axis=0)[warm:])


def _column(place: int, latent: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A column as it is sent, and as the outcome sees it."""
    kind, level = _kind(place), ndtr(latent)
    if kind == "continuous":
        value = np.round(np.exp(latent) if place % 4 == 3 else 10 * latent, 3)
        sent = np.where(rng.random(len(latent)) < 0.03, np.nan, value) if place % 6 == 1 else value
        return sent, np.round(10 * latent, 3) / 10
    if kind == "discrete":
        value = np.floor(6 * level + 4 * level**4)
        return value, (value - 3.5) / 2
    if kind == "binary":
        value = (latent > 0.5).astype(float)
        return value, 2 * value - 0.6
    codes = np.minimum((level * len(GRADES if kind == "ordinal" else KINDS)).astype(int), 4 if kind == "ordinal" else 5)
    names = np.array(GRADES if kind == "ordinal" else KINDS, dtype=object)
    return names[codes], codes / 1.5 - 1.4


def _log_odds(seen: np.ndarray, moved: Moved) -> np.ndarray:
    z = np.full(len(seen), -2.6 + moved.prior)
    for number, (place, sign) in enumerate(SIGN.items()):
        effect = 1.1 * sign * np.tanh(seen[:, place])
        z += effect * (1 - 2 * moved.concept) if number % 3 else effect
    # No straight line says these.
    z += 0.8 * ((seen[:, 0] > 0.5) & (seen[:, 4] > 0)) - 0.7 * ((seen[:, 6] < 0) & (seen[:, 20] > 0))
    return z
