"""How does a version come to answer? Release, probe, route, verify, then the alias; and back where it fails."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx

from flows.setting import Setting
from ratchet.decision import JUDGEMENTS, Decision, decide
from ratchet.errors import ReleaseError, StackError
from ratchet.ledger import Entry, Route
from ratchet.release import TOLERANCE, Release

PICKED_UP_WITHIN = 30.0


def promote(setting: Setting, release: Release, decision: Decision | Entry) -> None:
    """Let a release answer. A crash at any point is healed by doing it again, or by `reconcile`.

    ReleaseError where the release, or the live service, does not answer as it was probed; the route is then set
    back to what answered before, and that is verified.
    """
    store = setting.store
    release.answer_probe()
    before = store.route()
    if before is None or before.champion != release.version:
        store.set_route(release.version, decision.id)
    try:
        verify(setting, release)
    except ReleaseError as error:
        set_back(setting, release.version, [str(error)], {"failed": release.version, "decision": decision.id})
        raise
    route = store.route()
    if route is None or not route.verified:
        store.set_route(release.version, decision.id, verified=True)
    setting.tracker.set_champion(release.version)


def set_back(setting: Setting, version: str, reasons: list[str], inputs: dict[str, Any]) -> Decision | None:
    """Let the version answer again that answered before, and verify it; None where there was none."""
    back_to = _previous(setting, version)
    if back_to is None:
        return None
    undone = decide("roll_back", f"version {version}", reasons, inputs | {"back_to": back_to})
    setting.store.record(undone)
    setting.store.set_route(back_to, undone.id)
    verify(setting, setting.release(back_to))
    setting.store.set_route(back_to, undone.id, verified=True)
    setting.tracker.set_champion(back_to)
    return undone


def verify(setting: Setting, release: Release) -> None:
    """Ask the live service the release's probe until every worker answers with that version, and compare every answer.

    ReleaseError where another version goes on answering, or an answer differs; StackError where nothing answers.
    """
    url = f"{setting.settings.service_url}/predict"
    headers = {"X-Ratchet-Variant": "probe"} | setting.settings.authorization
    requests = [item["request"] for item in release.probe]
    deadline = time.monotonic() + PICKED_UP_WITHIN
    away, last = True, "nothing answered"
    while time.monotonic() < deadline:
        try:
            response = httpx.post(url, json=requests, headers=headers, timeout=10)
        except httpx.TransportError as error:
            last = f"the service at {setting.settings.service_url} does not answer ({error}); start it with `ratchet up`"
            away = True
            time.sleep(0.25)
            continue
        away = False
        if response.status_code == 200:
            answers = response.json()
            if {answer["model_version"] for answer in answers} == {release.version}:
                _compare(release, answers)
                if _everyone(setting, release.version):
                    return
                last = "not every worker of the service answers with it yet"
            else:
                last = f"version {answers[0]['model_version']} goes on answering"
        elif response.status_code != 503:
            raise ReleaseError(f"{release.path}: the service refuses its probe: {response.text}")
        else:
            last = response.json()["error"]
        time.sleep(0.1)
    if away:
        raise StackError(f"Version {release.version} cannot go live: {last}.")
    raise ReleaseError(f"Version {release.version} did not come to answer within {PICKED_UP_WITHIN:.0f} s: {last}.")


def _everyone(setting: Setting, version: str) -> bool:
    """Whether every worker of the service answers with that version, as its metrics tell."""
    try:
        text = httpx.get(f"{setting.settings.service_url}/metrics", timeout=10).raise_for_status().text
    except httpx.HTTPError:
        return False
    told = dict(re.findall(r"(?m)^(ratchet_(?:workers|answering_workers)\S*) (\S+)$", text))
    answering = float(told.get(f'ratchet_answering_workers{{version="{version}"}}', "0"))
    return answering > 0 and answering == float(told.get("ratchet_workers", "0"))


def reconcile(setting: Setting) -> str | None:
    """Heal what a crash left behind; the champion's version.

    A route that was set but not verified is verified, or set back. MLflow's alias follows the route, which is the truth about what answers.
    """
    route = setting.store.route()
    if route is None:
        return None
    if not route.verified:
        _settle(setting, route)
    elif setting.tracker.champion() != route.champion:
        setting.tracker.set_champion(route.champion)
    after = setting.store.route()
    return after.champion if after else None


def undone(setting: Setting) -> tuple[Entry, str] | None:
    """What was decided last of all, and which version is to answer by it, where none was routed to: a run that was cut short, or is at it now."""
    route = setting.store.route()
    answering = route.champion if route else None
    for decision in setting.store.decisions("promote", "roll_back", newest=1):
        version, back_to = decision.subject.removeprefix("version "), decision.evidence["inputs"].get("back_to")
        if decision.action == "promote":
            target = version if answering != version and cut_short(setting, version) else None
        else:
            target = back_to if answering == version else None
        if target is not None and (setting.releases / target).is_dir():
            return decision, target
    return None


def carry_out(setting: Setting) -> str:
    """Do what is `undone`; what became of it in words, empty where there was nothing to do.

    To be called while no other run is at work (`Setting.alone`): it decides and routes as well. A promoted version that does not answer as
    it was probed is rolled back, so that it is not tried again and again.
    """
    left = undone(setting)
    if left is None:
        return ""
    decision, target = left
    try:
        promote(setting, setting.release(target), decision)
    except ReleaseError as error:
        if last_word(setting, target).id == decision.id:
            setting.store.record(decide("roll_back", f"version {target}", [str(error)], {"failed": target, "decision": decision.id}))
        return f"version {target}, which was to answer by decision {decision.id}, cannot: {error}"
    return f"version {target} answers now, as decision {decision.id} said before a run was cut short"


def _settle(setting: Setting, route: Route) -> None:
    """Verify a route that a crash left unverified; where it does not hold, the version before answers again."""
    decision = setting.store.decision(route.decision)
    try:
        release = setting.release(route.champion)
        if decision is not None:
            promote(setting, release, decision)
    except ReleaseError as error:
        now = setting.store.route()
        # Where the service does not answer as it was probed, it was set back already.
        if now is None or now.champion != route.champion:
            raise
        if set_back(setting, route.champion, [str(error)], {"failed": route.champion, "decision": route.decision}) is None:
            raise


def cut_short(setting: Setting, version: str) -> bool:
    """Whether the version's promotion is the last thing decided of it, but it has not come to answer since."""
    decided = [entry for entry in setting.store.decisions("promote", "roll_back") if entry.subject == f"version {version}"]
    if not decided or decided[-1].action != "promote":
        return False
    return not any(route.champion == version and route.verified and route.at >= decided[-1].at for route in setting.store.routes())


def last_word(setting: Setting, version: str) -> Entry:
    """What was decided last of a version that was judged: by the gate, by its load test, or by a person."""
    return setting.store.decisions(*JUDGEMENTS, "roll_back", newest=1, subject=f"version {version}")[0]


def _previous(setting: Setting, version: str) -> str | None:
    earlier = [route.champion for route in setting.store.routes() if route.champion != version and route.verified]
    return earlier[-1] if earlier else None


def _compare(release: Release, answers: list[dict[str, float]]) -> None:
    for row, (item, answer) in enumerate(zip(release.probe, answers, strict=True), start=1):
        if not abs(item["probability"] - answer["probability"]) <= TOLERANCE:
            raise ReleaseError(
                f"Version {release.version}: live answer {row} is {answer['probability']:.6f}, probed {item['probability']:.6f}."
            )
