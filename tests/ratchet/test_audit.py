"""The audit draw: the same rows for everybody, more of them when more are asked for, and the probability is known."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from ratchet.audit import Draw, chances, drawn
from ratchet.database import now
from ratchet.decision import decide
from ratchet.lot import lot
from ratchet.prediction import Prediction
from ratchet.schema import routes
from ratchet.store import Store


def test_places_are_spread_evenly():
    places = np.array([lot(f"prediction {n}") for n in range(20_000)])
    assert np.histogram(places, bins=10, range=(0, 1))[0] == pytest.approx(2000, abs=200)


@given(st.floats(0, 1), st.floats(0, 1), st.lists(st.text(min_size=1), min_size=1, max_size=30))
def test_who_draws_more_draws_the_same_and_more(one, other, ids):
    less, more = (drawn(ids, np.full(len(ids), share)) for share in sorted((one, other)))
    assert not (less & ~more).any()


def test_a_later_draw_goes_before():
    draws = [Draw(0.02, 1), Draw(0.5, 100), Draw(0.1, 200)]
    assert chances(draws, np.array([1, 99, 100, 199, 200])).tolist() == [0.02, 0.02, 0.5, 0.5, 0.1]
    assert chances([], np.array([1])).tolist() == [0.0]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path):
    url = f"sqlite:///{tmp_path}/store.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres")()
        fresh = Store(url, "credit", checked=False)
        fresh.migrate()
        fresh.close()
    opened = Store(url, "credit")
    yield opened
    opened.close()


def test_what_audits_found_is_kept_beside_the_outcomes(store):
    began = now()
    store.log([Prediction(f"p{n}", "credit", began, "2", "champion", 1.0, 0.3, 0, "{}") for n in range(4)])
    outcome = {"prediction_id": "p1", "at": now(), "value": 1, "provenance": "outcome"}
    assert store.add_labels([outcome]) == [True]
    audit = outcome | {"provenance": "audit"}
    # The same value, but found out by an audit: that is new, and only once.
    assert store.add_labels([audit]) == [True]
    assert store.add_labels([audit, outcome, audit]) == [False, False, False]
    store.add_labels([audit | {"prediction_id": "p2", "value": 0}, audit | {"prediction_id": "p2", "value": 1}])
    told = store.audits("2", 0)
    assert told[["id", "gold"]].to_numpy().tolist() == [["p1", 1], ["p2", 1]]
    assert list(store.audits("2", int(told["seq"].iloc[0]))["id"]) == ["p2"]
    assert store.audits("3", 0).empty
    assert store.audits("2", 10**6).empty
    assert store.bought(began) == 2
    assert store.draws() == []
    store.set_draw(0.02, 1, None)
    store.set_draw(0.2, 3, "d1")
    assert store.draws() == [Draw(0.02, 1, None), Draw(0.2, 3, "d1")]


def test_a_clock_that_ran_ahead_for_one_row_hides_no_audit(store):
    times = [now() + timedelta(days=1), now(), now()]
    store.log([Prediction(f"p{n}", "credit", at, "2", "champion", 1.0, 0.3, 0, "{}") for n, at in enumerate(times)])
    store.add_labels([{"prediction_id": f"p{n}", "at": now(), "value": 1, "provenance": "audit"} for n in (1, 2)])
    assert list(store.audits("2", 0)["id"]) == ["p1", "p2"]


def test_places_are_counted_in_the_rows_of_a_version_whatever_else_is_logged(store):
    others = [("2", "champion"), ("1", "champion"), ("2", "challenger"), ("2", "load"), ("2", "shadow"), ("3", "probe")]
    lines = [Prediction(f"p{n}", "credit", now(), *others[n % 6], 1.0, 0.3, 0, "{}") for n in range(60)]
    store.log(lines)
    mine = [n + 1 for n in range(60) if n % 6 in (0, 2)]
    assert store.place_before("2", mine[12], 5) == mine[6]
    assert store.place_before("2", mine[12], 12) == 0
    assert store.place_before("2", mine[12], 11) == mine[0]
    assert store.between("2", mine[3], mine[8], 100) == 5
    assert store.between("2", mine[3], mine[8], 3) == 3
    assert store.between("9", 1, 60, 100) == 0


def test_what_came_back_and_what_audits_found_stand_side_by_side(store):
    began = now()
    times = [began - timedelta(days=10 - n) for n in range(4)]
    store.log([Prediction(f"p{n}", "credit", at, "2", "champion", 1.0, 0.3, n % 2, f'{{"x": {n}}}') for n, at in enumerate(times)])
    store.log([Prediction("probe", "credit", times[0], "2", "probe", 1.0, 0.3, 0, "{}")])
    told = {"at": now(), "value": 1, "provenance": "outcome"}
    store.add_labels([told | {"prediction_id": "p0"}, told | {"prediction_id": "p0", "value": 0, "provenance": "audit"}])
    store.add_labels([told | {"prediction_id": "p1", "value": 0}, told | {"prediction_id": "p1", "provenance": "human"}])
    assert store.aged("2", times[2], 100).empty
    store.set_route("2", "a decision")
    assert store.aged("2", times[2], 100).empty
    with store.engine.begin() as connection:
        connection.execute(sa.update(routes).values(at=times[0]))
    aged = store.aged("2", times[2], 100)
    assert list(aged["id"]) == ["p0", "p1", "p2"]
    assert aged["outcome"].tolist()[:2] == [1.0, 1.0]
    assert aged["gold"].tolist()[0] == 0.0
    assert aged[["outcome", "gold"]].isna().sum().tolist() == [1, 2]
    assert aged[["label", "x"]].to_numpy().tolist() == [[0, 0], [1, 1], [0, 2]]
    assert list(store.aged("2", times[2], 2)["id"]) == ["p1", "p2"]


def test_earlier_looks_tell_how_far_they_saw(store):
    assert store.arrived(None) == (0, 0)
    for n, rows in enumerate((10, 25, 0)):
        variants = ["champion", "challenger", "load", "probe", "champion"]
        lines = [Prediction(f"{n}-{row}", "credit", now(), "2", variants[row % 5], 1.0, 0.3, 0, "{}") for row in range(rows)]
        if lines:
            store.log(lines)
        decision = decide("skip" if n % 2 else "wait", "version 2", ["no check fired"], {"to": n % 2})
        store.record(decision)
        store.look(decision.id)
    assert [(place, rows) for _, place, rows in store.looks(60)] == [(10, 0), (35, 15), (35, 0)]
    assert [rows for _, _, rows in store.looks(1)] == [0]
    assert store.arrived(10) == (35, 15)
    # The first decision holds again.
    assert store.decided_last().action == "wait"
    store.look(None)
    assert store.decided_last().action == "wait"
