"""What does the service bear? Locust, headless, in a process of its own."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from load_tests.server import look
from ratchet.check import Check, Verdict, undecided
from ratchet.errors import StackError
from ratchet.problem import Load, Slo
from ratchet.registry import registered

MIN_REQUESTS = 100
# The service writes its counts down after so long, at the latest.
SETTLED_SECONDS = 0.2


@dataclass(frozen=True)
class LoadResult:
    """What the clients counted over all tasks, in milliseconds and a second; `answered` counts predictions.

    `server_average_ms` and `server_p99_ms` are the service's own, over its `served` requests for predictions meanwhile.
    """

    requests: int
    failures: int
    average_ms: float
    p50_ms: float
    p99_ms: float
    rps: float
    server_average_ms: float
    server_p99_ms: float
    served: int
    answered: int
    report: Path

    def as_dict(self) -> dict[str, float]:
        """The numbers alone."""
        names = ("requests", "failures", "average_ms", "p50_ms", "p99_ms", "rps", "server_average_ms", "server_p99_ms")
        return {name: getattr(self, name) for name in names}


def run(url: str, records: list[dict[str, Any]], load: Load, folder: Path) -> LoadResult:
    """Let `load.users` users ask for `load.seconds` seconds. StackError where Locust cannot run, or nothing answers at `url`."""
    # Numbers of an earlier run must not be taken for this one's.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "records.json").write_text(json.dumps(records), encoding="utf-8")
    environment = os.environ | {
        "RATCHET_LOAD_RECORDS": str(folder / "records.json"),
        "RATCHET_LOAD_ANSWERED": str(folder / "answered.txt"),
        "RATCHET_LOAD_USERS": str(load.users),
        "RATCHET_LOAD_SECONDS": str(load.seconds),
        "RATCHET_LOAD_SHAPE": load.shape,
        "RATCHET_LOAD_THROUGHPUT": str(load.throughput),
        # Locust has its own event loop: nothing of this process may reach it.
        "LOCUST_SKIP_UPDATE_CHECK": "1",
    }
    here = Path(__file__).parent
    files = [here / "users.py"] if load.shape == "constant" else [here / "users.py", here / "shapes.py"]
    command = [sys.executable, "-m", "locust", "-f", ",".join(map(str, files)), "--headless"]
    if load.shape == "constant":
        command += ["--users", str(load.users), "--spawn-rate", str(load.users), "--run-time", f"{load.seconds}s"]
    if load.processes > 1:
        command += ["--processes", str(load.processes)]
    command += ["--host", url, "--csv", str(folder / "load"), "--html", str(folder / "load.html"), "--only-summary"]
    command += ["--loglevel", "ERROR", "--stop-timeout", "5"]
    try:
        before = look(url)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=load.seconds + 120)
        time.sleep(SETTLED_SECONDS)
        server = look(url).since(before)
    except httpx.HTTPError as error:
        raise StackError(f"The service at {url} does not answer: {error}. Start it with `ratchet up`.") from error
    stats = folder / "load_stats.csv"
    # Locust exits with 1 where a request failed: that is a result, not a mishap.
    if done.returncode not in (0, 1) or not stats.exists():
        raise StackError(f"Locust could not run: {done.stderr.strip()[-400:]}")
    with stats.open(encoding="utf-8") as lines:
        total = next(row for row in csv.DictReader(lines) if row["Name"] == "Aggregated")
    answered = sum(int(path.read_text(encoding="utf-8")) for path in folder.glob("answered-*.txt"))
    (folder / "answered.txt").write_text(str(answered), encoding="utf-8")
    return LoadResult(
        requests=int(total["Request Count"]),
        failures=int(total["Failure Count"]),
        average_ms=float(total["Average Response Time"]),
        p50_ms=_number(total["50%"]),
        p99_ms=_number(total["99%"]),
        rps=float(total["Requests/s"]),
        server_average_ms=server.average_ms,
        server_p99_ms=server.quantile_ms(0.99),
        served=int(server.count),
        answered=answered,
        report=folder / "load.html",
    )


def _number(text: str) -> float:
    """Locust writes N/A where there was no request."""
    return float("nan") if text == "N/A" else float(text)


@registered("load", "release")
def verdict(result: LoadResult, slo: Slo) -> list[Check]:
    """Did the service bear it? Failures, mean, slowest hundredth, requests a second.

    Of fewer than 100 requests nothing is said of the slowest hundredth; where none came through, no line of it holds. The times are the
    server's own; what the clients measured stands beside them.
    """
    n = result.requests
    share = result.failures / n if n else float("nan")
    slow, mean = result.server_p99_ms, result.server_average_ms
    checks = [
        _judge(
            "load:failures", "Is every request answered as it should be?", share, slo.max_failure_share, n, "share of requests",
            f"{result.failures} of {n} requests failed",
        ),
        _judge(
            "load:average", "Is the mean answer quick enough?", mean, slo.average_ms, n, "ms",
            f"average {mean:.3g} ms at the server ({result.average_ms:.3g} ms as the clients saw it), limit {slo.average_ms:g} ms",
        ),
        _judge(
            "load:p99", "Is the slowest hundredth quick enough?", slow, slo.p99_ms, n, "ms",
            f"p99 {slow:.3g} ms at the server ({result.p99_ms:.3g} ms as the clients saw it), limit {slo.p99_ms:g} ms",
        ),
        _judge(
            "load:rps", "Are enough requests answered in a second?", -result.rps, -slo.min_rps, n, "requests a second",
            f"{result.rps:.0f} requests a second, at least {slo.min_rps:g} are asked for",
        ),
    ]  # fmt: skip
    return [replace(check, blocking=slo.gates) for check in checks]


def _judge(name: str, question: str, value: float, limit: float, n: int, unit: str, reason: str) -> Check:
    # At least so many is at most so many with the sign turned.
    told, bound = abs(value), abs(limit)
    if name == "load:p99" and 0 < n < MIN_REQUESTS:
        return undecided(name, question, f"{n} requests; {MIN_REQUESTS} are needed", n, limit=bound, unit=unit)
    held: Verdict = "pass" if n and value <= limit else "fail"
    return Check(name, question, held, reason, value=told, limit=bound, n=n, unit=unit)
