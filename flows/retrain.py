"""What happens when retraining is asked for? A generation is made, once, for the decision that asked."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from flows.lifecycle import lifecycle, test
from flows.promotion import carry_out, cut_short, reconcile
from flows.result import page_key
from flows.setting import Setting
from ratchet.decision import JUDGEMENTS, decide
from ratchet.errors import StackError
from ratchet.ledger import Entry, answers


@flow(name="retrain", flow_run_name="retrain for decision {decision_id}")
def retrain(problem: str, decision_id: str, reasons: list[str], event_id: str) -> dict[str, Any]:
    """Make a generation from the log's labelled rows, because of a decision of the monitor.

    A second run for the same decision, or one while another is at work, records that it was superseded; so does one that comes after
    another version answers, another decision was answered, or a person has paused retraining. StackError where the ledger has no such
    decision.
    """
    setting = Setting.of(problem)
    asked = setting.store.decision(decision_id)
    if asked is None or asked.action != "retrain":
        raise StackError(f"The ledger has no decision {decision_id} to retrain {setting.problem.name}.")
    trigger = f"decision {decision_id}"
    why = "\n".join(f"- {reason}" for reason in reasons)
    create_markdown_artifact(
        key=page_key(setting.problem.name, "retrain-reasons"),
        markdown=f"## Why this retraining was started\n\nEvent `{event_id}`, decision `{decision_id}`\n\n{why}",
        description="The monitor's reasons",
    )
    for reason in reasons:
        get_run_logger().info("asked for by decision %s: %s", decision_id, reason)
    done = answers(setting.store.decisions(*JUDGEMENTS), decision_id)
    if done and taken_up(setting, done[-1]):
        reason = f"decision {decision_id} has been answered by {done[-1].id} ({done[-1].action} {done[-1].subject})"
        inputs = {"trigger": trigger, "flow_run": str(flow_run.id)}
        setting.store.record(decide("superseded", trigger, [reason], inputs))
        return {"action": "superseded", "version": None}
    if not done and (late := stale(setting, asked)):
        setting.store.record(decide("superseded", trigger, [late], {"trigger": trigger, "flow_run": str(flow_run.id)}))
        return {"action": "superseded", "version": None}
    # What was doubted since the decision is not learnt from either: of its lesson only the beginning is taken.
    since = asked.evidence["inputs"].get("lesson", {}).get("since", 0)
    return lifecycle(problem, None, trigger, asked.evidence["checks"], since)


def taken_up(setting: Setting, answer: Entry) -> bool:
    """Whether the generation that answered a decision needs not be made again; what a crash left undone of it is done.

    Again it is made where the crash came before its release.
    """
    version = answer.subject.removeprefix("version ")
    with setting.alone() as free:
        if free:
            if done := carry_out(setting):
                get_run_logger().warning(done)
            reconcile(setting)
            test(setting, version, answer)
    return not cut_short(setting, version)


def stale(setting: Setting, asked: Entry) -> str:
    """Why a decision to retrain no longer holds; empty where it does."""
    version, route = asked.evidence["inputs"]["version"], setting.store.route()
    if route is not None and route.champion != version:
        return f"it was about version {version}, and version {route.champion} answers by now"
    judged = [entry for entry in setting.store.decisions(*JUDGEMENTS) if entry.at > asked.at]
    if by_itself := [entry for entry in judged if str(entry.evidence["inputs"].get("trigger")).startswith("decision ")]:
        return f"another decision was answered since ({by_itself[-1].action} {by_itself[-1].subject})"
    return "a person has paused retraining since" if setting.store.paused else ""
