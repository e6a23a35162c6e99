"""The loop closed: what the summary, the ledger, the log and MLflow say of it agree."""

from __future__ import annotations

import math

import mlflow
import pandas as pd
import pytest

from ratchet.release import read
from ratchet.store import Store
from snapshots.workspace import Workspace, restore


@pytest.fixture(scope="module")
def store(loop):
    opened = Store(f"sqlite:///{loop.home / 'store.db'}", "credit")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def client(loop):
    mlflow.set_tracking_uri(loop.urls["mlflow"])
    return mlflow.MlflowClient(loop.urls["mlflow"])


def test_the_summary_holds_what_it_must(loop):
    summary = loop.summary
    assert summary["problem"] == "credit"
    assert summary["rows"]["accepted"] + summary["rows"]["quarantined"] == summary["rows"]["received"] == 20000
    assert summary["rows"]["quarantined"] == sum(summary["quarantine"].values())
    first, second = summary["generations"]
    assert (first["parent"], second["parent"]) == (None, "1")
    assert first["snapshot"] != second["snapshot"]
    for generation in summary["generations"]:
        assert generation["family"] in ("logistic", "trees", "network")
        assert generation["value"] < generation["baseline_value"]
    assert second["alias"] == "champion"
    assert summary["load"]["requests"] > 100
    assert summary["load"]["failures"] == 0
    assert 0 < summary["load"]["p50_ms"] <= summary["load"]["p99_ms"]
    assert summary["drift"]["detected_at_prediction"] > summary["drift"]["injected_at_prediction"] == 1000
    assert {check["verdict"] for check in summary["drift"]["checks"]} >= {"fail", "pass"}
    assert min(summary["errors"].values()) > 0
    assert summary["seconds"] > 10
    assert all(math.isfinite(row["value"]) for row in summary["live"])


def test_what_was_answered_was_logged(loop, store):
    told = loop.summary["predictions"]
    assert told["answered"] == told["logged"] == 1000 + 3000 + 1000
    assert told["load_answered"] == told["load_logged"] > 1000
    window = store.window()
    assert window["id"].is_unique
    assert window["truth"].notna().all()


def test_every_decision_is_in_the_ledger_once_and_in_order(loop, store):
    actions = [decision["action"] for decision in loop.summary["decisions"]]
    assert actions == ["promote", "skip", "wait", "wait", "retrain", "promote"]
    entries = {entry.id: entry for entry in store.decisions()}
    assert set(entries) >= {decision["id"] for decision in loop.summary["decisions"]}
    waits = [entry for entry in entries.values() if entry.action == "wait"]
    assert "not known yet" in waits[0].reasons[-1]
    assert "more labelled rows" in waits[1].reasons[0]
    gate = next(entry for entry in entries.values() if entry.subject == "version 2")
    names = {check["name"] for check in gate.evidence["checks"]}
    assert names >= {"beats_rule", "not_worse_than_simple", "calibration", "fairness:sex", "fairness:age_group", "non_inferior_to_champion"}
    compared = next(check for check in gate.evidence["checks"] if check["name"] == "non_inferior_to_champion")
    assert compared["low"] < compared["value"] < compared["high"] <= compared["limit"]
    assert compared["evidence"]["smallest_detectable"] > 0


def test_the_automation_started_the_retraining(loop):
    import httpx

    api = f"{loop.urls['prefect']}/api"
    run = httpx.get(f"{api}/flow_runs/{loop.summary['retrain']['flow_run_id']}").json()
    assert run["created_by"]["type"] == "AUTOMATION"
    assert run["state_type"] == "COMPLETED"
    assert run["parameters"]["event_id"] == loop.summary["retrain"]["event_id"]
    assert run["parameters"]["reasons"] == loop.summary["retrain"]["reasons"]
    found = httpx.post(f"{api}/events/filter", json={"filter": {"event": {"name": ["ratchet.retrain.requested"]}}}).json()
    assert [event["id"] for event in found["events"]] == [loop.summary["retrain"]["event_id"]]
    (automation,) = httpx.post(f"{api}/automations/filter", json={}).json()
    assert "Retrain credit" in automation["name"]


def test_a_child_is_compared_on_rows_that_its_parent_never_saw(loop, tmp_path):
    release = read(loop.home / "releases" / "credit" / "1")
    root = loop.home / "workspaces" / "credit"
    restore(Workspace(root, loop.home), release.facts["lock"], "data/split.parquet", tmp_path / "split.parquet")
    parents, childs = pd.read_parquet(tmp_path / "split.parquet"), pd.read_parquet(root / "data" / "split.parquet")
    scores = pd.read_parquet(root / "data" / "scores.parquet")
    judged = set(scores["application_id"])
    seen_by_parent = set(parents.loc[parents["side"] != "test", "row"])
    assert len(seen_by_parent) > 10_000
    assert judged.isdisjoint(seen_by_parent)
    assert judged.isdisjoint(childs.loc[childs["side"] != "test", "row"])
    # The comparison holds rows of the old population and of the new one, and every side is what it was.
    assert judged & set(parents["row"])
    assert judged - set(parents["row"])
    assert parents.merge(childs, on="row").eval("side_x == side_y").all()
    errors = loop.summary["errors"]
    assert errors["inherited"] + errors["introduced"] + errors["fixed"] < len(scores)


def test_mlflow_tells_the_generations(loop, client):
    (experiment,) = [e for e in client.search_experiments() if e.name == "credit"]
    runs = client.search_runs([experiment.experiment_id], "tags.part = 'generation'")
    assert len(runs) == 2
    for run in runs:
        nested = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
        assert {n.data.tags["part"] for n in nested} == {"logistic", "trees", "network", "rule"}
        assert run.info.status == "FINISHED"
        assert run.data.tags.keys() >= {"problem", "snapshot", "commit", "identity", "decision", "decision_id", "trigger"}
        assert run.inputs.dataset_inputs[0].dataset.digest == run.data.tags["snapshot"]
        artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert artifacts >= {"card.md", "checks.md", "dvc.lock", "params.yaml", "plots", "load"}
        plots = {item.path.split("/")[1] for item in client.list_artifacts(run.info.run_id, "plots")}
        assert plots >= {"reliability.png", "roc.png", "confusion.png", "slices.png"}
    child = next(run for run in runs if "parent" in run.data.tags)
    plots = {item.path.split("/")[1] for item in client.list_artifacts(child.info.run_id, "plots")}
    assert plots >= {"drift.png", "inheritance.png"}
    network = client.search_runs([experiment.experiment_id], "tags.part = 'network'")[0]
    assert len(client.get_metric_history(network.info.run_id, "tune_log_loss")) > 3


def test_a_registered_version_has_signature_parent_card_and_load(loop, client):
    version = client.get_model_version("credit", "2")
    assert version.tags.keys() >= {"parent", "snapshot", "decision", "reasons", "load_p99_ms", "load_failures"}
    assert version.description.startswith("# Loan applications: version 2")
    assert client.get_model_version_by_alias("credit", "champion").version == version.version
    model = mlflow.pyfunc.load_model("models:/credit/2")
    assert [column.name for column in model.metadata.signature.inputs] == [
        c.name for c in read(loop.home / "releases/credit/2").contract.features
    ]


def test_the_version_in_mlflow_answers_as_the_release(loop, client):
    release = read(loop.home / "releases" / "credit" / "2")
    frame = pd.DataFrame([item["request"] for item in release.probe])[[c.name for c in release.contract.features]]
    for column in release.contract.features:
        if column.is_numeric:
            frame[column.name] = frame[column.name].astype(float)
    told = mlflow.pyfunc.load_model("models:/credit/2").predict(frame)["probability"]
    assert told.tolist() == pytest.approx([item["probability"] for item in release.probe], abs=1e-6)


def test_the_report_is_one_file_that_tells_the_same(loop):
    page = (loop.reports / "index.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 8
    assert "src=" not in page
    assert "<link" not in page
    for text in (loop.summary["retrain"]["event_id"], loop.summary["retrain"]["flow_run_id"], loop.summary["generations"][1]["snapshot"]):
        assert text in page


def test_the_console_told_where_to_look(loop):
    for text in (*(url for url in loop.urls.values()), "summary.json", "index.html", "ratchet down"):
        assert text in loop.output


def test_the_journal_has_seconds_for_every_step(loop):
    assert set(loop.journal["steps"]) >= {"first", "stable", "quiet watch", "first alarm", "second alarm", "third alarm", "retraining"}
