"""Which rows span whole cycles, days say? What comes and goes with the hour is neither drift nor harm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from ratchet.check import Check
from ratchet.cycle import cycles
from ratchet.monitoring.domain import thinned


def spanning(at: np.ndarray, rows: int, hours: float, since: datetime | None = None) -> np.ndarray:
    """The places of the newest of n rows, so many at most, evenly spread over whole cycles of so many hours; 0 is over what they are of.

    `at`, shape (n,), is when each was, oldest first, as datetime64; `since` from when on there have been rows, long ago where it is left out.
    The newest ones where no cycle has come to its end.

    >>> at = np.datetime64("2026-01-01") + np.arange(72) * np.timedelta64(1, "h")
    >>> spanning(at, 4, 0.0).tolist(), spanning(at, 4, 24.0).tolist(), spanning(at, 36, 24.0)[[0, 1, -1]].tolist()
    ([68, 69, 70, 71], [53, 59, 65, 71], [25, 26, 71])
    """
    n = len(at)
    newest = np.arange(max(0, n - rows), n)
    if not hours or not n:
        return newest
    last, oldest = (pd.Timestamp(at[place]).floor("us").to_pydatetime() for place in (-1, newest[0]))
    count = cycles(max(last - oldest, timedelta()), timedelta.max if since is None else max(last - since, timedelta()), hours)
    if not count:
        return newest
    inside = int((at > at[-1] - _length(hours * count)).sum())
    return n - 1 - thinned(inside, min(rows, inside))[::-1]


def unspanned(check: Check, hours: float) -> Check:
    """The check of rows that do not span a cycle: told, and not judged by."""
    why = f"its rows do not span a cycle of {hours:g} hours yet (watch.cycle_hours)"
    return replace(check, verdict="undecided", reason=f"{check.reason}; {why}") if check.verdict in ("pass", "fail") else check


def in_cycles(parts: Iterable[pd.DataFrame], hours: float, until: datetime, since: datetime | None = None) -> Iterator[pd.DataFrame]:
    """Labels by the cycles in which they came, and within each by those of their predictions; the last, unfinished one is held back.

    Each part has the columns at, when a label came, made and prediction, when its prediction was and its place of the log; parts are in the
    order in which they came, and what comes late belongs to the cycle in which it came; so does what says that it came after `until`. Cycles
    are counted from `since` on, from when there have been predictions, and are finished once they have ended by `until`. What is of one comes
    in an order of chance, which is the same whenever it is asked. Of 0 hours: the parts as they are.
    """
    if not hours:
        yield from parts
        return
    origin, now = np.datetime64(since or datetime(1970, 1, 1), "ns"), np.datetime64(until, "ns")

    def number(at: np.ndarray) -> np.ndarray:
        return np.asarray((at - origin) // _length(hours), dtype=int)

    held, current = list[pd.DataFrame](), -(2**62)
    for part in parts:
        at = part["at"].to_numpy("datetime64[ns]")
        of = np.maximum.accumulate(np.maximum(np.where(at > now, current, number(at)), current))
        for cycle in np.unique(of):
            if held and cycle > current:
                yield from _by_prediction(pd.concat(held), number)
                held = []
            held.append(part[of == cycle])
            current = int(cycle)
    if held and current < int(number(np.array([now]))[0]):
        yield from _by_prediction(pd.concat(held), number)


def _by_prediction(rows: pd.DataFrame, number: Callable[[np.ndarray], np.ndarray]) -> Iterator[pd.DataFrame]:
    """Labels of one cycle, by the cycle of their predictions; one that comes late changes nothing of the order of others."""
    made, lot = number(rows["made"].to_numpy("datetime64[ns]")), pd.util.hash_array(rows["prediction"].to_numpy(np.int64))
    order = np.lexsort((lot, made))
    for places in np.split(order, np.flatnonzero(np.diff(made[order])) + 1):
        yield rows.iloc[places]


def _length(hours: float) -> np.timedelta64:
    return np.timedelta64(round(hours * 3.6e6), "ms")
