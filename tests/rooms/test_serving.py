"""The service by itself, with a release and no stack: both roads, both crowds, and what it does on a bad day."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest

from flows.experiment_parity import caught, million
from flows.parity import parity
from flows.setting import Setting
from load_tests.crowd import Crowd, request
from ratchet.data.arrow import write_stream
from ratchet.errors import BatchError
from ratchet.experiment.routing import challenged
from ratchet.release import read
from ratchet.settings import ROOT, Settings
from ratchet.simulation.sample import draw
from ratchet.simulation.skews import skews
from ratchet.store import Store
from stack import processes

LOAD = {"X-Ratchet-Variant": "load"}
# A header that the short road does not know.
LONG = {"X-Of-No-Meaning": "1"}


@dataclass
class Served:
    """A running service, its state folder and its process."""

    url: str
    port: int
    home: Path
    process: subprocess.Popen[bytes]
    log: Path

    def store(self) -> Store:
        return Store(f"sqlite:///{self.home / 'store.db'}", "credit")

    def workers(self) -> list[psutil.Process]:
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [process] if "_bentoml_impl.worker" in " ".join(process.cmdline()) else []
        return found

    def ask(self, record, **headers) -> httpx.Response:
        return httpx.post(f"{self.url}/predict", json=record, headers=LOAD | headers, timeout=30)


@pytest.fixture
def serve(standing, tmp_path):
    """Start a service on a copy of the state folder, with variables of its own."""
    import shutil

    started: list[Served] = []

    def start(**more: str) -> Served:
        home = tmp_path / f"home{len(started)}"
        shutil.copytree(standing, home)
        (home / "tmp").mkdir()
        served = _start(home, more)
        started.append(served)
        return served

    yield start
    for served in started:
        _end(served)


@pytest.fixture(scope="module")
def served(standing, tmp_path_factory):
    """One service with two workers for all that leaves it unharmed."""
    import shutil

    home = tmp_path_factory.mktemp("served") / "home"
    shutil.copytree(standing, home)
    (home / "tmp").mkdir()
    started = _start(home, {"RATCHET_WORKERS": "2"})
    yield started
    _end(started)


def _start(home: Path, more: dict[str, str]) -> Served:
    port = processes.free_port()
    environment = processes.environment(home, "credit", {"prefect": 1, "mlflow": 1, "service": port}) | more
    log = home / "service.log"
    with log.open("wb") as out:
        command = [*processes.service_command(), "--port", str(port)]
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    wanted = int(more.get("RATCHET_WORKERS", "1"))
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            told = re.search(r"(?m)^ratchet_workers (\S+)$", httpx.get(f"{url}/metrics", timeout=5).text)
            if told and float(told[1]) == wanted:
                return Served(url, port, home, process, log)
        time.sleep(0.2)
    raise AssertionError(log.read_text(encoding="utf-8"))


def _end(served: Served) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(served.process.pid, signal.SIGTERM)
    try:
        served.process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(served.process.pid, signal.SIGKILL)
        served.process.wait(20)


@pytest.fixture
def record(contract):
    return draw(contract, 1, 1)[0]


def raw(served: Served, data: bytes, *, more: bytes = b"", answers: int = 1, wait: float = 10.0) -> bytes:
    """What comes back for these bytes on a connection of their own; `more` follows in a packet of its own."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=wait) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(data)
        if more:
            time.sleep(0.05)
            client.sendall(more)
        got = b""
        try:
            while got.count(b"HTTP/1.1 ") < answers or not _whole(got):
                part = client.recv(65536)
                if not part:
                    break
                got += part
        except ConnectionError:
            pass
        except TimeoutError:
            # Neither answered nor closed.
            return got or b"nothing"
    return got


def _whole(got: bytes) -> bool:
    head, end, body = got[got.rfind(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(end) and (length is None or len(body) >= int(length[1]))


def _answer(client: socket.socket) -> bytes:
    """What comes until the answer is whole, or the connection ends."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while part := client.recv(65536):
            got += part
            if _whole(got):
                break
    return got


def post(body: bytes, *headers: str, line: str = "POST /predict HTTP/1.1") -> bytes:
    head = [line, "Host: a", f"Content-Length: {len(body)}", "X-Ratchet-Variant: load", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


# ---- the two roads


def test_the_short_road_answers_as_the_long_one(served, contract, record):
    """Every kind of body, over both roads: the same status, the same kind of content, the same answer but for the id."""
    bodies = [json.dumps(r) for r in draw(contract, 40, 5)]
    bodies += [json.dumps(draw(contract, 7, 6)), json.dumps([record]), " " + json.dumps(record), "\n[" + json.dumps(record) + "]"]
    bodies += [
        json.dumps(record | change) for change in ({"amount": -1}, {"odd": 1}, {"employment": "king"}, {"amount": None}, {"amount": "1"})
    ]
    bodies += [
        json.dumps([record, record | {"amount": 10**9}]),
        "[]",
        "{",
        "nonsense",
        "null",
        "7",
        '"text"',
        '{"amount": NaN}',
        "[1, 2]",
        " ",
    ]
    bodies += [json.dumps(record | {"customer_id": name}) for name in ("C1", "", 7, None, "x" * 129)]
    bodies += [json.dumps(record | {"amount": 75000, "income": 1.0})]

    def plain(response: httpx.Response) -> tuple[object, ...]:
        told = response.json()
        for answer in told if isinstance(told, list) else [told]:
            answer.pop("prediction_id", None)
        return response.status_code, response.headers["content-type"], response.headers.get("retry-after"), told

    with httpx.Client(base_url=served.url, timeout=30) as client:
        for body in bodies:
            headers = {"Content-Type": "application/json"} | LOAD
            short = client.post("/predict", content=body, headers=headers)
            long = client.post("/predict", content=body, headers=headers | LONG)
            assert plain(short) == plain(long), body
        for variant in ("champion", "probe", "load", "mine", ""):
            headers = {"Content-Type": "application/json", "X-Ratchet-Variant": variant}
            short = client.post("/predict", json=record, headers=headers)
            long = client.post("/predict", json=record, headers=headers | LONG)
            assert plain(short) == plain(long)


def test_however_a_request_is_cut_into_packets_it_is_one_request(served, record):
    body = json.dumps(record).encode()
    whole = post(body)
    for cut in (1, 5, 30, whole.index(b"\r\n\r\n") + 2, whole.index(b"\r\n\r\n") + 4, len(whole) - 1):
        assert raw(served, whole[:cut], more=whole[cut:]).startswith(b"HTTP/1.1 200 "), cut


def test_requests_that_come_together_are_answered_in_their_order(served, contract):
    records = draw(contract, 4, 9)
    alone = [served.ask(r).json()["probability"] for r in records]
    packets = [post(json.dumps(r).encode()) for r in records]
    for first, second in ((b"".join(packets), b""), (packets[0], b"".join(packets[1:])), (b"".join(packets[:2]), b"".join(packets[2:]))):
        got = raw(served, first, more=second, answers=4)
        assert [float(p) for p in re.findall(rb'"probability":([0-9.e-]+)', got)] == pytest.approx(alone)


def test_many_requests_behind_one_another_are_answered_in_their_order_whoever_answers(served, contract):
    """More than is held while one is answered, of both roads mixed: each answer is that of its request."""
    records = draw(contract, 60, 11)
    alone = [answer["probability"] for answer in httpx.post(f"{served.url}/predict", json=records, headers=LOAD).json()]
    filler = "X-Filler: " + "x" * 3000
    packets = [post(json.dumps(r).encode(), *([filler] if place % 3 == 2 else [])) for place, r in enumerate(records)]
    got = raw(served, packets[0], more=b"".join(packets[1:]), answers=60)
    assert [float(p) for p in re.findall(rb'"probability":([0-9.e-]+)', got)] == alone


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nUser-Agent: x\rTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}", b"400"),
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nAccept: x\x00y\r\nContent-Length: 2\r\n\r\n{}", b"400"),
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"POST /predict HTTP/9.9\r\n\r\n", b"400"),
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", b"400"),
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", b"400"),
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nB\x00d: 1\r\nContent-Length: 2\r\n\r\n{}", b"400"),
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200_000 + b"\r\nContent-Length: 2\r\n\r\n{}", b"4"),
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", b"422"),
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: text/xml\r\nContent-Length: 2\r\n\r\n{}", b"415"),
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", b"422"),
        (b"GET /predict HTTP/1.1\r\nHost: a\r\n\r\n", b"405"),
        (b"POST /predict/../predict HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", b"40"),
    ],
)
def test_an_abused_head_is_a_4xx_or_a_closed_connection(served, record, data, status):
    got = raw(served, data)
    assert got == b"" or got.startswith(b"HTTP/1.1 " + status), got[:200]
    assert served.ask(record).status_code == 200


def test_unusual_requests_are_answered_too(served, record):
    body = json.dumps(record).encode()
    assert raw(served, post(body, "Connection: close")).startswith(b"HTTP/1.1 200 ")
    assert b" 200 " in raw(served, post(body, line="POST /predict HTTP/1.0"))[:20]
    assert b" 200 OK" in raw(served, post(body, "Expect: 100-continue"), answers=2)
    chunked = b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert raw(served, chunked).startswith(b"HTTP/1.1 200 ")


# ---- clients that misbehave


@pytest.mark.long
def test_clients_that_hang_up_or_dawdle_harm_nobody(served, contract):
    """A hundred clients that leave at once, and some that send a byte a second: who behaves is answered as ever."""
    records = draw(contract, 20, 3)
    whole = post(json.dumps(records[0]).encode())
    dawdlers = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(20)]
    for place in range(100):
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(whole[: len(whole) if place % 2 else len(whole) // 2])
    closed = set()
    begun = time.monotonic()
    sent = 0
    while time.monotonic() - begun < 22 and len(closed) < len(dawdlers):
        for number, client in enumerate(dawdlers):
            if number in closed:
                continue
            try:
                client.sendall(whole[sent : sent + 1])
                client.setblocking(False)
                if client.recv(1000) == b"":
                    closed.add(number)
                client.setblocking(True)
            except BlockingIOError:
                client.setblocking(True)
            except OSError:
                closed.add(number)
        sent += 1
        answers = [served.ask(r) for r in records[:3]]
        assert {answer.status_code for answer in answers} == {200}
        time.sleep(1)
    for client in dawdlers:
        client.close()
    assert len(closed) == len(dawdlers), "a client that never finishes its head keeps its connection"


def test_two_workers_share_the_connections(served, contract):
    before = {p.pid: p.cpu_times().user for p in served.workers()}
    crowd = Crowd("127.0.0.1", served.port, 64)
    asked = [request("/predict", json.dumps(r).encode(), LOAD) for r in draw(contract, 50, 2)]
    try:
        outcome = crowd.steady(asked, 3000, 4)
    finally:
        crowd.close()
    assert outcome.failed == 0
    spent = [p.cpu_times().user - before[p.pid] for p in served.workers()]
    assert len(spent) == 2
    assert min(spent) > 0.2 * max(spent), spent


# ---- the log


@pytest.mark.long
def test_every_acknowledged_prediction_is_in_the_log_once_when_the_service_is_killed_under_load(serve, contract):
    served = serve(RATCHET_WORKERS="2")
    records, stop = draw(contract, 50, 4), threading.Event()
    acknowledged: list[str] = []

    def ask(start: int) -> None:
        with httpx.Client(base_url=served.url, headers=LOAD, timeout=5) as client:
            place = start
            while not stop.is_set():
                place += 1
                body = records[place % 50] if place % 5 else records[:10]
                try:
                    answer = client.post("/predict", json=body)
                except httpx.TransportError:
                    time.sleep(0.02)
                    continue
                if answer.status_code == 200:
                    told = answer.json()
                    acknowledged.extend(one["prediction_id"] for one in (told if isinstance(told, list) else [told]))

    askers = [threading.Thread(target=ask, args=(start,), daemon=True) for start in range(8)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(2):
            time.sleep(2)
            served.workers()[0].kill()
        time.sleep(1)
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    with contextlib.closing(served.store()) as store:
        logged = [row.id for row in store.answered(acknowledged)]
    assert len(acknowledged) > 500
    assert len(set(acknowledged)) == len(acknowledged)
    assert logged == acknowledged


def test_who_is_being_answered_when_the_service_ends_is_answered(serve, contract):
    """All ask, and the service is told to end before it can have answered: nobody who was taken in is sent away."""
    served = serve()
    (worker,) = served.workers()
    body = json.dumps(draw(contract, 20, 1)).encode()
    clients = [socket.create_connection(("127.0.0.1", served.port), timeout=20) for _ in range(60)]
    # A connection that the service has not even accepted yet is nobody's.
    for client in clients:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert _answer(client).startswith(b"HTTP/1.1 200 ")
    for client in clients:
        client.sendall(post(body))
    time.sleep(0.02)
    worker.terminate()
    answers = []
    for client in clients:
        with client:
            answers.append(_answer(client))
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers), [answer[:40] for answer in answers]
    ids = [one["prediction_id"] for answer in answers for one in json.loads(answer.partition(b"\r\n\r\n")[2])]
    with contextlib.closing(served.store()) as store:
        assert len(store.answered(ids)) == len(ids) == 1200


AWAY = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"


@pytest.mark.long
@pytest.mark.parametrize(
    ("policy", "status", "place"), [("refuse", 503, "refused"), ("unlogged", 200, "unlogged"), ("spill", 200, "spilled")]
)
def test_a_log_that_is_away_has_a_stated_policy(serve, record, policy, status, place):
    served = serve(DATABASE_URL=AWAY, RATCHET_LOG_POLICY=policy, RATCHET_SPILL=str(remembered(serve)))
    answer = served.ask(record)
    assert answer.status_code == status
    if status == 503:
        assert answer.headers["retry-after"] == "1"
    told = httpx.get(f"{served.url}/metrics").text
    assert re.search(rf'ratchet_logged_rows_total{{to="{place}"}} 1\.0', told)


def remembered(serve) -> Path:
    """A spill folder in which a service has noted which version it answered with."""
    before = serve()
    _end(before)
    return before.home / "spill"


# ---- the route


def test_a_challenger_answers_its_share_of_the_entities_and_a_shadow_is_told_to_nobody(serve, contract):
    served = serve()
    records = [r | {"customer_id": f"C{place}"} for place, r in enumerate(draw(contract, 400, 8))]
    with contextlib.closing(served.store()) as store:
        store.set_beside("d", "1", 0.3, "3")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            told = httpx.post(f"{served.url}/predict", json=records, timeout=30).json()
            if {answer["variant"] for answer in told} == {"champion", "challenger"}:
                break
            time.sleep(0.2)
        again = [httpx.post(f"{served.url}/predict", json=r, timeout=30).json() for r in records[:40]]
        own = [challenged(r["customer_id"], "1", 0.3) for r in records]
        assert [answer["variant"] == "challenger" for answer in told] == own
        assert [answer["model_version"] for answer in told] == ["1" if mine else "2" for mine in own]
        # The same customer, alone this time: the same version, the same probability.
        assert [(a["model_version"], a["probability"]) for a in again] == [(a["model_version"], a["probability"]) for a in told[:40]]
        assert 0.2 < sum(own) / 400 < 0.4
        # Probes and load tests are the champion's.
        assert served.ask(records[own.index(True)]).json()["model_version"] == "2"
        rows = store.answered([answer["prediction_id"] for answer in told])
        assert {(row.variant, row.propensity) for row in rows} == {("champion", 0.7), ("challenger", 0.3)}
        import sqlalchemy as sa

        for _ in range(300):
            with store.engine.connect() as connection:
                shadowed = dict(connection.execute(sa.text("SELECT prediction_id, version FROM shadows")).all())
            if {row.id for row in rows} <= set(shadowed):
                break
            time.sleep(0.1)
        assert {shadowed[row.id] for row in rows} == {"3"}
        assert httpx.get(f"{served.url}/status").json()["challenger"] == "1"


# ---- who may ask, and how many


def test_a_service_with_a_token_answers_those_who_show_it(serve, record):
    token = "a-token-of-some-length"
    served = serve(RATCHET_TOKEN=token)
    for headers in ({}, LONG, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {token} "[:-2]}):
        refused = served.ask(record, **headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert "Authorization" in refused.json()["error"]
    for headers in ({}, LONG):
        assert served.ask(record, Authorization=f"Bearer {token}", **headers).status_code == 200
    for path in ("/status", "/decisions", "/predictions/x"):
        assert httpx.get(f"{served.url}{path}").status_code == 401
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/contract"):
        assert httpx.get(f"{served.url}{path}").status_code == 200


def test_more_than_may_wait_is_refused_at_once_and_the_rest_is_answered(serve, contract):
    served = serve(RATCHET_MAX_WAITING="40")
    asked = [request("/predict", json.dumps(r).encode(), LOAD) for r in draw(contract, 50, 2)]
    with ThreadPoolExecutor(2) as pool:
        crowds = [Crowd("127.0.0.1", served.port, 300) for _ in range(2)]
        outcomes = list(pool.map(lambda crowd: crowd.burst(asked, within=20), crowds))
        for crowd in crowds:
            crowd.close()
    answered, refused = sum(len(o.bodies) for o in outcomes), sum(o.failed for o in outcomes)
    assert answered + refused == 600
    assert answered >= 40
    told = httpx.get(f"{served.url}/metrics").text
    assert re.search(rf"ratchet_shed_requests_total {float(refused)}", told)
    assert served.ask(draw(contract, 1, 1)[0]).status_code == 200
    # Large ones count as what they hold, on every road.
    large = json.dumps(draw(contract, 400, 3)).encode()
    for headers in ({"Content-Type": "application/json"}, {"Content-Type": "application/json", "Idempotency-Key": "k"}):
        with ThreadPoolExecutor(6) as pool:
            keyed = [headers | ({"Idempotency-Key": f"k{i}"} if len(headers) > 1 else {}) for i in range(6)]
            codes = list(pool.map(lambda h: httpx.post(f"{served.url}/predict", content=large, headers=h, timeout=30).status_code, keyed))
        assert set(codes) == {200, 503}, codes


# ---- tables


ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"} | LOAD


def table(records, **change) -> bytes:
    columns = {name: [r.get(name) for r in records] for name in records[0]} | change
    return write_stream(columns)


def test_a_table_is_answered_with_a_table_as_its_records_are(served, contract):
    records = [r | {"customer_id": f"C{place}"} for place, r in enumerate(draw(contract, 6000, 21))]
    back = httpx.post(f"{served.url}/predict", content=table(records), headers=ARROW, timeout=60)
    assert (back.status_code, back.headers["content-type"]) == (200, ARROW["Content-Type"])
    with pa.ipc.open_stream(back.content) as reader:
        told = reader.read_all().to_pylist()
    alone = httpx.post(f"{served.url}/predict", json=records, headers=LOAD, timeout=60).json()
    assert [t["probability"] for t in told] == [a["probability"] for a in alone]
    assert [(t["label"], [t["low"], t["high"]], t["variant"]) for t in told] == [(a["label"], a["interval"], a["variant"]) for a in alone]
    with contextlib.closing(served.store()) as store:
        logged = [store.answered([answer["prediction_id"] for answer in answers]) for answers in (told, alone)]
    assert [json.loads(row.features) for row in logged[0]] == [json.loads(row.features) for row in logged[1]] == records


def bomb(records) -> bytes:
    """A few bytes that stand for two million rows."""
    return write_stream({name: pa.nulls(2_000_000) for name in records[0]})


def compressed(records) -> bytes:
    sink = pa.BufferOutputStream()
    made = pa.table({name: [r.get(name) for r in records] for name in records[0]})
    with pa.ipc.new_stream(sink, made.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(made)
    return bytes(sink.getvalue())


def broken(records) -> bytes:
    """Sound in form, but a text's end is said to lie far outside of its column."""
    made = bytearray(table(records))
    offsets = np.cumsum([0] + [len(r["employment"]) for r in records], dtype=np.int32).tobytes()
    place = bytes(made).index(offsets)
    made[place + 8 : place + 12] = (2**30).to_bytes(4, "little")
    return bytes(made)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: b"no arrow", "no Arrow stream"),
        (lambda r: table(r)[:-200], "no Arrow stream"),
        (lambda r: table(r, amount=["much"] * len(r)), "'amount' holds"),
        (lambda r: table(r, employment=[1] * len(r)), "'employment' holds"),
        (lambda r: table([{k: v for k, v in one.items() if k != "amount"} for one in r]), "'amount' is missing"),
        (lambda r: table(r, amount=[-1.0] + [600.0] * (len(r) - 1)), "'amount' must be"),
        (lambda r: table(r, amount=[75000.0] * len(r), income=[1.0] * len(r)), "affordable"),
        (lambda r: write_stream({name: [] for name in r[0]}), "0 rows"),
        (lambda r: table(r * 1100), "send 1 to 20000"),
        (lambda r: bomb(r), "send 1 to 20000"),
        (lambda r: compressed(r), "compressed"),
        (lambda r: broken(r), "no Arrow stream"),
        (lambda r: table(r, customer_id=[[1]] * len(r)), "'customer_id' holds"),
    ],
)
def test_a_table_that_breaks_the_contract_is_a_422_with_a_sentence(served, contract, change, sentence):
    back = httpx.post(f"{served.url}/predict", content=change(draw(contract, 20, 3)), headers=ARROW, timeout=30)
    assert back.status_code == 422
    assert sentence in back.json()["error"]


# ---- exactness


def test_what_was_served_is_what_the_training_path_makes_of_it_and_every_skew_is_caught(serve, credit):
    served = serve()
    setting = Setting(credit, Settings(RATCHET_HOME=served.home, DATABASE_URL=None))
    release = read(served.home / "releases" / "credit" / "2")
    said: list[str] = []
    found = million(setting, release, release.scorer.probability, served.url, 600, 3, said.append)
    assert (found.n, found.features, found.scores, found.unanswered) == (600, 0, 0, 0)
    for skew in skews(credit.contract):
        place, by = caught(setting, served.url, skew, 4)
        assert place is not None, skew.name
        assert by in ("contract", "comparison")
    (check,) = parity(setting, None)
    assert (check.name, check.verdict) == ("skew:scores", "pass")


def test_a_difference_from_the_training_path_is_told_with_its_first_row(serve, credit, contract, tmp_path):
    served = serve()
    setting = Setting(credit, Settings(RATCHET_HOME=served.home, DATABASE_URL=None))
    records = draw(contract, 400, 2)
    ids = [answer["prediction_id"] for answer in httpx.post(f"{served.url}/predict", json=records, timeout=30).json()]
    offline = pd.DataFrame(records).assign(prediction_id=ids)
    offline.to_parquet(tmp_path / "same.parquet")
    offline.to_csv(tmp_path / "same.csv", index=False)
    for name in ("same.parquet", "same.csv"):
        assert [check.verdict for check in parity(setting, tmp_path / name)] == ["pass", "pass"]
    offline.loc[7, "amount"] = np.nextafter(offline.loc[7, "amount"], np.inf)
    offline.to_parquet(tmp_path / "other.parquet")
    _, features = parity(setting, tmp_path / "other.parquet")
    assert features.verdict == "fail"
    assert ids[7] in features.reason
    assert "amount" in features.reason
    offline.drop(columns="amount").to_parquet(tmp_path / "less.parquet")
    with pytest.raises(BatchError, match="column 'amount' is missing"):
        parity(setting, tmp_path / "less.parquet")
    offline.assign(prediction_id=[f"x{i}" for i in range(400)]).to_parquet(tmp_path / "unknown.parquet")
    with pytest.raises(BatchError, match="none of its 400 prediction ids"):
        parity(setting, tmp_path / "unknown.parquet")


@pytest.mark.long
def test_a_crowd_of_labels_and_questions_does_not_make_the_store_seem_away(serve, credit):
    served = serve()
    asked = draw(credit.contract, 400, 11)
    ids = [answer["prediction_id"] for answer in httpx.post(f"{served.url}/predict", json=asked, headers=LOAD, timeout=30).json()]
    label = [request("/feedback", json.dumps({"prediction_id": identity, "label": 1}).encode(), {}) for identity in ids]
    question = [b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /decisions HTTP/1.1\r\nHost: x\r\n\r\n"]
    prediction = [request("/predict", json.dumps(record).encode(), LOAD) for record in asked[:20]]
    crowd = Crowd("127.0.0.1", served.port, 2000)
    try:
        for asks in (label, question, label + prediction):
            told = crowd.burst(asks)
            assert told.failed == 0
    finally:
        crowd.close()
    assert served.store().freshness()["label"] is None
    assert "the store is away" not in served.log.read_text(encoding="utf-8")
