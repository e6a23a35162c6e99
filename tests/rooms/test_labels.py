"""Labels that arrive together are stored together, and each request is told of its own."""

from __future__ import annotations

import asyncio
import threading

import pytest
import sqlalchemy as sa

from ratchet.errors import StoreError
from ratchet.store import Store
from serving.batching import Refusal
from serving.labels import GROUP_ROWS, Labels
from serving.log import PredictionLog
from serving.spill import Spill
from tests.ratchet.test_store import label, prediction


@pytest.fixture
def store(tmp_path):
    opened = Store(f"sqlite:///{tmp_path / 'store.db'}", "credit")
    opened.log([prediction(f"p{place}") for place in range(600)])
    yield opened
    opened.close()


def transactions(store):
    """How often labels are inserted, counted as it happens."""
    seen = []

    @sa.event.listens_for(store.engine, "before_cursor_execute")
    def count(connection, cursor, statement, parameters, context, executemany):
        seen.extend([statement] if statement.startswith("INSERT INTO labels") else [])

    return seen


def crowd(store, tmp_path, requests, most=20_000):
    """Hand the requests in at once; what each was told, an exception where it was refused."""

    async def run():
        labels = Labels(store, PredictionLog(store, Spill(tmp_path / "spill")), most)
        return await asyncio.gather(*(labels.add(rows) for rows in requests), return_exceptions=True)

    return asyncio.run(run())


def test_five_hundred_requests_are_two_transactions_or_three(store, tmp_path):
    seen = transactions(store)
    requests = [[label(f"p{place}", place % 2)] for place in range(500)]
    requests[7] = [label("p7", 1), label("nobody", 1), label("p8", 1)]
    told = crowd(store, tmp_path, requests)
    assert told[7] == [True, None, True]
    # The request that came later said 0 of what was said to be 1: it supersedes.
    assert told[8] == [True]
    assert [one for place, one in enumerate(told) if place != 7] == [[True]] * 499
    assert len(seen) <= 3
    assert store.window()["truth"].notna().sum() == 500


def test_large_requests_are_not_put_into_one_group(store, tmp_path):
    seen = transactions(store)
    requests = [[label(f"p{place % 600}", (start + place // 600) % 2) for place in range(GROUP_ROWS)] for start in range(3)]
    told = crowd(store, tmp_path, requests)
    assert [len(one) for one in told] == [GROUP_ROWS] * 3
    assert len(seen) == 3


def test_what_the_store_does_not_want_of_one_is_no_fault_of_the_others(store, tmp_path):
    wrong = label("p2", 1) | {"provenance": object()}
    told = crowd(store, tmp_path, [[label("p1", 1)], [wrong], [label("p3", 0)]])
    assert (told[0], told[2]) == ([True], [True])
    assert isinstance(told[1], Exception)


def test_more_than_may_wait_is_refused_and_the_rest_is_taken(store, tmp_path):
    told = crowd(store, tmp_path, [[label(f"p{place}", 1)] for place in range(20)], most=12)
    assert told[:12] == [[True]] * 12
    assert {type(one) for one in told[12:]} == {Refusal}
    assert {one.status for one in told[12:]} == {503}
    # One that is larger than all that may wait is taken where nothing else waits.
    assert crowd(store, tmp_path, [[label(f"p{place}", 0) for place in range(20)]], most=12) == [[True] * 20]


def test_a_store_that_is_away_is_said_to_all_that_wait(store, tmp_path, monkeypatch):
    def away(rows):
        raise StoreError("it is away")

    monkeypatch.setattr(store, "add_labels", away)
    told = crowd(store, tmp_path, [[label(f"p{place}", 1)] for place in range(5)])
    assert {type(one) for one in told} == {StoreError}


def test_the_one_that_is_not_wanted_is_looked_for_by_halves(store, tmp_path):
    seen = transactions(store)
    requests = [[label(f"p{place}", 1)] for place in range(512)]
    requests[300] = [label("p300", 1) | {"provenance": object()}]
    told = crowd(store, tmp_path, requests)
    assert isinstance(told[300], Exception)
    assert [one for place, one in enumerate(told) if place != 300] == [[True]] * 511
    assert len(seen) < 40


@pytest.mark.long
def test_a_slow_question_does_not_make_the_store_seem_away(store, tmp_path, monkeypatch):
    monkeypatch.setattr("serving.log.PATIENCE_SECONDS", 0.3)
    release = threading.Event()

    async def run(check):
        monkeypatch.setattr(store, "check", check)
        log = PredictionLog(store, Spill(tmp_path / "spill"))
        with pytest.raises(TimeoutError):
            await log.ask(release.wait, 5)
        return log.away

    assert not asyncio.run(run(lambda: None))
    assert asyncio.run(run(lambda: release.wait(5)))
    release.set()


def test_one_who_hangs_up_keeps_nobody_from_being_told(store, tmp_path):
    async def run():
        labels = Labels(store, PredictionLog(store, Spill(tmp_path / "spill")), 100)
        asked = [asyncio.create_task(labels.add([label(f"p{place}", 1)])) for place in range(5)]
        await asyncio.sleep(0)
        asked[2].cancel()
        return await asyncio.gather(*asked, return_exceptions=True)

    told = asyncio.run(run())
    assert isinstance(told[2], asyncio.CancelledError)
    assert [told[place] for place in (0, 1, 3, 4)] == [[True]] * 4
