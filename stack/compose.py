"""Does the deployed stack close the loop, and bear what may happen to it? `make compose-test`.

It runs docker-compose.yml under a project name, with passwords, ports and volumes of its own, so that a stack of yours
is not touched; drives the loop from outside over HTTP; then restarts and kills every service while traffic runs.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import secrets as random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer
from rich.console import Console

from ratchet.errors import RatchetError, StackError
from ratchet.problem import find_problem
from ratchet.report.results import Row, measured, write
from ratchet.settings import ROOT, settings
from ratchet.simulation.sample import draw
from stack import deploy, observed, secrets
from stack.demo import demonstrate_deployed, deployed_site
from stack.observed import count

PROJECT = "ratchet-test"
# What is restarted and killed in turn. The service itself several times over, for an interval.
SERVICES = ("postgres", "objects", "mlflow", "prefect", "worker", "door", *["service"] * 5)
AWAY = ("postgres", "mlflow", "prefect")
AWAY_SECONDS = 15.0
SETTLED_WITHIN = 240.0
CLIENTS = 4
PAUSE_SECONDS = 0.02

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    seed: Annotated[int, typer.Option(help="Every random choice of the loop follows from it.")] = 7,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack up, and its volumes there.")] = False,
    build: Annotated[bool, typer.Option("--build/--no-build", help="Build the images first.")] = True,
    loop: Annotated[bool, typer.Option("--loop/--no-loop", help="Run the loop before the disturbances.")] = True,
    profile: Annotated[list[str] | None, typer.Option("--profile", help="Profiles to start as well.")] = None,
) -> None:
    """Run the loop against the compose stack, disturb it, and write docs/results/compose.md."""
    console = Console()
    try:
        _isolate()
        deploy.look(profile or [])
        begun = time.monotonic()
        console.print(f"Starting the project {PROJECT}: {deploy.up(profile or [], build=build)}")
        rows = [count("seconds from nothing to every service healthy", time.monotonic() - begun, 1, "s")]
        deploy.adopt()
        if loop:
            rows += _loop(console, seed)
            rows += _observed(console)
        rows += disturb(console)
        rows += _down_and_up(console)
        rows += _other_versions(console)
        from flows.lifecycle import code_version

        machine = f"{psutil.cpucount()} cores, {psutil.virtual_memory().total / 2**30:.0f} GB, Python {platform.python_version()}"
        write(ROOT / "docs" / "results", "compose", rows, command="make compose-test", commit=code_version(), seeds=[seed], machine=machine)
        console.print((ROOT / "docs" / "results" / "compose.md").read_text(encoding="utf-8"), markup=False)
    except RatchetError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True, highlight=False)
        raise typer.Exit(1) from error
    finally:
        if not keep:
            compose("down", "-v", check=False)


def _isolate() -> None:
    """A project of its own: name, passwords, free ports."""
    kept = ROOT / ".ratchet" / "compose-test.json"
    kept.parent.mkdir(exist_ok=True)
    if kept.exists():
        # Volumes of a run that was kept know its passwords.
        told = json.loads(kept.read_text(encoding="utf-8"))
    else:
        ports = [_free_port() for _ in range(2)]
        told = {name: random.token_urlsafe(24) for name in secrets.needed()}
        told |= {"COMPOSE_PROJECT_NAME": PROJECT, "RATCHET_SERVICE_PORT": str(ports[0]), "RATCHET_DOOR_PORT": str(ports[1])}
        told |= {"RATCHET_SERVICE_PAGE": f"http://127.0.0.1:{ports[0]}", "RATCHET_DOOR_URL": f"http://127.0.0.1:{ports[1]}"}
        kept.write_text(json.dumps(told), encoding="utf-8")
        kept.chmod(0o600)
    os.environ.update(told)


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def compose(*arguments: str, check: bool = True, within: float = 300) -> str:
    """Run `docker compose`; what it printed. StackError where it fails, with its last words."""
    done = subprocess.run(["docker", "compose", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=within)
    if check and done.returncode:
        raise StackError(f"`docker compose {' '.join(arguments)}` failed: {done.stderr.strip()[-400:]}")
    return done.stdout if done.returncode == 0 else done.stdout + done.stderr


def sql(query: str) -> list[str]:
    """The lines of a query's answer, asked inside the container of PostgreSQL."""
    told = compose("exec", "-T", "postgres", "psql", "-qAt", "-U", "postgres", "-d", "ratchet", "-c", query)
    return [line for line in told.splitlines() if line]


# ---- the loop, from outside


def _loop(console: Console, seed: int) -> list[Row]:
    folder = find_problem("credit", settings().problems)
    begun = time.monotonic()
    summary = demonstrate_deployed(folder, None, folder.problem.demo, seed, console, reports=ROOT / "reports" / "compose")
    asked = summary["predictions"]
    return [
        count("seconds of the loop, driven from outside", time.monotonic() - begun, 1, "s"),
        count("loop: predictions answered but not logged", asked["answered"] - asked["logged"], asked["answered"], "rows"),
        count("loop: generations that came to answer", sum(g["decision"] == "promote" for g in summary["generations"]), 1, ""),
    ]


def _observed(console: Console) -> list[Row]:
    """What the person on call sees: asked after the loop, when every series has had a reason to be there."""
    reports = ROOT / "reports" / "compose"
    # The ids are looked for before the service's container is replaced, and its log with it.
    rows = [observed.followed(reports / "journal.json", compose("logs", "--no-log-prefix", "service"))]
    site = deployed_site("credit")
    drilled = site.drill()
    rows.append(
        observed.count("drill: planted faults that the watch did not see", len(drilled["missed"]), len(drilled["planted"]), "faults")
    )
    # Grafana has no image to try it with here: its dashboards are tested as files, and their queries asked of Prometheus.
    compose("up", "-d", "--wait", "prometheus", "locust", "locust-worker")
    rows += [*observed.locust(), observed.workers_add_up(), *observed.prometheus()]
    compose("rm", "-fs", "locust", "locust-worker")
    for row in rows:
        console.print(f"{row.name}: {row.value:g} {row.unit}", markup=False)
    return rows


# ---- disturbances


@dataclass
class Traffic:
    """Clients that ask without end, each request under a key of its own, until it is acknowledged."""

    url: str
    records: list[dict[str, Any]]
    acknowledged: dict[str, float] = field(default_factory=dict)
    refused: int = 0
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
            headers = {"Idempotency-Key": f"disturbed-{os.getpid()}-{number}-{place}"}
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    # A connection of its own for each request: one that is kept open would hide a service that takes no new ones.
                    answer = httpx.post(f"{self.url}/predict", json=record, headers=headers, timeout=10)
                except httpx.TransportError:
                    time.sleep(0.05)
                    continue
                if answer.status_code == 200:
                    self.acknowledged[answer.json()["prediction_id"]] = time.monotonic()
                    break
                if answer.status_code < 500:
                    raise AssertionError(f"a valid request was refused: {answer.status_code} {answer.text}")
                self.refused += 1
                time.sleep(0.1)
            time.sleep(PAUSE_SECONDS)

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
        told = httpx.get(f"{traffic.url}/status", timeout=10)
        if told.status_code == 200 and told.json()["spilled"] == 0:
            break
        time.sleep(1)
    logged = sql("SELECT id FROM predictions")
    acknowledged = set(traffic.acknowledged)
    missing, twice = acknowledged - set(logged), len(logged) - len(set(logged))
    scrape = httpx.get(f"{traffic.url}/metrics", timeout=10).text
    spilled = [line for line in scrape.splitlines() if line.startswith("ratchet_logged_rows_total")]
    console.print(f"{len(acknowledged)} acknowledged, {len(missing)} missing, {twice} twice; {traffic.refused} answers with 5xx; {spilled}")
    n = len(acknowledged)
    return [
        count("acknowledged predictions", n, n, "rows"),
        count("acknowledged predictions missing from the log", len(missing), n, "rows"),
        count("predictions in the log twice", twice, n, "rows"),
        count("rows in the log that no client was given", len(logged) - before - n, n, "rows"),
        count("requests answered with 5xx and sent again", traffic.refused, n, "requests"),
    ]


def _stuck(console: Console) -> Row:
    """Flow runs that have neither ended nor are getting on, after everything is up again."""
    api, ended = settings().prefect_api_url, {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    deadline = time.monotonic() + SETTLED_WITHIN
    while True:
        runs: list[dict[str, Any]] = []
        while page := httpx.post(f"{api}/flow_runs/filter", json={"limit": 200, "offset": len(runs)}, timeout=30).json():
            runs += page
        states: dict[str, int] = {}
        for run in runs:
            states[run["state_name"]] = states.get(run["state_name"], 0) + 1
        # Runs that the schedule has planned for later are no sign of anything.
        stuck = [run for run in runs if run["state_type"] not in ended and run["state_name"] != "Scheduled"]
        if not stuck or time.monotonic() > deadline:
            break
        time.sleep(2)
    console.print(f"flow runs: {states}")
    return count("flow runs stuck", len(stuck), len(runs), "runs")


# ---- down and up, older and newer volumes


def _down_and_up(console: Console) -> list[Row]:
    """`docker compose down`, then `up`: what was there must still be there."""
    counted = {"log": "predictions", "decisions": "decisions", "labels": "labels", "routes": "routes"}

    def look() -> dict[str, int]:
        api, tracking = settings().prefect_api_url, settings().mlflow_tracking_uri
        found = {name: int(sql(f"SELECT count(*) FROM {table}")[0]) for name, table in counted.items()}
        found["flow runs"] = httpx.post(
            f"{api}/flow_runs/count", json={"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}, timeout=30
        ).json()
        versions = httpx.get(f"{tracking}/api/2.0/mlflow/model-versions/search", timeout=30).json().get("model_versions", [])
        found["versions"] = len(versions)
        # A version's model comes from the object store, through MLflow.
        found["model files"] = sum(_there(f"{tracking}/api/2.0/mlflow/artifacts/list?run_id={version['run_id']}") for version in versions)
        return found

    before = look()
    compose("down")
    begun = time.monotonic()
    compose("up", "-d", "--wait", within=400)
    seconds = time.monotonic() - begun
    after = look()
    lost = sum(max(0, before[name] - after[name]) for name in before)
    answer = httpx.post(
        f"{settings().service_url}/predict", json=draw(find_problem("credit", settings().problems).contract, 1, 5)[0], timeout=10
    )
    console.print(f"down and up: {before} before, {after} after; predict answers {answer.status_code}")
    answers = [count("answers after down and up", int(answer.status_code == 200), 1, "")] if before["routes"] else []
    return [
        count("rows, runs, versions and files lost by down and up", lost, sum(before.values()), ""),
        *answers,
        count("seconds to come up again", seconds, 1, "s"),
    ]


def _there(url: str) -> int:
    told = httpx.get(url, timeout=30)
    return len(told.json().get("files", [])) if told.status_code == 200 else 0


def _other_versions(console: Console) -> list[Row]:
    """A volume of an older release is migrated forward; one of a newer release is refused with a sentence."""
    compose("stop", "service", "worker")
    before = int(sql("SELECT count(*) FROM predictions")[0])
    (head,) = sql("SELECT version_num FROM alembic_version")
    sql("UPDATE alembic_version SET version_num = '9999'")
    compose("up", "migrate", check=False)
    newer = compose("logs", "--no-log-prefix", "--tail", "1", "migrate")
    refused = "was written by a newer Ratchet (schema 9999" in newer
    # As the first release left it: counters of four bytes, and its version in a table of its own.
    sql(
        "DROP TABLE alembic_version; DROP INDEX decisions_by_action; ALTER TABLE predictions ALTER COLUMN seq TYPE integer; "
        "ALTER TABLE labels ALTER COLUMN seq TYPE integer; CREATE TABLE schema_version (version integer PRIMARY KEY); "
        "INSERT INTO schema_version VALUES (1); ALTER TABLE schema_version OWNER TO ratchet"
    )
    compose("up", "migrate", check=False)
    older = compose("logs", "--no-log-prefix", "--tail", "1", "migrate")
    (now,) = sql("SELECT version_num FROM alembic_version") or [""]
    (kind,) = sql("SELECT data_type FROM information_schema.columns WHERE table_name = 'predictions' AND column_name = 'seq'")
    migrated = now == head and kind == "bigint" and int(sql("SELECT count(*) FROM predictions")[0]) == before
    compose("up", "-d", "--wait", within=400)
    console.print(f"newer: {newer}older: {older}", markup=False)
    return [
        count("a volume of a newer release is refused with a sentence", int(refused), 1, ""),
        count("a volume of the first release is migrated forward, with every row", int(migrated), 1, ""),
    ]


if __name__ == "__main__":
    app()
