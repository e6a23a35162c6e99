"""The same loop closes on 30,000 real accounts, replayed in shifted proportions; and the source for users works."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest
import sklearn.datasets._openml

from ratchet.errors import BatchError
from ratchet.problem import find_problem
from ratchet.settings import ROOT
from tests.conftest import ratchet, run_demo


@pytest.fixture(scope="module")
def cards():
    return find_problem("credit_card", ROOT / "problems")


@pytest.mark.long
def test_the_loop_closes_on_real_rows(real_rows, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    try:
        loop = run_demo(home, "--problem", "credit_card", "--source", str(real_rows / "credit_default.csv"), small=False)
    finally:
        ratchet("down", home=home)
    summary = loop.summary
    assert summary["problem"] == "credit_card"
    assert summary["rows"] == {"received": 18000, "accepted": 18000, "quarantined": 0}
    assert [d["action"] for d in summary["decisions"]] == ["promote", "skip", "skip", "wait", "retrain", "promote"]
    assert summary["generations"][1]["parent"] == "1"
    assert summary["predictions"]["answered"] == summary["predictions"]["logged"] == 2000 + 3600 + 900
    live = {(row["traffic"], row["version"]): row["value"] for row in summary["live"]}
    assert live["drifted", "1"] > live["stable", "1"]


def test_replayed_rows_are_real_and_used_once(real_rows, cards):
    path = str(real_rows / "credit_default.csv")
    source = cards.open_source(path, 7)
    parts = [source.first_batch(18000), source.traffic(2000, drifted=False), source.traffic(4000, drifted=True)]
    ids = pd.concat(parts)["id"]
    assert ids.is_unique
    real = pd.read_csv(path, dtype={"id": str}).set_index("id")
    drifted = parts[2].set_index("id")
    pd.testing.assert_series_equal(drifted["limit_bal"], real.loc[drifted.index, "limit_bal"].astype(float))
    assert drifted["default_next_month"].mean() > 1.3 * parts[1]["default_next_month"].mean()
    again = cards.open_source(path, 7)
    pd.testing.assert_frame_equal(again.first_batch(18000), parts[0])
    with pytest.raises(BatchError, match="are left"):
        source.traffic(20000, drifted=False)


class OpenML(BaseHTTPRequestHandler):
    """A server that speaks OpenML's protocol for one data set: description, features, qualities, ARFF file."""

    arff = b""
    md5 = ""

    def do_GET(self):
        path = self.path.removeprefix("/")
        names = [*(f"x{i}" for i in range(1, 24)), "y"]
        if path == "api/v1/json/data/42477":
            told = {
                "id": "42477",
                "name": "default-of-credit-card-clients",
                "description": "Default of credit card clients",
                "version": "1",
                "format": "ARFF",
                "file_id": "1",
                "status": "active",
                "md5_checksum": self.md5,
                "default_target_attribute": "y",
                "url": f"http://127.0.0.1:{self.server.server_port}/data/v1/download/1",
            }
            body = json.dumps({"data_set_description": told}).encode()
        elif path == "api/v1/json/data/features/42477":
            features = [
                {
                    "index": str(i),
                    "name": name,
                    "data_type": "nominal" if name == "y" else "numeric",
                    "is_target": str(name == "y").lower(),
                    "is_ignore": "false",
                    "is_row_identifier": "false",
                    "number_of_missing_values": "0",
                }
                for i, name in enumerate(names)
            ]
            body = json.dumps({"data_features": {"feature": features}}).encode()
        elif path == "api/v1/json/data/qualities/42477":
            body = json.dumps({"data_qualities": {"quality": [{"name": "NumberOfInstances", "value": "30000"}]}}).encode()
        elif path.startswith("data/v1/download/1"):
            body = self.arff
        else:
            self.send_error(404)
            return
        body = gzip.compress(body)
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def openml(real_rows, tmp_path, monkeypatch):
    """OpenML itself cannot be reached here: scikit-learn is pointed at a local server that holds the same rows."""
    rows = pd.read_csv(real_rows / "credit_default.csv").drop(columns="id")
    head = "\n".join(f"@ATTRIBUTE x{i} NUMERIC" for i in range(1, 24))
    OpenML.arff = f"@RELATION cards\n{head}\n@ATTRIBUTE y {{0,1}}\n@DATA\n{rows.to_csv(index=False, header=False)}".encode()
    OpenML.md5 = hashlib.md5(OpenML.arff).hexdigest()
    server = ThreadingHTTPServer(("127.0.0.1", 0), OpenML)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("_DATA_INFO", "_DATA_FEATURES", "_DATA_QUALITIES"):
        address = getattr(sklearn.datasets._openml, name)
        local = address.replace("https://www.openml.org", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(sklearn.datasets._openml, name, local)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    from ratchet.settings import settings

    settings.cache_clear()
    yield server
    server.shutdown()
    server.server_close()
    settings.cache_clear()


def test_users_get_the_same_rows_from_openml(openml, cards, real_rows):
    fetched = cards.open_source(None, 7)
    from_file = cards.open_source(str(real_rows / "credit_default.csv"), 7)
    pd.testing.assert_frame_equal(fetched.first_batch(30000), from_file.first_batch(30000))


def test_a_download_with_a_wrong_checksum_is_refused(openml, cards):
    OpenML.md5 = "0" * 32
    with pytest.raises(BatchError, match=r"cannot be fetched.*--source"):
        cards.open_source(None, 7)


def test_a_server_that_cannot_be_reached_is_said(openml, cards):
    openml.shutdown()
    openml.server_close()
    with pytest.raises(BatchError, match=r"cannot be fetched.*--source"):
        cards.open_source(None, 7)
