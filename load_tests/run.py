"""What does the service bear? Locust, headless, in a process of its own."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.check import Check, Verdict, undecided
from ratchet.errors import StackError
from ratchet.problem import Load
from ratchet.registry import registered

MIN_REQUESTS = 100


@dataclass(frozen=True)
class LoadResult:
    """Requests, failures, milliseconds and requests per second, over all tasks; `answered` counts predictions."""

    requests: int
    failures: int
    p50_ms: float
    p99_ms: float
    rps: float
    answered: int
    report: Path

    def as_dict(self) -> dict[str, float]:
        """The numbers alone."""
        return {name: getattr(self, name) for name in ("requests", "failures", "p50_ms", "p99_ms", "rps")}


def run(url: str, records: list[dict[str, Any]], load: Load, folder: Path) -> LoadResult:
    """Let `load.users` users ask for `load.seconds` seconds. StackError where Locust itself cannot run."""
    # Numbers of an earlier run must not be taken for this one's.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "records.json").write_text(json.dumps(records), encoding="utf-8")
    environment = os.environ | {
        "RATCHET_LOAD_RECORDS": str(folder / "records.json"),
        "RATCHET_LOAD_ANSWERED": str(folder / "answered.txt"),
        # Locust has its own event loop: nothing of this process may reach it.
        "LOCUST_SKIP_UPDATE_CHECK": "1",
    }
    command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("users.py")), "--headless"]
    command += ["--users", str(load.users), "--spawn-rate", str(load.users), "--run-time", f"{load.seconds}s"]
    command += ["--host", url, "--csv", str(folder / "load"), "--html", str(folder / "load.html"), "--only-summary"]
    command += ["--loglevel", "ERROR", "--stop-timeout", "5"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=load.seconds + 120)
    stats = folder / "load_stats.csv"
    # Locust exits with 1 where a request failed: that is a result, not a mishap.
    if done.returncode not in (0, 1) or not stats.exists():
        raise StackError(f"Locust could not run: {done.stderr.strip()[-400:]}")
    with stats.open(encoding="utf-8") as lines:
        total = next(row for row in csv.DictReader(lines) if row["Name"] == "Aggregated")
    return LoadResult(
        requests=int(total["Request Count"]),
        failures=int(total["Failure Count"]),
        p50_ms=float(total["50%"]),
        p99_ms=float(total["99%"]),
        rps=float(total["Requests/s"]),
        answered=int((folder / "answered.txt").read_text(encoding="utf-8")),
        report=folder / "load.html",
    )


@registered("load", "release")
def verdict(result: LoadResult, load: Load) -> list[Check]:
    """Did the service bear it? One check on failures, one on the slowest hundredth; undecided below 100 requests."""
    n, slow = result.requests, result.p99_ms
    share = result.failures / n if n else float("nan")
    failed = f"{result.failures} of {n} requests failed"
    late = f"p99 {slow:g} ms at {load.users} users, limit {load.p99_ms:g} ms"
    return [
        _judge(
            "load:failures", "Is every request answered as it should be?", share, load.max_failure_share, n, "share of requests", failed
        ),
        _judge("load:p99", "Is the slowest hundredth quick enough?", slow, load.p99_ms, n, "ms", late),
    ]


def _judge(name: str, question: str, value: float, limit: float, n: int, unit: str, reason: str) -> Check:
    if n < MIN_REQUESTS:
        return undecided(name, question, f"{n} requests; {MIN_REQUESTS} are needed", n, limit=limit, unit=unit, blocking=False)
    held: Verdict = "pass" if value <= limit else "fail"
    return Check(name, question, held, reason, value=value, limit=limit, n=n, unit=unit, blocking=False)
