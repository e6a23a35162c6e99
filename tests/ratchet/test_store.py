"""The store: append-only, idempotent, and the latest label counts."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import timedelta

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

import ratchet.log
import ratchet.store
from ratchet import schema
from ratchet.account import trace
from ratchet.contract import RESERVED
from ratchet.database import now
from ratchet.decision import decide
from ratchet.errors import StoreError
from ratchet.line import Turn
from ratchet.log import Stretch
from ratchet.lot import lot
from ratchet.prediction import Prediction
from ratchet.settings import ROOT
from ratchet.store import Store


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """An empty store on each database: the same code must do the same on both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    made = request.getfixturevalue("postgres")()
    Store(made, "credit", checked=False).migrate()
    return made


@pytest.fixture
def store(url):
    opened = Store(url, "credit")
    yield opened
    opened.close()


def prediction(identity, variant="champion", version="1", at=None, features='{"income": 5.0, "channel": null}', keyed=False):
    return Prediction(identity, "credit", at or now(), version, variant, 1.0, 0.3, 1, features, keyed=keyed)


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
    assert store.add_labels([label("a", 1), label("nobody", 1)]) == [True, None]
    assert store.add_labels([label("a", 1)]) == [False]
    assert store.add_labels([label("a", 0), label("b", 1)]) == [True, True]
    # Twice in one go, as two requests that were stored together: the second is known by then, or supersedes.
    assert store.add_labels([label("b", 1), label("b", 0), label("b", 0), label("nobody", 1), label("b", 1)]) == [
        False,
        True,
        False,
        None,
        True,
    ]
    window = store.window()
    assert window.set_index("id")["truth"].to_dict() == {"a": 0, "b": 1}
    assert window["income"].tolist() == [5.0, 5.0]
    with store.engine.connect() as connection:
        raw = connection.execute(sa.text("select count(*) from labels")).one()
    assert raw == (5,)


def test_outcomes_come_in_the_order_of_their_labels(store):
    store.log([prediction(name) for name in "abcd"] + [prediction("other", version="2"), prediction("probe", variant="probe")])
    # The service decided 1 each time.
    store.add_labels([label("c", 0), label("a", 1), label("other", 0), label("probe", 0)])
    store.add_labels([label("c", 1), label("b", 0)])
    told = store.outcomes(0, 10, "1")
    assert told["wrong"].astype(bool).tolist() == [True, False, True]
    assert told["prediction"].tolist() == [3, 1, 2]
    assert told["seq"].is_monotonic_increasing
    rest = store.outcomes(int(told["seq"].iloc[0]), 1, "1")
    assert rest["prediction"].tolist() == [1]
    assert store.outcomes(int(told["seq"].iloc[-1]), 10, "1").empty


def test_rows_that_still_lack_a_label_are_counted_among_live_ones(store):
    store.log([prediction(name) for name in "abcde"] + [prediction("probe", variant="probe")])
    assert not store.labelled()
    store.add_labels([{**label("b", 1), "provenance": "audit"}])
    # What an audit found did not come by itself.
    assert not store.labelled()
    store.add_labels([label("c", 0)])
    assert store.labelled()
    assert [store.unlabelled(1, 6, 10), store.unlabelled(2, 4, 10), store.unlabelled(1, 6, 2)] == [3, 1, 2]


def test_a_cycle_of_a_version_is_looked_at_evenly_and_a_thin_one_as_it_is(store):
    began, others = now() - timedelta(hours=50), ("champion", "load", "challenger")
    lines = [
        prediction(f"p{n}", version="12"[n % 10 == 9], variant=others[n % 3], at=began + timedelta(hours=50) * (n / 1000))
        for n in range(1000)
    ]
    store.log(lines)
    store.add_labels([label(f"p{n}", 1) for n in range(0, 1000, 2)])
    mine = [n + 1 for n in range(1000) if n % 10 != 9 and n % 3 != 1]
    day = [place for place in mine if place > 520]
    found = store.stretch(100, 24.0, "1")
    # The hour of a place is told by time, which the last rows are a little behind.
    assert (found.last, found.rows, found.whole) == (mine[-1], pytest.approx(len(day), abs=3), True)
    rows = store.window(newest=100, version="1", spread=found)["seq"].tolist()
    assert (len(rows), rows[-1]) == (100, mine[-1])
    assert set(np.diff([mine.index(place) for place in rows])) <= {found.rows // 100, found.rows // 100 + 1}
    labelled = store.stretch(100, 24.0, "1", labelled=True)
    told = store.window(newest=100, version="1", labelled=True, spread=labelled)
    assert labelled.rows == pytest.approx(sum(place % 2 for place in day), abs=3)
    assert (len(told), told["truth"].notna().all(), told["seq"].is_monotonic_increasing) == (100, True, True)
    assert store.stretch(100, 24.0, "1", labelled=True, until=600).last <= 600
    # Of so many rows that they reach back over a day and more, two days are looked at, if there are two.
    two = store.stretch(500, 24.0, "1")
    assert two.rows == pytest.approx(sum(place > 40 for place in mine), abs=3)
    one = store.stretch(500, 24.0, "1", since=now() - timedelta(hours=47))
    assert (one.first, one.whole) == (found.first, True)
    assert len(store.window(newest=500, version="1", spread=one)) == one.rows < 500
    young = store.stretch(100, 24.0, "1", since=now() - timedelta(hours=23))
    assert (young.first, young.rows, young.whole) == (mine[-100], 100, False)
    assert store.stretch(50, 0.0, "1").first == mine[-50]
    assert store.stretch(50, 24.0, "9").rows == 0
    without = store.stretch(100, 24.0, "1", without=[(1, 9), (600, 699)])
    spoilt = [place for place in mine if 600 <= place <= 699]
    assert (without.rows, without.spoilt) == (found.rows - len(spoilt), len(spoilt))
    left = store.window(newest=100, version="1", spread=without)["seq"]
    assert (len(left), left.between(600, 699).any()) == (100, False)
    store.set_draw(0.1, 1, None)
    drawn_here = store.drawn(without, "1")
    assert [identity for identity in drawn_here["id"] if lot(identity) >= 0.1] == []
    assert len(drawn_here) == sum(lot(f"p{place - 1}") < 0.1 for place in mine if place >= without.first and place not in spoilt)


def test_of_each_entity_of_a_stretch_the_newest_row_is_taken_evenly(store):
    who = ["a", "b", "a", None, "c", "a", "b", None, "d", "a"] * 10
    texts = [f'{{"income": {n}.0, "client": {chr(34) + w + str(n // 50) + chr(34) if w else "null"}}}' for n, w in enumerate(who)]
    store.log([prediction(f"p{n}", features=text) for n, text in enumerate(texts)])
    found = store.stretch(5, 24.0, "1", entity="client")
    assert found.rows == 100
    rows = store.window(newest=1000, version="1", spread=found)
    # Two of each, and those that name nobody.
    assert len(rows) == 8 + 20
    newest = {text.split(":")[-1].strip(' }"'): n for n, text in enumerate(texts)}
    assert rows.loc[rows["client"].notna(), "seq"].tolist() == sorted(n + 1 for name, n in newest.items() if name != "null")
    assert len(store.window(newest=7, version="1", spread=found)) == 7
    # Whatever somebody sends ends no look.
    odd = ['"z\\u0000"', '"\\"quoted\\""', "17", "1.5", "true", '["a"]', "{}"]
    store.log([prediction(f"q{n}", features=f'{{"note": "\\u0000", "client": {text}}}') for n, text in enumerate(odd)])
    assert len(store.window(newest=1000, version="1", spread=store.stretch(5, 24.0, "1", entity="client"))) == 28 + len(odd)


def test_a_share_is_steady_from_when_it_was_half_as_large_on(store):
    assert store.steady("1") is None
    store.set_route("1", "d1", verified=True)
    first = store.route().at
    assert store.steady("1") == first
    store.set_beside("d2", "2", 0.1, None)
    assert store.steady("1") == first
    assert store.steady("2") == store.route().at
    store.set_route("2", "d3", verified=True)
    promoted = store.route().at
    assert (store.steady("1"), store.steady("2")) == (None, promoted)
    store.set_route("1", "d4", verified=True)
    assert store.steady("1") == store.route().at > promoted


def test_labels_that_came_lately_are_counted_with_those_that_find_no_prediction(store, url, monkeypatch):
    store.log([prediction(f"p{place}", variant=("champion", "load")[place % 5 == 0]) for place in range(50)])
    present = now()

    def sent(identity, minutes, provenance="outcome"):
        return {"prediction_id": identity, "at": present - timedelta(minutes=minutes), "value": 1, "provenance": provenance}

    lately = present - timedelta(hours=1)
    assert store.came_lately(lately, 100) == (0, 0, None)
    store.add_labels([sent("p1", 90), sent("p2", 40), sent("p3", 30), sent("p5", 20), sent("p6", 10, "audit")])
    store.add_strays(["n1", "n\0", "x" * 100, "n1"])
    later = now()
    store.add_strays(["n1"])
    store.add_strays([])
    # Who goes on to send it has sent it of late.
    assert store.came_lately(later, 100) == (0, 1, "n1")
    # Neither the old one, nor that of a load test, nor an audit's; each stray id once, however often it is sent.
    assert store.came_lately(lately, 100) == (2, 3, "n1")
    # Both over the same time: strays came after the newest known label here.
    assert store.came_lately(lately, 1) == (1, 3, "n1")
    # However many come at one time, all are counted.
    store.add_labels([sent(f"p{place}", 5) for place in range(11, 15)])
    assert store.came_lately(lately, 2) == (4, 3, "n1")
    # What is too long is told from what begins like it.
    store.add_strays(["y" * 99, "y" * 98])
    assert store.came_lately(lately, 2)[1] == 5
    assert store.came_lately(present + timedelta(hours=1), 100) == (0, 0, None)
    # A label that was sent before its prediction was logged is none of nobody's.
    store.log([prediction("n1")])
    assert store.came_lately(lately, 100)[1] == 4
    # Another problem that fills the store with labels does not let this one's strays look like more.
    other = Store(url, "other")
    assert other.came_lately(lately, 100) == (0, 0, None)
    # Of its predictions none is one of another problem's.
    other.add_strays(["n2", "p1"])
    assert (other.came_lately(lately, 100), store.came_lately(lately, 100)[1]) == ((0, 2, "n2"), 4)
    other.close()
    monkeypatch.setattr(ratchet.log, "LABELS_LATELY", 2)
    assert store.came_lately(lately, 100)[:2] == (2, 4)
    store.add_labels([sent("p7", -10), sent("p8", -10), sent("p9", -10)])
    assert store.came_lately(lately, 100) == (2, 0, None)


@pytest.mark.parametrize("few", [0, 20_000])
def test_nothing_that_is_asked_often_walks_through_the_whole_log(tmp_path, monkeypatch, few):
    """Of a version that is young, and of one that is not."""
    monkeypatch.setattr(ratchet.log, "FEW", few)
    store = Store(f"sqlite:///{tmp_path / 'store.db'}", "credit")
    store.log([prediction(f"p{place}", variant=("champion", "load", "probe", "challenger")[place % 4]) for place in range(4000)])
    asked = []

    @sa.event.listens_for(store.engine, "before_cursor_execute")
    def note(connection, cursor, statement, parameters, context, executemany):
        asked.append((statement, parameters))

    ids = [f"p{place}" for place in range(300)]
    store.add_labels([label(identity, 1) for identity in ids])
    store.answered(ids)
    store.window(newest=500, version="1")
    store.window(newest=500, version="1", labelled=True)
    store.window(newest=50, version="1", spread=Stretch(3000, 3600, 300))
    store.window(newest=50, version="1", labelled=True, spread=Stretch(3000, 3600, 300))
    store.window(newest=50, version="1", spread=Stretch(3000, 3600, 300, without=((3100, 3200),), entity="income"))
    store.drawn(Stretch(3000, 3600, 300), "1")
    store.stretch(500, 0.0, "1")
    store.stretch(5, 1.0, "1")
    store.stretch(5, 1.0, "1", labelled=True, until=200)
    store.place_before("1", 3000, 500)
    store.requests(2000, 100, "1")
    store.outcomes(100, 50, "1")
    store.outcomes(100, 50, "1", until=3000)
    store.delays(50, 3000)
    store.unlabelled(1000, 1100, 50)
    store.place_at(now())
    store.freshness()
    store.prediction("p7")
    store.looked()
    store.came_lately(now() - timedelta(hours=1), 50)
    reads = [(statement, parameters) for statement, parameters in asked if statement.lstrip().startswith("SELECT")]
    assert len(reads) > 8
    with store.engine.connect() as connection:
        for statement, parameters in reads:
            plan = [str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            # Asked of a problem alone, an index leads to every row of it.
            walks = [
                step
                for step in plan
                if step.startswith(("SCAN predictions", "SCAN labels"))
                or step.endswith(("predictions_by_variant (problem=?)", "predictions_by_version (problem=?)", "(problem=? AND version=?)"))
            ]
            assert not walks, (statement, plan)
    store.close()


@pytest.mark.parametrize("until", [None, 250])
def test_what_labels_told_of_a_version_is_the_same_whichever_way_leads_there(store, monkeypatch, until):
    store.log([prediction(f"p{place}", version=str(place % 3), variant=("champion", "load")[place % 5 == 0]) for place in range(300)])
    store.add_labels([label(f"p{place}", place % 2) for place in reversed(range(0, 300, 2))])
    store.add_labels([label(f"p{place}", 1 - place % 2) for place in range(0, 300, 10)])
    told = store.outcomes(0, 500, "1", until)
    part = store.outcomes(int(told["seq" if until is None else "prediction"].iloc[9]), 20, "1", until)
    assert part.to_numpy().tolist() == told.iloc[10:30].to_numpy().tolist()
    monkeypatch.setattr(ratchet.log, "FEW", 0)
    assert store.outcomes(0, 500, "1", until).equals(told)
    assert len(told) == (40 if until is None else 33)


def test_the_newest_live_label_is_found_among_so_many_and_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(ratchet.store, "LABELS_A_LOOK", 10)
    store = Store(f"sqlite:///{tmp_path / 'store.db'}", "credit")
    store.log([prediction("live"), *(prediction(f"l{place}", variant="load") for place in range(60))])
    store.add_labels([label("live", 1)])
    told = store.freshness()["label"]
    assert told is not None
    store.add_labels([label(f"l{place}", 1) for place in range(60)])
    # Whoever has looked before knows it; who looks for the first time does not look through all labels there are.
    assert store.freshness()["label"] == told
    late = Store(f"sqlite:///{tmp_path / 'store.db'}", "credit")
    assert late.freshness()["label"] is None
    late.add_labels([label("live", 0)])
    assert late.freshness()["label"] == store.freshness()["label"] > told
    store.close()
    late.close()


def test_two_who_store_the_same_labels_at_once_store_them_once(url):
    stores = [Store(url, "credit") for _ in range(2)]
    stores[0].log([prediction(f"p{place}") for place in range(1500)])
    rows, told = [label(f"p{place}", 1) for place in range(1500)], {}
    both = threading.Barrier(2)

    def add(name):
        both.wait()
        told[name] = stores[name].add_labels(rows)

    threads = [threading.Thread(target=add, args=(name,)) for name in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.count(True) for one in told.values()) == [0, 1500]
    with stores[0].engine.connect() as connection:
        assert connection.execute(sa.text("select count(*) from labels")).scalar() == 1500
    for store in stores:
        store.close()


def test_whoever_has_waited_longest_is_next():
    turn, order, ready = Turn(), [], threading.Event()

    def wait(name):
        ready.set()
        with turn:
            order.append(name)

    with turn:
        threads = []
        for name in range(5):
            threads.append(threading.Thread(target=wait, args=(name,)))
            ready.clear()
            threads[-1].start()
            ready.wait()
            while len(turn._line) <= name:
                time.sleep(0.001)
    # Who held it asks again at once, and comes after those who wait.
    with turn:
        order.append("again")
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4, "again"]


def test_who_is_interrupted_as_he_waits_leaves_the_line(monkeypatch):
    turn, order = Turn(), []

    class Interrupted:
        def acquire(self):
            if turn._line:
                raise KeyboardInterrupt

        def release(self):
            order.append("released")

    with turn:
        monkeypatch.setattr("ratchet.line.threading.Lock", Interrupted)
        with pytest.raises(KeyboardInterrupt), turn:
            order.append("never")
    with turn:
        order.append("next")
    assert order == ["next"]


def test_two_who_look_at_once_count_the_same_rows_once(store, url):
    store.look(None)
    store.log([prediction(f"c{place}") for place in range(50)])
    beside = [Store(url, "credit") for _ in range(4)]
    threads = [threading.Thread(target=each.look, args=(None,)) for each in beside]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [rows for _, _, rows in store.looks(5)] == [0, 50, 0, 0, 0]
    for each in beside:
        each.close()


def test_a_window_holds_live_predictions_only_newest_last(store):
    store.log([prediction("p", "probe"), prediction("l", "load"), *(prediction(f"c{i}") for i in range(5))])
    assert store.window(newest=3)["id"].tolist() == ["c2", "c3", "c4"]
    assert store.window(labelled=True).empty
    assert store.window(version="2").empty
    assert store.counts() == {"probe": 1, "load": 1, "champion": 5}


def test_a_failed_log_keeps_nothing(store):
    store.log([prediction("a")])
    with pytest.raises(IntegrityError):
        store.log([prediction("b"), prediction("a")])
    assert store.counts() == {"champion": 1}


def test_an_answer_is_found_again_in_the_order_asked_for(store):
    store.log([prediction("a"), prediction("b")])
    assert [row.id for row in store.answered(["b", "x", "a"])] == ["b", "a"]


def test_a_pause_lasts_until_resume(store):
    assert not store.paused
    store.record(decide("pause", "credit", ["holiday"], {"said_at": "1"}, by="ann"))
    assert store.paused
    store.record(decide("resume", "credit", ["back"], {"said_at": "2"}, by="ann"))
    assert not store.paused


def test_a_lock_is_held_by_one(store, url):
    other = Store(url, "credit")
    with store.exclusive("work") as mine, other.exclusive("work") as theirs:
        assert (mine, theirs) == (True, False)
    for turn in range(50):
        other.counts()  # its connection is open, so it asks at once
        for each in (store, other):
            with each.exclusive("work") as free:
                assert free, turn


def test_problems_do_not_see_each_other(store, url):
    store.log([prediction("a")])
    store.set_route("1", "d")
    other = Store(url, "spam")
    assert (other.counts(), other.route(), other.decisions()) == ({}, None, [])


def test_freshness_is_that_of_the_newest(store):
    assert store.freshness() == {"prediction": None, "label": None}
    old = now() - timedelta(hours=5)
    store.log([prediction("a", at=old)])
    assert store.freshness()["prediction"] == old


def test_rows_handed_in_a_second_time_are_passed_over(store):
    store.log([prediction("a")])
    assert store.log([prediction("a"), prediction("b")], again=True) == 1
    assert store.log([prediction("a"), prediction("b")], again=True) == 0
    assert store.counts() == {"champion": 2}
    with pytest.raises(IntegrityError):
        store.log([prediction("c"), prediction("a")])
    assert store.counts() == {"champion": 2}


def test_a_prediction_is_followed_from_its_request_to_the_decision(store):
    assert trace(store, "a") is None
    promoted = decide("promote", "version 1", ["good"], {"generation": "g"})
    store.record(promoted)
    store.set_route("1", promoted.id, verified=True)
    store.log([prediction("a"), prediction("p", variant="probe")])
    store.add_labels([label("a", 0)])
    store.add_labels([label("a", 1)])
    for to, action in ((1, "skip"), (2, "skip"), (3, "retrain")):
        store.record(decide(action, "version 1", ["why"], {"version": "1", "from": 1, "to": to}))
    store.record(decide("skip", "version 2", ["another version's"], {"version": "2", "from": 1, "to": 9}))
    asked = store.decisions("retrain")[0]
    store.record(decide("promote", "version 2", ["better"], {"trigger": f"decision {asked.id}"}))
    told = trace(store, "a")
    assert told["prediction"]["seq"] == 1
    assert "features" not in told["prediction"]
    assert [entry["value"] for entry in told["labels"]] == [0, 1]
    assert [(w["action"], w["more"]) for w in told["windows"]] == [("skip", 1), ("retrain", 0)]
    assert told["windows"][1]["led_to"]["subject"] == "version 2"
    assert told["route"]["decision"] == promoted.id
    assert told["route"]["by"] == "ratchet"
    # The watch never looks at probes.
    assert trace(store, "p")["windows"] == []


def test_a_store_that_cannot_be_opened_is_said(tmp_path, postgres):
    with pytest.raises(StoreError, match="cannot be opened"):
        Store("sqlite:////proc/nowhere/store.db", "credit")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store("nothing at all", "credit")
    with pytest.raises(StoreError, match="does not exist"):
        Store(postgres().replace("/t", "/missing", 1), "credit")
    with pytest.raises(StoreError, match="cannot be opened") as told:
        Store("postgresql+psycopg://ratchet:secret@127.0.0.1:9/ratchet", "credit")
    assert "secret" not in str(told.value)


def test_a_server_without_tables_says_what_to_run(postgres):
    url = postgres()
    with pytest.raises(StoreError, match=r"no tables.*ratchet migrate"):
        Store(url, "credit")
    later = Store(url, "credit", checked=False)
    assert later.migrate() == (None, schema.HEAD)
    assert later.migrate() == (schema.HEAD, schema.HEAD)
    Store(url, "credit").close()


def test_a_newer_store_is_refused_and_stays_as_it_is(url, store):
    with store.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    for open_it in (lambda: Store(url, "credit"), lambda: Store(url, "credit", checked=False).migrate()):
        with pytest.raises(StoreError, match=r"newer Ratchet \(schema 9999"):
            open_it()
    with store.engine.connect() as connection:
        assert schema.revision(connection) == "9999"


def test_the_first_release_s_store_is_migrated_with_every_row(url, store):
    store.log([prediction("a"), prediction("b")])
    store.add_labels([label("a", 1)])
    with store.engine.begin() as connection:
        for step in (
            "DROP TABLE alembic_version",
            "DROP INDEX decisions_by_action",
            "DROP TABLE looks",
            "CREATE TABLE schema_version (version integer)",
        ):
            connection.execute(sa.text(step))
        connection.execute(sa.text("INSERT INTO schema_version VALUES (1)"))
        if not store.local:
            connection.execute(sa.text("ALTER TABLE predictions ALTER COLUMN seq TYPE integer"))
    assert Store(url, "credit", checked=False).migrate() == ("0001", schema.HEAD)
    opened = Store(url, "credit")
    assert list(opened.window()["id"]) == ["a", "b"]
    opened.log([prediction("c")])
    assert opened.counts() == {"champion": 3}
    opened.close()


def test_the_steps_make_the_tables_that_are_declared(store):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": lambda name, kind, _: name != "alembic_version"})
        differences = compare_metadata(context, schema.metadata)
    assert differences == []
    folder = ScriptDirectory(str(ROOT / "src/ratchet/migrations"))
    assert folder.get_current_head() == schema.HEAD
    assert {step.revision for step in folder.walk_revisions()} == set(schema.KNOWN)


def test_a_lock_frees_itself_with_its_process(url, store):
    code = f"import time; from ratchet.store import Store\nwith Store({url!r}, 'credit').exclusive('work') as free:\n print(free, flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline().strip() == "True"
    with store.exclusive("work") as free:
        assert not free
    holder.kill()
    holder.wait()
    with store.exclusive("work", wait=5) as free:
        assert free


def test_every_look_of_the_monitor_is_noted(store):
    assert store.looked() is None
    store.look(None)
    first = store.looked()
    store.look("d")
    assert store.looked() >= first


def test_no_column_of_a_contract_is_called_as_the_log_calls_its_own(store):
    store.log([prediction("a", features='{"income": 5.0}')])
    own = {*store.window().columns, *store.aged("1", now(), 10).columns, *store.asked(["a"]).columns} - {"income"}
    assert own <= RESERVED
