"""What became of one prediction? From the request to the log, its labels, the windows that held it, and what was decided."""

from __future__ import annotations

from typing import Any

import httpx

from ratchet.account import trace
from ratchet.errors import StackError
from ratchet.settings import settings
from stack import deploy, processes
from stack.status import open_store


def find(identity: str, problem: str | None) -> dict[str, Any]:
    """The trace of a prediction id, from the store of this machine or from a deployed service. StackError where it is unknown."""
    processes.look_at_running(settings().home)
    if processes.urls(settings().home) or processes.elsewhere() or not deploy.reached():
        found = trace(open_store(problem), identity)
    else:
        deploy.adopt()
        url = f"{deploy.addresses()['service']}/predictions/{identity}"
        try:
            answer = httpx.get(url, headers=settings().authorization, timeout=20)
        except httpx.HTTPError as error:
            raise StackError(f"{url} does not answer ({error}). See `docker compose logs service`.") from error
        if answer.status_code not in (200, 404):
            raise StackError(f"{url} answers {answer.status_code}: {answer.text[:300]}")
        found = answer.json() if answer.status_code == 200 else None
    if found is None:
        raise StackError(f"No prediction has the id {identity!r} in the log. One that was spilled is there once the store is back.")
    return found


def lines(told: dict[str, Any]) -> list[str]:
    """The trace for a person."""
    asked, route = told["prediction"], told["route"]
    made = [f"request   {_at(asked['at'])} UTC, {asked['variant']}, log row {asked['seq']:,}"]
    made.append(f"answer    version {asked['version']}: probability {asked['probability']:.4f}, label {asked['label']}")
    if route:
        made.append(
            f"route     version {asked['version']} since {_at(route['since'])}, let by {route['by']} (decision {route['decision']})"
        )
    for label in told["labels"]:
        made.append(f"label     {_at(label['at'])} {label['value']} ({label['provenance']})")
    if not told["labels"]:
        made.append("label     none has come yet")
    for window in told["windows"]:
        more = f", and {window['more']} more times" if window["more"] else ""
        rows = f"rows {window['window']['from']:,} to {window['window']['to']:,}"
        made.append(f"window    {_at(window['at'])} {rows}: {window['action']} (decision {window['id']}{more}): {window['reason']}")
        if window["led_to"]:
            made.append(f"          led to {window['led_to']['action']} {window['led_to']['subject']} (decision {window['led_to']['id']})")
    if not told["windows"]:
        made.append("window    no monitoring window has held it yet")
    return made


def _at(moment: Any) -> str:
    return str(moment).replace("T", " ")[:19]
