"""The log's other place: while the store is away answers are kept on disk, and each comes back once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import OperationalError

from ratchet.errors import StoreError
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
    assert Spill(spill.folder).replay(store) == (0, 0)
    spill.rest()
    assert spill.replay(store) == (1197, 0)
    assert (spill.waiting(), spill.files()) == (0, [])
    assert store.counts() == {"champion": 1200}
    assert set(store.window()["at"]) == {row.at for row in rows}


def test_half_a_line_was_never_acknowledged(store, spill):
    spill.append([prediction("a"), prediction("b")])
    spill.rest()
    (path,) = spill.files()
    path.write_bytes(path.read_bytes()[:-20])
    assert spill.replay(store) == (1, 0)
    assert store.counts() == {"champion": 1}


def test_a_file_of_a_killed_process_is_taken_over(store, spill, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from serving.spill import Spill; from tests.ratchet.test_store import prediction\n"
        "mine = Spill(Path(sys.argv[1])); mine.append([prediction('a')]); print('spilled', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(spill.folder)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline().strip() == "spilled"
    assert spill.replay(store) == (0, 0)
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert spill.replay(store) == (1, 0)
    assert store.counts() == {"champion": 1}


NEARLY_FULL = """
import resource, signal, sys
from pathlib import Path
from serving.spill import Spill
from tests.ratchet.test_store import prediction
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spill = Spill(Path(sys.argv[1]))
spill.append([prediction("a")])
size = spill.files()[0].stat().st_size
# Room for a row and a half.
resource.setrlimit(resource.RLIMIT_FSIZE, (int(2.5 * size), resource.RLIM_INFINITY))
try:
    spill.append([prediction(name) for name in "bcd"])
except OSError as error:
    print("refused", spill.files()[0].stat().st_size == size)
spill.append([prediction("e")])
"""


def test_a_disk_that_is_nearly_full_takes_all_of_a_request_or_nothing(store, spill):
    done = subprocess.run([sys.executable, "-c", NEARLY_FULL, str(spill.folder)], capture_output=True, text=True)
    assert done.stdout.split() == ["refused", "True"], done.stderr
    assert spill.replay(store) == (2, 0)
    assert list(store.window()["id"]) == ["a", "e"]


def test_what_cannot_be_taken_is_kept_aside_and_keeps_nothing_waiting(store, spill):
    store.log([prediction("twin")])
    spill.append([prediction("a"), prediction("twin", features='{"income": 9.0}'), prediction("b", version="v" * 10)])
    spill.rest()
    (path,) = spill.files()
    path.write_bytes(b"\0\0 no line\n" + path.read_bytes())
    spill.append([prediction("later")])
    spill.rest()
    assert spill.replay(store) == (3, 2)
    assert sorted(store.window()["id"]) == ["a", "b", "later", "twin"]
    assert spill.files() == []
    kept = path.with_suffix(".rejected").read_text(encoding="utf-8")
    assert "no line" in kept
    assert '"twin"' in kept


def test_a_keyed_answer_is_found_in_the_file_of_another_process(spill):
    other = Spill(spill.folder)
    other.append([prediction("a", keyed=True)])
    other.append([prediction("b")])
    assert [row.id for row in spill.answered(["a", "b"])] == ["a"]
    other.append([prediction("c", keyed=True)])
    assert [row.id for row in spill.answered(["c", "a"])] == ["c", "a"]
    assert spill.waiting() == 3


def test_two_that_replay_at_once_take_each_row_once(store, spill):
    for start in range(0, 3000, 500):
        spill.append([prediction(str(place)) for place in range(start, start + 500)])
        spill.rest()
    with ThreadPoolExecutor(4) as pool:
        new = list(pool.map(lambda _: Spill(spill.folder).replay(store), range(4)))
    assert sum(taken for taken, _ in new) == 3000
    assert store.counts() == {"champion": 3000}


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
        await log.append([prediction("c", keyed=True)])
        assert spill.waiting() == 2
        # A request that is repeated meanwhile gets the answer that it got.
        assert [row.id for row in await log.answered(["c", "zz"])] == ["c"]
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
            await log.append([prediction("a", version=None)])
        assert not log.away
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    assert spill.files() == []


def test_a_store_that_hangs_is_given_up_and_the_answer_goes_to_the_spill(store, spill, monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr("serving.log.PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(store, "log", lambda *_, **__: hangs.wait(30))

    async def scene() -> None:
        log = PredictionLog(store, spill)
        task = asyncio.create_task(log.write())
        begun = time.monotonic()
        await log.append([prediction("a")])
        await log.append([prediction("b")])
        assert time.monotonic() - begun < 2
        assert log.away
        with pytest.raises(StoreError):
            await log.ask(store.counts)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        hangs.set()

    asyncio.run(scene())
    assert spill.waiting() == 2


def test_a_fault_in_the_writer_leaves_nobody_waiting(store, spill, monkeypatch):
    async def scene() -> None:
        log = PredictionLog(store, spill)
        task = asyncio.create_task(log.write())
        monkeypatch.setattr(spill, "append", lambda *_: 1 / 0)
        log.away = True
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(log.append([prediction("a")]), 5)
        log.away = False
        await asyncio.wait_for(log.append([prediction("b")]), 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    assert store.counts() == {"champion": 1}


def test_a_commit_that_hangs_is_given_up_though_the_store_is_known_to_be_away(store, spill, monkeypatch):
    """A question found the store away while the commit was under way: the rows go to the spill all the same."""
    hangs = threading.Event()
    monkeypatch.setattr("serving.log.PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(store, "log", lambda *_, **__: hangs.wait(30))

    async def scene() -> None:
        log = PredictionLog(store, spill)
        task = asyncio.create_task(log.write())
        told = asyncio.create_task(log.append([prediction("a")]))
        await asyncio.sleep(0.05)
        log.away = True
        await asyncio.wait_for(told, 3)
        hangs.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    assert spill.waiting() == 1


def test_a_commit_that_ends_as_it_is_given_up_is_told_once(store, spill, monkeypatch):
    """Whichever of the two comes first: told once, and in the log once."""
    monkeypatch.setattr("serving.log.PATIENCE_SECONDS", 0.2)
    real = store.log

    def slow(rows, **more):
        # About as long as one is waited for.
        time.sleep(0.2)
        return real(rows, **more)

    monkeypatch.setattr(store, "log", slow)
    told: list[str] = []

    async def scene() -> None:
        log = PredictionLog(store, spill)
        task = asyncio.create_task(log.write())
        for place in range(12):
            name = f"r{place}"
            log.put([prediction(name)], lambda error, name=name: told.append(name))
            await asyncio.sleep(0.21 + place / 300)
            log.away = False
        await asyncio.sleep(0.5)
        assert log.waiting == 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    spill.rest()
    spill.replay(store)
    assert sorted(told) == sorted(f"r{place}" for place in range(12))
    assert store.counts() == {"champion": 12}
