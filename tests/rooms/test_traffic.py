"""Rows of a problem's own source as traffic: the next ones each time, and the same ones where a call was cut short."""

from __future__ import annotations

import pytest

from flows import traffic
from flows.setting import Setting
from ratchet.errors import BatchError, StackError
from ratchet.settings import Settings


@pytest.fixture
def asked(credit, tmp_path, monkeypatch):
    """What was asked, under which key, and the labels that were told. The service itself is tested elsewhere, and in test_up with this."""
    made = {"rows": [], "keys": [], "labels": []}

    def ask(url, frame, contract, key):
        made["rows"].append(frame)
        made["keys"].append(key)
        return [f"{key}:{place}" for place in range(len(frame))]

    def tell(url, ids, truth):
        made["labels"].append(dict(zip(ids, truth, strict=True)))
        return len(ids)

    monkeypatch.setattr(traffic, "ask", ask)
    monkeypatch.setattr(traffic, "tell", tell)
    made["setting"] = Setting(credit, Settings(RATCHET_HOME=tmp_path / "home", DATABASE_URL=None))
    return made


def test_each_call_sends_rows_that_were_neither_learnt_from_nor_sent_before(asked, credit):
    sent = [
        traffic.send_own(asked["setting"], 300, drifted, labelled, 7) for drifted, labelled in ((False, True), (True, True), (False, False))
    ]
    assert sent == [(300, 300), (300, 300), (300, 0)]
    first = credit.open_source(None, 7).first_batch(credit.problem.demo.first)
    ids = [*first[credit.contract.id], *(identity for frame in asked["rows"] for identity in frame[credit.contract.id])]
    assert len(set(ids)) == len(ids) == len(first) + 900
    assert len(set(asked["keys"])) == 3
    shares = [(frame["employment"] == "gig").mean() for frame in asked["rows"]]
    assert shares[1] > 2 * max(shares[0], shares[2])
    assert list(asked["labels"][0].values()) == asked["rows"][0][credit.contract.target].tolist()


def test_rows_of_a_file_are_sent_each_once_until_there_are_too_few(asked, credit, tmp_path):
    rows = credit.open_source(None, 9).traffic(500, drifted=False)
    rows.to_parquet(tmp_path / "rows.parquet", index=False)
    file = str(tmp_path / "rows.parquet")
    assert [traffic.send_own(asked["setting"], 200, False, True, 7, file) for _ in range(2)] == [(200, 200), (200, 200)]
    ids = [identity for frame in asked["rows"] for identity in frame[credit.contract.id]]
    assert len(set(ids)) == 400
    assert set(ids) <= set(rows[credit.contract.id])
    with pytest.raises(BatchError, match="200 more labelled rows are asked for, 100 are left"):
        traffic.send_own(asked["setting"], 200, False, True, 7, file)


def test_a_call_that_was_cut_short_sends_the_same_rows_under_the_same_key(asked, monkeypatch):
    monkeypatch.setattr(traffic, "tell", lambda *_: (_ for _ in ()).throw(StackError("the service is away")))
    with pytest.raises(StackError):
        traffic.send_own(asked["setting"], 200, False, True, 7)
    monkeypatch.setattr(traffic, "tell", lambda url, ids, truth: len(ids))
    assert traffic.send_own(asked["setting"], 200, False, True, 7) == (200, 200)
    assert asked["keys"][0] == asked["keys"][1]
    assert asked["rows"][0].equals(asked["rows"][1])
