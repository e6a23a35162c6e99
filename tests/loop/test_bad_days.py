"""The monitor's flow, on the real servers: whatever the log holds, it ends with a decision, and with no green light."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta

import pytest

from ratchet.database import now
from ratchet.decision import decide
from ratchet.prediction import Prediction
from ratchet.settings import ROOT
from ratchet.store import Store
from tests.conftest import environment

ROWS = 600
FLOW = "import json; from flows.monitor import monitor; print(json.dumps(monitor('credit')))"


@pytest.fixture
def log(loop, tmp_path):
    """A log of its own beside the loop's servers, in which version 2 answers and nothing has been asked yet."""
    store = Store(f"sqlite:///{tmp_path / 'bad.db'}", "credit")
    decision = decide("promote", "version 2", ["so"], {})
    store.record(decision)
    store.set_route("2", decision.id, verified=True)
    yield store
    store.close()


def look(loop, log):
    """What the flow makes of the log, and the checks by name."""
    variables = environment(
        loop.home,
        DATABASE_URL=str(log.engine.url),
        MLFLOW_TRACKING_URI=loop.urls["mlflow"],
        PREFECT_API_URL=f"{loop.urls['prefect']}/api",
        RATCHET_SERVICE_URL=loop.urls["service"],
    )
    done = subprocess.run([sys.executable, "-c", FLOW], env=variables, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    made = json.loads(done.stdout.splitlines()[-1])
    return made, {check["name"]: check for check in made["checks"]}


def test_an_empty_log_and_then_one_in_which_everything_is_wrong(loop, log):
    made, checks = look(loop, log)
    assert made["action"] == "wait"
    assert {check["verdict"] for check in checks.values()} == {"undecided"}
    assert log.decisions(newest=1)[0].id == made["decision"]
    real = Store(f"sqlite:///{loop.home / 'store.db'}", "credit")
    sent = real.requests(0, ROWS, "2").drop(columns=["seq", "id"])
    real.close()
    lines, present = [], now()
    for n, (p, features) in enumerate(zip(sent.pop("probability"), sent.to_dict("records"), strict=True)):
        spoilt = {name: None if value != value else value for name, value in features.items() if name != "income"}
        spoilt |= {"amount": "n/a", "channel": None, "shoe_size": 43}
        # The log's clock runs ahead, and backwards.
        at = present + timedelta(hours=2) - timedelta(seconds=n)
        lines.append(Prediction(f"b{n}", "credit", at, "2", "champion", 1.0, float(p), int(p >= 0.2), json.dumps(spoilt)))
    log.log(lines)
    # Labels of one class, each twice and the first time otherwise, and of predictions that nobody made.
    for value in (0, 1):
        log.add_labels([{"prediction_id": f"b{n}", "at": present, "value": value, "provenance": "outcome"} for n in range(ROWS)])
    nobodys = [{"prediction_id": f"nobody{n}", "at": present, "value": 1, "provenance": "outcome"} for n in range(10)]
    assert log.add_labels(nobodys) == [None] * 10
    log.add_strays([f"nobody{n}" for n in range(ROWS)])
    made, checks = look(loop, log)
    assert made["action"] == "block"
    for name in ("validity", "data_drift:income", "data_drift:amount", "data_drift:channel", "clock", "label_conflicts", "label_ids"):
        assert checks[name]["verdict"] == "fail", name
    for what in ("income is gone", "amount is missing", "shoe_size is no column of the contract"):
        assert what in checks["validity"]["reason"]
    for name in ("joint_drift", "estimate", "skew:scores", "silent:outliers", "probes:duplicates"):
        assert checks[name]["verdict"] == "undecided", name
    assert all(check["reason"] for check in checks.values())
