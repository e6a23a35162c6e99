"""Who puts the service under load? Users that ask for single predictions, batches of ten, and get refused at times."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant_throughput, events, task

from ratchet.settings import settings

RECORDS: list[dict[str, Any]] = json.loads(Path(os.environ["RATCHET_LOAD_RECORDS"]).read_text(encoding="utf-8"))
HEADERS = {"X-Ratchet-Variant": "load"} | settings().authorization
answered = 0


class Applicant(FastHttpUser):
    """A client of the service; every record is a valid one of the problem."""

    wait_time = constant_throughput(25)

    @task(8)
    def single(self) -> None:
        """One record."""
        self._ask("one record", random.choice(RECORDS), 1)

    @task(2)
    def batch(self) -> None:
        """Ten records at once."""
        self._ask("ten records", random.choices(RECORDS, k=10), 10)

    @task(1)
    def refused(self) -> None:
        """A record with an unknown field: the service must say 422."""
        record = {**random.choice(RECORDS), "unknown_field": 1}
        with self.client.post("/predict", json=record, name="refused", headers=HEADERS, catch_response=True) as response:
            if response.status_code == 422:
                response.success()
            else:
                response.failure(f"an unknown field was answered with {response.status_code}")

    def _ask(self, name: str, body: Any, rows: int) -> None:
        global answered
        with self.client.post("/predict", json=body, name=name, headers=HEADERS, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"{response.status_code}: {response.text[:200]}")
                return
            given = response.json()
            told = given if rows > 1 else [given]
            if len(told) != rows or not all(0 <= answer["probability"] <= 1 for answer in told):
                response.failure("the answer does not match the request")
                return
            answered += rows


@events.quitting.add_listener
def write_answered(environment: Any, **_: Any) -> None:
    """Leave the number of predictions that were answered, counted by those who received them."""
    Path(os.environ["RATCHET_LOAD_ANSWERED"]).write_text(str(answered), encoding="utf-8")
