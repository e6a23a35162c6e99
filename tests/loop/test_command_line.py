"""The command line against the running stack."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from ratchet.settings import ROOT


def test_status_of_the_running_stack(loop):
    told = json.loads(loop.ratchet("status", "--json").stdout)
    assert told["urls"] == loop.urls
    assert told["champion"] == "2"
    assert told["wrong"] == []
    said = loop.ratchet("status").stdout
    assert "version 2" in said
    assert "nothing is wrong" in said
    assert len(said.strip().splitlines()) <= 10


def test_generations_are_those_of_the_summary(loop):
    assert json.loads(loop.ratchet("generations", "--json").stdout) == loop.summary["generations"]
    assert "champion" in loop.ratchet("generations").stdout


def test_history_answers_which_version_answered_then_and_who_let_it(loop):
    long_ago = loop.ratchet("history", "--at", "2020-01-01").stdout
    assert "No version had been released" in long_ago
    now = datetime.now(UTC) + timedelta(minutes=1)
    said = loop.ratchet("history", "--at", now.strftime("%Y-%m-%dT%H:%M:%S")).stdout
    assert "version 2" in said
    assert len(said.splitlines()) < len(loop.ratchet("history").stdout.splitlines())
    whole = loop.ratchet("history").stdout
    assert "ratchet" in whole


def test_a_pause_is_a_decision_with_a_reason(loop):
    assert "paused" in loop.ratchet("pause", "--reason", "audit").stdout
    assert "is paused already" in loop.ratchet("pause", "--reason", "audit").stdout
    assert "ratchet resume" in loop.ratchet("status").stdout
    assert "goes on" in loop.ratchet("resume", "--reason", "audit is over").stdout
    assert "was not paused" in loop.ratchet("resume", "--reason", "once more").stdout


def test_the_monitor_by_hand_decides_the_same_twice(loop):
    first, second = loop.ratchet("monitor", "credit").stdout, loop.ratchet("monitor", "credit").stdout
    # How many rows came since the last look changes where the schedule looks in between.
    told, again = ([line for line in said.splitlines() if "predictions; 12 on 3" not in line] for said in (first, second))
    assert told == again
    assert "data_drift:income" in first


def test_rows_that_are_kept_from_teaching_are_listed_and_only_they_can_be_trusted(loop):
    assert loop.ratchet("trust").stdout == "credit: every labelled row teaches.\n"
    turned = loop.ratchet("trust", "9", "5", "--reason", "it was maintenance", check=False)
    assert (turned.returncode, "Place 9 comes after place 5" in turned.stderr) == (2, True)
    wrong = loop.ratchet("trust", "5", "9", "--reason", "it was maintenance", check=False)
    assert (wrong.returncode, "No row from place 5 to 9 of the log is kept from teaching" in wrong.stderr) == (2, True)


def test_audits_are_handed_out_and_what_is_wrong_with_them_is_said(loop, tmp_path):
    said = loop.ratchet("audit").stdout
    assert "of the newest 1,000 predictions are drawn, 0 are audited" in said
    file = tmp_path / "audit.csv"
    loop.ratchet("audit", "--out", str(file))
    rows = pd.read_csv(file)
    assert 5 <= len(rows) <= 45
    assert {"prediction_id", "at", "income", "label"} <= set(rows.columns)
    assert rows["label"].isna().all()
    again = loop.ratchet("audit", "--out", str(file), check=False)
    assert again.returncode == 2
    assert "is there already" in again.stderr
    nowhere = loop.ratchet("audit", "--out", str(tmp_path / "no" / "audit.csv"), check=False)
    assert (nowhere.returncode, "is no folder" in nowhere.stderr) == (2, True)
    empty = loop.ratchet("audit", "--labels", str(file), check=False)
    assert (empty.returncode, "no row has a label yet" in empty.stderr) == (2, True)
    rows.assign(label=1).to_csv(file, index=False, sep=";")
    parted = loop.ratchet("audit", "--labels", str(file), check=False)
    assert (parted.returncode, "parted by semicolons" in parted.stderr) == (2, True)
    folder = loop.ratchet("audit", "--labels", str(tmp_path), check=False)
    assert (folder.returncode, "this is a folder, not a file" in folder.stderr) == (2, True)
    rows.assign(label=2).to_csv(file, index=False)
    wrong = loop.ratchet("audit", "--labels", str(file), check=False)
    assert wrong.returncode == 2
    assert "row 2: label '2' is neither 0 nor 1" in wrong.stderr


def test_a_version_that_is_not_there_is_said(loop):
    said = loop.ratchet("promote", "77", "--reason", "x", check=False)
    assert said.returncode == 1
    assert "There is no release of version 77" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda lines: [lines[0].replace("income", "incone"), *lines[1:]], "Is 'incone' a misspelling"),
        (lambda lines: [*lines, lines[5]], "column 'application_id', row 301: the id 'A00000004' stands in row 5"),
        (lambda lines: lines[:1], "no rows"),
        (
            lambda lines: [lines[0], *(line.replace("permanent", "n/a").replace("temporary", "n/a") for line in lines[1:])],
            "break the contract",
        ),
    ],
)
def test_a_bad_batch_ends_with_2_and_changes_nothing(loop, credit, tmp_path, change, sentence):
    rows = credit.open_source(None, 1).first_batch(300)
    path = tmp_path / "batch.csv"
    path.write_text("\n".join(change(rows.to_csv(index=False).splitlines())) + "\n", encoding="utf-8")
    lock = loop.home / "workspaces" / "credit" / "dvc.lock"
    releases = sorted((loop.home / "releases" / "credit").iterdir())
    before = lock.read_bytes()
    said = loop.ratchet("run", "credit", "--source", str(path), check=False)
    assert said.returncode == 2, said.stderr
    assert "batch.csv" in said.stderr
    assert sentence in said.stderr.replace("\n", " ")
    assert "Traceback" not in said.stderr
    assert lock.read_bytes() == before
    assert sorted((loop.home / "releases" / "credit").iterdir()) == releases


def test_two_runs_at_once_one_works_the_other_is_superseded(loop):
    """A retraining asked for twice while its decision was answered, and one while another run holds the lock."""
    from ratchet.decision import decide
    from ratchet.store import Store

    store = Store(f"sqlite:///{loop.home / 'store.db'}", "credit")
    asked = store.decisions("retrain", newest=1)[0]
    code = (
        "import sys\n"
        "from stack import processes\n"
        "from pathlib import Path\n"
        "processes.adopt(Path(sys.argv[1]), sys.argv[2])\n"
        "from flows.retrain import retrain\n"
        "print(retrain(sys.argv[2], sys.argv[3], ['again'], 'event')['action'])\n"
    )
    command = [sys.executable, "-c", code, str(loop.home), str(ROOT / "problems" / "credit")]
    again = subprocess.run([*command, asked.id], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert again.stdout.strip().endswith("superseded"), again.stderr
    another = decide("retrain", asked.subject, ["a test asks"], asked.evidence["inputs"] | {"version": store.route().champion})
    assert store.record(another)
    with store.exclusive("lifecycle-credit") as mine:
        assert mine
        beside = subprocess.run([*command, another.id], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert beside.stdout.strip().endswith("superseded"), beside.stderr
    told = [entry.reasons[0] for entry in store.decisions("superseded")]
    assert any("has been answered by" in reason for reason in told)
    assert any("another run is making a generation" in reason for reason in told)
    store.close()
