"""Can docker-compose.yml start here, is it up, and where? Each thing that is missing is said in a sentence."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from ratchet.errors import StackError
from ratchet.settings import ROOT, code_version, settings
from stack import secrets

# Room for images and volumes at first, and for what grows later.
FREE_GB, ENOUGH_GB = 12, 2
# Older ones print their states in another form.
COMPOSE = "2.21"
NAMES = ("postgres", "databases", "migrate", "objects", "buckets", "mlflow", "prefect", "worker", "service", "door")
START_WITHIN = 300


def variable(name: str, default: str) -> str:
    """A variable as Compose sees it: from the environment, else from .env, else the default that docker-compose.yml has."""
    there = secrets.parse(secrets.ENV.read_text(encoding="utf-8")) if secrets.ENV.exists() else {}
    return os.environ.get(name) or there.get(name) or default


def addresses() -> dict[str, str]:
    """The published addresses: the service, the front door, and the pages and interfaces behind it."""
    host = variable("RATCHET_ADDRESS", "127.0.0.1")
    host = "127.0.0.1" if host == "0.0.0.0" else host
    door = f"http://{host}:{variable('RATCHET_DOOR_PORT', '8080')}"
    return {
        "service": f"http://{host}:{variable('RATCHET_SERVICE_PORT', '3000')}",
        "door": door,
        "mlflow": f"{door}/mlflow",
        "prefect": f"{door}/prefect",
    }


def environment() -> dict[str, str]:
    """The tools' own variables for a client on this machine: addresses, token, and which problem the stack serves."""
    found = addresses()
    told = {
        "MLFLOW_TRACKING_URI": found["mlflow"],
        "PREFECT_API_URL": f"{found['prefect']}/api",
        "PREFECT_UI_URL": found["prefect"],
        "RATCHET_SERVICE_URL": found["service"],
        "RATCHET_TOKEN": variable("RATCHET_TOKEN", ""),
        "RATCHET_PROBLEM": variable("RATCHET_PROBLEM", "credit"),
    }
    # As Compose does, from the folder of docker-compose.yml.
    problems = ROOT / variable("RATCHET_PROBLEMS_FOLDER", "problems")
    return told | {"RATCHET_PROBLEMS": os.environ.get("RATCHET_PROBLEMS") or str(problems)}


def reached() -> bool:
    """Whether a deployed stack is there: its front door answers or, where that is down, Docker runs its service."""
    if not secrets.ENV.exists() and secrets.missing():
        return False
    try:
        if httpx.get(f"{addresses()['door']}/healthz", timeout=2).text == "ok\n":
            return True
    except httpx.HTTPError:
        pass
    if shutil.which("docker") is None:
        return False
    return "service" in _docker("compose", "ps", "--services", "--status", "running").stdout.split()


def adopt() -> None:
    """Point this process at the deployed stack. StackError where its front door does not answer."""
    if not reached():
        raise StackError(f"No deployed stack answers at {addresses()['door']}. Start it with `ratchet deploy`.")
    os.environ.update(environment() | {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"})
    settings.cache_clear()


def look(profiles: Sequence[str]) -> None:
    """StackError, in a sentence, where the stack could not start: before anything is started."""
    if shutil.which("docker") is None:
        raise StackError("Docker is not installed: `docker` is not on the path. See https://docs.docker.com/engine/install/.")
    version = _docker("compose", "version", "--short")
    if version.returncode:
        raise StackError(
            "`docker compose` is not there: the stack needs Compose v2, a plugin of Docker, not docker-compose v1. "
            "See https://docs.docker.com/compose/install/."
        )
    found = version.stdout.strip().lstrip("v")
    if tuple(int(part) for part in found.split("-")[0].split(".")[:2]) < tuple(int(part) for part in COMPOSE.split(".")):
        raise StackError(f"Compose {found} is too old; the stack needs {COMPOSE} or newer.")
    engine = _docker("info", "--format", "{{json .}}")
    about: dict[str, Any] = json.loads(engine.stdout) if engine.returncode == 0 and engine.stdout.strip() else {}
    if not about.get("ServerVersion"):
        raise StackError(f"The Docker engine does not answer: {_last(engine.stderr) or 'no reason given'}. Start it, or set DOCKER_HOST.")
    if lacking := secrets.missing():
        raise StackError(f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing in .env: run `ratchet secrets`.")
    for name in ("RATCHET_SERVICE_PORT", "RATCHET_DOOR_PORT"):
        if not variable(name, "0").isdigit() or int(variable(name, "0")) > 65535:
            raise StackError(f"{name} is {variable(name, '0')!r}, which is no port.")
    checked = _docker("compose", *_profiles(profiles), "config", "-q")
    if checked.returncode:
        raise StackError(f"docker-compose.yml cannot be used: {_last(checked.stderr)}")
    place = Path(about.get("DockerRootDir", "/"))
    built = _docker("image", "inspect", f"{variable('RATCHET_IMAGE', 'ratchet')}-stack:{variable('RATCHET_TAG', '0.1.0')}").returncode == 0
    needed = ENOUGH_GB if built else FREE_GB
    if place.exists() and (free := shutil.disk_usage(place).free / 2**30) < needed:
        raise StackError(
            f"{place}, where Docker keeps its data, has {free:.1f} GB left; {needed} are needed. Make room: `docker system df`."
        )
    running = _docker("compose", "ps", "--services", "--status", "running").stdout.split()
    if "postgres" in running:
        # A stack that runs is not to be taken down for a password that its volume does not know.
        asked = _docker("compose", "run", "--rm", "--no-deps", "-T", "--entrypoint", "psql", "databases", "-qAtc", "select 1")
        if asked.returncode:
            raise StackError(f"PostgreSQL does not take POSTGRES_PASSWORD of .env: {_last(asked.stderr)}. The stack goes on as it was.")
    for service, inside, name in (("service", "3000", "RATCHET_SERVICE_PORT"), ("door", "8080", "RATCHET_DOOR_PORT")):
        port = variable(name, inside)
        mine = _docker("compose", "port", service, inside).stdout.strip() if service in running else ""
        if not mine.endswith(f":{port}"):
            _need_port(variable("RATCHET_ADDRESS", "127.0.0.1"), service, name, port)


def up(profiles: Sequence[str], *, build: bool, say: Callable[[str], None] = lambda _: None) -> dict[str, str]:
    """Start the stack and wait until every service is healthy; the published addresses.

    StackError where one does not come up, with its own last words; a stack that was not up before is ended again.
    """
    fresh = not _docker("compose", "ps", "-q", "--status", "running").stdout.strip()
    if build:
        say("building the images (minutes the first time)")
        built = _docker("compose", *_profiles(profiles), "build", within=3600)
        if built.returncode:
            raise StackError(f"The images could not be built: {_last(built.stderr)}")
    say("starting, in the order of health")
    started = _docker("compose", *_profiles(profiles), "up", "-d", "--wait", "--wait-timeout", str(START_WITHIN), within=START_WITHIN + 120)
    if started.returncode:
        why = _blame(profiles) or _last(started.stderr)
        if fresh:
            _docker("compose", *_profiles(profiles), "down", within=180)
        raise StackError(f"The stack did not start: {why}")
    return addresses()


def states() -> dict[str, str]:
    """Each service of the stack with its state: running, healthy, unhealthy, exited; missing where it has no container."""
    listed = _docker("compose", "ps", "-a", "--format", "json")
    if listed.returncode:
        return {}
    rows = [json.loads(line) for line in listed.stdout.splitlines() if line.strip()]
    found = {row["Service"]: row["Health"] or row["State"] for row in rows}
    return {name: found.get(name, "missing") for name in (*NAMES, *(name for name in found if name not in NAMES))}


def down_services() -> list[str]:
    """The long-running services that are not up; none where Docker cannot be asked."""
    once = ("databases", "migrate", "buckets")
    return [name for name, state in states().items() if name not in once and state not in ("healthy", "running", "starting")]


def _blame(profiles: Sequence[str]) -> str | None:
    """The last words of a service that failed: its own sentence says more than Compose's."""
    listed = _docker("compose", *_profiles(profiles), "ps", "-a", "--format", "json")
    rows = [json.loads(line) for line in listed.stdout.splitlines() if line.strip()]
    ended = [row for row in rows if row["State"] == "exited" and row["ExitCode"] != 0]
    ended += [row for row in rows if row["State"] == "restarting" or row["Health"] == "unhealthy"]
    for row in ended:
        said = _docker("compose", "logs", "--no-log-prefix", "--no-color", "--tail", "5", row["Service"])
        if words := _last(said.stdout) or _last(said.stderr):
            return f"{row['Service']} says: {words} (`docker compose logs {row['Service']}` has more)"
    return None


def _need_port(address: str, service: str, name: str, port: str) -> None:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, int(port)))
        except OSError as error:
            raise StackError(
                f"Port {port} on {address}, where {service} is to be published, cannot be taken ({error.strerror}). Set {name} in .env to another."
            ) from error


def _profiles(profiles: Sequence[str]) -> list[str]:
    return [part for profile in profiles for part in ("--profile", profile)]


def _docker(*arguments: str, within: float = 60) -> subprocess.CompletedProcess[str]:
    told = {"RATCHET_COMMIT": code_version()} | os.environ
    try:
        return subprocess.run(["docker", *arguments], cwd=ROOT, env=told, capture_output=True, text=True, timeout=within)
    except subprocess.TimeoutExpired as error:
        raise StackError(f"`docker {' '.join(arguments)}` did not end within {within:.0f} s.") from error


def _last(text: str) -> str:
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).splitlines() if line.strip()]
    return lines[-1][:400] if lines else ""
