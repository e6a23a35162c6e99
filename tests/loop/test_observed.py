"""What the person on call relies on: series that exist, rules that are sound, a page for every alert, logs that can be searched."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import yaml

from ratchet.settings import ROOT
from ratchet.simulation.sample import draw
from stack.observed import OBSERVE, expressions, series

RULES = [rule for group in yaml.safe_load((OBSERVE / "alerts.yml").read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def scrape(loop):
    """A scrape after a drill: by then every series has had a reason to be there."""
    drilled = loop.ratchet("drill", "credit", check=False)
    assert "planted faults were seen" in drilled.stdout, drilled.stdout + drilled.stderr
    return httpx.get(f"{loop.urls['service']}/metrics", timeout=20).text


def names(scrape: str) -> set[str]:
    return {line.split("{")[0].split(" ")[0] for line in scrape.splitlines() if line and not line.startswith("#")}


@pytest.mark.parametrize("place", expressions())
def test_every_series_that_is_named_is_there(place, scrape):
    wanted = series(expressions()[place])
    assert wanted
    # `up` is Prometheus' own.
    assert wanted - {"up"} <= names(scrape)


def test_every_alert_has_its_page_and_every_page_its_alert():
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README"}
    assert pages == {rule["alert"] for rule in RULES}
    for rule in RULES:
        assert (ROOT / rule["annotations"]["runbook"]).exists()
        page = (ROOT / rule["annotations"]["runbook"]).read_text(encoding="utf-8")
        assert str(rule["expr"]) in page, "the page shows another expression"
        assert {"## What it means", "## Look", "## Do"} <= set(page.splitlines())
        assert rule["labels"]["severity"] in ("page", "ticket", "info")


def test_every_alert_is_made_to_fire_and_to_keep_quiet():
    mounted = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    fires, quiet = set(), set()
    for path in OBSERVE.glob("alerts*_test.yml"):
        assert f"./stack/observe/{path.name}:/etc/prometheus/{path.name}:ro" in mounted, "promtool cannot read it"
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for asked in case["alert_rule_test"]:
                (fires if asked.get("exp_alerts") else quiet).add(asked["alertname"])
    assert fires == quiet == {rule["alert"] for rule in RULES}


def test_the_dashboard_is_whole():
    board = json.loads((OBSERVE / "grafana" / "dashboards" / "ratchet.json").read_text(encoding="utf-8"))
    source = yaml.safe_load((OBSERVE / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["datasources"][0]["uid"]}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_what_is_counted_is_what_was_asked(loop, contract):
    url = loop.urls["service"]

    def counted() -> float:
        lines = httpx.get(f"{url}/metrics", timeout=20).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith('ratchet_predictions_total{variant="probe"'))

    records = draw(contract, 60, 2)
    before = counted()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda r: httpx.post(f"{url}/predict", json=r, headers={"X-Ratchet-Variant": "probe"}, timeout=20), records))
    assert counted() - before == 60


def test_a_prediction_is_followed_from_the_log_of_the_service_to_the_decision(loop):
    identity = loop.journal["more drifted"]["ids"][7]
    lines = (loop.home / "logs" / "service.log").read_text(encoding="utf-8").splitlines()
    requests = [json.loads(line) for line in lines if identity in line]
    assert [line["route"] for line in requests] == ["/predict", "/feedback"]
    assert requests[0]["status"] == 200
    assert requests[0]["version"] == "1"
    told = httpx.get(f"{loop.urls['service']}/predictions/{identity}", timeout=20).json()
    assert told["windows"][-1]["action"] == "retrain"
    assert told["windows"][-1]["led_to"]["subject"] == "version 2"
    said = loop.ratchet("trace", identity).stdout
    for part in ("request ", "let by ratchet", "label ", ": retrain (decision", "led to promote version 2"):
        assert part in said
    missing = loop.ratchet("trace", uuid.uuid4().hex, check=False)
    assert (missing.returncode, "No prediction has the id" in missing.stderr) == (1, True)


def test_the_ledger_is_read_over_http(loop):
    url = loop.urls["service"]
    told = httpx.get(f"{url}/decisions", params={"action": "promote", "newest": 1}, timeout=20).json()
    assert [(entry["action"], entry["subject"]) for entry in told] == [("promote", "version 2")]
    assert httpx.get(f"{url}/decisions", params={"newest": "none"}, timeout=20).status_code == 422
    assert httpx.get(f"{url}/predictions/nobody", timeout=20).status_code == 404
    status = httpx.get(f"{url}/status", timeout=20).json()
    assert (status["champion"], status["verified"], status["spilled"]) == ("2", True, 0)
