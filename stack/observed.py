"""Does the person on call see what goes on? Asked of a deployed stack: Prometheus, Locust, the service's log and ledger."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import yaml

from ratchet.errors import StackError
from ratchet.problem import find_problem
from ratchet.report.results import Row, count
from ratchet.settings import ROOT, settings
from ratchet.simulation.sample import draw
from stack import deploy

OBSERVE = ROOT / "stack" / "observe"
SCRAPED_WITHIN = 90.0
ASKED = 1000
# The newest rows when the monitor asked for retraining: those that its window held.
WINDOW = 2000


def expressions() -> dict[str, str]:
    """Every PromQL expression of the alerts and the dashboards, by where it stands."""
    rules = yaml.safe_load((OBSERVE / "alerts.yml").read_text(encoding="utf-8"))
    found = {f"alert {rule['alert']}": str(rule["expr"]) for group in rules["groups"] for rule in group["rules"]}
    for path in sorted((OBSERVE / "grafana" / "dashboards").glob("*.json")):
        board = json.loads(path.read_text(encoding="utf-8"))
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                found[f"{path.stem}: {panel['title']} {target['refId']}"] = target["expr"]
    return found


def series(expression: str) -> set[str]:
    """The names of the series that an expression asks for. ValueError where it is no PromQL."""
    import promql_parser

    found: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(str(node.name))
        for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
            child = getattr(node, name, None)
            if child is not None:
                walk(child)
        for child in getattr(node, "args", None) or []:
            walk(child)

    walk(promql_parser.parse(expression))
    return found


def prometheus() -> list[Row]:
    """Every target is up, every rule is sound, and every series that is named anywhere is there."""
    base = f"{deploy.addresses()['door']}/prometheus"
    deadline = time.monotonic() + SCRAPED_WITHIN
    wanted = {name for expression in expressions().values() for name in series(expression)}
    while True:
        targets = _get(f"{base}/api/v1/targets")["data"]["activeTargets"]
        down = [target["labels"]["job"] for target in targets if target["health"] != "up"]
        there = set(_get(f"{base}/api/v1/label/__name__/values")["data"])
        if (targets and not down and wanted <= there) or time.monotonic() > deadline:
            break
        time.sleep(2)
    if not targets:
        raise StackError("Prometheus looks at no target. See `docker compose logs prometheus`.")
    rules = [rule for group in _get(f"{base}/api/v1/rules")["data"]["groups"] for rule in group["rules"]]
    unsound = [rule["name"] for rule in rules if rule.get("lastError")]
    refused = [
        place for place, expression in expressions().items() if _get(f"{base}/api/v1/query", query=expression)["status"] != "success"
    ]
    return [
        count("Prometheus: targets that are not up", len(down), len(targets), ""),
        count("Prometheus: series named in alerts and dashboards, but not there", len(wanted - there), len(wanted), ""),
        count("Prometheus: alert rules and panels with an error", len(unsound) + len(refused), len(rules) + len(expressions()), ""),
    ]


def workers_add_up() -> Row:
    """Send a known number of requests over many connections: the sum over the workers must be that number."""
    url = settings().service_url
    records = draw(find_problem(settings().problem, settings().problems).contract, 50, seed=3)
    before = _requests(url)

    headers = {"X-Ratchet-Variant": "load"} | settings().authorization

    def ask(place: int) -> int:
        return httpx.post(f"{url}/predict", json=records[place % 50], headers=headers, timeout=20).status_code

    with ThreadPoolExecutor(16) as pool:
        answered = sum(code == 200 for code in pool.map(ask, range(ASKED)))
    return count(
        "requests that the workers' summed metrics miss or count twice", abs(_requests(url) - before - answered), answered, "requests"
    )


def _requests(url: str) -> float:
    lines = httpx.get(f"{url}/metrics", timeout=20).text.splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("ratchet_requests_total") and 'status="200"' in line and 'route="/predict"' in line
    )


def locust() -> list[Row]:
    """Two workers, started from the master's page: requests without a failure."""
    base = f"{deploy.addresses()['door']}/locust"
    deadline = time.monotonic() + 60
    while len(_get(f"{base}/stats/requests")["workers"]) < int(os.environ.get("LOCUST_WORKERS", "2")) and time.monotonic() < deadline:
        time.sleep(1)
    httpx.post(f"{base}/swarm", data={"user_count": "4", "spawn_rate": "4", "run_time": "5s"}, timeout=20).raise_for_status()
    time.sleep(9)
    told = _get(f"{base}/stats/requests")
    (total,) = [entry for entry in told["stats"] if entry["name"] == "Aggregated"]
    workers = len([worker for worker in told["workers"] if worker["state"] != "missing"])
    return [
        count("Locust: workers", workers, 1, ""),
        count("Locust: failed requests", total["num_failures"], total["num_requests"], "requests"),
    ]


def followed(journal: Path, logs: str) -> Row:
    """Ids of the demonstration, each followed from the request to the service's log, the store, the window and the decision."""
    ids = random.Random(0).sample(json.loads(journal.read_text(encoding="utf-8"))["more drifted"]["ids"][-WINDOW:], 20)
    found = 0
    for identity in ids:
        told = _get(f"{settings().service_url}/predictions/{identity}")
        decided = [window for window in told["windows"] if window["action"] == "retrain" and window["led_to"]]
        found += bool(told["labels"]) and told["route"] is not None and bool(decided) and identity in logs
    return count("ids followed from the request to the log, the window and the decision", found, len(ids), "of 20")


def guarded() -> Row:
    """The front door under a foreign name, and asked by a foreign page: what it lets in."""
    door = deploy.addresses()["door"]
    foreign = [("GET", "/mlflow/", {"Host": "evil.example"}), ("GET", "/prefect/api/health", {"Host": "evil.example:8080"})]
    page = {"Origin": "http://evil.example"}
    foreign += [
        (method, path, page) for method in ("GET", "POST") for path in ("/prefect/api/flow_runs/count", "/locust/swarm", "/mlflow/")
    ]
    let_in = [
        (path, headers)
        for method, path, headers in foreign
        if httpx.request(method, door + path, headers=headers, timeout=20).status_code != 403
    ]
    # Its own pages must get in.
    own = httpx.post(f"{door}/prefect/api/flow_runs/count", json={}, headers={"Origin": door}, timeout=20).status_code
    return count("front door: foreign names and pages that were let in", len(let_in) + (own != 200), len(foreign) + 1, "requests")


def browser() -> str:
    """The path of Chromium. StackError where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise StackError("Chromium is needed to look at the pages: install it (Debian: apt-get install chromium).")
    return program


def pages(reports: Path) -> Row:
    """Open the pages behind the front door in headless Chromium, and keep pictures under `reports`."""
    from playwright.sync_api import TimeoutError, sync_playwright

    door = deploy.addresses()["door"]
    asked = {
        "door": ("/", "Ratchet"),
        "mlflow": ("/mlflow/#/models/credit/versions/2", "Version 2"),
        "prefect": ("/prefect/runs", "Flow runs"),
        "automations": ("/prefect/automations", "Retrain credit"),
        "locust": ("/locust/", "Workers"),
        "service": (f"{settings().service_url}/docs", "/predict"),
    }
    wrong = []
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        for name, (path, words) in asked.items():
            page = chromium.new_page(viewport={"width": 1300, "height": 850})
            page.on("response", lambda answer: wrong.append(answer.url) if answer.status >= 400 and not expected(answer.url) else None)
            page.goto(path if path.startswith("http") else door + path, timeout=60_000)
            try:
                page.get_by_text(words).first.wait_for(timeout=30_000)
            except TimeoutError:
                wrong.append(f"{name}: {words!r} is not on the page")
            page.wait_for_timeout(1000)
            page.screenshot(path=str(reports / f"{name}.png"))
            page.close()
        chromium.close()
    for line in wrong:
        print(line)
    return count("front door: pages that do not open, or ask for what is not there", len(wrong), len(asked), "")


def expected(url: str) -> bool:
    """Whether a page may ask for that and not get it: what is switched off here, and icons that Prefect looks for outside of its path."""
    return any(part in url for part in ("/assistant/", "/users/current", "/grafana/", ".svg", "favicon.ico"))


def _get(url: str, **parameters: str) -> Any:
    # The token is for the service alone.
    headers = settings().authorization if url.startswith(settings().service_url) else {}
    answer = httpx.get(url, params=parameters, headers=headers, timeout=30)
    if answer.status_code >= 400:
        raise StackError(f"{url} answers {answer.status_code}: {answer.text[:200]}")
    return answer.json()
