"""How does a client learn what a flow run returned, over HTTP alone? From a table that the run leaves on Prefect's pages."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
from prefect.artifacts import create_table_artifact
from prefect.deployments import run_deployment

from flows.setting import Setting
from ratchet.errors import StackError
from ratchet.settings import Settings

PATIENCE = 60.0
FAILED = ("FAILED", "CRASHED", "CANCELLED")


def page_key(problem: str, what: str) -> str:
    """The key of what a problem's flows leave on Prefect's pages, which takes no underscores.

    >>> page_key("credit_card", "result")
    'credit-card-result'
    """
    return f"{problem}-{what}".replace("_", "-")


def tell_result(setting: Setting, made: dict[str, Any]) -> dict[str, Any]:
    """Leave what the run returns on its page, fact by fact; the same dict."""
    table = [{"fact": name, "value": json.dumps(value)} for name, value in made.items()]
    create_table_artifact(key=page_key(setting.problem.name, "result"), table=table, description="What the run returned")
    return made


def run_and_read(settings: Settings, problem: str, deployment: str, parameters: dict[str, Any], within: float) -> dict[str, Any]:
    """Run a deployment elsewhere, and read what it returned. StackError where it fails, or takes longer than `within` seconds."""
    run = run_deployment(deployment, parameters=parameters, timeout=0)
    page = f"{settings.prefect_ui}/runs/flow-run/{run.id}"
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        told = ask_prefect(settings, "GET", f"flow_runs/{run.id}")
        if told["state_type"] in FAILED:
            raise StackError(f"{deployment} failed: {told['state']['message']} See {page}.")
        if told["state_type"] == "COMPLETED":
            return _read(settings, problem, str(run.id))
        time.sleep(0.5)
    raise StackError(f"{deployment} was not finished within {within:.0f} s. See {page}.")


def _read(settings: Settings, problem: str, run_id: str) -> dict[str, Any]:
    wanted = {"artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": [page_key(problem, "result")]}}}
    found = ask_prefect(settings, "POST", "artifacts/filter", wanted)
    if not found:
        return {}
    table = json.loads(found[-1]["data"])
    return {row["fact"]: json.loads(row["value"]) for row in table}


def ask_prefect(settings: Settings, method: str, path: str, body: Any = None) -> Any:
    """Ask Prefect's server; one that is away is asked again for a minute. StackError where it stays away."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            answer = httpx.request(method, f"{settings.prefect_api_url}/{path}", json=body, timeout=20)
            if answer.status_code < 500:
                return answer.raise_for_status().json() if answer.content else None
            last = f"{answer.status_code} {answer.text[:200]}"
        except httpx.TransportError as error:
            last = str(error)
        if time.monotonic() > deadline:
            raise StackError(f"Prefect at {settings.prefect_api_url} does not answer: {last}.")
        time.sleep(0.5)
