"""What the documentation says exists: commands, options, files."""

from __future__ import annotations

import re
import subprocess

import pytest
from typer.testing import CliRunner

from ratchet.settings import ROOT
from stack.cli import app

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_commands_exist_with_their_options():
    used = set(re.findall(r"(?m)(?:^ {4}|`)ratchet ([a-z]+)((?: [^\n`#|]*)?)", TEXT))
    assert len(used) > 8
    for command, rest in used:
        # `experiment` has commands of its own.
        words = [command, rest.split()[0]] if command == "experiment" else [command]
        told = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
        assert told.exit_code == 0, command
        for option in re.findall(r"(--[a-z-]+)", rest):
            assert option in told.stdout, (command, option)


def test_the_tasks_exist():
    told = subprocess.run(["make", "-s", "help"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    for task in set(re.findall(r"make ([a-z-]+)\s+#|`make ([a-z-]+)`", TEXT)):
        assert f"make {''.join(task)}" in told


def test_the_files_exist():
    for path in set(re.findall(r"`((?:flows|tests|problems|models|docs)/[\w/.]+\.\w+)`", TEXT)):
        assert (ROOT / path).exists(), path


def test_decisions_are_short_and_numbered():
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    for number, page in enumerate(decisions, start=1):
        lines = page.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith(f"# {number}. ")
        assert len(lines) <= 12
