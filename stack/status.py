"""How does the stack do? What is up, who answers, how fresh the data is, what was decided, what is wrong."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ratchet.problem import Folder, find_problem
from ratchet.settings import settings
from ratchet.store import Store, now
from stack import processes


def _folder(problem: str | None) -> Folder:
    name = problem or processes.served(settings().home) or settings().problem
    return find_problem(name, settings().problems)


def open_store(problem: str | None) -> Store:
    """The store of a problem; it can be read whether the stack is up or not."""
    return Store(settings().store_url, _folder(problem).problem.name)


def collect(problem: str | None) -> dict[str, Any]:
    """The facts: urls, champion, freshness, decisions, what is wrong and what to do."""
    home = settings().home
    found, folder = processes.urls(home), _folder(problem)
    store = Store(settings().store_url, folder.problem.name)
    route = store.route()
    fresh = store.freshness()
    wrong = [f"{name} is down: start the stack with `ratchet up {folder.problem.name}`" for name in processes.PORTS if name not in found]
    if found and not any(p.name == "runner" and p.alive() for p in processes.started(home)):
        wrong.append("the flow runner is down: no monitoring and no retraining; `ratchet down`, then `ratchet up`")
    if route is None:
        wrong.append(f"no model has been released: `ratchet run {folder.problem.name}`")
    elif not route.verified:
        wrong.append(f"version {route.champion} was routed to but not verified: run the same command again")
    if store.paused:
        wrong.append("automatic retraining is paused: `ratchet resume`")
    return {
        "problem": folder.problem.name,
        "urls": {name: found.get(name) for name in ("service", "mlflow", "prefect")},
        "champion": route.champion if route else None,
        "since": route.at.isoformat() if route else None,
        "predictions": store.counts(),
        "newest_prediction": fresh["prediction"].isoformat() if fresh["prediction"] else None,
        "newest_label": fresh["label"].isoformat() if fresh["label"] else None,
        "decisions": [
            {"at": e.at.isoformat(), "action": e.action, "subject": e.subject, "why": e.reasons[0]} for e in store.decisions(newest=3)
        ],
        "wrong": wrong,
    }


def lines(told: dict[str, Any]) -> list[str]:
    """The facts in about ten lines for a person."""
    made = [f"{told['problem']}  " + "  ".join(f"{name} {url or 'down'}" for name, url in told["urls"].items())]
    if told["champion"]:
        made.append(f"champion  version {told['champion']} since {told['since'][:19]} UTC")
    counts = ", ".join(f"{count:,} {variant}" for variant, count in sorted(told["predictions"].items())) or "none"
    made.append(f"logged    {counts}; newest {_age(told['newest_prediction'])}")
    made.append(f"labels    newest {_age(told['newest_label'])}")
    made += [f"decision  {e['at'][:19]} {e['action']} {e['subject']}: {e['why'][:140]}" for e in told["decisions"]]
    made += [f"wrong     {sentence}" for sentence in told["wrong"]]
    return made if told["wrong"] else [*made, "nothing is wrong"]


def _age(at: str | None) -> str:
    return f"{(now() - datetime.fromisoformat(at)).total_seconds():.0f} s ago" if at else "never"
