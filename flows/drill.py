"""Do the alarms still ring? Known faults are planted into a copy of the newest window, and the watch is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run

from flows.examine import released_of
from flows.result import page_key, tell_result
from flows.setting import Setting
from ratchet.check import Check
from ratchet.decision import decide
from ratchet.errors import BatchError, StoreError
from ratchet.monitoring.panel import by_column, typed
from ratchet.monitoring.validity import of_column, stuck
from ratchet.simulation.faults import Planted, plant


def rings(checks: list[Check], planted: Planted) -> bool:
    """Whether the check that is meant to see a fault fails, and for that column."""
    return any(
        check.verdict == "fail" and check.name == planted.seen_by and planted.column in check.evidence.get("columns", [planted.column])
        for check in checks
    )


def _name() -> str:
    return f"drill {Path(flow_run.parameters['problem']).name}"


@flow(name="drill", flow_run_name=_name)
def drill(problem: str) -> dict[str, Any]:
    """Plant every fault into a copy of the champion's newest window; which of them the watch saw.

    Where an alarm rings without the fault already, planting it would tell nothing, and it is passed over. The drill goes to the ledger.
    StoreError where no model answers yet; BatchError where the window is too small to judge.
    """
    setting = Setting.of(problem)
    route = setting.store.route()
    if route is None:
        raise StoreError(f"{setting.problem.name}: no model has been released yet, so there is nothing to drill.")
    release = setting.release(route.champion)
    contract = release.contract.as_told_by(setting.contract)
    window = typed(setting.store.window(newest=setting.problem.watch.window, version=route.champion), contract)
    if len(window) < setting.problem.watch.min_window:
        needed = setting.problem.watch.min_window
        raise BatchError(f"{setting.problem.name}: version {route.champion} has {len(window)} logged predictions; a drill needs {needed}.")
    released, told = released_of(setting.problem, release, contract), []
    before = by_column(setting.problem, released, window)
    for planted in plant(contract, window):
        name, level = planted.column, of_column(setting.problem, contract)
        if planted.fault == "stuck" and not stuck(planted.window[name], release.reference[name], level):
            continue
        seen = None if rings(before, planted) else rings(by_column(setting.problem, released, planted.window), planted)
        told.append({"fault": planted.fault, "column": planted.column, "seen": seen, "by": planted.seen_by})
    missed, rang = ([f"{item['column']} {item['fault']}" for item in told if item["seen"] is seen] for seen in (False, None))
    asked = len(told) - len(rang)
    said = f"{asked - len(missed)} of {len(told)} planted faults were seen" if told else "no fault could be planted"
    said += f"; not seen: {', '.join(missed)}" if missed else ""
    said += f"; {len(rang)} cannot be judged, for what would see them rings already: {', '.join(rang)}" if rang else ""
    inputs = {"version": route.champion, "from": int(window["seq"].min()), "to": int(window["seq"].max()), "held": str(flow_run.id)}
    decision = decide("drill", f"version {route.champion}", [said], inputs | {"missed": missed, "ringing": rang})
    setting.store.record(decision)
    get_run_logger().info(said)
    key = page_key(setting.problem.name, "drill")
    create_table_artifact(key=key, table=told, description="Planted faults, and whether the watch saw them")
    return tell_result(setting, {"decision": decision.id, "said": said, "planted": told, "missed": missed, "asked": asked})
