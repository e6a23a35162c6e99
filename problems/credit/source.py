"""Where do loan applications come from?

From a simulated world (world.py beside this file), whose truth is known; or from a file.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ratchet.contract import Contract
from ratchet.problem import Problem, Source
from ratchet.simulation.replay import open_file

from .world import Knobs, draw


class Simulated:
    """The world's applications in order: ids and times go on from one call to the next."""

    description = "simulated world (problems/credit/world.py)"

    def __init__(self, seed: int, problem: Problem, contract: Contract) -> None:
        self._seed = seed
        self._columns = [column.name for column in contract.columns]
        self._target, self._delay = contract.target, problem.watch.label_delay_days
        self._next, self._day = 0, 0.0

    def _draw(self, rows: int, knobs: Knobs) -> pd.DataFrame:
        days = (self._day, self._day + rows / 40)
        frame = draw(rows, knobs, self._seed, self._next, days)
        self._next, self._day = self._next + rows, days[1]
        return frame[self._columns]

    def first_batch(self, rows: int) -> pd.DataFrame:
        """Applications with their outcomes; those younger than the label delay have none yet."""
        frame = self._draw(rows, Knobs(invalid=0.01))
        young = frame["applied_at"] > frame["applied_at"].max() - pd.Timedelta(days=self._delay)
        frame.loc[young, self._target] = float("nan")
        return frame

    def traffic(self, rows: int, drifted: bool) -> pd.DataFrame:
        """The next applications; once drifted, from the gig wave in a recession."""
        return self._draw(rows, Knobs(gig_wave=0.8, recession=1.3) if drifted else Knobs())


def open_source(source: str | None, seed: int, problem: Problem, contract: Contract) -> Source:
    """The simulated world, or the rows of the file that `source` names."""
    if source is None:
        return Simulated(seed, problem, contract)
    return open_file(Path(source), seed, problem, contract)
