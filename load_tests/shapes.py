"""How does the number of users change over a load test? Locust asks `tick` once a second."""

from __future__ import annotations

import os

from locust import LoadTestShape

# Of a spike's users so many are there all the time; in its middle third all of them.
CALM = 0.1


def users_at(shape: str, users: int, seconds: float, moment: float) -> int | None:
    """How many users there are at a moment of the test; None once it is over.

    >>> [users_at("ramp", 100, 10, moment) for moment in (0, 5, 9.9, 10)]
    [1, 50, 99, None]
    >>> [users_at("spike", 100, 9, moment) for moment in (1, 4, 8)]
    [10, 100, 10]
    """
    if moment >= seconds:
        return None
    if shape == "ramp":
        return max(1, int(users * moment / seconds))
    calm = not seconds / 3 <= moment < 2 * seconds / 3
    return max(1, int(users * CALM)) if calm else users


class Shape(LoadTestShape):
    """The shape that the environment names."""

    def tick(self) -> tuple[int, float] | None:
        """Users, and how many of them come or go in a second; None ends the test."""
        users = int(os.environ["RATCHET_LOAD_USERS"])
        now = users_at(os.environ["RATCHET_LOAD_SHAPE"], users, float(os.environ["RATCHET_LOAD_SECONDS"]), self.get_run_time())
        return None if now is None else (now, max(1, users))
