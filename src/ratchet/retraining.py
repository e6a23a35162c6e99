"""What does the newest window of the log call for: retraining, labels, a person, or nothing?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ratchet.check import Check
from ratchet.decision import Action, Decision, decide

# What the monitor decides.
ACTIONS: tuple[Action, ...] = ("skip", "wait", "buy_labels", "retrain", "block", "ask")
# A check that one of these makes says that the rows are not what they seem: retraining would learn the fault.
FAULTS = ("validity", "skew")
# Harm that labels show, and that may therefore be a reason to retrain.
HARM = ("decay", "concept_drift")
DRIFT = ("data_drift", "joint_drift")


@dataclass(frozen=True)
class Means:
    """What may be done and spent, and what there is to learn from.

    `labels_short`: labelled rows of the new population that are lacking. `cooling_days`: how long ago the last retraining must still be.
    `retrainings_left`: how many more the year allows. `audit_share`: the share of predictions that is drawn for an audit, of the window's
    `rows`; `audits_left`: how many more labels the year's budget buys.
    """

    paused: bool = False
    labels_short: int = 0
    cooling_days: float = 0.0
    retrainings_left: int = 1
    rows: int = 0
    audit_share: float = 0.0
    audits_left: int = 0


def watch(checks: Sequence[Check], subject: str, inputs: dict[str, Any], means: Means) -> Decision:
    """The decision on the checks of a window. The same evidence, means included, is the same decision.

    New data alone is no reason, and drift alone is none. Only harm that labels show, and that has not passed, retrains, once there is
    enough to learn from. Harm that is expected before labels are in buys some: it raises the share that is drawn for an audit. Rows that
    are not what they seem block: retraining would learn the fault. Where the means are used up, a person is asked.
    """
    faults = [check for check in checks if _kind(check) in FAULTS and check.verdict == "fail"]
    if faults:
        return decide("block", subject, _told(faults), inputs, checks)
    harm = [check for check in checks if _kind(check) in HARM and check.verdict == "fail"]
    drift = [check for check in checks if _kind(check) in DRIFT and check.verdict == "fail"]
    if harm:
        action, why = _harmed(harm, means)
        return decide(action, subject, [*why, *_told([*harm, *drift[:5]])], inputs, checks)
    decay = _named(checks, "decay")
    expected = _named(checks, "estimate")
    labelled = decay is not None and decay.verdict == "pass"
    if expected is not None and expected.verdict == "fail" and not labelled:
        action, said, more = _expected(expected, means)
        return decide(action, subject, [said, *_told([expected, *drift[:5]])], inputs | more, checks)
    if not drift:
        return decide("skip", subject, ["no check fired"], inputs, checks)
    if labelled:
        return decide("skip", subject, ["the population moved, but the model does no worse", *_told(drift[:5])], inputs, checks)
    if expected is not None and expected.verdict == "pass":
        said = "the population moved, and the model is expected to do no worse; labels will tell"
        return decide("skip", subject, [said, *_told([expected, *drift[:5]])], inputs, checks)
    lacking = decay.reason if decay is not None else "no label has arrived"
    unknown = f"whether it harms is not known yet: {lacking}" + (f"; {expected.reason}" if expected is not None else "")
    return decide("wait", subject, [*_told(drift[:5]), unknown], inputs, checks)


def _harmed(harm: list[Check], means: Means) -> tuple[Action, list[str]]:
    """What harm calls for that labels show."""
    if all(check.evidence.get("passing") for check in harm):
        return "wait", ["the newest labels no longer show it: it may pass"]
    if means.labels_short > 0:
        return "wait", [f"retraining waits for {means.labels_short} more labelled rows of the new population"]
    if means.paused:
        return "skip", ["retraining is paused by a person"]
    if means.cooling_days > 0:
        return "wait", [f"the last retraining is young: the next may come in {means.cooling_days:.1f} days"]
    if means.retrainings_left < 1:
        return "ask", ["the year's retrainings are used up: a person must decide"]
    return "retrain", []


def _expected(estimate: Check, means: Means) -> tuple[Action, str, dict[str, Any]]:
    """What harm calls for that is expected, but that no label shows yet; with what the decision's identity holds besides."""
    needed, audited = int(estimate.evidence["audits_needed"]), int(estimate.evidence["audited"])
    if audited >= needed:
        return "wait", f"{audited} audited labels confirm it; retraining waits for labels of the new population", {}
    asked = round(means.audit_share * means.rows)
    if asked >= needed:
        return "wait", f"{audited} of the labels that were asked for are in; {needed} would tell", {}
    if needed - asked <= means.audits_left:
        share = min(1.0, needed / means.rows)
        why = f"{needed} audited labels would tell: the share that is drawn rises from {means.audit_share:.1%} to {share:.1%}"
        return "buy_labels", why, {"share": share}
    return "ask", f"{needed} audited labels would tell, and the year's budget has {means.audits_left} left: a person must decide", {}


def _kind(check: Check) -> str:
    return check.name.split(":")[0]


def _named(checks: Sequence[Check], name: str) -> Check | None:
    return next((check for check in checks if check.name == name), None)


def _told(checks: Sequence[Check]) -> list[str]:
    return [f"{check.name}: {check.reason}" for check in checks]
