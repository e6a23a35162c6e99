"""The store: append-only, idempotent, and the latest label counts."""

from __future__ import annotations

import sqlite3
from datetime import timedelta

import pytest

from ratchet.decision import decide
from ratchet.errors import StoreError
from ratchet.store import Store, now


@pytest.fixture
def store(tmp_path):
    opened = Store(f"sqlite:///{tmp_path / 'store.db'}", "credit")
    yield opened
    opened.close()


def prediction(identity, variant="champion", version="1", at=None):
    return {
        "id": identity,
        "problem": "credit",
        "at": at or now(),
        "version": version,
        "variant": variant,
        "propensity": 1.0,
        "probability": 0.3,
        "label": 1,
        "features": '{"income": 5.0, "channel": null}',
    }


def label(identity, value):
    return {"prediction_id": identity, "at": now(), "value": value, "provenance": "outcome"}


def test_a_decision_is_recorded_once(store):
    decision = decide("skip", "version 1", ["nothing"], {"to": 1})
    assert store.record(decision)
    assert not store.record(decision)
    assert [entry.id for entry in store.decisions()] == [decision.id]
    assert store.decision(decision.id).reasons == ("nothing",)
    assert store.decisions("promote") == []


def test_the_route_is_the_newest_and_its_past_stays(store):
    assert store.route() is None
    store.set_route("1", "a", verified=True)
    between = now()
    store.set_route("2", "b")
    assert store.route().champion == "2"
    assert not store.route().verified
    assert [route.champion for route in store.routes()] == ["1", "2"]
    assert [route.champion for route in store.routes(until=between)] == ["1"]


def test_labels_append_supersede_and_know_their_predictions(store):
    store.log([prediction("a"), prediction("b")])
    assert store.add_labels([label("a", 1), label("nobody", 1)]) == (1, ["nobody"])
    assert store.add_labels([label("a", 1)]) == (0, [])
    assert store.add_labels([label("a", 0), label("b", 1)]) == (2, [])
    window = store.window()
    assert window.set_index("id")["truth"].to_dict() == {"a": 0, "b": 1}
    assert window["income"].tolist() == [5.0, 5.0]
    raw = sqlite3.connect(store.engine.url.database).execute("select count(*) from labels").fetchone()
    assert raw == (3,)


def test_a_window_holds_live_predictions_only_newest_last(store):
    store.log([prediction("p", "probe"), prediction("l", "load"), *(prediction(f"c{i}") for i in range(5))])
    assert store.window(newest=3)["id"].tolist() == ["c2", "c3", "c4"]
    assert store.window(labelled=True).empty
    assert store.window(version="2").empty
    assert store.counts() == {"probe": 1, "load": 1, "champion": 5}


def test_a_failed_log_keeps_nothing(store):
    store.log([prediction("a")])
    with pytest.raises(Exception, match="UNIQUE"):
        store.log([prediction("b"), prediction("a")])
    assert store.counts() == {"champion": 1}


def test_an_answer_is_found_again_in_the_order_asked_for(store):
    store.log([prediction("a"), prediction("b")])
    assert [answer["prediction_id"] for answer in store.answered(["b", "x", "a"])] == ["b", "a"]


def test_a_pause_lasts_until_resume(store):
    assert not store.paused
    store.record(decide("pause", "credit", ["holiday"], {"said_at": "1"}, by="ann"))
    assert store.paused
    store.record(decide("resume", "credit", ["back"], {"said_at": "2"}, by="ann"))
    assert not store.paused


def test_a_lock_is_held_by_one(store, tmp_path):
    other = Store(f"sqlite:///{tmp_path / 'store.db'}", "credit")
    with store.exclusive("work") as mine, other.exclusive("work") as theirs:
        assert (mine, theirs) == (True, False)
    with other.exclusive("work") as free:
        assert free


def test_problems_do_not_see_each_other(store, tmp_path):
    store.log([prediction("a")])
    store.set_route("1", "d")
    other = Store(f"sqlite:///{tmp_path / 'store.db'}", "spam")
    assert (other.counts(), other.route(), other.decisions()) == ({}, None, [])


def test_freshness_is_that_of_the_newest(store):
    assert store.freshness() == {"prediction": None, "label": None}
    old = now() - timedelta(hours=5)
    store.log([prediction("a", at=old)])
    assert store.freshness()["prediction"] == old


def test_a_store_that_cannot_be_opened_or_is_newer_is_said(tmp_path):
    with pytest.raises(StoreError, match="cannot be opened"):
        Store("sqlite:////proc/nowhere/store.db", "credit")
    path = tmp_path / "store.db"
    Store(f"sqlite:///{path}", "credit").close()
    with sqlite3.connect(path) as connection:
        connection.execute("update schema_version set version = 99")
    with pytest.raises(StoreError, match="schema 99"):
        Store(f"sqlite:///{path}", "credit")
