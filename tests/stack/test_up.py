"""`ratchet up` with a person's own problem, in a folder of their own, watched on its own schedule."""

from __future__ import annotations

import json
import shutil
import time

import httpx
import pytest

from ratchet.settings import ROOT
from ratchet.store import Store
from stack import processes
from tests.conftest import ratchet
from tests.written import written


@pytest.fixture
def own_problem(tmp_path):
    """A copy of the loan applications under another name, outside the repository, watched every ten seconds, with notes and letters."""
    folder = tmp_path / "my problem" / "loans"
    shutil.copytree(ROOT / "problems" / "credit", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("problem.yaml", "contract.yaml"):
        text = (folder / name).read_text(encoding="utf-8").replace("name: credit\n", "name: loans\n")
        text = text.replace("every_seconds: 300", "every_seconds: 10").replace("seconds: 8", "seconds: 3")
        (folder / name).write_text(text, encoding="utf-8")
    written(folder)
    return folder


@pytest.fixture
def home(tmp_path):
    made = tmp_path / "home"
    made.mkdir()
    yield made
    ratchet("down", home=made)


@pytest.mark.long
def test_an_own_problem_is_served_watched_and_ended(own_problem, home):
    up = ratchet("up", str(own_problem), "--free-ports", home=home)
    assert up.returncode == 0, up.stderr
    assert "No model yet" in up.stdout
    urls = processes.urls(home)
    early = httpx.post(f"{urls['service']}/predict", json=json.loads(ratchet("sample", str(own_problem), home=home).stdout))
    assert early.status_code == 503
    assert "has been released yet" in early.json()["error"]
    again = ratchet("up", str(own_problem), home=home)
    assert again.returncode == 1
    assert "is up already" in again.stderr

    made = ratchet("run", str(own_problem), home=home)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "promote version 1" in made.stdout
    once_more = ratchet("run", str(own_problem), home=home)
    assert "promote version 1" in once_more.stdout, once_more.stderr
    assert len(json.loads(ratchet("generations", "--json", home=home).stdout)) == 1

    sample = [json.loads(line) for line in ratchet("sample", str(own_problem), "-n", "5", home=home).stdout.splitlines()]
    answers = httpx.post(f"{urls['service']}/predict", json=sample).json()
    assert {answer["model_version"] for answer in answers} == {"1"}

    store = Store(f"sqlite:///{home / 'store.db'}", "loans")
    deadline = time.monotonic() + 60
    while not store.decisions("wait") and time.monotonic() < deadline:
        time.sleep(0.5)
    assert store.decisions("wait"), "the schedule made no monitor run"
    assert store.decisions("wait")[0].reasons[0] == "nothing could be checked"
    assert set(store.window()["note"]) == {record["note"] for record in sample}

    sent = ratchet("traffic", str(own_problem), "-n", "400", home=home)
    assert "400 answered, 400 new labels" in sent.stdout, sent.stderr
    sent = ratchet("traffic", str(own_problem), "-n", "100", "--drifted", "--no-labels", home=home)
    assert "100 answered, 0 new labels" in sent.stdout, sent.stderr
    assert store.counts()["champion"] == 505
    assert store.window(newest=505)["truth"].notna().sum() == 400
    store.close()

    running = processes.started(home)
    assert len(running) == 4
    assert "Ended: " in ratchet("down", home=home).stdout
    assert not any(process.alive() for process in running)


def test_a_server_that_does_not_come_up_is_said_and_nothing_stays_behind(home):
    (home / "mlflow").mkdir()
    (home / "mlflow" / "mlflow.db").write_bytes(b"this is no database" * 100)
    said = ratchet("up", "--free-ports", home=home)
    assert said.returncode == 1
    assert "mlflow ended as it was started" in said.stderr
    assert "mlflow.log" in said.stderr
    assert "Traceback" not in said.stderr
    assert not processes.urls(home)
