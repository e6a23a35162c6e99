"""How does the watch look at a problem once: what is examined, recorded, shown, and asked for?"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
from prefect.runtime import flow_run

from flows.examine import examine
from flows.population import answered
from flows.promotion import carry_out, reconcile, undone
from flows.result import page_key, tell_result
from flows.setting import Setting
from flows.stress import untested
from ratchet.audit import Draw
from ratchet.check import Check
from ratchet.decision import Decision

RETRAIN_REQUESTED = "ratchet.retrain.requested"


def _name() -> str:
    return f"watch {Path(flow_run.parameters['problem']).name}"


@flow(name="monitor", flow_run_name=_name)
def monitor(problem: str) -> dict[str, Any]:
    """Check the newest window of the log, decide, and ask for retraining by an event where the policy says so.

    Returns the decision and its checks. Run twice on the same log, it decides the same thing under the same id.
    """
    setting = Setting.of(problem)
    if undone(setting):
        with setting.alone() as free:
            # Who is at work carries it out.
            if free and (done := carry_out(setting)):
                get_run_logger().warning(done)
    version = reconcile(setting)
    _draw_as_declared(setting)
    if version is None:
        setting.store.look(None)
        return tell_result(setting, {"action": None, "decision": None, "checks": [], "reasons": ["no model has been released yet"]})
    if untested(setting, version):
        get_run_logger().warning("version %s answers, and whether it holds its SLO was never measured: `ratchet load` tells", version)
    release = setting.release(version)
    checks, decision = examine.with_options(name="check the window")(setting, release)
    keep(setting, decision)
    for reason in decision.reasons:
        get_run_logger().info("%s: %s", decision.action, reason)
    _show(setting, version, decision, checks)
    event = None
    if decision.action == "retrain" and decision.id not in answered(setting):
        event = ask(setting, decision)
    made = {
        "action": decision.action,
        "decision": decision.id,
        "reasons": list(decision.reasons),
        "checks": [check.as_dict() for check in checks],
        "inputs": decision.evidence["inputs"],
        "event_id": event,
    }
    return tell_result(setting, made)


def keep(setting: Setting, decision: Decision) -> None:
    """Record a decision, and draw more predictions for an audit where it says so: once, however often it is kept."""
    store, inputs = setting.store, decision.evidence["inputs"]
    store.record(decision)
    if decision.action == "buy_labels" and all(draw.decision != decision.id for draw in store.draws()):
        # What was bought is of that window; from the next row on it is as declared.
        declared = Draw(setting.problem.watch.audit_share, inputs["to"] + 1)
        store.set_draws(Draw(inputs["share"], inputs["spread_from"], decision.id), declared)
    store.look(decision.id)


def _draw_as_declared(setting: Setting) -> None:
    """Draw for audits what problem.yaml says: from the first row on, or, where it says so anew, from the next one."""
    store, share = setting.store, setting.problem.watch.audit_share
    draws = store.draws()
    if not draws:
        store.set_draw(share, 1, None)
    elif draws[-1].share != share:
        newest = store.window(newest=1)["seq"]
        store.set_draw(share, max(draws[-1].since, int(newest.max()) + 1 if len(newest) else 1), None)


def ask(setting: Setting, decision: Decision) -> str:
    """Emit the event that Prefect's automation answers by starting the retraining deployment; its id."""
    event = emit_event(
        event=RETRAIN_REQUESTED,
        resource={
            "prefect.resource.id": f"ratchet.problem.{setting.problem.name}",
            "prefect.resource.name": setting.problem.name,
        },
        payload={"problem": str(setting.folder.path), "decision_id": decision.id, "reasons": list(decision.reasons)},
        id=uuid.uuid5(uuid.NAMESPACE_URL, f"ratchet:{decision.id}:{flow_run.id}"),
    )
    if event is None:
        raise RuntimeError("Prefect's events are switched off, so no retraining can be asked for. Set PREFECT_API_URL.")
    # The process may end right after this: the event must have left it.
    EventsWorker.instance().wait_until_empty()
    return str(event.id)


def _show(setting: Setting, version: str, decision: Decision, checks: list[Check]) -> None:
    name = setting.problem.name
    create_table_artifact(
        key=page_key(name, "watch"),
        table=[
            {"check": c.heading, "verdict": c.verdict, "value": c.value, "limit": c.limit, "rows": c.n, "reason": c.reason} for c in checks
        ],
        description=f"The checks of version {version}'s newest window",
    )
    create_table_artifact(
        key=page_key(name, "quality"),
        table=[
            {"dimension": c.name.split(":")[1], "verdict": c.verdict, "score": c.value}
            | {f"part {place}": score for place, score in enumerate(c.evidence.get("trend", []), start=1)}
            for c in checks
            if c.name.startswith("quality:")
        ],
        description="The share of sound rows, in all and along the window, oldest first",
    )
    why = "\n".join(f"- {reason}" for reason in decision.reasons)
    create_markdown_artifact(
        key=page_key(name, "watch-decision"),
        markdown=f"## {decision.action}: version {version}\n\nDecision `{decision.id}`\n\n{why}",
        description="What the policy made of the checks",
    )
