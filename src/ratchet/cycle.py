"""How many whole cycles, days say, are looked at?"""

from __future__ import annotations

from datetime import timedelta


def cycles(reach: timedelta, age: timedelta, hours: float) -> int:
    """How many whole cycles of so many hours are looked at, where the newest rows reach back so far, and there have been rows for so long.

    A part of a cycle counts as one, else its hours would count more than others; 0 where none has come to its end.

    >>> cycles(timedelta(hours=5), timedelta(days=9), 24), cycles(timedelta(hours=30), timedelta(days=9), 24)
    (1, 2)
    >>> cycles(timedelta(hours=30), timedelta(hours=30), 24), cycles(timedelta(hours=5), timedelta(hours=5), 24)
    (1, 0)
    """
    length = timedelta(hours=hours)
    return min(max(1, -(-reach // length)), age // length)
