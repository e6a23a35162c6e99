"""What the documentation says exists: commands, options, files."""

from __future__ import annotations

import re
import subprocess

import pytest
from typer.testing import CliRunner

from ratchet.report.results import overview, share, write
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


def test_the_page_of_bars_is_that_of_the_results():
    results = ROOT / "docs" / "results"
    assert (results / "README.md").read_text(encoding="utf-8") == overview(results)


def test_every_bar_has_a_line_measured_or_not(tmp_path):
    (tmp_path / "bars.yaml").write_text("door:\n  closed: {at_least: 0.5}\n  open: {at_most: 0.5}\nroof:\n  dry: {at_least: 1}\n")
    rows = [share("closed", 90, 100), share("open", 90, 100), share("painted", 1, 2)]
    write(tmp_path, "door", rows, command="look", commit="abc", seeds=[0], machine="a desk")
    lines = (tmp_path / "README.md").read_text(encoding="utf-8").splitlines()
    assert "Of 3 bars ([bars.yaml](bars.yaml)): 1 hold, 1 missed, 1 not measured." in lines[2]
    assert "| closed | 0.9 of runs | 0.8256 to 0.9448 | 100 | at least 0.5 | yes |" in lines
    assert "| open | 0.9 of runs | 0.8256 to 0.9448 | 100 | at most 0.5 | no |" in lines
    assert "| dry | | | | at least 1 | not measured |" in lines
    assert not any("painted" in line for line in lines)
