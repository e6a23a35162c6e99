"""What is kept of a prediction?"""

from __future__ import annotations

import os
import time
from datetime import datetime

import msgspec

# Who is asked in earnest; probes and load tests are not.
LIVE = ("champion", "challenger")


class Prediction(msgspec.Struct):
    """A row of the log.

    `variant` says in which role the version answered: champion, challenger, probe or load. `propensity` is the
    probability with which the route chose that version for this row. `low` and `high` bound the probability where the
    release has bounds. `features` is the record as it was asked, in JSON. `keyed` where its request may be repeated
    under an idempotency key.
    """

    id: str
    problem: str
    at: datetime
    version: str
    variant: str
    propensity: float
    probability: float
    label: int
    features: str
    low: float | None = None
    high: float | None = None
    keyed: bool = False


def fresh_ids(n: int) -> list[str]:
    """n new prediction ids of 32 hexadecimal digits (UUID version 7, RFC 9562).

    They rise with time, so that an index over them grows at its end; 74 bits of each are chance.
    """
    head = f"{time.time_ns() // 1_000_000:012x}7"
    chance = os.urandom(10 * n).hex()
    return [f"{head}{chance[i : i + 3]}{'89ab'[int(chance[i + 3], 16) & 3]}{chance[i + 4 : i + 19]}" for i in range(0, 20 * n, 20)]
