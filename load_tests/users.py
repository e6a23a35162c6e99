"""Who puts the service under load? Users that ask for one prediction, for ten, tell labels, and get refused at times."""

from __future__ import annotations

import json
import os
import random
from collections import deque
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant_throughput, events, task

from ratchet.settings import settings

RECORDS: list[dict[str, Any]] = json.loads(Path(os.environ["RATCHET_LOAD_RECORDS"]).read_text(encoding="utf-8"))
HEADERS = {"X-Ratchet-Variant": "load"} | settings().authorization
# Fields of words that come again: where they never do, any text may be right.
CATEGORIES = {
    name
    for name in RECORDS[0]
    if any(isinstance(record.get(name), str) for record in RECORDS)
    and 2 * len({str(record.get(name)) for record in RECORDS}) < len(RECORDS)
}
answered = 0


class Applicant(FastHttpUser):
    """A client of the service; every record is a valid one of the problem."""

    wait_time = constant_throughput(float(os.environ["RATCHET_LOAD_THROUGHPUT"]))

    def on_start(self) -> None:
        """Nothing is known yet that a label could be told of."""
        self.known: deque[str] = deque(maxlen=20)

    @task(8)
    def single(self) -> None:
        """One record."""
        self._ask("one record", random.choice(RECORDS), 1)

    @task(2)
    def batch(self) -> None:
        """Ten records at once."""
        self._ask("ten records", random.choices(RECORDS, k=10), 10)

    @task(2)
    def feedback(self) -> None:
        """A label of a prediction that this user was given."""
        if not self.known:
            self.single()
            return
        label = {"prediction_id": self.known.popleft(), "label": random.randint(0, 1)}
        with self.client.post("/feedback", json=label, name="a label", headers=HEADERS, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"{response.status_code}: {(response.text or '')[:200]}")

    @task(1)
    def refused(self) -> None:
        """A record that breaks the contract in one of four ways: the service must say 422, and which field."""
        record = dict(random.choice(RECORDS))
        field = random.choice([name for name, value in record.items() if value is not None])
        wrong = random.choice(("unknown", "missing", "kind", "range"))
        if wrong == "unknown":
            field = "unknown_field"
            record[field] = 1
        elif wrong == "missing":
            # A field that may be left out is refused only as something else than what it is.
            record[field] = {}
        else:
            record[field] = [] if wrong == "kind" else ("\u2603" if field in CATEGORIES else -1e12)
        with self.client.post("/predict", json=record, name="refused", headers=HEADERS, catch_response=True) as response:
            if response.status_code == 422 and response.json().get("field") == field:
                response.success()
            else:
                response.failure(f"a wrong {field} was answered with {response.status_code}")

    def _ask(self, name: str, body: Any, rows: int) -> None:
        global answered
        with self.client.post("/predict", json=body, name=name, headers=HEADERS, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"{response.status_code}: {(response.text or '')[:200]}")
                return
            given = response.json()
            told = given if rows > 1 else [given]
            if len(told) != rows or not all(0 <= answer["probability"] <= 1 for answer in told):
                response.failure("the answer does not match the request")
                return
            answered += rows
            self.known.append(told[0]["prediction_id"])


@events.quitting.add_listener
def write_answered(environment: Any, **_: Any) -> None:
    """Leave the number of predictions that were answered, counted by those who received them, process by process."""
    path = Path(os.environ["RATCHET_LOAD_ANSWERED"])
    path.with_name(f"{path.stem}-{os.getpid()}{path.suffix}").write_text(str(answered), encoding="utf-8")
