"""DVC: the flow and `dvc repro` write the same lock; what failed leaves what was; old versions come back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from flows.setting import stages_code
from flows.stages import STAGES
from ratchet.errors import BatchError, StackError
from ratchet.settings import ROOT
from snapshots.workspace import create, digest, publish, quiet_environment, restore, run_stage


def fill(root: Path, rows: pd.DataFrame, previous: pd.DataFrame | None = None) -> None:
    (root / "inbox").mkdir(exist_ok=True)
    rows.to_parquet(root / "inbox/batch.parquet", index=False)
    empty = rows.head(0).assign(cohort=pd.Series(dtype="int64"))
    (empty if previous is None else previous).to_parquet(root / "inbox/previous.parquet", index=False)
    labels = pd.DataFrame({"row": [], "value": [], "provenance": []}).astype({"row": object, "provenance": object})
    labels.to_parquet(root / "inbox/labels.parquet", index=False)
    pd.DataFrame({"row": pd.Series([], dtype=object)}).to_parquet(root / "inbox/left_out.parquet", index=False)


def make(home: Path, credit, rows: pd.DataFrame):
    files = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("dvc.yaml", "params.yaml")}
    files["params.yaml"] = files["params.yaml"].replace("form: full", "form: short")
    workspace = create(home / "workspaces" / "credit", home, files, credit.path, stages_code())
    fill(workspace.path, rows)
    return workspace


def run_all(workspace) -> list[bool]:
    """Whether each stage was run, not skipped."""
    root = workspace.path
    return [run_stage(workspace, name, lambda name=name: STAGES[name](root)) for name in workspace.definition["stages"]]


@pytest.fixture(scope="module")
def rows(credit):
    return credit.open_source(None, 4).first_batch(4000)


@pytest.fixture(scope="module")
def made(tmp_path_factory, credit, rows):
    workspace = make(tmp_path_factory.mktemp("dvc") / "home", credit, rows)
    assert all(run_all(workspace))
    publish(workspace, "first")
    return workspace


def test_unchanged_stages_are_skipped(made):
    assert not any(run_all(made))


@pytest.mark.parametrize("cut", ["", '{"write": {"/data": {"pid": 1, "cm', None])
def test_what_a_kill_cut_off_while_dvc_wrote_it_is_mended(credit, rows, tmp_path, cut):
    workspace = make(tmp_path / "home", credit, rows)
    assert run_stage(workspace, "validate", lambda: STAGES["validate"](workspace.path))
    noted = workspace.path / ".dvc/tmp/rwlock"
    if cut is not None:
        noted.write_text(cut, encoding="utf-8")
        with pytest.raises(Exception, match="JSON structure is corrupted"):
            run_stage(workspace, "validate", lambda: None)
    again = create(workspace.path, workspace.home, {}, None)
    assert noted.exists() == (cut is None)
    assert not run_stage(again, "validate", lambda: None)
    assert json.loads(noted.read_text(encoding="utf-8")) is not None


@pytest.mark.long
def test_dvc_repro_writes_the_same_lock_byte_for_byte(made, tmp_path, credit, rows):
    other = make(tmp_path / "home", credit, rows)
    environment = os.environ | quiet_environment(other.home) | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=other.path, env=environment, check=True)
    assert other.lock == made.lock
    # And DVC agrees that what the flow's way made is up to date.
    told = subprocess.run(
        [sys.executable, "-m", "dvc", "status"], cwd=made.path, env=environment, check=True, capture_output=True, text=True
    )
    assert "up to date" in told.stdout


def test_metrics_diff_reads_what_was_committed(made):
    environment = os.environ | quiet_environment(made.home)
    command = [sys.executable, "-m", "dvc", "metrics", "show", "--json"]
    told = subprocess.run(command, cwd=made.path, env=environment, check=True, capture_output=True, text=True)
    assert "evaluation.json" in told.stdout


def test_accepted_and_quarantined_are_what_was_received(made, rows):
    accepted = pd.read_parquet(made.path / "data/accepted.parquet")
    quarantined = pd.read_parquet(made.path / "data/quarantine.parquet")
    assert len(accepted) + len(quarantined) == len(rows)
    assert set(accepted["application_id"]) | set(quarantined["application_id"]) == set(rows["application_id"])
    assert quarantined["reasons"].str.len().min() > 0
    assert 0 < len(quarantined) < 0.03 * len(rows)


def test_a_refused_batch_leaves_the_last_good_run(made, credit, rows, tmp_path):
    copy = tmp_path / "home"
    shutil.copytree(made.home, copy)
    workspace = create(copy / "workspaces" / "credit", copy, {}, None)
    before = workspace.lock
    spoiled = rows.copy()
    spoiled.loc[: int(len(rows) * 0.6), "amount"] = -1.0
    fill(workspace.path, spoiled)
    with pytest.raises(BatchError, match=r"60%.*row 1, column 'amount'"):
        run_all(workspace)
    assert workspace.lock == before
    assert len(pd.read_parquet(workspace.path / "data/accepted.parquet")) == len(pd.read_parquet(made.path / "data/accepted.parquet"))
    fill(workspace.path, rows)
    assert not any(run_all(workspace))


def test_an_old_version_comes_back_from_the_remote(made, credit, tmp_path, rows):
    copy = tmp_path / "home"
    shutil.copytree(made.home, copy)
    workspace = create(copy / "workspaces" / "credit", copy, {}, None)
    subprocess.run(["git", "-C", str(workspace.path), "status"], check=True, capture_output=True)
    old, wanted = workspace.lock, pd.read_parquet(workspace.path / "data/snapshot.parquet")
    fill(workspace.path, credit.open_source(None, 9).first_batch(3000), previous=wanted)
    run_stage(workspace, "validate", lambda: STAGES["validate"](workspace.path))
    run_stage(workspace, "snapshot", lambda: STAGES["snapshot"](workspace.path))
    assert workspace.digest("data/snapshot.parquet") != digest(old, "data/snapshot.parquet")
    shutil.rmtree(workspace.path / ".dvc" / "cache")
    restore(workspace, old, "data/snapshot.parquet", tmp_path / "back.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "back.parquet"), wanted)
    with pytest.raises(KeyError):
        digest(old, "data/nothing.parquet")


def test_an_object_store_that_cannot_be_reached_is_said(made, tmp_path, monkeypatch):
    copy = tmp_path / "home"
    shutil.copytree(made.home, copy)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_MAX_ATTEMPTS"):
        monkeypatch.setenv(name, "1")
    workspace = create(copy / "workspaces" / "credit", copy, {}, None, remote="s3://dvc/ratchet")
    with pytest.raises(StackError, match=r"DVC's remote s3://dvc/ratchet cannot be used: Could not connect"):
        publish(workspace, "nowhere")


def test_rows_that_are_known_are_not_added_again_and_cohorts_count(made, credit, rows, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(made.path / "problem", root / "problem")
    previous = pd.read_parquet(made.path / "data/snapshot.parquet")
    fresh = credit.open_source(None, 9).first_batch(4500).tail(500)
    fill(root, pd.concat([rows.head(100), fresh], ignore_index=True), previous)
    unlabelled = previous["application_id"][previous["defaulted"].isna()].iloc[0]
    again = rows.set_index("application_id").loc[[unlabelled]].reset_index().assign(defaulted=1.0)
    fill(root, pd.concat([rows.head(100), again, fresh], ignore_index=True), previous)
    told = pd.DataFrame({"row": [previous["application_id"][0]], "value": [1.0], "provenance": ["human"]})
    told.to_parquet(root / "inbox/labels.parquet", index=False)
    STAGES["validate"](root)
    STAGES["snapshot"](root)
    now = pd.read_parquet(root / "data/snapshot.parquet")
    assert now["application_id"].is_unique
    assert set(now["cohort"]) == {1, 2}
    assert now.loc[0, ["defaulted", "provenance"]].tolist() == [1.0, "human"]
    assert now.set_index("application_id").loc[unlabelled, ["defaulted", "provenance"]].tolist() == [1.0, "outcome"]
