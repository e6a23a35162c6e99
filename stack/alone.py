"""How does one server run by itself, for as long as it is measured?"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from ratchet.errors import StackError
from ratchet.problem import find_problem
from ratchet.settings import ROOT, settings
from ratchet.simulation.sample import draw
from stack import processes

START_WITHIN = 90.0
VARIANT = {"X-Ratchet-Variant": "probe"}


@contextlib.contextmanager
def running(home: Path, name: str, command: list[str], path: str, body: object, **more: str) -> Iterator[tuple[str, int]]:
    """A server on a free port that answers `body` at `path`: its address and process id. StackError where it does not."""
    port = processes.free_port()
    url, log = f"http://127.0.0.1:{port}", home / "server.log"
    with log.open("wb") as out:
        started = subprocess.Popen([*command, "--port", str(port)], env=environment(home, **more), stdout=out, stderr=out, cwd=ROOT)
    try:
        deadline = time.monotonic() + START_WITHIN
        while not _answers(url + path, body):
            if started.poll() is not None or time.monotonic() > deadline:
                raise StackError(f"{name} did not start: {log.read_text(encoding='utf-8', errors='replace')[-500:]}")
            time.sleep(0.3)
        yield url, started.pid
    finally:
        _end(started.pid)
        started.wait(30)


@contextlib.contextmanager
def served(home: Path, problem: str, **more: str) -> Iterator[str]:
    """The prediction service on a state folder, without a stack around it; its address."""
    (record,) = draw(find_problem(problem, settings().problems).contract, 1, 0)
    with running(home, "the service", processes.service_command(), "/predict", record, RATCHET_PROBLEM=problem, **more) as (url, _):
        yield url


def environment(home: Path, **more: str) -> dict[str, str]:
    """The variables of a server by itself; one that is given as empty is left out."""
    made = processes.environment(home, settings().problem, {"prefect": 1, "mlflow": 1, "service": 1})
    for folder in ("tmp", "bentoml"):
        (home / folder).mkdir(exist_ok=True)
    # MLflow starts its server by a name that it looks for.
    made["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), made["PATH"]])
    return {name: value for name, value in (made | more).items() if value}


def _answers(url: str, body: object) -> bool:
    try:
        return httpx.post(url, json=body, headers=VARIANT, timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def _end(pid: int) -> None:
    """End a server and the processes that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        mine = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in mine:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(mine, timeout=15)
        for process in alive:
            process.kill()
