"""What may a person decide over the gate and the watch? Everything, with a reason that goes to the ledger."""

from __future__ import annotations

import getpass

from flows.ingest import lesson_of
from flows.promotion import promote as go_live
from flows.setting import Setting
from ratchet.database import now
from ratchet.decision import Action, Decision, decide
from ratchet.errors import BatchError, ReleaseError, StoreError
from ratchet.ledger import Route
from ratchet.lesson import Lesson
from ratchet.release import Release


def promote(setting: Setting, version: str, reason: str) -> str:
    """Route to a version that was released before. ReleaseError where there is no such release, or it answers already."""
    release = _release(setting, version)
    route = setting.store.route()
    if route is not None and route.verified and route.champion == version:
        raise ReleaseError(f"Version {version} answers already.")
    decision = _record(setting, "promote", f"version {version}", reason)
    go_live(setting, release, decision)
    return f"Version {version} answers (decision {decision.id})."


def rollback(setting: Setting, reason: str) -> str:
    """Route back to the version that answered before the present one. ReleaseError where there was none."""
    routes = [route for route in setting.store.routes() if route.verified]
    if not routes:
        raise ReleaseError("No version has been released yet, so there is nothing to go back to.")
    failed = _failed(setting)
    earlier = [route.champion for route in routes if route.champion not in {routes[-1].champion, *failed}]
    if not earlier:
        raise ReleaseError(f"Version {routes[-1].champion} is the only one that ever answered; there is nothing to go back to.")
    release = _release(setting, earlier[-1])
    decision = _record(setting, "roll_back", f"version {routes[-1].champion}", reason, back_to=earlier[-1])
    go_live(setting, release, decision)
    return f"Version {earlier[-1]} answers again (decision {decision.id})."


def _failed(setting: Setting) -> set[str]:
    """The versions that were set back because they did not verify or did not hold their SLO, and not promoted since."""
    failed: set[str] = set()
    for entry in setting.store.decisions("promote", "roll_back"):
        version = entry.subject.removeprefix("version ")
        if entry.action == "promote":
            failed.discard(version)
        elif "failed" in entry.evidence["inputs"]:
            failed.add(version)
    return failed


def challenge(setting: Setting, version: str | None, share: float, reason: str) -> str:
    """Let a version answer a share of the live requests in the champion's place; None ends that.

    ReleaseError where there is no such release, it is the champion, or it does not answer as it was probed; StoreError
    where nobody answers yet.
    """
    _beside(setting, version)
    subject = f"version {version} at {share:g}" if version else "nobody"
    decision = _record(setting, "challenge", subject, reason)
    route = setting.store.set_beside(decision.id, version, share if version else 0.0, _route(setting).shadow)
    if version is None:
        return f"Version {route.champion} answers every request (decision {decision.id})."
    return f"Version {version} answers {share:.1%} of the live requests, version {route.champion} the rest (decision {decision.id})."


def shadow(setting: Setting, version: str | None, reason: str) -> str:
    """Let a version score the live requests without being told to anybody; None ends that. Errors as for `challenge`."""
    _beside(setting, version)
    decision = _record(setting, "shadow", f"version {version}" if version else "nobody", reason)
    before = _route(setting)
    setting.store.set_beside(decision.id, before.challenger, before.share, version)
    if version is None:
        return f"No version is in the shadow (decision {decision.id})."
    return f"Version {version} scores what is asked, and nobody is told (decision {decision.id})."


def _route(setting: Setting) -> Route:
    route = setting.store.route()
    if route is None:
        raise StoreError(f"No model of {setting.problem.name!r} answers yet; a challenger and a shadow stand beside one that does.")
    return route


def _beside(setting: Setting, version: str | None) -> None:
    """See that a version may stand beside the champion."""
    champion = _route(setting).champion
    if version == champion:
        raise ReleaseError(f"Version {version} is the champion; it answers already.")
    if version is not None:
        _release(setting, version).answer_probe()


def pause(setting: Setting, reason: str) -> str:
    """Automatic retraining waits until `resume`."""
    if setting.store.paused:
        return "Automatic retraining is paused already. Go on with `ratchet resume --reason ...`."
    decision = _record(setting, "pause", setting.problem.name, reason)
    return f"Automatic retraining is paused (decision {decision.id}). Go on with `ratchet resume --reason ...`."


def resume(setting: Setting, reason: str) -> str:
    """Automatic retraining goes on, also after so many that made no generation that a person was asked."""
    paused = setting.store.paused
    decision = _record(setting, "resume", setting.problem.name, reason)
    told = (
        "Automatic retraining goes on"
        if paused
        else "Automatic retraining was not paused; retrainings and audits that came to nothing count no longer"
    )
    return f"{told} (decision {decision.id})."


def kept_out(setting: Setting) -> Lesson:
    """The stretches of the log that never teach, or of which only audited labels do."""
    return lesson_of(setting, begun=1)


def trust(setting: Setting, first: int, last: int, reason: str) -> str:
    """Let rows teach again, from one place of the log to another, whatever a monitor says of them. BatchError where none is kept out."""
    known, newest = kept_out(setting), setting.store.arrived(None)[0]
    if last > newest:
        raise BatchError(f"The log ends at place {newest}; what comes after it cannot be known to be sound.")
    if first > last:
        raise BatchError(f"Place {first} comes after place {last}: give the first one first.")
    if not any(one <= last and other >= first for one, other in (*known.without, *known.audited)):
        raise BatchError(f"No row from place {first} to {last} of the log is kept from teaching; `ratchet trust` lists those that are.")
    decision = decide("trust", f"places {first} to {last}", [reason], {"from": first, "to": last}, by=getpass.getuser())
    setting.store.record(decision)
    return f"Places {first:,} to {last:,} of the log teach (decision {decision.id})."


def _record(setting: Setting, action: Action, subject: str, reason: str, **inputs: str) -> Decision:
    # A person may say the same thing twice, and means it twice: the time is part of what was decided on.
    decision = decide(action, subject, [reason], {"said_at": now().isoformat(), **inputs}, by=getpass.getuser())
    setting.store.record(decision)
    return decision


def _release(setting: Setting, version: str) -> Release:
    if not version.isdigit() or not (setting.releases / version / "manifest.json").exists():
        there = sorted((path.name for path in setting.releases.glob("[0-9]*")), key=int)
        raise ReleaseError(f"There is no release of version {version} of {setting.problem.name}; there are {', '.join(there) or 'none'}.")
    return setting.release(version)
