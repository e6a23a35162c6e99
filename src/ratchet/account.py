"""What does the store tell: of the whole, and of one prediction from its request to what was decided on it?"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ratchet.decision import JUDGEMENTS
from ratchet.ledger import Entry, answers
from ratchet.prediction import LIVE
from ratchet.retraining import ACTIONS
from ratchet.store import Store

ASKED = ("id", "at", "version", "variant", "propensity", "probability", "label", "seq")


def overview(store: Store, spilled: int = 0) -> dict[str, Any]:
    """Who answers since when, how fresh the log and the labels are, what the watch said last, the last three decisions, as plain data."""
    route, fresh = store.route(), store.freshness()
    return {
        "problem": store.problem,
        "champion": route.champion if route else None,
        "since": route.at if route else None,
        "verified": route.verified if route else None,
        "challenger": route.challenger if route else None,
        "share": route.share if route else 0.0,
        "shadow": route.shadow if route else None,
        "predictions": store.counts(),
        "spilled": spilled,
        "newest_prediction": fresh["prediction"],
        "newest_label": fresh["label"],
        "paused": store.paused,
        "watched": next((entry.action for entry in store.decisions(*ACTIONS, newest=1)), None),
        "decisions": [{"at": e.at, "action": e.action, "subject": e.subject, "why": e.reasons[0]} for e in store.decisions(newest=3)],
    }


def trace(store: Store, identity: str) -> dict[str, Any] | None:
    """What became of a prediction: its row, its labels, the decisions whose window held it; None where it is unknown.

    The features stay in the store: whoever learns an id is not to learn of the person.
    Of decisions of one kind in a row only the first is told, with how many followed.
    """
    found = store.prediction(identity)
    if found is None:
        return None
    row, told = found
    return {
        "prediction": {name: row[name] for name in ASKED},
        "labels": [{name: label[name] for name in ("at", "value", "provenance")} for label in told],
        "windows": _windows(store, row),
        "route": _let(store, row["version"], row["at"]),
    }


def _windows(store: Store, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The monitor's decisions whose window held that row; it never looks at probes and load tests."""
    if row["variant"] not in LIVE:
        return []
    decided: list[dict[str, Any]] = []
    for seen in store.deciding(row["version"], row["seq"], row["at"], *ACTIONS):
        inputs = seen.evidence["inputs"]
        if decided and decided[-1]["action"] == seen.action:
            decided[-1]["more"] += 1
            continue
        decided.append({"id": seen.id, "at": seen.at, "action": seen.action, "reason": seen.reasons[0], "more": 0})
        decided[-1] |= {"window": {"from": inputs["from"], "to": inputs["to"]}, "led_to": _led_to(store, seen)}
    return decided


def _led_to(store: Store, seen: Entry) -> dict[str, str] | None:
    """The gate's answer to a decision to retrain."""
    if seen.action != "retrain":
        return None
    made = answers(store.decisions(*JUDGEMENTS), seen.id)
    return {"id": made[-1].id, "action": made[-1].action, "subject": made[-1].subject} if made else None


def _let(store: Store, version: str, at: datetime) -> dict[str, Any] | None:
    """The route by which that version answered then, and who let it."""
    route = next((r for r in reversed(store.routes(until=at)) if version in (r.champion, r.challenger)), None)
    if route is None:
        return None
    entry = store.decision(route.decision)
    return {"since": route.at, "decision": route.decision, "by": entry.by if entry else None, "action": entry.action if entry else None}
