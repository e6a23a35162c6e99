"""What is lost when services are restarted, killed and taken away while traffic and flows run?"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console

from ratchet.errors import StackError
from ratchet.problem import find_problem
from ratchet.report.results import Row, measured
from ratchet.settings import ROOT, settings
from ratchet.simulation.sample import draw
from stack import deploy
from stack.observed import count

# What is restarted and killed in turn. The service itself several times over, for an interval.
SERVICES = ("postgres", "objects", "mlflow", "prefect", "worker", "door", *["service"] * 5)
AWAY = ("postgres", "mlflow", "prefect")
AWAY_SECONDS = 15.0
SETTLED_WITHIN = 240.0
CLIENTS = 4
# Named in every call: no call may ever reach a stack of yours.
PROJECT = "ratchet-test"
PAUSE_SECONDS = 0.02


@dataclass
class Traffic:
    """Clients that ask without end: all but one under a key for each request, again until it is acknowledged.

    The first has no keys and asks once: what it is not told is lost to it, but what it is told must be in the log.
    """

    url: str
    records: list[dict[str, Any]]
    acknowledged: dict[str, float] = field(default_factory=dict)
    answers: dict[str, tuple[str, float]] = field(default_factory=dict)
    refused: int = 0
    untold: int = 0
    given_up: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[Traffic]:
        """Ask while the context lasts; at its end every request that was begun is finished."""
        threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(timeout=90)

    def _ask(self, number: int) -> None:
        place = 0
        while not self._stop.is_set():
            place += 1
            record = self.records[(place * CLIENTS + number) % len(self.records)]
            if number == 0:
                self.untold += not self._once(record, {})
            else:
                headers = {"Idempotency-Key": f"disturbed-{os.getpid()}-{number}-{place}"}
                deadline = time.monotonic() + 60
                while not self._once(record, headers):
                    if time.monotonic() > deadline:
                        self.given_up.append(headers["Idempotency-Key"])
                        break
                    time.sleep(0.05)
            time.sleep(PAUSE_SECONDS)

    def _once(self, record: dict[str, Any], headers: dict[str, str]) -> bool:
        """Ask once; whether it was acknowledged. A valid request that is answered with 4xx is given up, and counted."""
        try:
            # A connection of its own for each request: one that is kept open would hide a service that takes no new ones.
            answer = httpx.post(f"{self.url}/predict", json=record, headers=headers | settings().authorization, timeout=10)
        except httpx.TransportError:
            return False
        if answer.status_code != 200:
            self.refused += 1
            if answer.status_code < 500:
                self.given_up.append(answer.text[:200])
            return answer.status_code < 500
        told = answer.json()
        self.answers[told["prediction_id"]] = (told["model_version"], told["probability"])
        self.acknowledged[told["prediction_id"]] = time.monotonic()
        return True

    def wait_for_an_answer(self) -> None:
        """Return after the next acknowledgement. StackError where none comes within a minute."""
        since = time.monotonic()
        while not self.between(since, time.monotonic()):
            if time.monotonic() > since + 60:
                raise StackError("The service has not answered for a minute.")
            time.sleep(0.05)

    def longest_gap(self, since: float, until: float) -> float:
        """The longest time, in seconds, in which nothing was acknowledged."""
        moments = [since, *sorted(at for at in list(self.acknowledged.values()) if since <= at <= until), until]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    def between(self, since: float, until: float) -> int:
        """How many were acknowledged in that time."""
        return sum(since <= at <= until for at in list(self.acknowledged.values()))


def disturb(console: Console) -> list[Row]:
    """Restart, kill and take away services while traffic and flows run; count what was lost."""
    contract = find_problem("credit", settings().problems).contract
    before = len(sql("SELECT id FROM predictions"))
    rows: list[Row] = []
    back: dict[str, list[float]] = {"restarted": [], "killed": []}
    stop = threading.Event()
    flows = threading.Thread(target=_run_monitors, args=(stop,), daemon=True)
    with Traffic(settings().service_url, draw(contract, 200, seed=1)).running() as traffic:
        flows.start()
        time.sleep(3)
        for service in SERVICES:
            for how, do in (("restarted", _restart), ("killed", _kill)):
                since, begun = time.monotonic(), _begun(service)
                do(service)
                healthy = _until_healthy(service, begun)
                traffic.wait_for_an_answer()
                gap = traffic.longest_gap(since, time.monotonic())
                console.print(f"{service:<9} {how:<9} longest gap {gap:5.2f} s, healthy again after {healthy - since:5.1f} s")
                if service == "service":
                    back[how].append(gap)
                else:
                    rows.append(count(f"longest gap in answers, {service} {how}", gap, 1, "s"))
        for service in AWAY:
            compose("stop", service)
            since = time.monotonic()
            time.sleep(AWAY_SECONDS)
            answered = traffic.between(since, time.monotonic())
            begun = _begun(service)
            compose("start", service)
            _until_healthy(service, begun)
            console.print(f"{service:<9} away      {answered} answered in {AWAY_SECONDS:.0f} s")
            rows.append(count(f"predictions answered while {service} is away", answered, 1, "rows"))
        since = time.monotonic()
        compose("pause", "postgres")
        time.sleep(AWAY_SECONDS)
        answered, gap = traffic.between(since, time.monotonic()), traffic.longest_gap(since, time.monotonic())
        compose("unpause", "postgres")
        console.print(f"postgres  hangs     {answered} answered in {AWAY_SECONDS:.0f} s, longest gap {gap:.2f} s")
        rows.append(count("predictions answered while postgres hangs", answered, 1, "rows"))
        rows.append(count("longest gap in answers, postgres hangs", gap, 1, "s"))
        stop.set()
        flows.join(timeout=90)
    for how, gaps in back.items():
        rows.append(measured(f"service back after it was {how}", gaps, "s"))
        rows.append(count(f"service back after it was {how}, slowest", max(gaps), len(gaps), "s"))
    return [*rows, *_lost(console, traffic, before), _stuck(console)]


def _restart(service: str) -> None:
    compose("restart", service)


def _kill(service: str) -> None:
    """A crash: the container's first process gets SIGKILL, and the restart policy must bring it back.

    Where the engine's processes cannot be seen from here, Docker kills and starts the container itself.
    """
    identity = compose("ps", "-q", service).strip()
    told = subprocess.run(
        ["docker", "inspect", "-f", "{{.State.Pid}} {{.Id}}", identity], capture_output=True, text=True, check=True
    ).stdout
    pid = int(told.split()[0])
    try:
        mine = identity[:12] in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8") or identity[:12] in " ".join(
            psutil.Process(pid).environ().values()
        )
    except (OSError, psutil.Error):
        mine = False
    if mine:
        os.kill(pid, signal.SIGKILL)
    else:
        compose("kill", "-s", "SIGKILL", service)
        compose("start", service)


def _begun(service: str) -> str:
    """When the service's container was last started."""
    identity = compose("ps", "-aq", service).strip()
    return subprocess.run(["docker", "inspect", "-f", "{{.State.StartedAt}}", identity], capture_output=True, text=True, check=True).stdout


def _until_healthy(service: str, before: str) -> float:
    """When the service was healthy, started anew after it was `before`. StackError where it is not within two minutes."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if _begun(service) != before and deploy.states().get(service) == "healthy":
            return time.monotonic()
        time.sleep(0.3)
    raise StackError(f"{service} did not become healthy again within two minutes: {compose('logs', '--tail', '5', service, check=False)}")


def _run_monitors(stop: threading.Event) -> None:
    """Ask for a run of the monitor every eight seconds, whatever is up."""
    api = settings().prefect_api_url
    while not stop.wait(8):
        try:
            found = httpx.get(f"{api}/deployments/name/monitor/credit", timeout=10)
            if found.status_code == 200:
                httpx.post(f"{api}/deployments/{found.json()['id']}/create_flow_run", json={}, timeout=10)
        except httpx.TransportError:
            continue


def _lost(console: Console, traffic: Traffic, before: int) -> list[Row]:
    """After the spill has been replayed: which acknowledged predictions are not in the log, and which are twice."""
    deadline = time.monotonic() + SETTLED_WITHIN
    while time.monotonic() < deadline:
        told = httpx.get(f"{traffic.url}/status", headers=settings().authorization, timeout=10)
        if told.status_code == 200 and told.json()["spilled"] == 0:
            break
        time.sleep(1)
    logged = {line.split("|")[0]: line.split("|")[1:] for line in sql("SELECT id, version, probability FROM predictions")}
    acknowledged = set(traffic.acknowledged)
    missing = acknowledged - set(logged)
    other = [i for i in acknowledged - missing if (logged[i][0], float(logged[i][1])) != traffic.answers[i]]
    beyond = max(0, len(logged) - before - len(acknowledged) - traffic.untold)
    scrape = httpx.get(f"{traffic.url}/metrics", timeout=10).text
    spilled = [line for line in scrape.splitlines() if line.startswith("ratchet_logged_rows_total")]
    console.print(
        f"{len(acknowledged)} acknowledged, {len(missing)} missing, {beyond} beyond one for each, {len(other)} logged with another answer; "
        f"{traffic.refused} answered with 4xx or 5xx, {len(traffic.given_up)} given up {traffic.given_up[:3]}; {spilled}"
    )
    n = len(acknowledged)
    return [
        count("acknowledged predictions", n, n, "rows"),
        count("acknowledged predictions missing from the log", len(missing), n, "rows"),
        count("predictions in the log beyond one for each request", beyond, n, "rows"),
        count("predictions logged with another answer than was given", len(other), n, "rows"),
        count("keyed requests that were never acknowledged", len(traffic.given_up), n, "requests"),
        count("requests answered with 4xx or 5xx", traffic.refused, n, "requests"),
    ]


def _stuck(console: Console) -> Row:
    """Flow runs that have not ended, where for some minutes none of them did: a slow machine has a queue, but it gets shorter."""
    runs = _runs()
    unfinished = _unfinished(runs)
    moved = time.monotonic()
    while unfinished and time.monotonic() < moved + SETTLED_WITHIN:
        time.sleep(2)
        left = unfinished & _unfinished(_runs())
        if left != unfinished:
            unfinished, moved = left, time.monotonic()
    states: dict[str, int] = {}
    for run in _runs():
        states[run["state_name"]] = states.get(run["state_name"], 0) + 1
    console.print(f"flow runs: {states}")
    return count("flow runs stuck", len(unfinished), len(runs), "runs")


def _runs() -> list[dict[str, Any]]:
    """Every flow run that Prefect's server knows."""
    runs: list[dict[str, Any]] = []
    while page := httpx.post(f"{settings().prefect_api_url}/flow_runs/filter", json={"limit": 200, "offset": len(runs)}, timeout=30).json():
        runs += page
    return runs


def _unfinished(runs: list[dict[str, Any]]) -> set[str]:
    """The ids of those that have not ended, without those that the schedule has planned for later."""
    ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    return {run["id"] for run in runs if run["state_type"] not in ended and run["state_name"] != "Scheduled"}


def compose(*arguments: str, check: bool = True, within: float = 300, given: str = "") -> str:
    """Run `docker compose`, `given` on its standard input; what it printed. StackError where it fails, with its last words."""
    command = ["docker", "compose", "-p", PROJECT, *arguments]
    done = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, timeout=within)
    if check and done.returncode:
        raise StackError(f"`docker compose {' '.join(arguments)}` failed: {done.stderr.strip()[-400:]}")
    return done.stdout if done.returncode == 0 else done.stdout + done.stderr


def sql(query: str) -> list[str]:
    """The lines of a query's answer, asked inside the container of PostgreSQL."""
    told = compose("exec", "-T", "postgres", "psql", "-qAt", "-U", "postgres", "-d", "ratchet", "-c", query)
    return [line for line in told.splitlines() if line]
