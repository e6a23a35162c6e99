"""The watch on a store of one's own: what it decides when the concept moves and the population does not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta

import msgspec
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from flows.audit import take, todo
from flows.examine import audits_of, examine, released_of
from flows.ingest import LOOKED_BACK, from_file, from_log, lesson_of
from flows.monitor import keep
from flows.person import kept_out, pause, resume, trust
from flows.population import begun, onset_of
from flows.retrain import retrain, stale
from flows.setting import Setting
from flows.stages import LEFT_OUT, STAGES, labelled
from flows.standing import first_rows
from ratchet.audit import AUDIT, drawn
from ratchet.check import Check
from ratchet.contract import Contract
from ratchet.data.batch import conform
from ratchet.data.splits import SIDES
from ratchet.database import now
from ratchet.decision import decide
from ratchet.errors import BatchError, StackError
from ratchet.lesson import EVERYTHING, Lesson
from ratchet.monitoring.panel import held_of, share_wrong, typed
from ratchet.prediction import Prediction
from ratchet.problem import Folder
from ratchet.release import read
from ratchet.request import records
from ratchet.retraining import UNANSWERED
from ratchet.schema import draws, looks, predictions, routes
from ratchet.settings import Settings
from snapshots.workspace import publish, run_stage


def traffic(setting, release, rows, drifted, first=0, at=None):
    """Requests of the world in the log, as p0, p1 and so on; what will turn out to be true, shape (n,)."""
    contract = setting.contract
    frame = conform(setting.folder.open_source(None, 77).traffic(rows, drifted=drifted), contract, "the world")
    probability = release.scorer.probability(frame)
    decided = (probability >= release.threshold).astype(int)
    asked = [json.dumps(record) for record in records(frame, contract)]
    told = zip(probability.tolist(), decided.tolist(), asked, strict=True)
    moments = [now()] * rows if at is None else at
    lines = [Prediction(f"p{first + n}", "credit", moments[n], "2", "champion", 1.0, p, d, text) for n, (p, d, text) in enumerate(told)]
    setting.store.log(lines)
    return frame[contract.target].to_numpy(int)


def lines_of(setting, release, rows):
    """Requests as the log would have them, the features apart."""
    frame = conform(setting.folder.open_source(None, 78).traffic(rows, drifted=False), setting.contract, "the world")
    told = release.scorer.probability(frame).tolist()
    for n, (p, features) in enumerate(zip(told, records(frame, setting.contract), strict=True)):
        yield [f"s{n}", "credit", now(), "2", "champion", 1.0, p, int(p >= release.threshold)], features


def opened(standing, folder, home):
    shutil.copytree(standing, home)
    setting = Setting(folder, Settings(RATCHET_HOME=home, DATABASE_URL=None))
    return setting, read(setting.settings.releases / "credit" / "2")


@pytest.fixture(scope="module")
def watched(standing, credit, tmp_path_factory):
    """A released model, and 9,000 requests of the world as it was in its log."""
    setting, release = opened(standing, credit, tmp_path_factory.mktemp("watched") / "home")
    # What it was released with is not asked here.
    release.facts["released"] = {"mean": 10.0, "error": 0.1}
    return setting, release, traffic(setting, release, 9000, drifted=False)


def changed(credit, folder, changes):
    """The credit problem in a folder of its own, with other words in its problem.yaml."""
    shutil.copytree(credit.path, folder)
    text = (folder / "problem.yaml").read_text(encoding="utf-8")
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    (folder / "problem.yaml").write_text(text, encoding="utf-8")
    return Folder(folder)


WEEKLY = {"every_seconds: 300": "every_seconds: 604800"}


@pytest.fixture
def weekly(standing, credit, tmp_path):
    """The same model, looked at once a week, and 5,000 requests of the world once it has moved."""
    folder = changed(credit, tmp_path / "credit", WEEKLY | {"window: 2000": "window: 5000", "per_year: 0.05": "per_year: 1.0"})
    setting, release = opened(standing, folder, tmp_path / "home")
    setting.store.set_draw(0.02, 1, None)
    return setting, release, traffic(setting, release, 5000, drifted=True)


@pytest.fixture
def due(standing, credit, tmp_path):
    """A released model whose labels are due at once, and 3,000 requests in its log."""
    folder = changed(credit, tmp_path / "credit", WEEKLY | {"label_delay_days: 90": "label_delay_days: 0"})
    setting, release = opened(standing, folder, tmp_path / "home")
    release.facts["released"] = {"mean": 10.0, "error": 0.1}
    setting.store.set_draw(0.3, 1, None)
    return setting, release, traffic(setting, release, 3000, drifted=False)


def label(setting, truth, start, end):
    rows = [{"prediction_id": f"p{n}", "at": now(), "value": int(truth[n]), "provenance": "outcome"} for n in range(start, end)]
    setting.store.add_labels(rows)


def test_after_a_change_of_the_concept_retraining_waits_for_labels_of_the_new_one_and_learns_from_them(watched, tmp_path):
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
    since = int(np.quantile(np.arange(concept.evidence["at"] + 1, 6801), 0.05, method="lower"))
    short = setting.problem.watch.min_labels - (6801 - since)
    assert f"retraining waits for {short} more labelled rows" in waits.reasons[0]
    # The same evidence is the same decision.
    assert examine.fn(setting, release)[1].id == waits.id
    label(setting, turned, 6800, 9000)
    checks, decision = examine.fn(setting, release)
    assert decision.action == "retrain"
    assert any(reason.startswith("concept_drift: adwin saw a rise") for reason in decision.reasons)
    # What is true of a row has turned: only rows since then teach, and none of the batch that the champion was made from.
    turned_at = named(checks, "concept_drift").evidence["at"]
    places = np.arange(turned_at + 1, 9001)
    since = int(np.quantile(places, 0.05, method="lower"))
    assert decision.evidence["inputs"]["lesson"] == {"since": since, "without": (), "audited": (), "until": None}
    first = ingested(setting, first_rows(setting.folder, 5000, 5), tmp_path)
    setting.store.record(decision)
    lesson = Lesson(**setting.store.decision(decision.id).evidence["inputs"]["lesson"])
    # Once every outcome is the other one, what was true before misleads.
    label(setting, 1 - truth, lesson.since - 1, 9000)
    since, said = from_log(setting, lesson)
    assert since == lesson.since
    assert f"rows from place {lesson.since:,} of the log on are answered better by a model of such rows alone" in said
    everything = set(first[setting.contract.id]) | {f"p{n}" for n in range(9000)}
    assert everything - left_out(setting) == {f"p{n}" for n in range(since - 1, 9000)}
    assert len(pd.read_parquet(setting.root / "inbox/batch.parquet")) == 9000
    # Where the truth is what it was, older rows teach more than they mislead.
    label(setting, truth, 6000, 9000)
    since, said = from_log(setting, lesson)
    assert since == 0
    assert said.startswith("every labelled row (rows from place")
    assert not left_out(setting)


def otherwise(setting, before, after):
    """The same store with other words in problem.yaml."""
    path = setting.folder.path / "problem.yaml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    return Setting(Folder(setting.folder.path), setting.settings)


def of_hours(setting, before, hours):
    """The same store, watched as if a cycle were of so many hours."""
    return otherwise(setting, f"cycle_hours: {before}", f"cycle_hours: {hours}")


def test_where_a_concept_begins_by_the_labels_that_came_since(due):
    setting, _, truth = due
    order = np.random.default_rng(0).permutation(3000)
    for start in range(0, 3000, 1000):
        setting.store.add_labels(
            [{"prediction_id": f"p{n}", "at": now(), "value": int(truth[n]), "provenance": "outcome"} for n in order[start : start + 1000]]
        )
    rose = Check("concept_drift", "Are they?", "fail", "more are wrong", n=3000, evidence={"at": 2500})

    def began(onset, check):
        told = setting.store.outcomes(0, 5000, "2")
        return begun(setting, "2", onset, check, [told.head(700), told.iloc[700:]])

    # They came in another order than their predictions: a twentieth of them is of before.
    assert began(1, rose) == sorted(order[2500:] + 1)[24]
    assert began(1, replace(rose, verdict="pass")) == 1
    # A population that moved within a window of it is the same change.
    assert began(20, rose) == 20
    # With the last label no other has come: what is to come counts.
    assert began(1, replace(rose, evidence={"at": 3000})) == order[2999] + 2
    # Within a cycle their order is of chance: it begins with that.
    setting = of_hours(setting, 0, 24)
    assert began(1, rose) == sorted(order[701:] + 1)[114]


def ingested(setting, rows, folder, lesson=EVERYTHING):
    """A batch in the published snapshot, by the stages that make it; None where one is in the inbox already."""
    if rows is not None:
        rows.to_parquet(folder / "batch.parquet", index=False)
        from_file(setting, folder / "batch.parquet", None, lesson)
    for stage in ("validate", "snapshot", "split"):
        run_stage(setting.workspace, stage, lambda stage=stage: STAGES[stage](setting.root))
    publish(setting.workspace, "a batch")
    return pd.read_parquet(setting.root / "data/snapshot.parquet")


def left_out(setting):
    return set(pd.read_parquet(setting.root / "inbox/left_out.parquet")["row"])


def test_rows_that_were_blocked_and_labels_that_were_doubted_do_not_teach(due, tmp_path):
    setting, _, truth = due
    label(setting, truth, 0, 3000)
    gold = [{"prediction_id": f"p{n}", "at": now(), "value": int(truth[n]), "provenance": "audit"} for n in range(500, 520)]
    setting.store.add_labels(gold)
    stuck = Check("validity", "Is it?", "fail", "income is stuck", n=2000)
    doubted = Check("feedback:labels", "Do they?", "fail", "they follow", n=2000, evidence={"from": 501, "to": 600})
    for action, check, inputs in (("block", stuck, {"from": 101, "to": 200}), ("ask", doubted, {"from": 1001, "to": 3000})):
        setting.store.record(decide(action, "version 2", ["because"], inputs, [check]))
    # An outcome that comes after an audit is as doubtful as one before.
    label(setting, 1 - truth, 500, 510)
    from_log(setting, lesson_of(setting, 1))
    batch = pd.read_parquet(setting.root / "inbox/batch.parquet").set_index(setting.contract.id)
    never = {f"p{n}" for n in range(100, 200)} | {f"p{n}" for n in range(520, 600)}
    assert set(batch.index) == {f"p{n}" for n in range(3000)} - never
    audited = [f"p{n}" for n in range(500, 520)]
    assert batch.loc[audited, setting.contract.target].tolist() == truth[500:520].tolist()
    # What is in the snapshot when the doubt comes up stands on no side of it, also when the next batch is a file.
    ingested(setting, None, tmp_path)
    stuck = replace(stuck, name="skew:scores")
    setting.store.record(decide("block", "version 2", ["because"], {"from": 2001, "to": 2100}, [stuck]))
    lesson = lesson_of(setting, 1)
    ingested(setting, first_rows(setting.folder, 5000, 5), tmp_path, lesson)
    sides = pd.read_parquet(setting.root / "data/split.parquet").set_index("row")["side"]
    assert set(sides.index[sides == LEFT_OUT]) == {f"p{n}" for n in range(2000, 2100)}
    taught, on = labelled(setting.root, setting.contract)
    assert set(on) == set(SIDES)
    assert not set(taught[setting.contract.id]) & {f"p{n}" for n in range(2000, 2100)}
    # Where everything was blocked there is nothing to learn from.
    setting.store.record(decide("block", "version 2", ["because"], {"from": 1, "to": 3000}, [stuck]))
    with pytest.raises(BatchError, match="of a stretch that was blocked"):
        from_log(setting, lesson_of(setting, 1))


def test_a_person_lets_rows_teach_again_and_the_newest_decisions_know_all_that_is_kept_out(due):
    setting, release, truth = due
    label(setting, truth, 0, 3000)
    stuck = Check("validity", "Is it?", "fail", "income is stuck", n=2000)
    setting.store.record(decide("block", "version 2", ["because"], {"from": 101, "to": 200}, [stuck]))
    _, decision = examine.fn(setting, release)
    assert decision.evidence["kept_out"]["without"] == ((101, 200),)
    for look in range(LOOKED_BACK + 1):
        made = decide("skip", "version 2", ["because"], {"from": 1, "to": 3000, "look": look})
        setting.store.record(replace(made, evidence=made.evidence | {"kept_out": {"without": [[101, 200]], "audited": []}}))
    assert kept_out(setting) == Lesson(0, ((101, 200),))
    with pytest.raises(BatchError, match="No row from place 201 to 300 of the log is kept from teaching"):
        trust(setting, 201, 300, "it was maintenance")
    with pytest.raises(BatchError, match="The log ends at place 3000"):
        trust(setting, 151, 3001, "whatever comes")
    assert trust(setting, 151, 250, "it was maintenance").startswith("Places 151 to 250 of the log teach")
    assert kept_out(setting) == Lesson(0, ((101, 150),))
    from_log(setting, lesson_of(setting, 1))
    taught = set(pd.read_parquet(setting.root / "inbox/batch.parquet")[setting.contract.id])
    assert taught == {f"p{n}" for n in range(3000)} - {f"p{n}" for n in range(100, 150)}


@pytest.mark.parametrize("named_alike", [True, False])
def test_who_asks_again_and_again_is_no_drift(due, named_alike):
    """A classifier knows a customer by the other rows, and a test takes them for so many customers: the newest row of each counts."""
    setting, release, _ = due
    release.held["customer_id"] = pd.array(range(len(release.held)))
    lines = list(lines_of(setting, release, 500))
    for turn in range(4):
        told = [
            Prediction(f"c{turn}-{n}", *row[1:], json.dumps(features | {"customer_id": f"c{n}" if named_alike else f"c{turn}-{n}"}))
            for n, (row, features) in enumerate(lines)
        ]
        setting.store.log(told)
    checks, _ = examine.fn(setting, release)
    drift = named(checks, "joint_drift")
    assert (drift.verdict, drift.n) == (("pass", 500) if named_alike else ("fail", 2000))
    if named_alike:
        assert "2000 predictions of 500 entities" in named(checks, "data_drift:income").reason


def test_of_a_long_fault_no_row_teaches_though_more_come_than_a_window_holds(due):
    setting, release, _ = due
    keep(setting, examine.fn(setting, release)[1])

    def stuck(first, rows):
        lines = [(row, features | {"income": 30_000.0}) for row, features in lines_of(setting, release, rows)]
        told = [Prediction(f"q{first + n}", *row[1:], json.dumps(features)) for n, (row, features) in enumerate(lines)]
        setting.store.log(told)

    for look in range(2):
        stuck(3000 * look, 3000)
        _, decision = examine.fn(setting, release)
        assert decision.action == "block"
        keep(setting, decision)
    assert kept_out(setting).without == ((3001, 9000),)
    # Who has not looked for long knows nothing of what was before the window.
    stuck(6000, 3000)
    with setting.store.engine.begin() as connection:
        connection.execute(sa.update(looks).values(at=now() - timedelta(days=30)))
    keep(setting, examine.fn(setting, release)[1])
    assert kept_out(setting).without == ((3001, 9000), (10_001, 12_000))


def test_what_another_version_answered_in_between_teaches_though_the_window_is_blocked(due):
    setting, release, _ = due
    began = now()
    lines = list(lines_of(setting, release, 3000))

    def log(version, first, rows, hour, income):
        at = [began + timedelta(hours=hour, seconds=n) for n in range(rows)]
        told = [features | ({} if income else {"income": None}) for _, features in lines[:rows]]
        setting.store.log(
            [
                Prediction(f"r{first + n}", "credit", at[n], version, "champion", 1.0, 0.1, 0, json.dumps(features))
                for n, features in enumerate(told)
            ]
        )

    def route(version, hour):
        setting.store.set_route(version, "d", verified=True)
        with setting.store.engine.begin() as connection:
            connection.execute(sa.update(routes).where(routes.c.seq == setting.store.route().seq).values(at=began + timedelta(hours=hour)))

    for version, first, rows, hour in (("2", 0, 1000, 1), ("3", 1000, 2500, 2), ("2", 3500, 1500, 3)):
        route(version, hour - 0.1)
        log(version, first, rows, hour, income=first < 3500)
    _, decision = examine.fn(setting, release)
    assert decision.action == "block"
    keep(setting, decision)
    inputs = decision.evidence["inputs"]
    assert (inputs["from"], inputs["to"]) == (3501, 8000)
    assert kept_out(setting).without == ((3501, 4000), (6501, 8000))


def test_rows_that_a_person_lets_teach_again_are_new_to_a_retraining(due):
    """Their labels are older than the last one, which did not learn from them."""
    setting, release, truth = due
    label(setting, truth, 0, 3000)
    release.facts["released"] = {"mean": 0.0, "error": 0.001}
    broken = Check("validity", "Is it?", "fail", "income is stuck", n=2000)
    setting.store.record(decide("block", "version 2", ["because"], {"from": 1, "to": 1500}, [broken]))
    _, first = examine.fn(setting, release)
    assert first.action == "retrain"
    keep(setting, first)
    setting.store.record(decide("refuse", "version 3", ["no better"], {"generation": "g", "trigger": f"decision {first.id}"}))
    waits = examine.fn(setting, release)[1]
    assert f"retraining waits for {setting.problem.watch.min_labels} more labelled rows" in waits.reasons[0]
    trust(setting, 1, 1500, "it was maintenance")
    assert "the last retraining is young" in examine.fn(setting, release)[1].reasons[0]


def test_rows_that_were_blocked_are_not_held_against_the_model(due):
    setting, release, truth = due
    label(setting, truth, 0, 1500)
    # What came in while a sensor was stuck was decided wrongly.
    wrong = 1 - (setting.store.window(version="2")["label"].to_numpy(int))
    label(setting, wrong, 1500, 3000)
    release.facts["released"] = {"mean": 0.5, "error": 0.02}
    checks, decision = examine.fn(setting, release)
    assert (named(checks, "decay").verdict, named(checks, "concept_drift").verdict) == ("fail", "fail")
    stuck = Check("validity", "Is it?", "fail", "income is stuck", n=1500)
    setting.store.record(decide("block", "version 2", ["because"], {"from": 1501, "to": 3000}, [stuck]))
    checks, decision = examine.fn(setting, release)
    assert (named(checks, "decay").n, named(checks, "concept_drift").n) == (1500, 1500)
    assert named(checks, "concept_drift").verdict == "pass"
    assert named(checks, "live_slices").verdict == "undecided"
    assert decision.action != "retrain"
    # Their labels are doubted all the same.
    assert named(checks, "label_classes").n == 2000


def test_who_trusts_labels_is_not_asked_about_them_again(due):
    setting, release, truth = due
    label(setting, 1 - truth, 0, 3000)
    label(setting, truth, 0, 3000)
    checks, decision = examine.fn(setting, release)
    assert (named(checks, "label_conflicts").verdict, decision.action) == ("fail", "ask")
    keep(setting, decision)
    trust(setting, 1, 3000, "all labels were corrected")
    checks, decision = examine.fn(setting, release)
    assert named(checks, "label_conflicts").verdict == "undecided"
    assert decision.action == "skip"
    # What is no doubt about a label goes on.
    assert named(checks, "quality:timeliness").n == named(checks, "feedback:exposure").n == 3000


def test_labels_that_were_corrected_and_are_trusted_are_no_change_of_the_concept(due):
    setting, release, truth = due
    label(setting, truth, 0, 2000)
    # A thousand came wrong, and were corrected.
    label(setting, 1 - truth, 2000, 3000)
    assert named(examine.fn(setting, release)[0], "concept_drift").verdict == "fail"
    label(setting, truth, 2000, 3000)
    assert setting.store.corrected("2", 1, 3000) == list(range(2001, 3001))
    keep(setting, examine.fn(setting, release)[1])
    trust(setting, 1001, 3000, "all labels were corrected")
    checks, decision = examine.fn(setting, release)
    assert (named(checks, "concept_drift").verdict, named(checks, "concept_drift").n) == ("pass", 3000)
    # Their newest labels count, not that they were corrected: these are wrong in the end.
    label(setting, 1 - truth, 2000, 3000)
    label(setting, truth, 2000, 2100)
    assert setting.store.corrected("2", 1, 3000) == list(range(2001, 2101))
    assert named(examine.fn(setting, release)[0], "concept_drift").verdict == "fail"
    assert decision.action == "skip"


def test_where_costs_are_counted_otherwise_the_release_is_as_well(due):
    setting, _, truth = due
    release = read(setting.settings.releases / "credit" / "2")
    label(setting, truth, 0, 3000)
    before = named(examine.fn(setting, release)[0], "decay")
    path = setting.folder.path / "problem.yaml"
    text = path.read_text(encoding="utf-8")
    once, twice = "false_positive: 1.0, false_negative: 4.0", "false_positive: 2.0, false_negative: 8.0"
    assert once in text
    path.write_text(text.replace(once, twice), encoding="utf-8")
    later = Setting(Folder(setting.folder.path), setting.settings)
    after = named(examine.fn(later, release)[0], "decay")
    assert after.evidence["live"] == pytest.approx(2 * before.evidence["live"])
    assert after.evidence["released"] == pytest.approx(2 * before.evidence["released"], rel=0.1)
    assert after.verdict != "fail"


def test_decisions_are_held_against_the_threshold_by_which_they_were_made(due):
    setting, _, _ = due
    release = read(setting.settings.releases / "credit" / "2")
    path = setting.folder.path / "problem.yaml"
    text = path.read_text(encoding="utf-8")
    assert "false_negative: 4.0" in text
    path.write_text(text.replace("false_negative: 4.0", "false_negative: 30.0"), encoding="utf-8")
    later = Setting(Folder(setting.folder.path), setting.settings)
    assert later.problem.threshold < release.threshold
    released = released_of(later.problem, release, release.contract)
    held = release.held
    wrong = ((held["probability"] >= release.threshold) != held["truth"]).mean()
    assert share_wrong(released.threshold, held_of(released)) == pytest.approx(wrong)


def test_noise_in_labels_that_come_early_is_doubted_by_audits_of_the_same_rows(standing, credit, tmp_path):
    """Labels are due after ninety days, and come at once; three in ten of the newest are the other one."""
    folder = changed(credit, tmp_path / "credit", WEEKLY)
    setting, release = opened(standing, folder, tmp_path / "home")
    truth = traffic(setting, release, 3000, drifted=False)
    noisy = np.where(np.random.default_rng(5).random(len(truth)) < 0.3, 1 - truth, truth)
    label(setting, noisy, 0, 3000)
    _, learns = examine.fn(setting, release)
    assert learns.action == "retrain"
    setting.store.set_draw(0.05, 1, None)
    rows, _ = todo(setting)
    audits = [{"prediction_id": i, "at": now(), "value": int(truth[int(i[1:])]), "provenance": "audit"} for i in rows["prediction_id"]]
    setting.store.add_labels(audits)
    checks, doubts = examine.fn(setting, release)
    assert named(checks, "decay").verdict == "fail"
    assert named(checks, "quality:accuracy").n == 0
    assert named(checks, "quality:accuracy").evidence["lately"]["audited"] == len(audits)
    assert doubts.action == "wait"
    assert "whether it is harm or wrong labels" in doubts.reasons[0]


def test_what_was_bought_decides_also_where_the_window_has_moved_on(weekly):
    setting, release, truth = weekly
    _, decision = examine.fn(setting, release)
    keep(setting, decision)
    bought = todo(setting)[0]["prediction_id"]
    traffic(setting, release, 5000, drifted=True, first=5000)
    told = [{"prediction_id": i, "at": now(), "value": int(truth[int(i[1:])]), "provenance": "audit"} for i in bought]
    setting.store.add_labels(told)
    checks, decision = examine.fn(setting, release)
    confirmed = named(checks, "estimate")
    assert (confirmed.evidence["audited"], confirmed.evidence["audited_before"]) == (len(bought), 0)
    watch = setting.problem.watch
    assert confirmed.evidence["p_limit"] == pytest.approx(watch.false_alarms_per_year / 2 * 100 / watch.audit_budget)
    assert (confirmed.verdict, confirmed.evidence["by"]) == ("fail", "audit")
    assert decision.action == "wait"
    # Once it was bought too long ago, it is like any other audit of before.
    with setting.store.engine.begin() as connection:
        connection.execute(sa.update(draws).where(draws.c.decision.is_not(None)).values(at=now() - timedelta(days=91)))
    later = named(examine.fn(setting, release)[0], "estimate")
    assert later.evidence["audited"] == 0 < later.evidence["audited_before"]


def test_a_larger_share_that_was_declared_once_is_no_purchase(weekly):
    setting, release, truth = weekly
    setting.store.set_draw(0.3, 1, None)
    audit(setting, truth)
    problem = setting.problem
    setting.folder.__dict__["problem"] = problem.model_copy(update={"watch": problem.watch.model_copy(update={"audit_share": 0.02})})
    told = named(examine.fn(setting, release)[0], "estimate")
    assert told.evidence["audited"] > 1000
    assert told.evidence["by"] == "audit"
    assert told.evidence["p_limit"] == pytest.approx(problem.watch.false_alarms_per_year / 2 / problem.watch.checks_per_year)


def test_what_is_advisory_is_another_decision_and_stands_so_in_the_ledger(due):
    setting, release, truth = due
    label(setting, truth, 0, 3000)
    label(setting, 1 - truth, 1000, 3000)
    _, asks = examine.fn(setting, release)
    assert asks.action == "ask"
    keep(setting, asks)
    path = setting.folder.path / "problem.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace("watch:\n", "watch:\n  advisory: [label_conflicts, decay, concept_drift, live_slices]\n"), encoding="utf-8"
    )
    later = Setting(Folder(setting.folder.path), setting.settings)
    _, decision = examine.fn(later, release)
    assert decision.action == "skip"
    assert "label_conflicts" in decision.evidence["inputs"]["advisory"]
    keep(later, decision)
    kept = {check["name"]: check["blocking"] for check in later.store.decided_last().evidence["checks"]}
    assert (kept["label_conflicts"], kept["volume"]) == (False, True)


def test_a_ledger_of_before_does_not_count_labels_that_were_learnt_from(due):
    setting, release, truth = due
    release.facts["released"] = {"mean": -10.0, "error": 0.01}
    label(setting, truth, 0, 3000)
    old = decide("retrain", "version 2", ["because"], {"version": "2", "from": 1, "to": 3000, "labels_to": 3000, "onset": 1})
    setting.store.record(old)
    inputs = {"generation": "g", "trigger": f"decision {old.id}"}
    setting.store.record(decide("refuse", "version 3", ["no better"], inputs))
    assert "1500 more labelled rows" in examine.fn(setting, release)[1].reasons[0]


DAILY = 100


def daily(standing, credit, home, days):
    """A hundred rows a day up to now: the setting, the release, the truth, and when each was asked."""
    setting, release = opened(standing, credit, home)
    present = now()
    at = [present - timedelta(days=days - place / DAILY) for place in range(days * DAILY)]
    truth = traffic(setting, release, days * DAILY, drifted=False, at=at)
    setting.store.set_route("2", "d", verified=True)
    return setting, release, truth, at


def come(setting, at, values, delay):
    """Labels so many days after their rows, as far as they are in by now; never where the delay is not finite."""
    told = [(at[n] + timedelta(days=float(delay[n])), n) for n in np.flatnonzero(np.isfinite(delay))]
    rows = [{"prediction_id": f"p{n}", "at": when, "value": int(values[n]), "provenance": "outcome"} for when, n in sorted(told)]
    setting.store.add_labels([row for row in rows if row["at"] < now()])


def test_labels_of_one_class_that_come_sooner_are_no_harm(standing, credit, tmp_path, monkeypatch):
    """Who defaults is known after 30 days, who pays back after 90, but every fifth of those after 20."""
    days = 160
    setting, release, truth, at = daily(standing, credit, tmp_path / "home", days)
    come(setting, at, truth, np.where(truth == 1, 30, np.where(np.arange(len(truth)) % 5 == 0, 20, 90)))
    checks, decision = examine.fn(setting, release)
    assert named(checks, "decay").verdict != "fail"
    assert "rows are judged once they are 90 days old" in named(checks, "decay").reason
    assert named(checks, "concept_drift").verdict == "pass"
    assert abs(decision.evidence["inputs"]["judged_until"] - (days - 90) * DAILY) < 5
    from_log(setting, lesson_of(setting, 1))
    assert abs(len(pd.read_parquet(setting.root / "inbox" / "batch.parquet")) - (days - 90) * DAILY) < 5
    # However many rows are younger, those that are due are found.
    monkeypatch.setattr("flows.population.SLICE_ROWS", 1000)
    assert named(examine.fn(setting, release)[0], "decay").n == 2000
    # By all labels that are in, nothing would look as it is.
    monkeypatch.setattr("flows.ingest.hurried", lambda *_: False)
    assert named(examine.fn(setting, release)[0], "decay").verdict == "fail"


def test_audits_of_rows_that_are_too_young_judge_and_teach(standing, credit, tmp_path):
    """Defaults are known after 30 days, the rest after 90; two months ago the concept turned, and a tenth of the rows since was audited."""
    setting, release, truth, at = daily(standing, credit, tmp_path / "home", 160)
    turned = np.where(np.arange(len(truth)) >= 100 * DAILY, 1 - truth, truth)
    come(setting, at, turned, np.where(turned == 1, 30, 90))
    before, _ = examine.fn(setting, release)
    assert named(before, "decay").verdict != "fail"
    young = range(100 * DAILY, len(truth), 10)
    setting.store.add_labels([{"prediction_id": f"p{n}", "at": now(), "value": int(turned[n]), "provenance": AUDIT} for n in young])
    after, _ = examine.fn(setting, release)
    assert named(after, "decay").verdict == "fail"
    assert named(after, "label_classes").verdict != "fail"
    from_log(setting, lesson_of(setting, 1))
    taught = set(pd.read_parquet(setting.root / "inbox" / "batch.parquet")[setting.contract.id])
    assert {f"p{n}" for n in young} <= taught
    assert not ({f"p{n}" for n in range(100 * DAILY, len(truth))} - {f"p{n}" for n in young}) & taught


def test_of_a_young_log_nothing_is_judged_while_many_labels_are_to_come(standing, credit, tmp_path):
    """Sixty days, and labels after 90: all defaults are known after 30, and of the rest every fifth."""
    setting, release, truth, at = daily(standing, credit, tmp_path / "home", 60)
    soon = (truth == 1) | (np.arange(len(truth)) % 5 == 0)
    come(setting, at, truth, np.where(soon, 30, np.inf))
    checks, decision = examine.fn(setting, release)
    assert decision.evidence["inputs"]["judged_until"] == 0
    assert named(checks, "decay").verdict == "undecided"
    assert "rows are judged once they are 90 days old" in named(checks, "decay").reason
    with pytest.raises(BatchError, match="too young"):
        from_log(setting, lesson_of(setting, 1))
    # Once nearly all are in, they are looked at, be they due or not.
    come(setting, at, truth, np.where(~soon & (np.arange(len(truth)) % 20 > 0), 30, np.inf))
    checks, decision = examine.fn(setting, release)
    assert decision.evidence["inputs"]["judged_until"] is None
    assert (named(checks, "decay").verdict, named(checks, "decay").n) in (("pass", 2000), ("undecided", 2000))
    assert named(checks, "concept_drift").verdict == "pass"


def test_late_labels_of_old_predictions_are_new_labels(standing, credit, tmp_path):
    folder = changed(credit, tmp_path / "credit", {"min_labels: 1500": "min_labels: 1000"})
    setting, release = opened(standing, folder, tmp_path / "home")
    release.facts["released"] = {"mean": -10.0, "error": 0.01}
    truth = traffic(setting, release, 3000, drifted=False)
    label(setting, truth, 1000, 3000)
    _, decision = examine.fn(setting, release)
    assert decision.action == "retrain"
    keep(setting, decision)
    # The gate could not decide; what comes next is of the oldest predictions.
    inputs = {"generation": "g", "trigger": f"decision {decision.id}"}
    setting.store.record(decide("undecided", "version 3", ["too few rows"], inputs))
    assert "1000 more labelled rows" in examine.fn(setting, release)[1].reasons[0]
    label(setting, truth, 0, 900)
    assert "100 more labelled rows" in examine.fn(setting, release)[1].reasons[0]


def test_a_retraining_that_comes_too_late_is_told_so(due):
    setting, _, _ = due
    for identity in ("one", "another"):
        setting.store.record(replace(decide("retrain", "version 2", ["harm"], {"version": "2", "to": identity}), id=identity))
    asked = setting.store.decision("one")
    assert stale(setting, asked) == ""
    pause(setting, "we look at it ourselves")
    assert "a person has paused retraining" in stale(setting, asked)
    resume(setting, "it was nothing")
    setting.store.record(decide("refuse", "version 3", ["a person's batch"], {"trigger": "a file"}))
    assert stale(setting, asked) == ""
    setting.store.record(decide("refuse", "version 4", ["no better"], {"trigger": "decision another"}))
    assert stale(setting, asked) == "another decision was answered since (refuse version 4)"
    setting.store.set_route("3", "d", verified=True)
    assert stale(setting, asked) == "it was about version 2, and version 3 answers by now"


def test_a_retraining_that_nobody_decided_is_none(due, monkeypatch):
    setting, _, _ = due
    monkeypatch.setattr(Setting, "of", lambda _: setting)
    with pytest.raises(StackError, match="The ledger has no decision nothing to retrain credit"):
        retrain.fn("credit", "nothing", ["because"], "event")


def test_a_ledger_of_an_earlier_release_is_read_whole(due):
    setting, _, _ = due
    stuck = Check("validity", "Is it?", "fail", "income is stuck", n=2000)
    setting.store.record(decide("block", "version 2", ["because"], {"from": 101, "to": 200}, [stuck]))
    for look in range(LOOKED_BACK + 5):
        setting.store.record(decide("skip", "version 2", ["because"], {"from": 1, "to": 3000, "look": look}))
    assert kept_out(setting).without == ((101, 200),)


def test_a_new_population_begins_after_the_last_window_that_had_not_moved(due):
    setting, _, _ = due

    def decided(moved, onset, last, version="2"):
        drift = Check("joint_drift", "Can they?", "fail" if moved else "pass", "they can", n=2000)
        inputs = {"version": version, "from": last - 500, "to": last, "onset": onset, "labels_seen": 0}
        setting.store.record(decide("wait" if moved else "skip", f"version {version}", ["because"], inputs, [drift]))

    # Of a version that nobody has looked at, every row is of one population.
    assert onset_of(setting, "2", drifting=True)[0] == 1
    decided(False, 1, 1000)
    decided(True, 700, 2500, version="1")
    assert onset_of(setting, "2", drifting=True)[0] == 1001
    decided(True, 1001, 1500)
    assert onset_of(setting, "2", drifting=True)[0] == 1001
    assert onset_of(setting, "2", drifting=False)[0] == 1
    decided(True, 1001, 2000)
    assert onset_of(setting, "2", drifting=True)[0] == 1001
    decided(False, 1, 2600)
    assert onset_of(setting, "2", drifting=True)[0] == 2601
    assert onset_of(setting, "1", drifting=True)[0] == 700


def test_labels_of_one_class_are_shown_to_a_person_and_do_not_teach(due):
    setting, release, _ = due
    label(setting, np.zeros(3000), 0, 3000)
    # Audits of some of them found the other one, and do not hide it.
    found = [{"prediction_id": f"p{n}", "at": now(), "value": 1, "provenance": AUDIT} for n in range(2000, 3000, 50)]
    setting.store.add_labels(found)
    checks, decision = examine.fn(setting, release)
    found = named(checks, "label_classes")
    assert found.verdict == "fail"
    assert found.reason.startswith("every one of 1,980 labels is 0")
    assert decision.action == "ask"
    keep(setting, decision)
    assert kept_out(setting).audited == ((1001, 3000),)


def test_labels_that_come_again_and_say_otherwise_are_shown_to_a_person(due):
    setting, release, truth = due
    label(setting, truth, 0, 3000)
    # The same label again, and an audit that finds otherwise, are no conflict.
    label(setting, truth, 0, 1000)
    audits = [{"prediction_id": f"p{n}", "at": now(), "value": int(1 - truth[n]), "provenance": "audit"} for n in (2998, 2999)]
    setting.store.add_labels(audits)
    assert named(examine.fn(setting, release)[0], "label_conflicts").value == 0
    before = examine.fn(setting, release)[1]
    label(setting, 1 - truth, 2000, 2010)
    checks, corrected = examine.fn(setting, release)
    assert named(checks, "label_conflicts").reason.startswith("10 of 2,000 labels replaced another one")
    assert named(checks, "label_conflicts").verdict == "pass"
    assert corrected.id != before.id
    label(setting, 1 - truth, 2010, 2400)
    checks, decision = examine.fn(setting, release)
    assert named(checks, "label_conflicts").verdict == "fail"
    assert decision.action == "ask"
    assert any("replaced another one that said otherwise" in reason for reason in decision.reasons)
    # Doubted are those, and what is between them.
    keep(setting, decision)
    assert kept_out(setting).audited == ((2001, 2400),)


def test_labels_to_learn_from_are_counted_beyond_the_window(standing, credit, tmp_path):
    folder = changed(credit, tmp_path / "credit", {"window: 2000": "window: 500", "min_labels: 1500": "min_labels: 2500"})
    setting, release = opened(standing, folder, tmp_path / "home")
    release.facts["released"] = {"mean": -10.0, "error": 0.01}
    truth = traffic(setting, release, 3000, drifted=False)
    label(setting, truth, 0, 2400)
    checks, decision = examine.fn(setting, release)
    assert (named(checks, "decay").verdict, named(checks, "decay").n) == ("fail", 500)
    assert decision.reasons[0].startswith("retraining waits for 100 more labelled rows")
    label(setting, truth, 2400, 3000)
    assert examine.fn(setting, release)[1].action == "retrain"


def named(checks, name):
    return next(check for check in checks if check.name == name)


def test_harm_that_is_expected_buys_labels_and_audits_tell_whether_it_is_there(weekly, tmp_path):
    setting, release, truth = weekly
    checks, decision = examine.fn(setting, release)
    expected = named(checks, "estimate")
    assert (expected.verdict, expected.evidence["by"], expected.evidence["audited"]) == ("fail", "confidence", 0)
    assert named(checks, "joint_drift").verdict == "fail"
    assert named(checks, "decay").verdict == "undecided"
    assert decision.action == "buy_labels"
    keep(setting, decision)
    keep(setting, decision)
    share = decision.evidence["inputs"]["share"]
    # What was bought is of that window: the next row is drawn as before.
    assert [(draw.share, draw.since) for draw in setting.store.draws()] == [(0.02, 1), (share, 1), (0.02, 5001)]

    # What was drawn is handed to a person, without the model's answer.
    rows, facts = todo(setting)
    assert facts["drawn"] == len(rows) >= expected.evidence["audits_needed"]
    assert not {"probability", "label"} & set(rows.columns)
    _, waits = examine.fn(setting, release)
    assert waits.action == "wait"
    assert "labels that were asked for may still come" in waits.reasons[0]

    file = tmp_path / "audited.csv"
    found = pd.Series({f"p{n}": value for n, value in enumerate(truth)})
    rows.assign(label=rows["prediction_id"].map(found)).to_csv(file, index=False)
    assert take(setting, file) == len(rows)
    assert take(setting, file) == 0
    checks, decision = examine.fn(setting, release)
    confirmed = named(checks, "estimate")
    assert confirmed.evidence["audited"] == len(rows)
    # In this world the concept has moved too, which confidence cannot know.
    assert (confirmed.evidence["by"], confirmed.evidence["valid"]) == ("audit", False)
    assert confirmed.value > expected.value
    assert confirmed.verdict == "fail"
    # Labels are labels: they show harm, and count as rows to learn from.
    assert named(checks, "decay").verdict == "fail"
    assert decision.action == "wait"
    short = setting.problem.watch.min_labels - len(rows)
    assert f"retraining waits for {short} more labelled rows" in decision.reasons[0]
    # What was asked for was spent already.
    assert todo(setting)[1] == facts | {"audited": len(rows)}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("label", "maybe", "row 3: label 'maybe' is neither 0 nor 1"),
        ("prediction_id", "nobody", "row 3: the log knows no prediction nobody"),
        ("prediction_id", None, "row 3: prediction .* stands in the file already"),
    ],
)
def test_an_audit_with_a_wrong_row_keeps_nothing(weekly, tmp_path, name, value, said):
    setting, _, _ = weekly
    rows = todo(setting)[0].head(3)[["prediction_id"]].assign(label="1").reset_index(drop=True)
    rows.loc[1, name] = rows.loc[0, name] if value is None else value
    rows.to_csv(tmp_path / "audited.csv", index=False)
    with pytest.raises(BatchError, match=said):
        take(setting, tmp_path / "audited.csv")
    assert todo(setting)[1]["audited"] == 0


def test_a_sample_of_choice_is_no_audit(weekly, tmp_path):
    setting, _, _ = weekly
    drawn = set(todo(setting)[0]["prediction_id"])
    mine = next(f"p{n}" for n in range(5000) if f"p{n}" not in drawn)
    pd.DataFrame({"prediction_id": [mine], "label": [1]}).to_csv(tmp_path / "audited.csv", index=False)
    with pytest.raises(BatchError, match="was not drawn"):
        take(setting, tmp_path / "audited.csv")


def test_an_empty_window_is_told_so(standing, credit, tmp_path):
    setting, release = opened(standing, credit, tmp_path / "home")
    checks, decision = examine.fn(setting, release)
    assert {check.verdict for check in checks} == {"undecided"}
    assert decision.action == "wait"
    assert decision.reasons[0] == "nothing could be checked"


@pytest.mark.parametrize("spoilt", ["gone", "text", "empty", "new", "named like the log's"])
def test_a_column_that_is_gone_spoilt_or_new_is_told_and_nothing_crashes(due, spoilt):
    setting, release, truth = due
    label(setting, truth, 0, 3000)
    lines = []
    for row, features in lines_of(setting, release, 3000):
        kept = {name: value for name, value in features.items() if name != "income"}
        new = {"income": features["income"], "income_eur": features["income"]}
        like = {"income": features["income"]} | dict.fromkeys(("label", "truth", "gold", "seq"), 1)
        spoilt_as = {"gone": {}, "text": {"income": "n/a"}, "empty": {"income": None}, "new": new}.get(spoilt, like)
        lines.append(Prediction(*row, json.dumps(kept | spoilt_as)))
    setting.store.log(lines)
    # Labels and audits of such rows come too.
    told = [
        {"prediction_id": f"s{n}", "at": now(), "value": n % 2, "provenance": kind} for n in range(3000) for kind in ("outcome", "audit")
    ]
    setting.store.add_labels(told)
    checks, decision = examine.fn(setting, release)
    assert decision.action == "block"
    assert any(("label" if spoilt.startswith("named") else "income") in reason for reason in decision.reasons)
    assert named(checks, "data_drift:income").verdict == ("fail" if spoilt in ("gone", "text", "empty") else "pass")
    if spoilt == "new":
        assert "income_eur is no column of the contract" in named(checks, "validity").reason
    if spoilt.startswith("named"):
        assert "label (sent) is no column of the contract" in named(checks, "validity").reason
    if spoilt == "gone":
        assert named(checks, "joint_drift").verdict == named(checks, "skew:scores").verdict == "undecided"


def test_text_among_codes_of_categories_is_missing_and_can_be_replayed():
    codes = {"name": "school", "scale": "nominal", "values": [0, 1, 2], "missing": 0.1}
    rows = [{"name": "id", "role": "id", "scale": "nominal"}, codes, {"name": "sick", "role": "target", "scale": "binary"}]
    contract = Contract(name="t", columns=[*rows, codes | {"name": "sex", "role": "protected"}])
    sent = pd.DataFrame({"school": [1, "n/a", None, 2, "Infinity"], "sex": ["f", 1, 2, 0, 1]})
    told = typed(sent, contract)
    assert told["school"].tolist()[::3] == [1.0, 2.0]
    assert told.isna().to_numpy().tolist() == [[False, True], [True, False], [True, False], [False, False], [True, False]]
    conform(told.assign(id=list("abcde"), sick=None), contract, "the log")


def test_a_value_that_no_request_could_have_ends_no_look(due):
    """Other writers of the log may send what the service would refuse."""
    setting, release, _ = due
    lines = list(lines_of(setting, release, 2))
    odd = [{"income": "Infinity"}, {"channel": ["branch", "web"]}]
    setting.store.log([Prediction(*row, json.dumps(told | spoilt)) for (row, told), spoilt in zip(lines, odd, strict=True)])
    checks, _ = examine.fn(setting, release)
    assert named(checks, "quality:validity").value < 1
    assert named(checks, "skew:scores").verdict == "fail"


@pytest.mark.parametrize("left", ["gone", "empty"])
def test_where_every_column_is_gone_nothing_else_is_green(due, left):
    setting, release, truth = due
    label(setting, truth, 0, 3000)
    said = [(row, {} if left == "gone" else dict.fromkeys(features)) for row, features in lines_of(setting, release, 3000)]
    setting.store.log([Prediction(*row, json.dumps(features)) for row, features in said])
    setting.store.add_labels(
        [{"prediction_id": row[0], "at": now(), "value": n % 2, "provenance": "outcome"} for n, (row, _) in enumerate(said)]
    )
    checks, decision = examine.fn(setting, release)
    assert decision.action == "block"
    assert named(checks, "validity").verdict == named(checks, "quality:completeness").verdict == "fail"
    for name in ("columns", "quality:consistency", "quality:uniqueness", "quality:validity"):
        assert named(checks, name).verdict == "undecided", name


def test_a_release_of_before_has_nothing_to_estimate_by(watched):
    setting, release, _ = watched
    old = replace(release, facts={name: value for name, value in release.facts.items() if name != "relies_on"})
    old.__dict__["held"] = None
    checks, _ = examine.fn(setting, old)
    for name in ("estimate", "joint_drift", "silent:outliers", "probes:duplicates"):
        assert named(checks, name).verdict == "undecided"
    assert "0 rows held out at release" in named(checks, "estimate").reason


def audit(setting, truth):
    """Audits tell of every prediction that was drawn."""
    drawn_ids = todo(setting)[0]["prediction_id"]
    setting.store.add_labels(
        [{"prediction_id": each, "at": now(), "value": int(truth[int(each[1:])]), "provenance": "audit"} for each in drawn_ids]
    )


def test_labels_that_follow_the_decision_are_not_learnt_from_but_shown_to_a_person(due):
    setting, release, truth = due
    decided = setting.store.window(newest=3000)["label"].to_numpy(int)
    # Of seven in ten nobody found out the truth: the decision stands as the label.
    followed = np.where(np.random.default_rng(1).random(len(truth)) < 0.7, decided, truth)
    label(setting, followed, 0, 3000)
    audit(setting, truth)
    checks, decision = examine.fn(setting, release)
    assert named(checks, "feedback:labels").verdict == "fail"
    assert decision.action == "ask"
    assert decision.reasons[0].startswith("labels are not what they seem")
    aged = setting.store.aged("2", now(), 3000)
    assert (aged["outcome"].to_numpy(int) == followed).all()
    audited = aged["gold"].notna()
    assert 0.15 < audited.mean() < 0.3
    assert (aged.loc[audited, "gold"].to_numpy(int) == truth[audited.to_numpy()]).all()
    assert list(setting.store.aged("2", now(), 10)["id"]) == [f"p{n}" for n in range(2990, 3000)]
    assert setting.store.aged("1", now(), 10).empty


def test_sound_labels_are_told_so(due):
    setting, release, truth = due
    label(setting, truth, 0, 3000)
    audit(setting, truth)
    checks, decision = examine.fn(setting, release)
    told = {check.name: check.verdict for check in checks if check.name.split(":")[0] in ("feedback", "quality", "clock")}
    assert set(told.values()) == {"pass"}, [check.reason for check in checks if told.get(check.name, "pass") != "pass"]
    assert len(told) == 10
    assert decision.action == "skip"


def test_rows_that_come_later_than_they_should_are_seen(due):
    setting, release, _ = due
    first, decision = examine.fn(setting, release)
    assert named(first, "volume").verdict == "undecided"
    keep(setting, decision)
    assert [place for _, place, _ in setting.store.looks(60)] == [3000]
    assert named(first, "quality:timeliness").reason == "none of 3,000 rows older than the label delay has a label"


def test_old_labels_that_come_anew_and_say_otherwise_are_no_harm(due):
    """Outside the newest window too: `decay` judges three of them, and a retraining learns from all."""
    setting, release, truth = due
    truth = np.concatenate([truth, traffic(setting, release, 3000, drifted=False, first=3000)])
    label(setting, truth, 0, 6000)
    label(setting, 1 - truth, 0, 3900)
    label(setting, 1 - truth, 5940, 6000)
    release.facts["released"] = {"mean": 0.5, "error": 0.02}
    checks, decision = examine.fn(setting, release)
    conflicts = named(checks, "label_conflicts")
    assert (conflicts.verdict, conflicts.evidence["stretch"]) == ("fail", 6000)
    assert (named(checks, "decay").verdict, decision.action) == ("fail", "ask")
    keep(setting, decision)
    assert kept_out(setting).audited == ((1, 6000),)


def test_a_disparity_that_grows_from_one_generation_to_the_next_asks_a_person(due):
    setting, release, _ = due
    for version, ratio in (("3", 0.97), ("4", 0.92), ("5", 0.85)):
        told = Check("fairness:sex", "Are they?", "pass", "so", value=ratio, low=ratio - 0.01, high=ratio + 0.01, n=2000)
        # What the gate refuses may go live by a person's word.
        decision = decide("refuse" if version == "5" else "promote", f"version {version}", ["so"], {"generation": version}, [told])
        setting.store.record(decision)
        if version == "5":
            assert named(examine.fn(setting, release)[0], "disparity:sex").verdict == "undecided"
        setting.store.set_route(version, decision.id, verified=True)
    checks, decision = examine.fn(setting, release)
    assert named(checks, "disparity:sex").verdict == "fail"
    assert (decision.action, decision.reasons[0]) == ("ask", "groups are treated ever more unequally: a person must look")
    # A person goes back to the one before: it ends with that.
    undone = decide("roll_back", "version 5", ["unequal"], {"back_to": "4"})
    setting.store.record(undone)
    setting.store.set_route("4", undone.id, verified=True)
    assert named(examine.fn(setting, release)[0], "disparity:sex").verdict == "undecided"


def test_what_was_drawn_for_audits_that_were_bought_is_spent_from_the_budget_until_it_is_told(weekly):
    setting, release, truth = weekly
    _, decision = examine.fn(setting, release)
    keep(setting, decision)
    drawn = len(todo(setting)[0])
    # The next window, and nobody has told of the one before.
    traffic(setting, release, 5000, drifted=True, first=5000)
    assert len(setting.store.open_audits(now() - timedelta(days=1))) == drawn
    _, waits = examine.fn(setting, release)
    assert waits.action == "wait"
    assert f"{drawn} labels that were asked for may still come" in waits.reasons[0]
    rows, facts = todo(setting)
    assert facts["before"] == drawn < len(rows)
    assert set(rows["prediction_id"].head(drawn)) == setting.store.open_audits(now() - timedelta(days=1))
    # Nobody has told of them for longer than labels take.
    with setting.store.engine.begin() as connection:
        connection.execute(sa.update(draws).where(draws.c.decision.is_not(None)).values(at=now() - timedelta(days=91)))
    _, asks = examine.fn(setting, release)
    assert asks.action == "ask"
    assert "labels were bought, and none came" in asks.reasons[0]
    rows, facts = todo(setting)
    left = setting.problem.watch.audit_budget - drawn - len(rows)
    assert (facts["left"], facts["before"]) == (left, 0)
    # Who has more to spend does not buy again what nobody tells of, be others told of.
    of_today = rows["prediction_id"].iloc[-1]
    setting.store.add_labels([{"prediction_id": of_today, "at": now(), "value": 0, "provenance": AUDIT}])
    path = setting.folder.path / "problem.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("  window: 5000", "  window: 5000\n  audit_budget: 100000"), encoding="utf-8")
    _, asks = examine.fn(Setting(Folder(setting.folder.path), setting.settings), release)
    assert asks.action == "ask"
    assert "labels were bought, and none came" in asks.reasons[0]
    # A person has seen to it.
    resume(setting, "two more people answer audits")
    assert examine.fn(Setting(Folder(setting.folder.path), setting.settings), release)[1].action == "buy_labels"
    told = [{"prediction_id": f"p{n}", "at": now(), "value": int(value), "provenance": "audit"} for n, value in enumerate(truth)]
    setting.store.add_labels(told)
    assert not setting.store.open_audits(now() - timedelta(days=1))


def test_what_was_bought_of_another_version_is_not_charged_to_who_answers_now(weekly):
    """Nobody is handed those rows any more."""
    setting, release, _ = weekly
    traffic(setting, release, 100, drifted=True, first=5000)
    before = todo(setting)[1]["left"]
    lines = setting.store.window(newest=100, version="2")
    setting.store.set_draw(1.0, int(lines["seq"].min()), "d1")
    setting.store.set_draw(0.02, int(lines["seq"].max()) + 1, None)
    assert todo(setting)[1]["left"] < before
    with setting.store.engine.begin() as connection:
        connection.execute(sa.update(predictions).where(predictions.c.id.in_(lines["id"].tolist())).values(version="1"))
    assert todo(setting)[1]["left"] >= before


def test_a_retraining_that_makes_no_generation_is_asked_for_so_often_and_then_a_person_is(due):
    setting, release, truth = due
    label(setting, truth, 0, 3000)
    release.facts["released"] = {"mean": 0.0, "error": 0.001}
    _, decision = examine.fn(setting, release)
    assert decision.action == "retrain"
    for _ in range(UNANSWERED - 1):
        keep(setting, decision)
    # The same evidence is the same decision.
    assert examine.fn(setting, release)[1].id == decision.id
    keep(setting, decision)
    # A run that found another one at work has not come to nothing.
    setting.store.record(decide("superseded", "x", ["another run is at work"], {"trigger": f"decision {decision.id}", "flow_run": "1"}))
    assert examine.fn(setting, release)[1].action == "retrain"
    keep(setting, decision)
    _, asks = examine.fn(setting, release)
    assert asks.action == "ask"
    assert "10 times a retraining was asked for, and none made a generation" in asks.reasons[0]
    keep(setting, asks)
    # A person has looked.
    resume(setting, "the disk was full")
    assert examine.fn(setting, release)[1].action == "retrain"


def test_labels_that_stopped_long_ago_are_asked_for(due):
    setting, release, truth = due
    label(setting, truth, 0, 3000)
    assert named(examine.fn(setting, release)[0], "quality:timeliness").verdict == "pass"
    traffic(setting, release, 20_000, drifted=False, first=3000)
    checks, decision = examine.fn(setting, release)
    late = named(checks, "quality:timeliness")
    assert (late.verdict, late.n) == ("fail", 20_000)
    assert late.reason == "none of 20,000 rows older than the label delay has a label, and labels did come before"
    assert decision.action == "ask"


def test_a_trickle_of_labels_does_not_hide_that_they_stopped(due):
    setting, release, truth = due
    label(setting, truth, 0, 3000)
    keep(setting, examine.fn(setting, release)[1])
    later = traffic(setting, release, 20_000, drifted=False, first=3000)
    few = [
        {"prediction_id": f"p{n}", "at": now(), "value": int(later[n - 3000]), "provenance": "outcome"} for n in range(3000, 23_000, 100)
    ]
    setting.store.add_labels(few)
    checks, decision = examine.fn(setting, release)
    late = named(checks, "quality:timeliness")
    assert (late.verdict, decision.action) == ("fail", "ask")
    assert "when labels came best, 99.0% of the last 10,000" in late.reason


def test_labels_of_predictions_that_nobody_made_are_told_to_a_person(due):
    setting, release, truth = due
    label(setting, truth, 0, 3000)
    checks, decision = examine.fn(setting, release)
    assert (named(checks, "label_ids").verdict, decision.action) == ("pass", "skip")
    # A client that sends a wrong id again and again has sent it once.
    for _ in range(9):
        setting.store.add_strays(["wrong"])
    assert named(examine.fn(setting, release)[0], "label_ids").verdict == "pass"
    setting.store.add_strays([f"order {n}" for n in range(400)])
    checks, decision = examine.fn(setting, release)
    astray = named(checks, "label_ids")
    assert (astray.verdict, astray.n, decision.action) == ("fail", 2401, "ask")
    assert astray.reason.startswith("401 of 2,401 labels that came of late name no prediction that the log knows, the newest 'order 0'")
    assert decision.evidence["inputs"]["beside"] == ["label_ids"]
    # What came since a window of labels has found its predictions is another time.
    label(setting, 1 - truth, 0, 2000)
    assert named(examine.fn(setting, release)[0], "label_ids").value == 0


def test_where_no_label_finds_its_prediction_that_is_no_good_news(due):
    setting, release, _ = due
    setting.store.add_strays([f"order {n}" for n in range(400)])
    checks, decision = examine.fn(setting, release)
    assert (named(checks, "label_ids").verdict, decision.action) == ("fail", "ask")


def test_where_only_audits_tell_of_rows_no_label_has_stopped_coming(due):
    setting, release, truth = due
    found = [{"prediction_id": f"p{n}", "at": now(), "value": int(truth[n]), "provenance": AUDIT} for n in range(0, 3000, 20)]
    setting.store.add_labels(found)
    checks, decision = examine.fn(setting, release)
    assert named(checks, "quality:timeliness").verdict == "undecided"
    assert decision.action == "skip"


def test_audits_of_rows_that_were_blocked_tell_nothing_of_others(weekly):
    setting, release, truth = weekly
    draw = setting.store.draws()[0]
    traffic(setting, release, 5000, drifted=True, first=5000)
    told = [{"prediction_id": f"p{n}", "at": now(), "value": int(value), "provenance": AUDIT} for n, value in enumerate(truth)]
    setting.store.add_labels(told)
    stretch = setting.store.stretch(5000, 0.0, "2")
    count = int(drawn(truth_ids := [f"p{n}" for n in range(5000)], np.full(5000, draw.share)).sum())
    assert count > 50
    assert len(audits_of(setting.store, "2", stretch, 5000, now()).earlier) == count
    before = sum(drawn(truth_ids[:2000], np.full(2000, draw.share)))
    assert len(audits_of(setting.store, "2", stretch, 5000, now(), [(2001, 5000)]).earlier) == before


def test_audits_that_nobody_tells_of_are_asked_of_a_person(weekly):
    setting, release, _ = weekly
    path = setting.folder.path / "problem.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("  window: 5000", "  window: 5000\n  audit_share: 0.2"), encoding="utf-8")
    later = Setting(Folder(setting.folder.path), setting.settings)
    later.store.set_draw(0.2, 1, None)
    assert examine.fn(later, release)[1].action == "buy_labels"
    with later.store.engine.begin() as connection:
        connection.execute(sa.update(draws).values(at=now() - timedelta(days=91)))
    _, asks = examine.fn(later, release)
    assert asks.action == "ask"
    assert "no audit has told of any" in asks.reasons[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # A column that the model has not learnt from becomes one that it may learn from, and another comes into being.
        ("{name: sex, role: protected,", "{name: sex,"),
        ("  - {name: income,", "  - {name: shoe_size, scale: continuous, range: [10, 60]}\n  - {name: income,"),
    ],
)
def test_a_contract_of_the_next_generation_does_not_judge_this_one(due, credit, before, after):
    setting, release, truth = due
    label(setting, truth, 0, 3000)
    path = setting.folder.path / "contract.yaml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    later = Setting(Folder(setting.folder.path), setting.settings)
    assert later.contract != setting.contract
    (checks, decision), (as_was, _) = examine.fn(later, release), examine.fn(setting, release)
    assert [(check.name, check.verdict) for check in checks] == [(check.name, check.verdict) for check in as_was]
    assert decision.action == "skip"


@pytest.fixture
def by_the_hour(standing, credit, tmp_path):
    """A model of whole days, and three days of 1,500 requests, of which the last 500 of each are of another population; windows of 500."""
    at_once = {"window: 2000": "window: 500", "cycle_hours: 0": "cycle_hours: 24", "label_delay_days: 90": "label_delay_days: 0"}
    setting, release = opened(standing, changed(credit, tmp_path / "credit", WEEKLY | at_once), tmp_path / "home")
    contract, names = setting.contract, [column.name for column in setting.contract.features]

    def mixed(seed, parts):
        worlds = {
            kind: conform(setting.folder.open_source(None, seed).traffic(6000, drifted=kind), contract, "a world") for kind in (False, True)
        }
        used = {False: 0, True: 0}
        for kind, rows in parts:
            used[kind] += rows
            yield worlds[kind].iloc[used[kind] - rows : used[kind]]

    before = pd.concat(mixed(90, [(False, 20), (True, 10)] * 150), ignore_index=True)
    release.__dict__["reference"] = before[names]
    told = release.scorer.probability(before)
    release.__dict__["held"] = before[names].assign(probability=told, truth=before[contract.target].to_numpy(float))
    release.__dict__["newest"] = None
    release.facts["released"] = {"counted": None}
    frame = pd.concat(mixed(91, [(False, 1000), (True, 500)] * 3), ignore_index=True)
    began = now() - timedelta(days=3)
    with setting.store.engine.begin() as connection:
        connection.execute(sa.update(routes).values(at=began - timedelta(hours=1)))
    probability = release.scorer.probability(frame)
    asked = [json.dumps(record) for record in records(frame, contract)]
    lines = [
        Prediction(
            f"p{n}", "credit", began + timedelta(days=3) * ((n + 1) / 4500), "2", "champion", 1.0, p, int(p >= release.threshold), text
        )
        for n, (p, text) in enumerate(zip(probability.tolist(), asked, strict=True))
    ]
    setting.store.set_draw(0.1, 1, None)
    return setting, release, lines, frame[contract.target].to_numpy(int)


def test_what_comes_with_the_hour_of_the_day_is_no_drift(by_the_hour):
    setting, release, lines, _ = by_the_hour
    setting.store.log(lines)
    checks, decision = examine.fn(setting, release)
    told = {check.name: check for check in checks}
    inputs = decision.evidence["inputs"]
    # Rows that are broken are looked for in the newest ones, and drift in a day's.
    assert (inputs["from"], inputs["to"]) == (4001, 4500)
    assert 3001 <= inputs["spread_from"] <= 3003
    assert "fail" not in (told["joint_drift"].verdict, told["estimate"].verdict)
    assert not [check.name for check in checks if check.name.startswith("data_drift") and check.verdict == "fail"]
    # A tenth of the day's predictions were drawn, not of the window's alone.
    rows, facts = todo(setting)
    assert facts["rows"] == 4500 - inputs["spread_from"] + 1
    assert facts["drawn"] == len(rows) == pytest.approx(150, abs=40)
    moved = {check.name for check in examine.fn(of_hours(setting, 24, 0), release)[0] if check.verdict == "fail"}
    assert "joint_drift" in moved


def test_hours_that_a_window_of_a_day_and_a_third_holds_twice_do_not_count_twice(by_the_hour):
    setting, release, lines, _ = by_the_hour
    setting.store.log(lines)
    longer = otherwise(setting, "window: 500", "window: 2000")
    checks, decision = examine.fn(longer, release)
    assert not [
        check.name for check in checks if check.verdict == "fail" and check.name.startswith(("data_drift", "joint_drift", "estimate"))
    ]
    # Two days are looked at.
    assert 1501 <= decision.evidence["inputs"]["spread_from"] <= 1503
    moved = {check.name for check in examine.fn(of_hours(longer, 24, 0), release)[0] if check.verdict == "fail"}
    assert "data_drift:employment" in moved


@pytest.mark.parametrize("before", ["another version", "a small share"])
def test_of_a_version_whose_share_has_changed_drift_is_told_and_not_judged(by_the_hour, before):
    """It was set back an hour ago, or was a challenger of a tenth of the requests till then."""
    setting, release, lines, _ = by_the_hour
    setting.store.log(lines)
    decision = setting.store.route().decision
    if before == "another version":
        setting.store.set_route("1", decision, verified=True)
    else:
        setting.store.set_route("1", decision, verified=True)
        setting.store.set_beside(decision, "2", 0.1, None)
    setting.store.set_route("2", decision, verified=True)
    with setting.store.engine.begin() as connection:
        for back, seq in enumerate(reversed([route.seq for route in setting.store.routes()])):
            connection.execute(sa.update(routes).where(routes.c.seq == seq).values(at=now() - timedelta(hours=1 + 30 * back)))
    checks, _ = examine.fn(setting, release)
    told = {check.name: check.verdict for check in checks}
    assert told["joint_drift"] == told["estimate"] == told["silent:confidence"] == "undecided"


def test_of_a_version_that_is_younger_than_a_day_drift_is_told_and_not_judged(by_the_hour):
    setting, release, lines, truth = by_the_hour
    setting.store.log(lines[-500:])
    label(setting, truth, 4000, 4500)
    with setting.store.engine.begin() as connection:
        connection.execute(sa.update(routes).values(at=lines[-500].at))
    checks, decision = examine.fn(setting, release)
    told = {check.name: check for check in checks}
    assert decision.action in ("wait", "skip")
    for name in ("joint_drift", "silent:confidence", "probes:mixes", "estimate", "decay", "live_slices", "concept_drift"):
        assert told[name].verdict == "undecided", name
    assert "do not span a cycle of 24 hours yet (watch.cycle_hours)" in told["joint_drift"].reason
    assert "end of each cycle" in told["concept_drift"].reason
    assert told["validity"].verdict == "pass"


def test_a_fault_of_the_last_hours_blocks_at_once_and_is_over_with_the_first_sound_window(by_the_hour):
    setting, release, lines, _ = by_the_hour
    spoilt = [msgspec.structs.replace(line, features=json.dumps(json.loads(line.features) | {"income": 1.0})) for line in lines[3500:4000]]
    setting.store.log(lines[:3500] + spoilt)
    checks, decision = examine.fn(setting, release)
    assert decision.action == "block"
    keep(setting, decision)
    # What was made of the newest window changes nothing of what it is: the same log is the same decision.
    assert examine.fn(setting, release)[1].id == decision.id
    setting.store.log(lines[4000:])
    checks, decision = examine.fn(setting, release)
    assert decision.action != "block"
    # A third of the day was the fault: what the day is like without it nobody knows.
    assert named(checks, "data_drift:income").verdict == "undecided"
    # Of two days it is a sixth; its rows are not what the population is told by.
    assert named(examine.fn(of_hours(setting, 24, 48), release)[0], "data_drift:income").verdict == "pass"


def test_what_is_bought_is_drawn_from_the_whole_day(by_the_hour):
    setting, release, lines, truth = by_the_hour
    setting.store.log(lines)
    decision = examine.fn(setting, release)[1]
    inputs = decision.evidence["inputs"]
    bought = decide("buy_labels", decision.subject, ["harm is feared"], inputs | {"share": 0.3}, ())
    keep(setting, bought)
    rows, _ = todo(setting)
    assert len(rows) == pytest.approx(450, abs=70)
    found = [{"prediction_id": i, "at": now(), "value": int(truth[int(i[1:])]), "provenance": AUDIT} for i in rows["prediction_id"]]
    setting.store.add_labels(found)
    assert todo(setting)[0].empty
    known = examine.fn(setting, release)[1].evidence["inputs"]
    assert (known["audited"], known["audited_bought"]) == (0, len(rows))


def test_where_drift_cannot_be_judged_the_new_population_is_as_old_as_it_was(by_the_hour):
    setting, _, lines, _ = by_the_hour
    setting.store.log(lines)
    drift = Check("joint_drift", "Can they?", "fail", "all columns moved")
    for onset, verdict in ((3001, "fail"), (3001, "undecided")):
        inputs = {"onset": onset, "from": 3001, "to": 4000, "verdict": verdict}
        setting.store.record(decide("wait", "version 2", ["drift"], inputs, [replace(drift, verdict=verdict)]))
        assert onset_of(setting, "2", False, judged=False)[0] == 3001
        assert onset_of(setting, "2", True)[0] == 3001
        assert onset_of(setting, "2", False)[0] == 1


def test_what_was_bought_is_handed_out_while_the_day_is_blocked_and_no_row_of_a_fault_is(by_the_hour):
    setting, release, lines, _ = by_the_hour
    setting.store.log(lines[:3500])
    inputs = examine.fn(setting, release)[1].evidence["inputs"]
    keep(setting, decide("buy_labels", "version 2", ["harm is feared"], inputs | {"share": 0.3}))
    bought = set(todo(setting)[0]["prediction_id"])
    assert len(bought) == pytest.approx(450, abs=70)
    spoilt = [msgspec.structs.replace(line, features=json.dumps(json.loads(line.features) | {"income": 1.0})) for line in lines[3500:]]
    setting.store.log(spoilt)
    keep(setting, examine.fn(setting, release)[1])
    known = kept_out(setting).without
    assert known
    rows, _ = todo(setting)
    assert set(rows["prediction_id"].head(len(bought))) == bought
    # By lot: a part of them is a sample of all.
    first = [int(identity[1:]) for identity in rows["prediction_id"].head(100)]
    assert first != sorted(first)
    assert not [identity for identity in rows["prediction_id"] if any(a <= int(identity[1:]) + 1 <= min(b, 4000) for a, b in known)]


def test_a_day_of_which_half_of_the_labels_are_doubted_is_told_and_not_judged_by(by_the_hour):
    setting, release, lines, truth = by_the_hour
    setting.store.log(lines)
    release.facts["released"] = {"mean": 0.0, "error": 0.01}
    label(setting, truth, 0, 4500)
    assert named(examine.fn(setting, release)[0], "decay").verdict == "fail"
    stretches = {"without": (), "audited": ((1, 4000),)}
    doubted = decide("ask", "version 2", ["labels"], {"from": 3501, "to": 4000, "onset": 1})
    setting.store.record(replace(doubted, evidence=doubted.evidence | {"kept_out": stretches}))
    told = named(examine.fn(setting, release)[0], "decay")
    assert told.verdict == "undecided"
    assert "do not span a cycle" in told.reason


def test_errors_that_come_with_the_hour_are_no_harm(by_the_hour):
    setting, release, lines, _ = by_the_hour
    setting.store.log(lines)
    decided = np.array([line.label for line in lines])
    hour = np.arange(4500) % 1500
    rng = np.random.default_rng(3)
    # Of each day's last third nearly half is decided wrongly.
    usual = np.where(rng.random(4500) < np.where(hour >= 1000, 0.45, 0.1), 1 - decided, decided)
    cost = np.where(usual > decided, 4.0, np.where(usual < decided, 1.0, 0.0))
    release.facts["released"] = {"mean": float(cost.mean()), "error": 0.02}
    at = [{"prediction_id": f"p{n}", "at": lines[n].at, "value": int(usual[n]), "provenance": "outcome"} for n in range(4500)]
    setting.store.add_labels(at)
    newest = {check.name: check.verdict for check in examine.fn(of_hours(setting, 24, 0), release)[0]}
    assert newest["decay"] == "fail"
    of_days = {check.name: check.verdict for check in examine.fn(setting, release)[0]}
    assert (of_days["decay"] == "fail", of_days["concept_drift"] == "fail") == (False, False)


def test_of_a_population_that_began_at_noon_no_harm_is_told_before_the_next(by_the_hour, monkeypatch):
    setting, release, lines, truth = by_the_hour
    setting.store.log(lines)
    release.facts["released"] = {"mean": 0.0, "error": 0.01}
    label(setting, truth, 0, 4500)
    assert named(examine.fn(setting, release)[0], "decay").verdict == "fail"
    monkeypatch.setattr("flows.examine.onset_of", lambda *_: (4001, 0, EVERYTHING))
    told = named(examine.fn(setting, release)[0], "decay")
    assert (told.verdict, told.n) == ("undecided", 500)
    assert "do not span a cycle" in told.reason
