"""The command line where no stack runs: what it prints, and what it says where it cannot do its work."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests.conftest import RATCHET, ratchet

SLOW = ("pandas", "numpy", "sqlalchemy", "sklearn", "torch", "mlflow", "prefect", "httpx")


def test_help_loads_nothing_that_is_slow():
    done = subprocess.run([str(RATCHET), "--help"], capture_output=True, text=True, check=True)
    assert "promote" in done.stdout
    loaded = f"import sys; import stack.cli; print([name for name in {SLOW} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_sample_prints_the_same_valid_records(tmp_path, contract):
    import msgspec

    from ratchet.request import request_type

    one = ratchet("sample", "credit", "-n", "20", home=tmp_path)
    assert one.stdout == ratchet("sample", "credit", "-n", "20", home=tmp_path).stdout
    kind = request_type(contract)
    assert len([msgspec.json.decode(line, type=kind) for line in one.stdout.splitlines()]) == 20


def test_without_a_stack_the_command_line_says_how_to_start_one(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    commands = (
        ["monitor", "credit"],
        ["generations"],
        ["rollback", "--reason", "x"],
        ["card", "1", "--problem", "credit"],
        ["tune", "credit"],
    )
    for command in commands:
        said = ratchet(*command, home=home)
        assert said.returncode == 1
        assert "ratchet up" in said.stderr
        assert "Traceback" not in said.stderr
    status = ratchet("status", home=home)
    assert status.returncode == 0
    assert "no model has been released" in status.stdout
    assert "Nothing was running" in ratchet("down", home=home).stdout


def test_a_port_in_use_and_a_folder_that_cannot_be_written_are_said(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with socket.socket() as taken:
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", 4200))
            taken.listen()
        except OSError:
            pass  # Something else holds the port, which serves as well.
        said = ratchet("up", home=home)
    ratchet("down", home=home)
    assert said.returncode == 1
    assert "Port 4200, which prefect needs, is in use" in said.stderr
    assert "--free-ports" in said.stderr
    for command in ("up", "demo"):
        said = ratchet(command, home=Path("/proc/ratchet"))
        assert said.returncode == 1
        assert "cannot be written" in said.stderr
        assert "Traceback" not in said.stderr


def test_unknown_problems_end_with_2(tmp_path):
    said = ratchet("demo", "--problem", "nix", home=tmp_path / "home")
    assert said.returncode == 2
    assert "Known: credit, credit_card" in said.stderr
    said = ratchet("demo", "--problem", "credit_card", "--source", "/nowhere.csv", home=tmp_path / "home")
    assert said.returncode == 2
    assert "no such file" in said.stderr
