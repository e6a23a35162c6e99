"""Which rows span a whole cycle, a day say? What comes and goes with the hour is neither drift nor harm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from ratchet.check import Check
from ratchet.monitoring.domain import thinned


def spanning(at: np.ndarray, rows: int, hours: float) -> np.ndarray:
    """The places of the newest of n rows, so many at most; where the last `hours` hold more of them, evenly spread over these.

    `at`, shape (n,), is when each was, oldest first, as datetime64.

    >>> at = np.datetime64("2026-01-01") + np.arange(48) * np.timedelta64(1, "h")
    >>> spanning(at, 4, 0.0).tolist(), spanning(at, 4, 24.0).tolist(), spanning(at, 4, 2.0).tolist()
    ([44, 45, 46, 47], [29, 35, 41, 47], [44, 45, 46, 47])
    """
    n = len(at)
    inside = int((at > at.max() - np.timedelta64(round(hours * 3.6e6), "ms")).sum()) if n else 0
    return n - 1 - thinned(inside, rows)[::-1] if inside > rows else np.arange(max(0, n - rows), n)


def whole(at: pd.Series, hours: float, answering: Sequence[tuple[datetime, datetime | None]]) -> bool:
    """Whether rows of those times, in any order, span a cycle of so many hours.

    They do where one is older than that; and where they are all of the last `hours` and their version answered all along (`answering`: from
    when until when, None where it does so still), for at night nobody may ask.
    """
    if not hours or at.empty:
        return True
    last = at.max()
    first = last - timedelta(hours=hours)
    return bool(at.min() <= first) or any(begun <= first and (ended is None or ended >= last) for begun, ended in answering)


def unspanned(check: Check, hours: float) -> Check:
    """The check of rows that do not span a cycle: told, and not judged by."""
    why = f"its rows do not span a cycle of {hours:g} hours yet (watch.cycle_hours)"
    return replace(check, verdict="undecided", reason=f"{check.reason}; {why}") if check.verdict in ("pass", "fail") else check


def in_cycles(parts: Iterable[tuple[np.ndarray, np.ndarray]], hours: float, until: datetime) -> Iterator[np.ndarray]:
    """Values of whole cycles, each in an order of chance, which is the same whenever it is asked; those of the last, unfinished one are held back.

    Each part is values and when they were (datetime64), both of shape (n,), in the order in which they came; what comes late belongs to the
    cycle in which it came. A cycle is finished once it has ended before `until`. Of 0 hours: the parts as they are.
    """
    length = np.timedelta64(round(hours * 3.6e6), "ms")
    if not hours:
        yield from (values for values, _ in parts)
        return
    held, current = list[np.ndarray](), 0
    for values, at in parts:
        of = np.maximum.accumulate(np.maximum(_number(at, length), current))
        for cycle in np.unique(of):
            if held and cycle > current:
                yield _shuffled(held, current)
                held = []
            held.append(values[of == cycle])
            current = int(cycle)
    if held and current < int(_number(np.array([until], "datetime64[ms]"), length)[0]):
        yield _shuffled(held, current)


def _number(at: np.ndarray, length: np.timedelta64) -> np.ndarray:
    """Which cycle each time is in, counted from 1970 on."""
    return np.asarray((at.astype("datetime64[ms]") - np.datetime64(0, "ms")) // length, dtype=int)


def _shuffled(parts: list[np.ndarray], cycle: int) -> np.ndarray:
    return np.random.default_rng(cycle).permutation(np.concatenate(parts))
