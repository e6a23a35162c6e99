"""kill -9 of the loop, then the same command again: it finishes, with no version, decision or row twice. And whoever is asked to end, ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ratchet.store import Store
from stack import processes
from tests.conftest import RATCHET, environment, ratchet


def start(home: Path) -> subprocess.Popen[bytes]:
    command = [str(RATCHET), "demo", "--small", "--seed", "8", "--no-keep-up", "--reports", str(home / "reports")]
    with (home / "demo.log").open("ab") as log:
        return subprocess.Popen(command, env=environment(home), stdout=log, stderr=log, cwd=home)


def kill_when(home: Path, reached: Callable[[], bool], *, everything: bool) -> None:
    """Start the demonstration, and kill it, with or without its servers, once it has come that far."""
    demo = start(home)
    deadline = time.monotonic() + 240
    while not reached():
        assert demo.poll() is None, (home / "demo.log").read_text(encoding="utf-8")[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    place = home / "demo" / "credit"
    victims = [psutil.Process(p.pid) for p in processes.started(place) if everything and p.alive()]
    victims += [child for victim in victims for child in victim.children(recursive=True)]
    demo.send_signal(signal.SIGKILL)
    demo.wait()
    for victim in victims:
        if victim.is_running():
            victim.kill()
    psutil.wait_procs(victims, timeout=10)


@pytest.fixture
def home(tmp_path):
    made = tmp_path / "home"
    made.mkdir()
    yield made
    ratchet("down", home=made)


@pytest.mark.long
def test_killed_again_and_again_the_loop_still_closes_once(home):
    place = home / "demo" / "credit"
    workspace = place / "workspaces" / "credit"

    def journal() -> dict[str, object]:
        path = place / "journal.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    kill_when(home, lambda: (workspace / "data" / "split.parquet").exists(), everything=False)
    kill_when(home, lambda: (place / "releases" / "credit" / "1").exists(), everything=True)
    kill_when(home, lambda: "drifted began" in journal(), everything=False)
    kill_when(home, lambda: retraining(place), everything=True)
    finished = start(home)
    assert finished.wait(timeout=300) == 0, (home / "demo.log").read_text(encoding="utf-8")[-3000:]

    said = (home / "demo.log").read_text(encoding="utf-8")
    assert "going on where it stopped" in said
    # Nothing is left to be sent to a server that has ended, and nobody is warned of what is not theirs.
    last = said.rpartition("going on where it stopped")[2]
    assert "Error logging" not in last
    assert "Warning" not in last
    summary = json.loads((home / "reports" / "summary.json").read_text(encoding="utf-8"))
    assert [(g["version"], g["parent"]) for g in summary["generations"]] == [("1", None), ("2", "1")]
    assert [d["action"] for d in summary["decisions"]] == ["promote", "skip", "wait", "wait", "retrain", "promote"]
    assert summary["predictions"]["answered"] == summary["predictions"]["logged"] == 5000
    store = Store(f"sqlite:///{place / 'store.db'}", "credit")
    assert len({entry.id for entry in store.decisions()}) == len(store.decisions())
    assert [route.champion for route in store.routes() if route.verified] == ["1", "2"]
    store.close()
    assert not [p for p in processes.started(place) if p.alive()]


def retraining(place: Path) -> bool:
    """Whether the retraining run has come to train on the second snapshot."""
    lock = place / "workspaces" / "credit" / "data" / "split.parquet"
    journal = json.loads((place / "journal.json").read_text(encoding="utf-8")) if (place / "journal.json").exists() else {}
    return "third alarm" in journal and lock.exists() and lock.stat().st_mtime > (place / "journal.json").stat().st_mtime


TIDY = """
import signal, sys, time
from stack.interrupt import interruptible
signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv[1] == "in the background" else signal.default_int_handler)
interruptible()
try:
    print("at work", flush=True)
    time.sleep(60)
finally:
    print("ending", flush=True)
    time.sleep(0.5)
    print("ended", flush=True)
"""


def at_work(where: str) -> subprocess.Popen[str]:
    """A command that tidies up, whether or not these tests run where Ctrl-C is ignored."""
    process = subprocess.Popen([sys.executable, "-c", TIDY, where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "at work\n"
    return process


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_who_is_asked_to_end_ends_what_it_started_though_sigterm_follows(first):
    with at_work("in front") as process:
        process.send_signal(first)
        assert process.stdout.readline() == "ending\n"
        process.send_signal(signal.SIGTERM)
        said, told = process.communicate(timeout=30)
    assert said == "ended\n"
    assert told.startswith("\nInterrupted: ")
    assert "KeyboardInterrupt" in told


def test_a_background_job_ignores_ctrl_c_and_is_ended_by_sigterm():
    with at_work("in the background") as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    assert said == "ending\nended\n"
