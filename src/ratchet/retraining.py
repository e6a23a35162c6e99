"""What does the newest window of the log call for: retraining, labels, a person, or nothing?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ratchet.check import Check
from ratchet.decision import Action, Decision, decide
from ratchet.lesson import DOUBTED, EVERYTHING, FAULTS, PROBED, Lesson, called

# What the monitor decides.
ACTIONS: tuple[Action, ...] = ("skip", "wait", "buy_labels", "retrain", "block", "ask")
# Harm that labels show, and that may therefore be a reason to retrain.
HARM = ("decay", "concept_drift")
DRIFT = ("data_drift", "joint_drift", "silent:confidence", "silent:outliers", "probes:mixes")
# So many retrainings that came to nothing are enough.
UNANSWERED = 10
# Harm is doubted where audits contradict its labels more often than chance would have it (5%): that costs a look, learning from noise a generation.
DOUBTFUL = 0.05
# Harm in a part of the rows, while the mean may look well; groups that are treated ever more unequally; rows and labels that are lacking.
COMING = ("volume", "quality:timeliness")
PARTS = ("live_slices", "disparity", "label_ids", *COMING)
# These say something where the window holds no row at all.
BESIDE = ("volume", "disparity", "label_ids")


@dataclass(frozen=True)
class Means:
    """What may be done and spent, and what there is to learn from.

    `lesson`: what a retraining would learn from; `labels_short`: how many rows of it are lacking; `labels_silent`: whether no label, of an
    audit or not, has come for as long as labels may take. `cooling_days`: how long the last
    retraining is still too young. `retrainings_left`: how many more the year allows. `audit_share`: the share of predictions that is drawn
    for an audit, of the window's `rows`; `audits_left`: how many more labels the year's budget buys, beside those that were asked for;
    `audits_awaited`: how many that were bought may still come; `audits_silent`: whether none has come for as long as labels may take;
    `audits_unanswered`: whether some were bought that long ago, and none of those has come. `unanswered`: how often retraining was asked for
    since the last generation, and made none.
    """

    paused: bool = False
    lesson: Lesson = EVERYTHING
    labels_short: int = 0
    labels_silent: bool = False
    cooling_days: float = 0.0
    retrainings_left: int = 1
    unanswered: int = 0
    rows: int = 0
    audit_share: float = 0.0
    audits_left: int = 0
    audits_awaited: int = 0
    audits_silent: bool = False
    audits_unanswered: bool = False


def watch(checks: Sequence[Check], subject: str, inputs: dict[str, Any], means: Means) -> Decision:
    """The decision on the checks of a window. The same evidence, means included, is the same decision.

    New data alone is no reason, and drift alone is none. Only harm that labels show, and that has not passed, retrains, once there is
    enough to learn from. Harm that is expected, and that no label of rows as bad refutes, buys some: it raises the share that is drawn for
    an audit. Rows that are not what they seem block: retraining would learn the fault. Where the means are used up, a person is asked. A
    check that is not blocking calls for nothing.
    """
    if faults := _failed(checks, FAULTS):
        return decide("block", subject, _told(faults), inputs, checks)
    if probed := _failed(checks, PROBED):
        return decide("ask", subject, ["somebody tries the model out: a person must look", *_told(probed)], inputs, checks)
    if doubted := _failed(checks, DOUBTED):
        said = "labels are not what they seem, and retraining would learn from them: a person must look"
        return decide("ask", subject, [said, *_told(doubted)], inputs, checks)
    harm, drift, parts = (_failed(checks, names) for names in (HARM, DRIFT, PARTS))
    if harm:
        action, why = _awaited(*_harmed(harm, means, _named(checks, "quality:accuracy")), parts)
        learnt = {"lesson": asdict(means.lesson)} if action == "retrain" else {}
        older = ", and from older ones unless they mislead" if means.lesson.since else ""
        last = [f"it learns from {means.lesson.said}{older}"] if learnt else []
        last += _unknown(checks) if action == "skip" else []
        return decide(action, subject, [*why, *_told([*harm, *parts, *drift[:5]]), *last], inputs | learnt, checks)
    decay = _named(checks, "decay")
    expected = _named(checks, "estimate")
    labelled = decay is not None and decay.verdict == "pass"
    feared = [expected] if expected is not None and expected.verdict == "fail" and expected.blocking else []
    if expected is not None and feared and not _refuted(expected, decay):
        action, said, more = _expected(expected, means)
        action, why = _awaited(action, [said], parts)
        return decide(action, subject, [*why, *_told([expected, *parts, *drift[:5]])], inputs | more, checks)
    if parts:
        return decide("ask", subject, [f"{_lacking(parts)}: a person must look", *_told(parts)], inputs, checks)
    if not drift and (labelled or not feared):
        return decide(*_quiet(checks, subject), inputs, checks)
    if labelled:
        said = "the population moved, but the model does no worse on the rows whose labels are in"
        return decide("skip", subject, [said, *_told([*feared, *drift[:5]]), *_unknown(checks)], inputs, checks)
    if expected is not None and expected.verdict == "pass":
        said = "the population moved, and the model is expected to do no worse; labels will tell"
        return decide("skip", subject, [said, *_told([expected, *drift[:5]]), *_unknown(checks)], inputs, checks)
    lacking = decay.reason if decay is not None else "no label has arrived"
    unknown = f"whether it harms is not known yet: {lacking}" + (f"; {expected.reason}" if expected is not None else "")
    return decide("wait", subject, [*_told(drift[:5]), unknown], inputs, checks)


def _quiet(checks: Sequence[Check], subject: str) -> tuple[Action, str, list[str]]:
    """What a window calls for of which nothing has moved; that nobody could look is no good news."""
    if all(check.verdict == "undecided" or called(check.name, BESIDE) for check in checks):
        return "wait", subject, ["nothing could be checked", *_told([check for check in checks if check.verdict == "undecided"][:1])]
    fired = _told([check for check in checks if check.verdict == "fail"])
    said = "; ".join(["what fired calls for nothing" if fired else "no check fired", *_unknown(checks)])
    return "skip", subject, [said, *fired]


def _unknown(checks: Sequence[Check]) -> list[str]:
    """How many checks could not be decided, where any could not."""
    count = sum(check.verdict == "undecided" for check in checks)
    return [f"{count} of {len(checks)} could not be decided"] if count else []


def _harmed(harm: list[Check], means: Means, accuracy: Check | None) -> tuple[Action, list[str]]:
    """What harm calls for that labels show; `accuracy` is what audits say of labels."""
    silent = "none has come for as long as labels may take: a person must look"
    if all(check.evidence.get("passing") for check in harm):
        said = "the newest labels no longer show it: it may pass"
        return ("ask", [f"{said}, and {silent}"]) if means.labels_silent else ("wait", [said])
    lately = accuracy.evidence.get("lately") if accuracy is not None and accuracy.blocking else None
    if lately and lately["p_value"] < DOUBTFUL:
        said = f"audits contradict {lately['contradicted']} of the newest {lately['audited']} labels that they looked at"
        if means.audits_silent:
            return "ask", [f"{said}, and no audit has told of any other for as long as labels may take: a person must see to them"]
        return "wait", [f"{said}: whether it is harm or wrong labels, more audits will tell"]
    if means.labels_short > 0:
        said = f"retraining waits for {means.labels_short} more labelled rows of the new population"
        return ("ask", [f"{said}, and {silent}"]) if means.labels_silent else ("wait", [said])
    if means.paused:
        return "skip", ["retraining is paused by a person"]
    if means.cooling_days > 0:
        return "wait", [f"the last retraining is young: the next may come in {means.cooling_days:.1f} days"]
    if means.unanswered >= UNANSWERED:
        said = f"{means.unanswered} times a retraining was asked for, and none made a generation: a person must look, and `ratchet resume`"
        return "ask", [said]
    if means.retrainings_left < 1:
        return "ask", ["the year's retrainings are used up: a person must decide"]
    return "retrain", []


def _awaited(action: Action, why: list[str], parts: Sequence[Check]) -> tuple[Action, list[str]]:
    """The same, but a person is asked where nothing is done about parts, and what is awaited while predictions or labels no longer come."""
    if action == "skip" and parts:
        return "ask", [f"{_lacking(parts)}: a person must look", *why]
    if action == "wait" and any(check.name in COMING for check in parts):
        return "ask", [f"{_lacking(parts)}, and what is awaited may never come: a person must look", *why]
    return action, why


def _expected(estimate: Check, means: Means) -> tuple[Action, str, dict[str, Any]]:
    """What harm calls for that is expected, but that no label shows yet; with what the decision's identity holds besides."""
    needed, audited, bought = (int(estimate.evidence[name]) for name in ("audits_needed", "audited", "bought"))
    if _confirmed(estimate) or audited >= needed:
        short = (
            f"and {means.labels_short} more labelled rows are needed to retrain" if means.labels_short else "and they are enough to retrain"
        )
        return "ask", f"{audited} audited labels confirm it, {short}: a person must decide", {}
    asked = round(means.audit_share * means.rows)
    coming = means.audits_awaited > 0 and bought + means.audits_awaited >= needed / 2
    if means.audits_silent and (coming or (asked >= needed / 2 and asked > audited)):
        return "ask", "labels were asked for, and no audit has told of any for as long as labels may take: a person must see to them", {}
    if coming:
        return "wait", f"{means.audits_awaited} labels that were asked for may still come; {needed} would tell", {}
    if bought >= needed / 2:
        return "ask", f"{bought} labels that were bought are in, and neither confirm nor refute it: a person must decide", {}
    if means.audits_unanswered:
        return (
            "ask",
            "labels were bought, and none came for as long as labels may take: a person must see to them, and `ratchet resume`",
            {},
        )
    if needed > means.rows:
        return "ask", f"{needed} audited labels would tell, more than the {means.rows} rows of the window: a person must decide", {}
    # The draw is by chance, and is to hold enough of them nearly always.
    wanted = min(means.rows, math.ceil(needed + 2 * needed**0.5))
    if wanted <= means.audits_left + asked:
        # What is drawn in any case leaves with the rows of the window; what was bought, though it be some of these, tells whenever it is in.
        share = wanted / means.rows
        more = f"the share of the window that is drawn rises from {means.audit_share:.1%} to {share:.1%}"
        drawn = more if share > means.audit_share else f"{wanted} of those that are drawn of this window decide"
        return "buy_labels", f"{needed} audited labels would tell: {drawn}", {"share": share}
    return "ask", f"{needed} audited labels would tell, and the year's budget has {means.audits_left} left: a person must decide", {}


def _refuted(expected: Check, decay: Check | None) -> bool:
    """Whether labels refute harm that is expected: what they show, and by how much more is expected of these rows than of theirs.

    There must be as many as audits would be needed to tell. Labels that came are of older rows. What audits found of this window they do
    not refute.
    """
    if decay is None or decay.verdict == "fail" or decay.value is None or decay.n < expected.evidence["audits_needed"]:
        return False
    if expected.evidence["by"] == "audit" or expected.evidence["of_labelled"] is None:
        return False
    assert expected.value is not None
    return decay.value + expected.value - float(expected.evidence["of_labelled"]) <= (expected.limit or 0.0)


def _confirmed(estimate: Check) -> bool:
    """Whether audits of the window itself tell of harm, or those that were bought because of it: others of before may be of another time."""
    return estimate.evidence["by"] == "audit" and not estimate.evidence["audited_before"]


def _lacking(parts: Sequence[Check]) -> str:
    names = {check.name.split(":")[0] for check in parts}
    if "live_slices" in names:
        return "a part of the rows fails while the mean looks well"
    return "groups are treated ever more unequally" if "disparity" in names else "predictions or labels are lacking"


def drifts(name: str) -> bool:
    """Whether a check of that name tells whether the population has moved."""
    return called(name, DRIFT)


def _failed(checks: Sequence[Check], names: Sequence[str]) -> list[Check]:
    return [check for check in checks if check.verdict == "fail" and check.blocking and called(check.name, names)]


def _named(checks: Sequence[Check], name: str) -> Check | None:
    return next((check for check in checks if check.name == name), None)


def _told(checks: Sequence[Check]) -> list[str]:
    return [f"{check.name}: {check.reason}" for check in checks]
