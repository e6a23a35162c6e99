"""The release tests in the loop: what they asked, the card that tells of it, and the search for better parameters."""

from __future__ import annotations

import csv
import io
import json

import mlflow
import pytest
import yaml

from ratchet.report.card import PARTS
from ratchet.settings import parameters
from ratchet.store import Store


@pytest.fixture(scope="module")
def weighed(loop):
    """The checks behind the decision on version 2, by name."""
    store = Store(f"sqlite:///{loop.home / 'store.db'}", "credit")
    try:
        entry = next(entry for entry in store.decisions() if entry.subject == "version 2" and entry.action == "promote")
    finally:
        store.close()
    return {check["name"]: check for check in entry.evidence["checks"]}


def test_every_release_check_was_asked(weighed):
    asked = {name.split(":")[0] for name in weighed}
    assert asked == {name for _, names in PARTS for name in names}
    for name, check in weighed.items():
        assert check["reason"], name
        if check["verdict"] in ("pass", "fail"):
            assert check["low"] <= check["value"] <= check["high"], name
            assert check["limit"] is not None, name
            assert check["n"] > 0, name


def test_what_the_problem_calls_advisory_holds_nothing(weighed, problem):
    for name, check in weighed.items():
        if name in problem.gate.advisory or name.split(":")[0] in problem.gate.advisory:
            assert not check["blocking"]
    blocking = [check for check in weighed.values() if check["blocking"]]
    assert {check["verdict"] for check in blocking} <= {"pass", "not_applicable"}
    assert len(blocking) > 15


def test_the_stage_writes_what_is_always_wrong_and_what_is_luck(loop):
    import pandas as pd

    root = loop.home / "workspaces" / "credit"
    table = pd.read_parquet(root / "data/consistency.parquet")
    assert set(table["kind"]) == {"always", "sometimes", "never"}
    assert table["row"].is_unique
    facts = json.loads((root / "metrics/examination.json").read_text(encoding="utf-8"))
    assert facts["form"] == "short"
    assert len(facts["shap"]) == len(facts["importance"]) == 12
    explained = pd.read_parquet(root / "data/explanations.parquet")
    assert not explained.isna().any().any()


def test_the_card_is_in_mlflow_and_comes_back_whole(loop, tmp_path):
    target = tmp_path / "cards" / "card.html"
    said = loop.ratchet("card", "2", "--out", str(target))
    assert str(target) in said.stdout
    html = target.read_text(encoding="utf-8")
    for text in (loop.summary["generations"][1]["snapshot"], "version 1", "may go live", "Five questions of a careful buyer", "slices"):
        assert text in html
    assert html.count("<svg") >= 10
    for word in ("src=", "<link", "<script", "@import"):
        assert word not in html
    first = tmp_path / "first.html"
    loop.ratchet("card", "1", "--out", str(first))
    assert "it is the first generation, so there was nothing to correct" in first.read_text(encoding="utf-8")


def test_the_card_fits_a_wide_and_a_narrow_window(browser, loop, tmp_path):
    target = tmp_path / "card.html"
    loop.ratchet("card", "2", "--out", str(target))
    for width in (1400, 420):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(target.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.close()


def test_a_card_of_a_version_that_is_not_there_is_a_sentence(loop, tmp_path):
    said = loop.ratchet("card", "77", "--out", str(tmp_path / "card.html"), check=False)
    assert said.returncode == 2
    assert "credit has no version '77'; there are 1, 2" in " ".join(said.stderr.split())
    assert not (tmp_path / "card.html").exists()


@pytest.fixture
def untuned(loop):
    """What is tuned here is not for the other tests' generations."""
    yield
    (loop.home / "tuned" / "credit.yaml").unlink()


def test_a_search_goes_on_and_keeps_its_front(loop, untuned):
    wanted = ("tune", "credit", "--family", "logistic", "--objective", "log_loss", "--objective", "negative_flips")
    loop.ratchet(*wanted, "--trials", "3")
    said = loop.ratchet(*wanted, "--trials", "5").stdout
    assert "logistic, 5 trials: log_loss" in said
    kept = yaml.safe_load((loop.home / "tuned" / "credit.yaml").read_text(encoding="utf-8"))
    space = parameters()["tune"]["space"]["logistic"]["C"]
    assert space["low"] <= kept["train"]["logistic"]["C"] <= space["high"]
    client = mlflow.MlflowClient(loop.urls["mlflow"])
    mlflow.set_tracking_uri(loop.urls["mlflow"])
    (experiment,) = [e for e in client.search_experiments() if e.name == "credit"]
    runs = client.search_runs([experiment.experiment_id], "tags.part = 'tuning'")
    told = client.get_run(runs[0].info.run_id)
    rows = list(csv.DictReader(io.StringIO(mlflow.artifacts.load_text(f"{told.info.artifact_uri}/trials.csv"))))
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3", "4"]
    front = list(csv.DictReader(io.StringIO(mlflow.artifacts.load_text(f"{told.info.artifact_uri}/front.csv"))))
    assert 1 <= len(front) <= 5
    assert {item.path for item in client.list_artifacts(told.info.run_id, "plots")} >= {"plots/history.png", "plots/front.png"}


def test_a_search_for_what_is_not_there_is_a_sentence(loop):
    said = loop.ratchet("tune", "credit", "--family", "oak", check=False)
    assert said.returncode == 2
    assert "tune.space has no 'oak'; it has logistic, trees, network" in " ".join(said.stderr.split())
