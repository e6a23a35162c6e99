"""What may a person decide over the gate and the watch? Everything, with a reason that goes to the ledger."""

from __future__ import annotations

import getpass

from flows.promotion import promote as go_live
from flows.setting import Setting
from ratchet.decision import Action, Decision, decide
from ratchet.errors import ReleaseError
from ratchet.release import Release, read
from ratchet.store import now


def promote(setting: Setting, version: str, reason: str) -> str:
    """Route to a version that was released before. ReleaseError where there is no such release."""
    release = _release(setting, version)
    decision = _record(setting, "promote", f"version {version}", reason)
    go_live(setting, release, decision)
    return f"Version {version} answers (decision {decision.id})."


def rollback(setting: Setting, reason: str) -> str:
    """Route back to the version that answered before the present one. ReleaseError where there was none."""
    routes = [route for route in setting.store.routes() if route.verified]
    if not routes:
        raise ReleaseError("No version has been released yet, so there is nothing to go back to.")
    earlier = [route.champion for route in routes if route.champion != routes[-1].champion]
    if not earlier:
        raise ReleaseError(f"Version {routes[-1].champion} is the only one that ever answered; there is nothing to go back to.")
    release = _release(setting, earlier[-1])
    decision = _record(setting, "roll_back", f"version {routes[-1].champion}", reason)
    go_live(setting, release, decision)
    return f"Version {earlier[-1]} answers again (decision {decision.id})."


def pause(setting: Setting, reason: str) -> str:
    """Automatic retraining waits until `resume`."""
    decision = _record(setting, "pause", setting.problem.name, reason)
    return f"Automatic retraining is paused (decision {decision.id}). Go on with `ratchet resume`."


def resume(setting: Setting, reason: str) -> str:
    """Automatic retraining goes on."""
    decision = _record(setting, "resume", setting.problem.name, reason)
    return f"Automatic retraining goes on (decision {decision.id})."


def _record(setting: Setting, action: Action, subject: str, reason: str) -> Decision:
    # A person may say the same thing twice, and means it twice: the time is part of what was decided on.
    decision = decide(action, subject, [reason], {"said_at": now().isoformat()}, by=getpass.getuser())
    setting.store.record(decision)
    return decision


def _release(setting: Setting, version: str) -> Release:
    folder = setting.settings.releases / setting.problem.name
    if not version.isdigit() or not (folder / version / "manifest.json").exists():
        there = sorted((path.name for path in folder.glob("[0-9]*")), key=int)
        raise ReleaseError(f"There is no release of version {version} of {setting.problem.name}; there are {', '.join(there) or 'none'}.")
    return read(folder / version)
