"""docker-compose.yml and what looks before it starts: everything that is missing is said in one sentence."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from ratchet.errors import StackError
from ratchet.settings import ROOT, Settings
from stack import deploy, secrets
from stack.status import collect_from, lines
from tests.conftest import ratchet

COMPOSE = ROOT / "docker-compose.yml"
SERVICES = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
ONCE = {"databases", "migrate", "buckets"}


# ---- the file


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_bounded_unprivileged_and_watched(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert "no-new-privileges:true" in service["security_opt"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert service["logging"]["options"]["max-size"]
    assert service["restart"] == ("no" if name in ONCE else "unless-stopped")
    assert ("healthcheck" in service) is (name not in ONCE)
    assert "platform" not in service
    for needed in (service.get("depends_on") or {}).values():
        assert needed["condition"] in ("service_healthy", "service_completed_successfully")


def test_no_one_is_root():
    dockerfile = (ROOT / "stack" / "images" / "Dockerfile").read_text(encoding="utf-8")
    targets = dict(re.findall(r"(?ms)^FROM \S+ AS (\w+)\n(.*?)(?=^FROM |\Z)", dockerfile))
    for name, service in SERVICES.items():
        if "build" in service:
            users = re.findall(r"(?m)^USER (\S+)", targets[service["build"]["target"]])
            assert users[-1] == "10001:10001", name
        else:
            assert service["user"] not in ("root", "0", "0:0"), name


def test_only_the_service_and_the_front_door_are_published_and_on_this_machine_alone():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"service", "door"}
    assert all(port.startswith("${RATCHET_ADDRESS:-127.0.0.1}:") for ports in published.values() for port in ports)
    assert {name for name, service in SERVICES.items() if "published" in service["networks"]} == {"service", "door"}
    assert yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["networks"]["inside"] == {"internal": True}


def test_no_image_floats_and_no_password_has_a_default():
    text = COMPOSE.read_text(encoding="utf-8")
    for image in re.findall(r"_IMAGE:-([^}]+)\}", text):
        if image != "ratchet":
            assert re.search(r":v?\d+\.\d+", image), image
    for name in secrets.needed():
        uses = re.findall(rf"\$\{{{name}[^}}]*\}}", text)
        assert uses
        assert all(":?" in use for use in uses), name


def test_the_images_are_built_on_what_compose_names():
    dockerfile = (ROOT / "stack" / "images" / "Dockerfile").read_text(encoding="utf-8")
    told = dict(re.findall(r"(?m)^ARG (\w+_IMAGE)=(\S+)", dockerfile))
    assert told == dict(re.findall(r"(?m)^ +(PYTHON_IMAGE|SEAWEEDFS_IMAGE): \$\{\w+:-([^}]+)\}", COMPOSE.read_text(encoding="utf-8")))


def test_server_and_client_are_one_image():
    images = {SERVICES[name]["image"] for name in ("mlflow", "prefect", "worker", "migrate")}
    assert len(images) == 1
    assert "stack" in images.pop()


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker client here")
def test_compose_takes_the_file_and_says_which_password_is_missing():
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("this docker client has no compose")
    every = dict.fromkeys(secrets.needed(), "x")
    base = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")} | {
        k: v for k, v in os.environ.items() if k.startswith("DOCKER_")
    }
    command = ["docker", "compose", "--env-file", os.devnull, "--profile", "observe", "--profile", "load", "config", "-q"]
    done = subprocess.run(command, env=base | every, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in secrets.needed():
        lacking = {other: value for other, value in every.items() if other != name}
        done = subprocess.run(command, env=base | lacking, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode != 0
        assert name in done.stderr
        assert "ratchet secrets" in done.stderr


# ---- passwords


def test_secrets_are_generated_once_and_kept(tmp_path, monkeypatch):
    for name in secrets.needed():
        monkeypatch.delenv(name, raising=False)
    env = tmp_path / ".env"
    made = secrets.write(env)
    assert made == secrets.needed()
    first = secrets.parse(env.read_text(encoding="utf-8"))
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    assert len({first[name] for name in made}) == len(made)
    assert all(re.fullmatch(r"[\w-]{32}", first[name]) for name in made)
    assert secrets.write(env) == []
    env.write_text(env.read_text(encoding="utf-8").replace(first["DVC_S3_SECRET"], "") + "MINE=kept\n", encoding="utf-8")
    assert secrets.missing(env) == ["DVC_S3_SECRET"]
    assert secrets.write(env) == ["DVC_S3_SECRET"]
    again = secrets.parse(env.read_text(encoding="utf-8"))
    assert again["MINE"] == "kept"
    assert {name: again[name] for name in first if name != "DVC_S3_SECRET"} == {k: v for k, v in first.items() if k != "DVC_S3_SECRET"}


def test_the_example_names_what_the_file_reads():
    read = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text(encoding="utf-8")))
    told = set(re.findall(r"(?m)^#?(\w+)=", secrets.EXAMPLE.read_text(encoding="utf-8")))
    unsaid = read - told - {name for name in read if name.endswith("_IMAGE")} - {"COMPOSE_PROJECT_NAME", "RATCHET_TAG", "RATCHET_COMMIT"}
    assert not unsaid
    assert told <= read


# ---- the look before the start


def fake_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A docker whose answers are given: an engine that is ill cannot be had on every machine."""
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


SOUND = 'case "$*" in "compose version --short") echo 2.26.1;; info*) echo \'{"ServerVersion": "26.1", "DockerRootDir": "/"}\';; esac'


@pytest.fixture
def passwords(monkeypatch):
    for name in secrets.needed():
        monkeypatch.setenv(name, "x")
    for name in ("RATCHET_SERVICE_PORT", "RATCHET_DOOR_PORT"):
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            monkeypatch.setenv(name, str(trial.getsockname()[1]))


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("exit 1", "needs Compose v2, a plugin of Docker, not docker-compose v1"),
        ("echo 2.3.3", "Compose 2.3.3 is too old"),
        (
            '[ "$1" = compose ] && echo 2.26.1 || { echo "permission denied" >&2; exit 1; }',
            "The Docker engine does not answer: permission denied",
        ),
        (
            SOUND.replace("esac", "*config*) echo 'yaml: line 3: mapping' >&2; exit 15;; esac"),
            "docker-compose.yml cannot be used: yaml: line 3",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(tmp_path, monkeypatch, passwords, script, sentence):
    fake_docker(tmp_path, monkeypatch, script)
    with pytest.raises(StackError, match=re.escape(sentence)):
        deploy.look([])


def test_no_docker_at_all(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="Docker is not installed"):
        deploy.look([])


def test_a_missing_password_is_named(tmp_path, monkeypatch, passwords):
    fake_docker(tmp_path, monkeypatch, SOUND)
    deploy.look([])
    monkeypatch.setattr(secrets, "ENV", tmp_path / ".env")
    monkeypatch.delenv("MLFLOW_DB_PASSWORD")
    with pytest.raises(StackError, match=r"MLFLOW_DB_PASSWORD is missing in \.env: run `ratchet secrets`"):
        deploy.look([])


def test_a_taken_port_is_named_with_its_variable(tmp_path, monkeypatch, passwords):
    fake_docker(tmp_path, monkeypatch, SOUND)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("RATCHET_DOOR_PORT", str(taken.getsockname()[1]))
        with pytest.raises(StackError, match=r"where door is to be published, cannot be taken.*Set RATCHET_DOOR_PORT"):
            deploy.look([])


def test_a_full_disk_is_said(tmp_path, monkeypatch, passwords):
    fake_docker(tmp_path, monkeypatch, SOUND)
    monkeypatch.setattr(deploy, "ENOUGH_GB", 10**9)
    with pytest.raises(StackError, match="Make room: `docker system df`"):
        deploy.look([])


def test_what_env_says_holds_for_commands_from_outside(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("RATCHET_TOKEN=sixteen characters!\nRATCHET_PROBLEM=mine\nRATCHET_PROBLEMS_FOLDER=../elsewhere\n")
    monkeypatch.setattr(secrets, "ENV", tmp_path / ".env")
    for name in ("RATCHET_TOKEN", "RATCHET_PROBLEM", "RATCHET_PROBLEMS"):
        monkeypatch.delenv(name, raising=False)
    told = deploy.environment()
    assert (told["RATCHET_TOKEN"], told["RATCHET_PROBLEM"]) == ("sixteen characters!", "mine")
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert Settings().authorization == {"Authorization": "Bearer sixteen characters!"}
    assert Settings().problems == ROOT.parent / "elsewhere"


def test_the_command_line_says_it_and_fails(tmp_path, monkeypatch):
    fake_docker(tmp_path, monkeypatch, "exit 1")
    home = tmp_path / "home"
    home.mkdir()
    for arguments in (("deploy", "--check"), ("deploy",)):
        told = ratchet(*arguments, home=home)
        assert told.returncode == 1
        assert len(told.stderr.strip().splitlines()) == 1
        assert "Compose v2" in told.stderr


def test_a_store_that_cannot_be_reached_or_entered_is_one_sentence(tmp_path, postgres):
    home = tmp_path / "home"
    home.mkdir()
    url = postgres()
    for address, sentence in (
        ("postgresql+psycopg://ratchet:wrong@127.0.0.1:9/ratchet", "cannot be opened"),
        (url.replace("postgres@", "nobody@"), 'role "nobody" does not exist'),
    ):
        told = ratchet("migrate", home=home, DATABASE_URL=address)
        assert told.returncode == 1
        assert sentence in told.stderr
        assert len(told.stderr.strip().splitlines()) == 1
    told = ratchet("status", home=home, DATABASE_URL=url)
    assert (told.returncode, "Run `ratchet migrate`" in told.stderr) == (1, True)
    assert "it was empty" in ratchet("migrate", home=home, DATABASE_URL=url).stdout
    assert "already" in ratchet("migrate", home=home, DATABASE_URL=url).stdout


def test_what_is_not_known_is_not_told_as_nothing():
    class Away(BaseHTTPRequestHandler):
        status = 503

        def do_GET(self):
            self.send_response(self.status)
            self.end_headers()
            self.wfile.write(b'{"error": "The store is away, and this needs it."}')

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Away)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        said = lines(collect_from(url, "http://127.0.0.1:9/api", {"service": url}, ["postgres"], "ratchet "))
        Away.status = 401
        with pytest.raises(StackError, match="asks for a token: set RATCHET_TOKEN"):
            collect_from(url, "http://127.0.0.1:9/api", {"service": url}, [], "ratchet ")
    finally:
        server.shutdown()
        server.server_close()
    assert [line.split()[0] for line in said] == ["credit", "wrong", "wrong", "wrong"]
    assert "postgres is down" in said[1]
    assert "cannot read its store: The store is away" in said[2]
    assert "does not answer" in said[3]
    assert "none" not in " ".join(said)
