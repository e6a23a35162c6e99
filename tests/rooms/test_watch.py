"""The watch on a store of one's own: what it decides when the concept moves and the population does not."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from flows.monitor import examine
from flows.setting import Setting
from ratchet.data.batch import conform
from ratchet.prediction import Prediction
from ratchet.release import read
from ratchet.request import records
from ratchet.settings import Settings
from ratchet.store import now


@pytest.fixture(scope="module")
def watched(standing, credit, tmp_path_factory):
    """A released model, and 9,000 requests of the world as it was in its log."""
    home = tmp_path_factory.mktemp("watched") / "home"
    shutil.copytree(standing, home)
    setting = Setting(credit, Settings(RATCHET_HOME=home, DATABASE_URL=None))
    release = read(setting.settings.releases / "credit" / "2")
    # What it was released with is not asked here.
    release.facts.setdefault("released", {"mean": 10.0, "error": 0.1})
    rows = conform(credit.open_source(None, 77).traffic(9000, drifted=False), credit.contract, "the world")
    probability = release.scorer.probability(rows)
    decided = (probability >= release.threshold).astype(int)
    asked = [json.dumps(record) for record in records(rows, credit.contract)]
    at = now()
    told = zip(probability.tolist(), decided.tolist(), asked, strict=True)
    lines = [Prediction(f"p{n}", "credit", at, "2", "champion", 1.0, p, d, text) for n, (p, d, text) in enumerate(told)]
    setting.store.log(lines)
    return setting, release, rows[credit.contract.target].to_numpy(int)


def label(setting, truth, start, end):
    rows = [{"prediction_id": f"p{n}", "at": now(), "value": int(truth[n]), "provenance": "outcome"} for n in range(start, end)]
    setting.store.add_labels(rows)


def test_after_a_change_of_the_concept_retraining_waits_for_labels_of_the_new_one(watched):
    setting, release, truth = watched
    checks, decision = examine.fn(setting, release)
    concept = {check.name: check for check in checks}["concept_drift"]
    assert (concept.verdict, concept.n) == ("undecided", 0)
    label(setting, truth, 0, 6000)
    checks, before = examine.fn(setting, release)
    concept = {check.name: check for check in checks}["concept_drift"]
    assert (concept.verdict, concept.n, before.action) == ("pass", 6000, "skip")
    # From here on every third outcome is the other one.
    turned = np.where(np.random.default_rng(3).random(len(truth)) < 0.33, 1 - truth, truth)
    label(setting, turned, 6000, 6800)
    checks, waits = examine.fn(setting, release)
    concept = {check.name: check for check in checks}["concept_drift"]
    assert concept.verdict == "fail"
    assert 6000 < concept.evidence["at"] < 6800
    assert waits.action == "wait"
    short = setting.problem.watch.min_labels - (6800 - concept.evidence["at"])
    assert f"retraining waits for {short} more labelled rows" in waits.reasons[0]
    # The same evidence is the same decision.
    assert examine.fn(setting, release)[1].id == waits.id
    label(setting, turned, 6800, 9000)
    _, decision = examine.fn(setting, release)
    assert decision.action == "retrain"
    assert any(reason.startswith("concept_drift: adwin saw a rise") for reason in decision.reasons)
