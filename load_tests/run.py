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

from ratchet.check import Check
from ratchet.errors import StackError
from ratchet.problem import Load


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


def verdict(result: LoadResult, load: Load) -> list[Check]:
    """Did the service bear it? One check on failures, one on the slowest hundredth."""
    share = result.failures / result.requests if result.requests else float("nan")
    slow = result.p99_ms
    return [
        Check(
            "load:failures",
            "Is every request answered as it should be?",
            "pass" if share <= load.max_failure_share else "fail",
            f"{result.failures} of {result.requests} requests failed",
            value=share,
            limit=load.max_failure_share,
            n=result.requests,
            unit="share of requests",
            blocking=False,
        ),
        Check(
            "load:p99",
            "Is the slowest hundredth quick enough?",
            "pass" if slow <= load.p99_ms else "fail",
            f"p99 {slow:g} ms at {load.users} users, limit {load.p99_ms:g} ms",
            value=slow,
            limit=load.p99_ms,
            n=result.requests,
            unit="ms",
            blocking=False,
        ),
    ]
