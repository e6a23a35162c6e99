"""The catalogue of faults: each is planted as it says, the scoreboard counts what rang, and the page shows it."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows import scoreboard
from flows.drill import rings
from flows.scoreboard import (
    ACTS,
    AUTOCORRELATED,
    BATCH,
    CLEAN,
    DELAY,
    DUMMIES,
    EVIDENTLY,
    MONITORS,
    OURS,
    QUIET,
    WATCH,
    Case,
    board,
    judge,
    measure,
    world,
)
from flows.watched import Watched
from ratchet import registry
from ratchet.check import Check
from ratchet.report.scoreboard import render
from ratchet.request import accepted, as_sent
from ratchet.simulation.catalogue import DOOR, PARITY, Drift, Labelled
from ratchet.simulation.faults import Planted
from stack.cli import app
from stack.experiment import _tell_faults


@pytest.fixture(scope="module")
def at():
    return world("population", "", 0)


@pytest.fixture(scope="module")
def rows(at):
    return at.draw(2000, Drift(), 0)


def planted(at, name, rows):
    return at.faults[name].happen(rows, np.random.default_rng(0))


def test_every_fault_names_monitors_that_there_are(at):
    assert len(at.faults) > 30
    for fault in at.faults.values():
        assert set(fault.seen_by) <= set(MONITORS), fault.name
        assert fault.about


def test_every_skew_is_planted_in_real_rows_too(at, real_rows):
    real = world("credit_card", str(real_rows / "credit_default.csv"), 0)
    assert {name for name in at.faults if name.startswith("skew: ")} == {name for name in real.faults if name.startswith("skew: ")}
    rows = real.draw(2000, Drift(), 0)
    sent = real.faults["skew: unknown category"].send(rows, np.random.default_rng(0))
    taken = accepted(as_sent(sent, real.released.contract), real.released.contract)
    assert (~taken == (sent["education"] != rows["education"]).to_numpy()).all()
    assert 0.01 < 1 - taken.mean() < 0.03
    assert accepted(as_sent(rows, real.released.contract), real.released.contract).all()


def test_rows_are_lost_doubled_stuck_and_emptied_as_told(at, rows):
    assert 300 < len(planted(at, "missing volume", rows)) < 500
    doubled = planted(at, "duplicated upstream join", rows)
    assert 1.12 < len(doubled) / len(rows) < 1.18
    stuck = planted(at, "stuck sensor", rows)
    (column,) = [name for name in rows if stuck[name].nunique() == 1 < rows[name].nunique()]
    assert column in at.released.relies_on
    lacking = planted(at, "missing values", rows).isna().mean() - rows.isna().mean()
    assert (lacking > 0.25).sum() == 1


def test_a_slice_turns_and_nothing_else_does(at, rows):
    turned = (planted(at, "silent slice", rows)["outcome"] != rows["outcome"]).to_numpy()
    assert 0.003 < turned.mean() < 0.04
    assert planted(at, "silent slice", rows).drop(columns="outcome").equals(rows.drop(columns="outcome"))


def test_probes_are_one_row_and_end_near_the_threshold(at, rows):
    asked = planted(at, "adversarial probes", rows).tail(100)
    names = [column.name for column in at.released.contract.features]
    assert (asked[names].nunique(dropna=False) > 1).sum() == 1
    near = np.abs(at.answer(asked) - at.problem.threshold)
    assert np.median(near) < np.median(np.abs(at.answer(rows) - at.problem.threshold))


def test_labels_follow_are_noise_or_do_not_come(at, rows):
    truth = rows["outcome"].to_numpy(float)
    decided = (at.answer(rows) >= at.problem.threshold).astype(float)
    told = Labelled(rows, truth, decided)

    def labels(name):
        return at.faults[name].label(told, np.random.default_rng(1))

    wrong = decided != truth
    followed = labels("feedback loop, labels follow decisions")
    assert (followed[~wrong] == truth[~wrong]).all()
    assert 0.5 < (followed[wrong] == decided[wrong]).mean() < 0.7
    assert 0.17 < (labels("label noise") != truth).mean() < 0.23
    assert np.isnan(labels("selective labels")[decided == 0]).sum() == 0
    assert 0.4 < np.isnan(labels("labels late")).mean() < 0.6
    assert 0.17 < np.isnan(labels("labels that go astray")).mean() < 0.23
    again = at.faults["labels that come again"]
    assert (again.label(told, np.random.default_rng(1)) == truth).all()
    assert 0.17 < (again.before(told, np.random.default_rng(1)) != truth).mean() < 0.23


def test_the_door_refuses_what_is_no_request(at, rows):
    contract = at.released.contract
    assert accepted(as_sent(rows, contract), contract).all()
    sent = at.faults["skew: unknown category"].send(rows, np.random.default_rng(0))
    assert accepted(as_sent(sent, contract), contract).mean() == pytest.approx(0.98, abs=0.005)


def test_where_the_door_refuses_every_request_nothing_is_decided_and_nobody_crashes(at):
    stream = scoreboard._Planted(at, at.faults["skew: locale"], 0)
    stream.step(0, look=False, peer=False)
    assert DOOR in stream.step(QUIET, look=True, peer=True)
    assert stream.harm() == 0.0


def test_labels_that_go_astray_are_seen_when_they_come(at):
    stream = scoreboard._Planted(at, at.faults["labels that go astray"], 0)
    for place in range(QUIET + DELAY):
        stream.step(place, look=False, peer=False)
    seen = [name for name in stream.step(QUIET + DELAY, look=True, peer=False) if name not in scoreboard.RIVER]
    assert seen == ["label_ids", "the watch acts"]


def test_labels_of_rows_of_before_do_not_refute_harm_that_is_expected_of_others(at):
    # The population moved and did no harm, and labels say so; now it moves again, and does.
    watched = Watched(at.problem, at.released, at.answer, DELAY, BATCH)
    decisions = []
    for place, drift in enumerate([Drift()] * 2 + [Drift(benign=2)] * 4 + [Drift(benign=2, harmful=3)] * 2):
        rows = at.draw(BATCH, drift, place)
        watched.arrive(rows, at.answer(rows))
        decisions.append(watched.look(scope="harm"))
    assert [decision.action for decision in decisions] == ["skip"] * 6 + ["buy_labels"] * 2
    before, now = (decision.evidence["checks"] for decision in decisions[-3:-1])
    verdicts = [{check["name"]: check["verdict"] for check in checks} for checks in (before, now)]
    assert [told["estimate"] for told in verdicts] == ["pass", "fail"]
    assert "fail" not in [told["decay"] for told in verdicts]
    assert verdicts[0]["joint_drift"] == "fail"


def test_labels_of_before_a_concept_turned_are_not_what_retraining_waits_for(at):
    # At once, so that the newest batch is labelled; from the fourth on every third outcome is the other one.
    watched = Watched(at.problem, at.released, at.answer, 0, BATCH)
    decisions = []
    for place, rows in enumerate((BATCH, BATCH, BATCH, 800, BATCH)):
        batch = at.draw(rows, Drift(), place)
        truth = batch["outcome"].to_numpy(float)
        turned = np.random.default_rng(place).random(rows) < (0.33 if place >= 3 else 0.0)
        watched.arrive(batch, at.answer(batch), np.where(turned, 1 - truth, truth))
        decisions.append(watched.look(scope="harm"))
    assert [decision.action for decision in decisions] == ["skip"] * 3 + ["wait", "retrain"]
    waits = decisions[3]
    (concept,) = [check for check in waits.evidence["checks"] if check["name"] == "concept_drift"]
    assert 6000 < concept["evidence"]["at"] < 6800
    first = watched.batches[0]["seq"].iloc[0]
    since = np.arange(concept["evidence"]["at"], 6800)
    counted = int((since >= np.quantile(since, 0.05, method="lower")).sum())
    assert first > 1
    assert f"retraining waits for {at.problem.watch.min_labels - counted} more labelled rows" in waits.reasons[0]


def test_the_watch_of_experiments_keeps_out_what_the_monitor_does_and_takes_the_label_that_came_first(at):
    watched = Watched(at.problem, at.released, at.answer, 0, BATCH)
    decisions = []
    for place in range(6):
        batch = at.draw(BATCH, Drift(), place)
        truth = batch["outcome"].to_numpy(float)
        stuck = at.faults["stuck sensor"].happen(batch, np.random.default_rng(0)) if place == 2 else batch
        # Labels of the fourth came wrong at first.
        watched.arrive(stuck, at.answer(stuck), truth, 1 - truth if place == 3 else None)
        decisions.append(watched.look(scope="harm"))
    assert decisions[2].action == "block"
    told = [{check["name"]: check for check in decision.evidence["checks"]} for decision in decisions]
    # The look that blocks has judged by those rows itself; the next one does not.
    assert [each["concept_drift"]["n"] for each in told[:4]] == [2000, 4000, 6000, 6000]
    assert told[3]["concept_drift"]["verdict"] == "fail"
    assert told[3]["decay"]["verdict"] != "fail"


def test_an_alarm_that_rings_for_another_column_has_not_seen_the_fault():
    planted = Planted("stuck", "income", pd.DataFrame(), "validity")
    elsewhere = Check("validity", "Is it?", "fail", "age is stuck", evidence={"columns": ["age"]})
    assert not rings([elsewhere], planted)
    assert rings([replace(elsewhere, evidence={"columns": ["age", "income"]})], planted)
    shifted = Planted("shifted", "income", pd.DataFrame(), "data_drift:income")
    assert not rings([elsewhere], shifted)
    assert rings([replace(elsewhere, name="data_drift:income", evidence={})], shifted)


@pytest.fixture(scope="module")
def judged():
    """One fault in one stream, and a year of three weeks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoreboard, "YEAR", 3)
        patch.setattr(scoreboard, "FAULTY", 2)
        return [judge(Case("population", what, 1)) for what in ("stuck sensor", CLEAN, AUTOCORRELATED)]


def test_a_stuck_sensor_is_seen_at_once_and_a_clean_year_is_quiet(judged):
    fault, year, autocorrelated = judged
    assert min(fault["rang"]["validity"]) == QUIET
    assert min(fault["rang"][ACTS]) == QUIET
    assert not any(place < QUIET for name in OURS for place in fault["rang"][name])
    assert year["harm"] is None
    assert not any(told["rang"][name] for told in (year, autocorrelated) for name in (*OURS, ACTS, DUMMIES[1]))
    assert year["rang"][DUMMIES[0]] == [2]
    assert not set(EVIDENTLY) & set(fault["rang"])


def test_the_scoreboard_counts_what_was_seen_and_how_soon(judged, at):
    again = judged[0] | {"seed": 2, "rang": {name: [] for name in judged[0]["rang"]}}
    worlds = board([*judged, again], {"population": at.faults})
    (fault,) = worlds[0]["faults"]
    assert (fault["meant"], fault["n"]) == (1, 2)
    assert fault["cells"]["validity"] == {"n": 2, "seen": 1, "delay": 2000.0}
    assert fault["cells"]["never"] == {"n": 2, "seen": 0, "delay": None}
    assert worlds[0]["clean"]["validity"]["with_alarm"] == worlds[0]["autocorrelated"]["validity"]["with_alarm"] == 0
    assert worlds[0]["clean"]["validity"]["n"] == worlds[0]["autocorrelated"]["validity"]["n"] == 1
    sums, cells = measure(worlds)
    told = {row.name: row for row in [*sums, *cells]}
    assert told["population: faults seen by a monitor that is meant to"].value == 0.5
    assert told["population, stuck sensor, validity: delay"].unit == "rows, 0.5 label delays"
    assert told["population, stuck sensor, validity: seen"].n == 2

    page = render(worlds, WATCH, sums, command="ratchet drill", commit="abc", batch=2000, delay=2)
    # The watch and the others, each with a head, a fault and what clean years cost, those of autocorrelated rows too.
    assert page.count("<tr") == 12
    assert 'title="validity: in 1 of 2 runs, after 2,000 rows, 0.5 label delays"' in page
    assert page.count("stuck sensor") == 2
    assert "1/2<br>2k" in page
    assert "<li>faults seen by a monitor that is meant to: 1 of 2 runs [" in page
    assert "<li>misleading faults that retrain: 0 of 2 runs [" in page
    assert page.count("<li>faults seen") == 1


def test_a_single_fault_is_told_in_a_sentence_and_by_whom_it_was_seen(judged, at):
    told = io.StringIO()
    worlds = board([judged[0] | {"world": "population"}], {"population": at.faults})
    _tell_faults(worlds[0], Console(file=told, width=120))
    assert "The simulated world, stuck sensor: seen as meant (by validity) in 1 of 1 runs, harm" in told.getvalue()
    assert re.search(r"validity\s+│ 1 of 1\s+│ 2,000\s+│ 0.5", told.getvalue())


def test_a_fault_that_is_not_known_is_told_with_those_that_are():
    told = CliRunner().invoke(app, ["drill", "--only", "gremlins"])
    assert told.exit_code == 2
    assert "There is no fault called 'gremlins'" in told.output
    assert "stuck sensor" in told.output


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["drill", "credit", "--only", "stuck sensor"], "leave out credit"),
        (["drill", "credit", "--runs", "3"], "--runs is of the whole catalogue"),
        (["drill", "--runs", "1"], "--runs 2"),
        (["drill", "--years", "1"], "--years"),
        (["pause"], "--reason"),
        (["trust", "3"], "--reason"),
    ],
)
def test_what_cannot_be_meant_is_told_by_its_name(asked, said):
    told = CliRunner().invoke(app, asked, env={"COLUMNS": "200"})
    assert told.exit_code == 2, told.output
    assert said in told.output


def test_the_scoreboard_has_every_monitor_that_one_version_can_ring():
    # Disparity is told of three generations that came to answer.
    assert set(OURS) - {DOOR, PARITY} == set(registry.MONITORS) - {"disparity"}
