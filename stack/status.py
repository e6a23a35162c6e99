"""How does the stack do? What is up, who answers, how fresh the data is, what was decided, what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from textwrap import shorten
from typing import Any

import httpx

from ratchet.account import overview
from ratchet.database import now
from ratchet.errors import StackError
from ratchet.problem import Folder, find_problem
from ratchet.settings import settings
from ratchet.store import Store
from stack import processes

# A reason may fill a page; what it begins with tells what it is.
LONG = 300


def _folder(problem: str | None) -> Folder:
    name = problem or processes.served(settings().home) or settings().problem
    return find_problem(name, settings().problems)


def open_store(problem: str | None) -> Store:
    """The store of a problem; it can be read whether the stack is up or not."""
    return Store(settings().store_url, _folder(problem).problem.name)


def collect(problem: str | None) -> dict[str, Any]:
    """The facts of the stack of this machine: urls, champion, freshness, decisions, what is wrong and what to do."""
    home = settings().home
    found, folder = processes.urls(home), _folder(problem)
    spilled = sum(path.read_bytes().count(b"\n") for path in settings().spill.glob("*.jsonl"))
    told = overview(Store(settings().store_url, folder.problem.name), spilled)
    wrong = [f"{name} is down: start the stack with `ratchet up {folder.problem.name}`" for name in processes.PORTS if name not in found]
    if found and not any(p.name == "runner" and p.alive() for p in processes.started(home)):
        wrong.append("the flow runner is down: no monitoring and no retraining; `ratchet down`, then `ratchet up`")
    urls = {name: found.get(name) for name in ("service", "mlflow", "prefect")}
    return _plain(told | {"urls": urls, "wrong": [*wrong, *_lacking(told, "ratchet ")]})


def collect_from(service: str, api: str, pages: dict[str, str], down: list[str], command: str) -> dict[str, Any]:
    """The same facts of servers that are reached over HTTP alone: the `service`, and Prefect's `api`.

    `pages` are the addresses to tell, `down` the services of the stack that are not up, `command` how a person runs
    ratchet beside the store. StackError where the service does not answer.
    """
    wrong = [f"{name} is down: `docker compose up -d {name}`, and `docker compose logs {name}` says why" for name in down]
    try:
        answer = httpx.get(f"{service}/status", headers=settings().authorization, timeout=10)
    except httpx.HTTPError as error:
        raise StackError(
            f"The service at {service} does not answer ({error}). See `docker compose ps` and `docker compose logs service`."
        ) from error
    if answer.status_code == 401:
        raise StackError(f"The service at {service} asks for a token: set RATCHET_TOKEN to the one that it was started with.")
    if answer.status_code != 200:
        # What is in the store is not known now, and is not told as nothing.
        said = f"the service cannot read its store: {answer.json()['error']} See `docker compose logs postgres`"
        return {"problem": settings().problem, "urls": pages, "wrong": [*wrong, said, *_of_prefect(api)]}
    told = answer.json()
    wrong += _of_prefect(api)
    return told | {"urls": pages, "wrong": [*wrong, *_lacking(told, command)]}


def _lacking(told: dict[str, Any], command: str) -> list[str]:
    """What is wrong with the model's life itself, with the command that mends it."""
    wrong = []
    if told["champion"] is None:
        wrong.append(f"no model has been released: `ratchet run {told['problem']}`")
    elif not told["verified"]:
        wrong.append(f"version {told['champion']} was routed to but not verified: run the same command again")
    if told["paused"]:
        wrong.append(f"automatic retraining is paused: `{command}resume --reason ...`")
    if told["spilled"]:
        wrong.append(f"{told['spilled']:,} answers wait in the spill for the store: is it up?")
    return wrong


def _of_prefect(api: str) -> list[str]:
    """Whether Prefect answers, and whether runs should have begun that nothing has taken up."""
    body = {"flow_runs": {"state": {"name": {"any_": ["Late"]}}}}
    try:
        late = int(httpx.post(f"{api}/flow_runs/count", json=body, timeout=10).raise_for_status().json())
    except httpx.HTTPError as error:
        return [f"Prefect at {api} does not answer ({error}): nothing is watched or retrained"]
    return [f"{late} flow runs are late: no worker serves them; `docker compose logs worker`"] if late else []


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    def text(value: Any) -> Any:
        return value.isoformat() if isinstance(value, datetime) else value

    made = {name: text(value) for name, value in told.items()}
    made["decisions"] = [{name: text(value) for name, value in entry.items()} for entry in told["decisions"]]
    return made


def lines(told: dict[str, Any]) -> list[str]:
    """The facts in about ten lines for a person."""
    made = [f"{told['problem']}  " + "  ".join(f"{name} {url or 'down'}" for name, url in told["urls"].items())]
    if "predictions" not in told:
        return made + [f"wrong     {sentence}" for sentence in told["wrong"]]
    if told["champion"]:
        made.append(f"champion  version {told['champion']} since {told['since'][:19]} UTC ({_age(told['since'])})")
    if told["challenger"]:
        made.append(f"challenger version {told['challenger']} answers {told['share']:.1%} of the live requests")
    if told["shadow"]:
        made.append(f"shadow    version {told['shadow']} scores the live requests, and nobody is told")
    counts = ", ".join(f"{count:,} {variant}" for variant, count in sorted(told["predictions"].items())) or "none"
    made.append(f"logged    {counts}; newest {_age(told['newest_prediction'])}")
    made.append(f"labels    newest {_age(told['newest_label'])}")
    made += [
        f"decision  {e['at'][:19]} {e['action']} {e['subject']}: {shorten(e['why'], LONG, placeholder=' …')}" for e in told["decisions"]
    ]
    made += [f"wrong     {sentence}" for sentence in told["wrong"]]
    watched = told.get("watched") or "skip"
    if watched != "skip":
        made.append(f"watch     of the model it says: {watched}; `ratchet monitor {told['problem']}` says why")
    if not told["wrong"]:
        made.append("nothing is wrong" + ("" if watched == "skip" else " with the stack"))
    return made


def _age(at: str | None) -> str:
    """How long ago, in the unit a person would use."""
    if at is None:
        return "never"
    moment = datetime.fromisoformat(at)
    seconds = (now() - (moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment)).total_seconds()
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
