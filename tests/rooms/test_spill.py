"""The log's other place: while the store is away answers are kept on disk, and each comes back once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from sqlalchemy.exc import OperationalError

from ratchet.store import Store
from serving.log import PredictionLog
from serving.spill import Spill
from tests.ratchet.test_store import prediction


@pytest.fixture
def store(tmp_path):
    opened = Store(f"sqlite:///{tmp_path / 'store.db'}", "credit")
    yield opened
    opened.close()


@pytest.fixture
def spill(tmp_path):
    return Spill(tmp_path / "spill")


def test_what_was_spilled_comes_back_once_and_whole(store, spill):
    rows = [prediction(str(place)) for place in range(1200)]
    store.log(rows[:3])
    spill.append(rows[:600])
    spill.append(rows[600:])
    assert spill.waiting() == 1200
    # Its own file is still being written: nobody may take it over yet.
    assert Spill(spill.folder).replay(store) == 0
    spill.rest()
    assert spill.replay(store) == 1197
    assert (spill.waiting(), spill.files()) == (0, [])
    assert store.counts() == {"champion": 1200}
    assert set(store.window()["at"]) == {row["at"] for row in rows}


def test_half_a_line_was_never_acknowledged(store, spill):
    spill.append([prediction("a"), prediction("b")])
    spill.rest()
    (path,) = spill.files()
    path.write_bytes(path.read_bytes()[:-20])
    assert spill.replay(store) == 1
    assert store.counts() == {"champion": 1}


def test_a_file_of_a_killed_process_is_taken_over(store, spill, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from serving.spill import Spill; from tests.ratchet.test_store import prediction\n"
        "Spill(Path(sys.argv[1])).append([prediction('a')]); kept = 1; print('spilled', flush=True); time.sleep(60)"
    ).replace("Spill(Path(sys.argv[1])).append", "mine = Spill(Path(sys.argv[1])); mine.append")
    other = subprocess.Popen([sys.executable, "-c", code, str(spill.folder)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline().strip() == "spilled"
    assert spill.replay(store) == 0
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert spill.replay(store) == 1
    assert store.counts() == {"champion": 1}


def test_a_disk_that_takes_nothing_is_an_error_and_leaves_no_half_line(spill, monkeypatch):
    spill.append([prediction("a")])
    size = spill.files()[0].stat().st_size

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    # A full disk cannot be had without privileges: the flush to it fails instead.
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        spill.append([prediction("b")])
    assert spill.files()[0].stat().st_size == size


def broken(*_: object) -> None:
    raise OperationalError("insert", {}, Exception("server closed the connection"))


def test_answers_go_on_while_the_store_is_away_and_come_back_by_themselves(store, spill, monkeypatch):
    async def scene() -> None:
        log = PredictionLog(store, spill)
        tasks = [asyncio.create_task(log.write()), asyncio.create_task(log.mend())]
        await log.append([prediction("a")])
        real, check = store.log, store.check
        monkeypatch.setattr(store, "log", broken)
        monkeypatch.setattr(store, "check", broken)
        await log.append([prediction("b")])
        assert log.away
        await log.append([prediction("c")])
        assert spill.waiting() == 2
        # A request that is repeated meanwhile gets the answer that it got.
        assert [answer["prediction_id"] for answer in await log.answered(["c", "zz"])] == ["c"]
        assert await log.answered(["zz"]) == []
        monkeypatch.setattr(store, "log", real)
        monkeypatch.setattr(store, "check", check)
        for _ in range(100):
            if not log.away and not spill.files():
                break
            await asyncio.sleep(0.05)
        await log.append([prediction("d")])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scene())
    assert sorted(store.window()["id"]) == ["a", "b", "c", "d"]


def test_where_neither_takes_it_the_request_is_not_acknowledged(store, tmp_path, monkeypatch):
    nowhere = tmp_path / "a file"
    nowhere.write_text("in the way", encoding="utf-8")

    async def scene() -> None:
        log = PredictionLog(store, Spill(nowhere / "spill"))
        task = asyncio.create_task(log.write())
        monkeypatch.setattr(store, "log", broken)
        with pytest.raises(OSError):
            await log.append([prediction("a")])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    assert store.counts() == {}


def test_rows_that_the_store_does_not_want_are_no_reason_to_spill(store, spill):
    async def scene() -> None:
        log = PredictionLog(store, spill)
        task = asyncio.create_task(log.write())
        with pytest.raises(Exception, match="NOT NULL"):
            await log.append([prediction("a") | {"version": None}])
        assert not log.away
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    assert spill.files() == []
