"""Which local processes make up the stack, and how do they start and end?"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import httpx
import psutil

from flows import DEPLOYMENTS
from ratchet.draft import drafted
from ratchet.errors import StackError
from ratchet.settings import ROOT, settings

PORTS = {"prefect": 4200, "mlflow": 5000, "service": 3000}
ELSEWHERE = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "RATCHET_SERVICE_URL")
START_WITHIN = 120.0
STOP_WITHIN = 25.0


@dataclass(frozen=True)
class Process:
    """A started process. `created` tells it from another one that was later given the same id."""

    name: str
    pid: int
    created: float
    url: str | None

    def alive(self) -> bool:
        """Whether exactly this process still runs."""
        try:
            found = psutil.Process(self.pid)
            return abs(found.create_time() - self.created) < 1 and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def started(home: Path) -> list[Process]:
    """The processes that were started from a state folder, running or not."""
    path = home / "processes.json"
    return [Process(**item) for item in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def look_at_running(home: Path) -> Path:
    """The state folder whose stack is up: `home`, else a demonstration's below it. This process then looks there."""
    places = [home, *sorted((home / "demo").glob("*/"))]
    found = next((place for place in places if urls(place)), home)
    if found != home:
        os.environ["RATCHET_HOME"] = str(found)
        settings.cache_clear()
    return found


def urls(home: Path) -> dict[str, str]:
    """The addresses of the running servers by name."""
    return {p.name: p.url for p in started(home) if p.url and p.alive()}


def served(home: Path) -> str | None:
    """The problem that the stack in `home` was started with."""
    path = home / "problem.txt"
    return path.read_text(encoding="utf-8").strip() if path.exists() else None


def up(home: Path, problem: str, *, free_ports: bool, scheduled: bool, say: Callable[[str], None] = lambda _: None) -> dict[str, str]:
    """Start Prefect server, MLflow server, the service and the flow runner; their addresses by name.

    Ports are the tools' own, or with `free_ports` any free one where those are taken. Every process is recorded
    before the next one starts, so that `down` finds it whatever happens. StackError where one does not come up;
    those that did are ended again.
    """
    if running := [p.name for p in started(home) if p.alive()]:
        raise StackError(f"The stack in {home} is up already ({', '.join(running)}). End it first: `ratchet down`.")
    try:
        (home / "logs").mkdir(parents=True, exist_ok=True)
        (home / "logs" / ".writable").touch()
    except OSError as error:
        raise StackError(f"The state folder {home} cannot be written: {error.strerror}. Set RATCHET_HOME to another one.") from error
    (home / "processes.json").unlink(missing_ok=True)
    (home / "problem.txt").write_text(problem, encoding="utf-8")
    ports = {name: _port(name, number, free_ports) for name, number in PORTS.items()}
    base = environment(home, problem, ports)
    python = sys.executable
    commands = {
        "prefect": [python, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(ports["prefect"])],
        "mlflow": [
            python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(ports["mlflow"]), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{home / 'mlflow' / 'mlflow.db'}",
            "--artifacts-destination", str(home / "mlflow" / "artifacts"),
        ],
        "service": [*service_command(), "--port", str(ports["service"])],
        "runner": [python, "-m", "flows.runner", problem, *(["--scheduled"] if scheduled else [])],
    }  # fmt: skip
    health = {
        "prefect": f"http://127.0.0.1:{ports['prefect']}/api/health",
        "mlflow": f"http://127.0.0.1:{ports['mlflow']}/health",
        "service": f"http://127.0.0.1:{ports['service']}/readyz",
    }
    for folder in ("mlflow", "prefect", "bentoml", "tmp"):
        (home / folder).mkdir(exist_ok=True)
    try:
        for name in ("prefect", "mlflow", "service"):
            _start(home, name, commands[name], base, f"http://127.0.0.1:{ports[name]}")
        for name, url in health.items():
            say(f"waiting for {name}")
            _wait(home, name, lambda url=url: _healthy(url))  # type: ignore[misc]
            if name == "prefect":
                _start(home, "runner", commands["runner"], base, None)
        say("waiting for the flow runner")
        api = f"http://127.0.0.1:{ports['prefect']}/api"
        _wait(home, "runner", lambda: _served(api, since=started(home)[-1].created))
    except BaseException:
        down(home)
        raise
    return urls(home)


def service_command() -> list[str]:
    """How the prediction service is started on this machine; the port is to follow."""
    # A connection that is kept open for longer than its clients keep it is never closed on one of them.
    patience = ["--timeout-graceful-shutdown", "10", "--timeout-keep-alive", "75"]
    return [sys.executable, "-m", "bentoml", "serve", "-q", "serving.service:Prediction", "--host", "127.0.0.1", *patience]


def environment(home: Path, problem: str, ports: dict[str, int]) -> dict[str, str]:
    """The variables under which every process of the stack runs: the tools' own, all pointing into `home`."""
    prefect = f"http://127.0.0.1:{ports['prefect']}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "PYTHONDONTWRITEBYTECODE"))}
    return kept | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        "RATCHET_HOME": str(home),
        "RATCHET_PROBLEM": problem,
        "RATCHET_SERVICE_URL": f"http://127.0.0.1:{ports['service']}",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Processes for jobs that only its pages for language models start.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "DO_NOT_TRACK": "1",
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "ORT_DISABLE_TELEMETRY": "1",
        "TMPDIR": str(home / "tmp"),
        "PREFECT_API_URL": f"{prefect}/api",
        "PREFECT_UI_URL": prefect,
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_PROFILES_PATH": str(home / "prefect" / "profiles.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(ports["prefect"]),
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # Blocks and workers of work pools are not used here; their services would only wake the database.
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
    }


def elsewhere() -> bool:
    """Whether the environment names servers that run elsewhere."""
    return all(os.environ.get(name) for name in ELSEWHERE)


def adopt(home: Path, problem: str) -> None:
    """Point this process at the stack that runs from `home`, else at the servers that the environment names.

    StackError where neither is there.
    """
    found = urls(home)
    if not found and elsewhere():
        return
    if missing := [name for name in PORTS if name not in found]:
        known = Path(problem).name if Path(problem).parent == ROOT / "problems" else problem
        raise StackError(
            f"{missing[0]} does not run in {home}. Start the stack with `ratchet up {known}`, or name servers that run "
            f"elsewhere in {', '.join(ELSEWHERE)}."
        )
    ports = {name: int(url.rsplit(":", 1)[1]) for name, url in found.items()}
    told = environment(home, problem, ports)
    # What a flow logs stands on Prefect's pages; the command line tells it in its own words.
    os.environ.update(told | {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"})
    settings.cache_clear()


def down(home: Path) -> list[str]:
    """End exactly the processes that were started from `home`, the runner first; the names of those that ran."""
    running = [process for process in started(home) if process.alive()]
    # The runner tells Prefect's server how its runs ended, so the server outlives it.
    _end([process for process in running if process.name == "runner"])
    _end([process for process in running if process.name != "runner"])
    (home / "processes.json").unlink(missing_ok=True)
    return [process.name for process in running]


def _end(processes: list[Process]) -> None:
    found = [psutil.Process(process.pid) for process in processes]
    family = [member for parent in found for member in (parent, *parent.children(recursive=True))]
    for parent in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            parent.terminate()
    psutil.wait_procs(found, timeout=STOP_WITHIN)
    left = [member for member in family if member.is_running()]
    for member in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=5)
    for member in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


def _port(name: str, number: int, free_ports: bool) -> int:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", number))
            return number
        except OSError as error:
            if not free_ports:
                raise StackError(
                    f"Port {number}, which {name} needs, is in use. End what uses it (a demonstration that stayed up: `ratchet down`), or "
                    "let Ratchet take free ports: `ratchet up --free-ports`."
                ) from error
    return free_port()


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def _start(home: Path, name: str, command: list[str], variables: dict[str, str], url: str | None) -> None:
    with (home / "logs" / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            command, env=variables, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    made = Process(name, child.pid, psutil.Process(child.pid).create_time(), url)
    everyone = [*started(home), made]
    with drafted(home / "processes.json") as draft:
        draft.write_text(json.dumps([asdict(p) for p in everyone]), encoding="utf-8")


def _wait(home: Path, name: str, healthy: Callable[[], bool]) -> None:
    process = next(p for p in started(home) if p.name == name)
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline:
        if not process.alive():
            raise StackError(f"{name} ended as it was started. {_last_words(home, name)}")
        if healthy():
            return
        time.sleep(0.2)
    raise StackError(f"{name} did not come up within {START_WITHIN:.0f} s. {_last_words(home, name)}")


def _healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _served(api: str, since: float) -> bool:
    """Whether the runner has registered its deployments and its automation after it was started."""
    try:
        deployments = httpx.post(f"{api}/deployments/filter", json={}, timeout=5).json()
        automations = httpx.post(f"{api}/automations/filter", json={}, timeout=5).json()
    except (httpx.HTTPError, ValueError):
        return False
    fresh = [d for d in deployments if _epoch(d["updated"]) >= since - 1]
    return len(fresh) >= len(DEPLOYMENTS) and bool(automations)


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _last_words(home: Path, name: str) -> str:
    path = home / "logs" / f"{name}.log"
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = f" Its last words: {lines[-1][:300]}." if lines else ""
    return f"See {path}.{said}"
