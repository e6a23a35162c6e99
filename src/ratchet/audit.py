"""Which predictions are drawn for an audit, so that somebody finds out the truth about them?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from ratchet.lot import lot

# A label that was found out because its prediction was drawn.
AUDIT = "audit"


@dataclass(frozen=True)
class Draw:
    """From a place of the log on (`since`, a seq), that share (0 to 1) of the predictions is drawn. A later draw goes before.

    `decision` is the id of the one that raised it: what was bought so holds up to the next draw that was not, and stays bought whatever is
    bought later. `at` is when.
    """

    share: float
    since: int
    decision: str | None = None
    at: datetime | None = field(default=None, compare=False)


def chances(draws: Sequence[Draw], seqs: np.ndarray) -> np.ndarray:
    """The probability with which each of n predictions is drawn, shape (n,), by their places in the log; 0 before any draw.

    >>> chances([Draw(0.02, 1), Draw(0.1, 50)], np.array([10, 60])).tolist()
    [0.02, 0.1]
    >>> chances([Draw(0.02, 1), Draw(0.2, 1, "d1"), Draw(0.02, 50), Draw(0.1, 40, "d2"), Draw(0.02, 70)], np.array([39, 45, 60, 70])).tolist()
    [0.2, 0.2, 0.1, 0.02]
    """
    made = np.zeros(len(seqs))
    for draw in draws:
        if draw.decision is None:
            made = np.where(seqs >= draw.since, draw.share, made)
    for draw, end in zip(draws, ends(draws), strict=True):
        if draw.decision is not None:
            made = np.where((seqs >= draw.since) & (seqs < end), np.maximum(made, draw.share), made)
    return made


def ends(draws: Sequence[Draw]) -> list[float]:
    """Before which place of the log each draw ends: where the next one begins that nobody bought, infinity where there is none.

    >>> ends([Draw(0.02, 1), Draw(0.2, 1, "d1"), Draw(0.02, 50)])
    [50, 50, inf]
    """
    made: list[float] = []
    end = float("inf")
    for draw in reversed(draws):
        made.append(end)
        end = draw.since if draw.decision is None else end
    return made[::-1]


def drawn(ids: Iterable[str], chance: np.ndarray) -> np.ndarray:
    """Which of n predictions are drawn, shape (n,), each with its own probability: those whose id falls below it by lot.

    A larger share so draws the same predictions and more, and whoever asks again draws the same ones.
    """
    return np.fromiter((lot(identity) for identity in ids), dtype=float, count=len(chance)) < chance
