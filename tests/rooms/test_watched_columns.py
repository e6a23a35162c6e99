"""Columns that no model sees and the watch does: texts and images, from the request to the alarm."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from expectations.validate import validate
from flows.examine import examine
from flows.setting import Setting
from flows.standing import stand
from ratchet.data.arrow import read_stream, write_stream
from ratchet.data.batch import conform
from ratchet.data.rows import defects
from ratchet.database import now
from ratchet.evaluation.slices import view
from ratchet.monitoring.projection import image
from ratchet.prediction import Prediction
from ratchet.problem import Folder
from ratchet.release import read
from ratchet.request import accepted, records
from ratchet.settings import Settings
from ratchet.simulation.sample import draw
from tests.written import written


@pytest.fixture(scope="module")
def setting(credit, tmp_path_factory):
    """The credit problem with three watched columns, and a release of it."""
    place = tmp_path_factory.mktemp("written")
    shutil.copytree(credit.path, place / "credit", ignore=shutil.ignore_patterns("__pycache__"))
    written(place / "credit")
    folder = Folder(place / "credit")
    settings = Settings(RATCHET_HOME=place / "home", DATABASE_URL=None)
    stand(folder, settings, "trees", 8000, 7)
    return Setting(folder, settings)


def rows(setting, n, others, seed=5):
    source = setting.folder.open_source(None, seed)
    source.others = others
    return conform(source.traffic(n, drifted=False), setting.contract, "the world")


def log(setting, frame, first):
    release = read(setting.settings.releases / "credit" / "2")
    told = zip(release.scorer.probability(frame).tolist(), records(frame, setting.contract), strict=True)
    made = [(f"w{first + n}", p, json.dumps(record)) for n, (p, record) in enumerate(told)]
    setting.store.log([Prediction(i, "credit", now(), "2", "champion", 1.0, p, int(p >= release.threshold), text) for i, p, text in made])
    return release


def test_no_model_sees_them_and_the_release_keeps_them_to_compare_with(setting):
    release = read(setting.settings.releases / "credit" / "2")
    assert not {"note", "photo", "browser"} & set(release.encoder.names)
    assert {"note", "photo", "browser"} <= set(release.reference.columns)
    assert release.answer_probe() <= 1e-6


def test_the_watch_sees_what_is_written_otherwise_and_that_it_does_no_harm(setting):
    release = log(setting, rows(setting, 2000, others=False), 0)
    told = {check.name: check for check in examine.fn(setting, release)[0]}
    assert {told[f"data_drift:{name}"].verdict for name in ("note", "photo", "browser")} == {"pass"}
    assert told["skew:scores"].verdict == "pass"
    log(setting, rows(setting, 2000, others=True, seed=6), 2000)
    checks, decision = examine.fn(setting, release)
    failed = {check.name for check in checks if check.verdict == "fail"}
    assert {name for name in failed if name.startswith("data_drift")} == {"data_drift:note", "data_drift:photo"}
    assert decision.action == "skip", decision.reasons
    assert "the population moved, and the model is expected to do no worse" in decision.reasons[0]


def test_a_version_of_before_they_were_watched_says_so(setting):
    release = log(setting, rows(setting, 2000, others=False), 4000)
    release.reference.drop(columns=["note"], inplace=True)
    told = {check.name: check for check in examine.fn(setting, release)[0]}["data_drift:note"]
    assert (told.verdict, told.reason) == ("undecided", "note was not watched yet when this version was released")


def test_a_request_may_leave_them_out_and_may_not_send_something_else(setting):
    contract = setting.contract
    record = records(rows(setting, 1, others=False), contract)[0]
    without = {name: value for name, value in record.items() if name not in ("note", "photo", "browser")}
    asked = [record, without, record | {"note": None}, record | {"note": 5}, record | {"browser": "cat"}]
    assert accepted(asked, contract).tolist() == [True, True, True, False, False]
    drawn = draw(contract, 20, 1)
    assert accepted(drawn, contract).all()
    assert not np.isnan(image(pd.Series([sample["photo"] for sample in drawn]))["contrast"]).any()
    assert len({sample["note"] for sample in drawn}) == len({sample["photo"] for sample in drawn}) == 20


def test_tables_hold_them_as_requests_do(setting):
    frame = rows(setting, 50, others=False)
    sent = {column.name: pa.array(frame[column.name]) for column in setting.contract.requested}
    typed = read_stream(write_stream(sent), setting.contract, 100)
    assert typed["note"].tolist() == frame["note"].tolist()
    assert defects(typed, setting.contract).tolist() == [None] * 50
    del sent["note"]
    assert defects(read_stream(write_stream(sent), setting.contract, 100), setting.contract).tolist() == [None] * 50


def test_batches_are_validated_with_them_and_slices_pass_over_what_is_no_category(setting):
    frame = conform(setting.folder.open_source(None, 8).first_batch(500), setting.contract, "the batch")
    frame.loc[:3, "note"] = None
    frame.loc[4, "browser"] = "cat"
    told = validate(frame, setting.contract, "the batch")
    assert "browser must be one of fox, eagle" in told.quarantined["reasons"].str.cat()
    assert not told.quarantined["reasons"].str.contains("note").any()
    columns = set(view(told.accepted, setting.contract).columns)
    assert "browser" in columns
    assert not columns & {"note", "photo"}
    assert np.isin(["income", "channel"], list(columns)).all()


def test_logged_rows_come_back_as_they_were_sent(setting):
    frame = rows(setting, 5, others=False, seed=9)
    log(setting, frame, 9000)
    back = setting.store.window(newest=5)
    assert back["note"].tolist() == frame["note"].tolist()
