"""The service as its clients meet it: right answers, and a 4xx with a sentence for everything else."""

from __future__ import annotations

import json
import threading
import uuid

import httpx
import pytest

from ratchet.database import now
from ratchet.release import read
from ratchet.simulation.sample import draw
from ratchet.store import Store
from serving.batching import reply_of


@pytest.fixture(scope="module")
def client(loop):
    with httpx.Client(base_url=loop.urls["service"], timeout=30) as opened:
        yield opened


@pytest.fixture(scope="module")
def store(loop):
    opened = Store(f"sqlite:///{loop.home / 'store.db'}", "credit")
    yield opened
    opened.close()


@pytest.fixture
def record(contract):
    return draw(contract, 1, 1)[0]


PROBE = {"X-Ratchet-Variant": "probe"}


def test_one_record_is_answered_and_logged_with_its_features(client, store, record):
    answer = client.post("/predict", json=record, headers=PROBE).json()
    assert answer.keys() == {"prediction_id", "probability", "label", "interval", "model_version", "variant"}
    assert answer["label"] == int(answer["probability"] >= 0.2)
    low, high = answer["interval"]
    assert 0 <= low <= answer["probability"] <= high <= 1
    (logged,) = store.answered([answer["prediction_id"]])
    assert json.loads(logged.features) == record
    assert json.loads(reply_of([logged], many=False).body) == answer


def test_an_array_is_answered_in_order_as_the_release_answers(client, loop):
    release = read(loop.home / "releases" / "credit" / "2")
    answers = client.post("/predict", json=[item["request"] for item in release.probe], headers=PROBE).json()
    assert [a["probability"] for a in answers] == pytest.approx([item["probability"] for item in release.probe], abs=1e-7)
    assert {a["model_version"] for a in answers} == {"2"}


def test_a_repeated_request_is_one_prediction(client, store, record):
    headers = PROBE | {"Idempotency-Key": uuid.uuid4().hex}
    before = sum(store.counts().values())
    answers = [client.post("/predict", json=[record, record], headers=headers).json() for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert sum(store.counts().values()) == before + 2
    for other in ([record] * 3, [record], [record, record | {"amount": 501.0}]):
        wrong = client.post("/predict", json=other, headers=headers)
        assert wrong.status_code == 422
        assert "used before with another body" in wrong.json()["error"]


def test_a_request_repeated_at_once_is_one_prediction_and_harms_no_other(loop, store, contract):
    from concurrent.futures import ThreadPoolExecutor

    records = draw(contract, 9, 3)
    keys = [uuid.uuid4().hex if i % 3 else "twin" + uuid.uuid4().hex[:8] for i in range(9)]
    before = sum(store.counts().values())

    def ask(i: int) -> httpx.Response:
        return httpx.post(
            f"{loop.urls['service']}/predict", json=records[i % 9], headers=PROBE | {"Idempotency-Key": keys[i % 9]}, timeout=30
        )

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, [i for i in range(9) for _ in range(6)]))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["prediction_id"] for answer in answers}) == 9
    assert sum(store.counts().values()) == before + 9


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"surprise": 1}, "surprise"),
        ({"amount": "much"}, "amount"),
        ({"amount": -5}, "amount"),
        ({"amount": 1e300}, "amount"),
        ({"employment": "astronaut"}, "employment"),
        ({"term_months": 12.5}, "term_months"),
        ({"amount": None}, "amount"),
        ({"amount": [1]}, "amount"),
    ],
)
def test_a_wrong_record_is_a_422_that_names_the_field_and_is_not_logged(client, store, record, change, field):
    before = store.counts()
    for body in (record | change, [record, record | change]):
        answer = client.post("/predict", json=body)
        assert answer.status_code == 422
        assert answer.json()["field"] == field
        assert field in answer.json()["error"]
    assert store.counts() == before


def test_a_missing_field_is_named(client, record):
    record.pop("amount")
    answer = client.post("/predict", json=record)
    assert answer.status_code == 422
    assert "'amount' is missing" in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"", 422, "empty"),
        (b"{", 422, "not JSON"),
        (b"not json", 422, "not JSON"),
        (b"[]", 422, "0 records"),
        (b"null", 422, "send one JSON object"),
        (b"7", 422, "send one JSON object"),
        (b'"text"', 422, "send one JSON object"),
        (b"[1, 2]", 422, "send one JSON object"),
        (b'{"amount": NaN}', 422, "NaN"),
        (b'{"amount": Infinity}', 422, "not JSON"),
        (b"\xff\xfe", 422, "not JSON"),
        (b"[" * 100000, 422, ""),
        (b'{"a": "' + b"x" * (10 * 1024 * 1024) + b'"}', 413, "larger than 4 MB"),
    ],
)
def test_a_body_that_is_no_record_is_a_4xx_with_a_sentence(client, store, body, status, sentence):
    before = store.counts()
    answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert sentence in answer.json()["error"]
    assert store.counts() == before


def test_another_content_type_method_or_variant_is_refused(client, record):
    assert client.post("/predict", content=json.dumps(record), headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.get("/predict").status_code == 405
    assert client.post("/predict", json=record, headers={"X-Ratchet-Variant": "mine"}).status_code == 422
    assert client.get("/nowhere").status_code == 404


def test_labels_by_prediction_id(client, store, record):
    ids = [client.post("/predict", json=record, headers=PROBE).json()["prediction_id"] for _ in range(2)]
    first = {"prediction_id": ids[0], "label": 1}
    assert client.post("/feedback", json=first).json() == {"accepted": 1, "known": 0}
    assert client.post("/feedback", json=first).json() == {"accepted": 0, "known": 1}
    both = [first | {"label": 0}, {"prediction_id": ids[1], "label": 1}]
    assert client.post("/feedback", json=both).json() == {"accepted": 2, "known": 0}


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"prediction_id": "nobody", "label": 1}, 404, "No prediction has the id 'nobody'"),
        ({"prediction_id": "nobody", "label": 2}, 422, "not 0 or 1"),
        ({"prediction_id": "nobody", "label": "yes"}, 422, "send prediction_id and label"),
        ({"label": 1}, 422, "prediction_id"),
        ({"prediction_id": "x", "label": 1, "more": 1}, 422, "more"),
    ],
)
def test_a_wrong_label_is_a_4xx_with_a_sentence(client, body, status, sentence):
    answer = client.post("/feedback", json=body)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]


def test_a_label_that_finds_no_prediction_is_noted(client, store, record):
    identity, begun = client.post("/predict", json=record, headers=PROBE).json()["prediction_id"], now()
    sent = [identity, "order 1", "order 2"]
    # Sent again it is the same label, and the same mistake.
    for ids in (sent, sent, [identity, "x" * 33], ["nu\0l"]):
        answer = client.post("/feedback", json=[{"prediction_id": each, "label": 1} for each in ids])
        assert answer.status_code == 404
    assert client.post("/feedback", json={"prediction_id": identity, "label": 1}).json() == {"accepted": 0, "known": 1}
    assert store.came_lately(begun, 10**6)[1:] == (4, "nu\ufffdl")


def test_the_contract_the_health_and_the_openapi_page(client, contract):
    assert client.get("/contract").json()["name"] == "credit"
    for path in ("/healthz", "/readyz", "/livez", "/metrics", "/docs"):
        assert client.get(path).status_code == 200
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    schema = document["components"]["schemas"]["CreditRecord"]
    assert set(schema["properties"]) == {contract.entity} | {column.name for column in contract.requested}
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["examples"]["one"]["value"]
    assert client.post("/predict", json=example, headers=PROBE).status_code == 200


def test_a_promotion_drops_no_request(loop, client, store, contract):
    """Ask without a pause while a person rolls back and promotes again: every answer is a 200 and is in the log."""
    records, stop = draw(contract, 20, 5), threading.Event()
    answered: list[tuple[str, str]] = []
    failures: list[str] = []

    def ask() -> None:
        with httpx.Client(base_url=loop.urls["service"], timeout=30) as own:
            while not stop.is_set():
                answer = own.post("/predict", json=records, headers=PROBE)
                if answer.status_code == 200:
                    answered.extend((item["prediction_id"], item["model_version"]) for item in answer.json())
                else:
                    failures.append(answer.text)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    try:
        back = loop.ratchet("rollback", "--reason", "a drill")
        forth = loop.ratchet("promote", "2", "--reason", "the drill is over")
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    assert "Version 1 answers again" in back.stdout
    assert "Version 2 answers" in forth.stdout
    assert failures == []
    assert {version for _, version in answered} == {"1", "2"}
    assert len(store.answered([identity for identity, _ in answered])) == len(answered)
    assert client.get("/readyz").status_code == 200


def test_a_release_that_was_damaged_never_answers(loop, store, client, record):
    """Route to a release with a changed file: the old champion goes on answering, and the ledger tells of the way back."""
    import shutil

    from ratchet.decision import decide

    releases = loop.home / "releases" / "credit"
    shutil.copytree(releases / "1", releases / "9")
    (releases / "9" / "encoder.json").write_text("{}", encoding="utf-8")
    said = loop.ratchet("promote", "9", "--reason", "a drill", check=False)
    assert said.returncode == 1
    assert "changed after the release was made" in said.stderr
    store.set_route("9", decide("promote", "version 9", ["a drill"], {}).id)
    try:
        import time

        time.sleep(1)
        assert client.post("/predict", json=record, headers=PROBE).json()["model_version"] == "2"
    finally:
        loop.ratchet("promote", "2", "--reason", "the drill is over")
        shutil.rmtree(releases / "9")


def test_the_log_replays_to_the_last_bit(loop):
    """Every request of the whole demonstration, through the training path."""
    said = loop.ratchet("parity")
    assert "pass" in said.stdout
    assert "skew:scores" in said.stdout
    assert "rows are answered as they were" in said.stdout


def test_a_file_is_scored_from_the_command_line(loop, contract, tmp_path):
    import pandas as pd

    records = draw(contract, 500, 6)
    pd.DataFrame(records).to_csv(tmp_path / "rows.csv", index=False)
    said = loop.ratchet("score", str(tmp_path / "rows.csv"))
    assert "500 rows by version 2, 0 refused" in said.stdout
    out = pd.read_csv(tmp_path / "rows.scored.csv", float_precision="round_trip")
    answers = httpx.post(f"{loop.urls['service']}/predict", json=records, headers=PROBE, timeout=30).json()
    assert out["probability"].tolist() == [answer["probability"] for answer in answers]
    assert out["row"].tolist() == list(range(1, 501))


def test_a_person_sets_a_challenger_and_a_shadow_and_ends_them(loop, client, store):
    wrong = loop.ratchet("challenge", "2", "--reason", "a drill", check=False)
    assert wrong.returncode == 1
    assert "Version 2 is the champion" in wrong.stderr
    try:
        assert (
            "Version 1 answers 25.0% of the live requests"
            in loop.ratchet("challenge", "1", "--share", "0.25", "--reason", "a drill").stdout
        )
        assert "nobody is told" in loop.ratchet("shadow", "1", "--reason", "a drill").stdout
        told = client.get("/status").json()
        assert (told["champion"], told["challenger"], told["share"], told["shadow"]) == ("2", "1", 0.25, "1")
        status = loop.ratchet("status").stdout
        assert "challenger version 1 answers 25.0%" in status
    finally:
        loop.ratchet("challenge", "--reason", "the drill is over")
        loop.ratchet("shadow", "--reason", "the drill is over")
    assert (store.route().challenger, store.route().shadow, store.route().champion) == (None, None, "2")
    assert [entry.action for entry in store.decisions(newest=2)] == ["challenge", "shadow"]


def test_a_person_puts_the_service_under_load_in_a_shape(loop):
    """Two processes of users, a spike: the server's numbers decide, the clients' stand beside them, the reports are in MLflow."""
    said = loop.ratchet("load", "--users", "8", "--seconds", "6", "--shape", "spike", "--processes", "2")
    lines = [line.split()[:2] for line in said.stdout.splitlines()[1:] if "load:" in line]
    assert lines == [["pass", f"load:{name}:"] for name in ("failures", "average", "p99", "rps")]
    assert "at the server" in said.stdout
    assert "as the clients saw it" in said.stdout
    folder = loop.home / "load" / "credit" / "2"
    names = {line.split(",")[1] for line in (folder / "load_stats.csv").read_text(encoding="utf-8").splitlines()}
    assert {"one record", "ten records", "a label", "refused"} <= names
    wrong = loop.ratchet("load", "--shape", "square", check=False)
    assert wrong.returncode == 2
    assert "--shape" in wrong.stderr


def test_a_version_that_does_not_hold_its_slo_is_set_back(loop, store, client, record, monkeypatch):
    """What the lifecycle does with a broken SLO: the version before answers, verified, and the ledger says why."""
    from flows.promotion import last_word, set_back
    from flows.setting import Setting
    from ratchet.settings import settings

    for name, value in {
        "RATCHET_HOME": str(loop.home),
        "MLFLOW_TRACKING_URI": loop.urls["mlflow"],
        "PREFECT_API_URL": f"{loop.urls['prefect']}/api",
        "RATCHET_SERVICE_URL": loop.urls["service"],
    }.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    try:
        setting = Setting.of("credit")
        undone = set_back(setting, "2", ["load:p99: p99 900 ms at the server, limit 500 ms"], {"failed": "2", "decision": "d"})
        assert undone.action == "roll_back"
        # A run of the same rows that is taken up again says so too, not what the gate had said.
        assert last_word(setting, "2").id == undone.id
        assert store.decisions(newest=1)[0].reasons == ("load:p99: p99 900 ms at the server, limit 500 ms",)
        assert (store.route().champion, store.route().verified) == ("1", True)
        assert setting.tracker.champion() == "1"
        assert client.post("/predict", json=record, headers=PROBE).json()["model_version"] == "1"
    finally:
        settings.cache_clear()
        loop.ratchet("promote", "2", "--reason", "the drill is over")
