"""The policies: what they decide, and that the same evidence is the same decision."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ratchet.check import Check
from ratchet.decision import decide, gate, told_only
from ratchet.lesson import Lesson
from ratchet.retraining import Means, watch

GOOD = Check("beats_rule", "Does it?", "pass", "it does", value=-0.1, limit=0.0, n=1000)
SHIFT = Check("data_drift:income", "Did it?", "fail", "income moved", value=1e-9, limit=1e-4, n=2000)
STILL = replace(SHIFT, verdict="pass")
HARM = Check("decay", "Does it?", "fail", "it costs more", value=0.3, limit=0.04, n=2000)
NO_HARM = replace(HARM, verdict="pass", value=0.0)
NO_LABELS = replace(HARM, verdict="undecided", value=None, n=0, reason="0 labels")
PERHAPS = replace(HARM, verdict="undecided", value=0.01, reason="it may cost more")
TURNED = Check("concept_drift", "Are they?", "fail", "more are wrong", value=0.1, limit=0.02, n=5000)
BROKEN = Check("validity", "Is it?", "fail", "income is stuck", value=0.1, limit=0.0, n=2000)


JOINT = Check("joint_drift", "Can they?", "fail", "all columns moved", value=1e-9, limit=1e-4, n=2000)
PASSING = replace(HARM, evidence={"passing": True})
TOLD = {"audits_needed": 200, "audited": 10, "audited_before": 0, "bought": 0, "by": "confidence", "of_labelled": 0.3}
EXPECTED = Check("estimate", "Would they?", "fail", "it is expected to cost more", value=0.3, limit=0.04, n=2000, evidence=TOLD)
NOT_EXPECTED = replace(EXPECTED, verdict="pass", reason="it is expected to cost the same")
CANNOT_TELL = replace(EXPECTED, verdict="undecided", reason="cannot tell: rows like nothing before")
# Of the rows whose labels are in nothing was expected: they are of before.
NEWLY_EXPECTED = replace(EXPECTED, evidence=TOLD | {"of_labelled": 0.01})
HALF_BOUGHT = replace(EXPECTED, evidence=TOLD | {"audited": 120, "bought": 110})
CONFIRMED = replace(EXPECTED, evidence=TOLD | {"audited": 200})
AUDITED = replace(EXPECTED, evidence=TOLD | {"audited": 150, "by": "audit"})
AUDITED_BEFORE = replace(EXPECTED, evidence=TOLD | {"audited_before": 360, "by": "audit"})
ONE_CLASS = replace(SHIFT, name="label_classes", reason="every label is 0")
LABELS = replace(SHIFT, name="feedback:labels", reason="labels follow decisions")
GAP = replace(SHIFT, name="feedback:exposure", reason="refusals bring no label")
LATELY = {"audited": 40, "contradicted": 8, "p_value": 5e-4}
LABELS_DOUBTED = Check("quality:accuracy", "Do they?", "pass", "they do", n=200, evidence={"lately": LATELY})
LABELS_TRUE = replace(LABELS_DOUBTED, verdict="undecided", evidence={"lately": LATELY | {"contradicted": 3, "p_value": 0.32}})
FEWER = replace(SHIFT, name="volume", reason="few arrived")
LATE = replace(FEWER, name="quality:timeliness", reason="labels stopped")
ASTRAY = replace(FEWER, name="label_ids", reason="labels find no prediction")
PROBED = Check("probes:duplicates", "Do they?", "fail", "one row again and again", value=1e-9, limit=1e-4, n=2000)
MIXES = replace(PROBED, name="probes:mixes")
DOUBLED = replace(PROBED, name="quality:uniqueness", reason="rows come twice")
UNSURE = replace(PROBED, name="silent:confidence", reason="confidence has moved")
SLICE = Check("live_slices", "Is any?", "fail", "temporary workers cost more", value=0.3, limit=0.05, n=2000)
MEANS = Means(rows=2000, audit_share=0.02, audits_left=1000)


def look(*checks, **means):
    return watch(checks, "version 1", {"to": 9}, replace(MEANS, **means))


@pytest.mark.parametrize(
    ("checks", "action"),
    [
        ([GOOD], "promote"),
        ([GOOD, replace(GOOD, verdict="fail")], "refuse"),
        ([GOOD, replace(GOOD, verdict="undecided")], "undecided"),
        ([GOOD, replace(GOOD, verdict="fail", blocking=False)], "promote"),
        ([GOOD, replace(GOOD, verdict="not_applicable")], "promote"),
        ([replace(GOOD, verdict="not_applicable")], "refuse"),
        ([], "refuse"),
    ],
)
def test_the_gate(checks, action):
    decision = gate(checks, "version 2", {"generation": "g"})
    assert decision.action == action
    assert decision.reasons
    assert [c["name"] for c in decision.evidence["checks"]] == [c.name for c in checks]


@pytest.mark.parametrize(
    ("checks", "short", "action", "word"),
    [
        ([STILL, NO_LABELS], 0, "skip", "no check fired; 1 of 2 could not be decided"),
        ([SHIFT, NO_LABELS], 0, "wait", "not known yet"),
        ([SHIFT, NO_HARM], 0, "skip", "no worse"),
        ([SHIFT, HARM], 0, "retrain", "costs more"),
        ([SHIFT, HARM], 700, "wait", "700 more labelled rows"),
        ([STILL, HARM], 0, "retrain", "costs more"),
        ([STILL, NO_HARM, TURNED], 0, "retrain", "more are wrong"),
        ([STILL, NO_LABELS, TURNED], 300, "wait", "300 more labelled rows"),
        ([SHIFT, HARM, TURNED], 0, "retrain", "more are wrong"),
        ([BROKEN, STILL, TURNED], 0, "block", "stuck"),
        ([BROKEN, SHIFT, HARM], 0, "block", "stuck"),
        ([SHIFT, PASSING], 0, "wait", "may pass"),
        ([SHIFT, PASSING, TURNED], 0, "retrain", "more are wrong"),
        ([JOINT, NO_LABELS], 0, "wait", "not known yet"),
        ([SHIFT, NO_LABELS, EXPECTED], 0, "buy_labels", "rises from 2.0% to 11.5%"),
        ([STILL, NO_LABELS, EXPECTED], 0, "buy_labels", "200 audited labels would tell"),
        ([SHIFT, NO_LABELS, CONFIRMED], 0, "ask", "confirm"),
        ([STILL, NO_LABELS, AUDITED], 900, "ask", "900 more labelled rows are needed"),
        # Labels that came are of older rows; audited ones are of this window's.
        ([STILL, NO_HARM, AUDITED], 0, "ask", "150 audited labels confirm"),
        # Audits of before the window may be of another time: they buy some of its own.
        ([STILL, NO_LABELS, AUDITED_BEFORE], 0, "buy_labels", "200 audited labels would tell"),
        ([STILL, NO_HARM, AUDITED_BEFORE], 0, "buy_labels", "200 audited labels would tell"),
        # What confidence expects, labels refute, where the same was expected of their rows.
        ([STILL, NO_HARM, EXPECTED], 0, "skip", "what fired calls for nothing estimate: it is expected"),
        ([NO_LABELS, GAP], 0, "skip", "what fired calls for nothing; 1 of 2 could not be decided"),
        ([NO_LABELS, CANNOT_TELL], 0, "wait", "nothing could be checked"),
        ([STILL, NO_LABELS, ONE_CLASS], 0, "ask", "labels are not what they seem"),
        ([STILL, HARM, ONE_CLASS], 0, "ask", "every label is 0"),
        ([SHIFT, HARM, LABELS], 0, "ask", "labels follow decisions"),
        ([STILL, NO_LABELS, FEWER], 0, "ask", "predictions or labels are lacking"),
        # What is lacking keeps nobody from finding out about harm, and is told beside.
        ([SHIFT, NO_LABELS, EXPECTED, FEWER], 0, "buy_labels", "few arrived"),
        ([SHIFT, HARM, PROBED], 0, "ask", "somebody tries the model out"),
        ([STILL, NO_HARM, MIXES], 0, "skip", "no worse"),
        ([DOUBLED, PROBED, HARM], 0, "block", "come twice"),
        ([UNSURE, NO_LABELS], 0, "wait", "not known yet"),
        ([STILL, NO_HARM, SLICE], 0, "ask", "a part of the rows fails"),
        ([STILL, HARM, SLICE], 0, "retrain", "temporary workers"),
        ([STILL, HARM, LATE], 700, "ask", "what is awaited may never come"),
        # Most of them do come.
        ([STILL, HARM, ASTRAY], 700, "wait", "labels find no prediction"),
        ([STILL, NO_HARM, ASTRAY], 0, "ask", "predictions or labels are lacking"),
        ([STILL, HARM, LATE], 0, "retrain", "costs more"),
        ([STILL, HARM, SLICE], 700, "wait", "700 more labelled rows"),
        ([SHIFT, NO_LABELS, NOT_EXPECTED], 0, "skip", "expected to do no worse"),
        ([SHIFT, NO_LABELS, CANNOT_TELL], 0, "wait", "cannot tell"),
        ([SHIFT, NO_HARM, EXPECTED], 0, "skip", "no worse on the rows whose labels are in estimate: it is expected to cost more"),
        # Labels that would have told, but leave room for harm: what is expected is refuted, and whether there is some will be told.
        ([SHIFT, PERHAPS, EXPECTED], 0, "wait", "not known yet: it may cost more"),
        ([STILL, PERHAPS, EXPECTED], 0, "wait", "not known yet: it may cost more"),
        ([NO_LABELS, replace(STILL, name="volume"), replace(STILL, name="disparity:sex")], 0, "wait", "nothing could be checked"),
        ([SHIFT, replace(PERHAPS, n=150), EXPECTED], 0, "buy_labels", "200 audited labels would tell"),
        ([STILL, replace(NO_HARM, n=150), EXPECTED], 0, "buy_labels", "200 audited labels would tell"),
        ([SHIFT, PERHAPS, NOT_EXPECTED], 0, "skip", "expected to do no worse"),
        ([SHIFT, NO_HARM, NEWLY_EXPECTED], 0, "buy_labels", "200 audited labels would tell"),
        ([STILL, NO_HARM, NEWLY_EXPECTED], 0, "buy_labels", "200 audited labels would tell"),
        ([STILL, replace(NO_HARM, value=0.039), replace(EXPECTED, evidence=TOLD | {"of_labelled": 0.29})], 0, "buy_labels", "would tell"),
        ([STILL, NO_HARM, replace(EXPECTED, evidence=TOLD | {"of_labelled": None})], 0, "buy_labels", "would tell"),
        ([SHIFT, HARM, EXPECTED], 0, "retrain", "costs more"),
        ([], 0, "wait", "nothing could be checked"),
    ],
)
def test_the_watch(checks, short, action, word):
    decision = look(*checks, labels_short=short)
    assert decision.action == action
    assert word in " ".join(decision.reasons)


@pytest.mark.parametrize(
    ("checks", "means", "action", "word"),
    [
        ([SHIFT, HARM], {"cooling_days": 0.5}, "wait", "0.5 days"),
        ([SHIFT, HARM], {"retrainings_left": 0}, "ask", "used up"),
        ([SHIFT, NO_LABELS, EXPECTED], {"audit_share": 0.1}, "buy_labels", "rises from 10.0% to 11.5%"),
        ([SHIFT, NO_LABELS, EXPECTED, FEWER], {"audits_awaited": 229}, "ask", "what is awaited may never come"),
        # Of what is drawn in any case as many would tell: but they leave with the rows of the window, and what was bought stays.
        ([SHIFT, NO_LABELS, EXPECTED], {"audit_share": 0.2}, "buy_labels", "229 of those that are drawn of this window decide"),
        ([SHIFT, NO_LABELS, EXPECTED], {"rows": 20_000}, "buy_labels", "229 of those that are drawn of this window decide"),
        ([SHIFT, NO_LABELS, EXPECTED], {"audits_left": 188}, "ask", "188 left"),
        ([SHIFT, NO_LABELS, EXPECTED], {"audits_left": 189}, "buy_labels", "11.5%"),
        ([SHIFT, NO_LABELS, EXPECTED], {"rows": 200, "audits_left": 197}, "buy_labels", "100.0%"),
        ([SHIFT, NO_LABELS, EXPECTED], {"rows": 150}, "ask", "more than the 150 rows of the window"),
        # What was bought of windows before is awaited, and tells once it is in.
        ([SHIFT, NO_LABELS, EXPECTED], {"audits_awaited": 229}, "wait", "229 labels that were asked for may still come"),
        ([SHIFT, NO_LABELS, EXPECTED], {"audits_awaited": 20}, "buy_labels", "200 audited labels would tell"),
        # Of what was bought one half is in, and the other may still come; and where no more will.
        ([SHIFT, NO_LABELS, HALF_BOUGHT], {"audits_awaited": 20}, "wait", "20 labels that were asked for may still come"),
        ([SHIFT, NO_LABELS, HALF_BOUGHT], {}, "ask", "110 labels that were bought are in, and neither confirm nor refute it"),
        # What was bought, and nobody told of, is not bought again.
        ([SHIFT, NO_LABELS, EXPECTED], {"audits_unanswered": True}, "ask", "labels were bought, and none came"),
        ([SHIFT, NO_LABELS, EXPECTED], {"audits_silent": True}, "buy_labels", "200 audited labels would tell"),
        ([SHIFT, NO_LABELS, EXPECTED], {"audits_silent": True, "audit_share": 0.1}, "ask", "no audit has told of any"),
        ([SHIFT, HARM, AUDITED], {"labels_short": 7}, "wait", "7 more labelled rows of the new population"),
        ([SHIFT, HARM], {"labels_short": 7, "labels_silent": True}, "ask", "none has come for as long as labels may take"),
        ([SHIFT, HARM], {"labels_silent": True}, "retrain", "costs more"),
        ([SHIFT, PASSING], {"labels_silent": True}, "ask", "it may pass, and none has come for as long as labels may take"),
        ([SHIFT, HARM, LABELS_DOUBTED], {"audits_silent": True}, "ask", "no audit has told of any other for as long as labels may take"),
        # Who pauses retraining pauses no other alarm; and what could not be looked at is told.
        ([SHIFT, HARM, PERHAPS], {"paused": True}, "skip", "1 of 3 could not be decided"),
        (
            [SHIFT, HARM, SLICE],
            {"paused": True},
            "ask",
            "a part of the rows fails while the mean looks well: a person must look retraining is",
        ),
        ([SHIFT, HARM, FEWER], {"paused": True}, "ask", "predictions or labels are lacking: a person must look"),
        ([SHIFT, PERHAPS, NOT_EXPECTED], {}, "skip", "1 of 3 could not be decided"),
        ([SHIFT, HARM], {"unanswered": 10}, "ask", "none made a generation"),
        ([SHIFT, HARM, LABELS_TRUE], {}, "retrain", "costs more"),
        ([SHIFT, HARM, LABELS_DOUBTED], {}, "wait", "audits contradict 8 of the newest 40 labels"),
        ([SHIFT, HARM, replace(LABELS_DOUBTED, blocking=False)], {}, "retrain", "costs more"),
        ([SHIFT, HARM, replace(LABELS_DOUBTED, verdict="fail")], {}, "ask", "labels are not what they seem"),
    ],
)
def test_what_may_be_spent(checks, means, action, word):
    decision = look(*checks, **means)
    assert decision.action == action
    assert word in " ".join(decision.reasons)


@pytest.mark.parametrize(
    ("checks", "advisory", "action", "word"),
    [
        ([BROKEN, STILL, NO_HARM], ("validity",), "skip", "what fired calls for nothing"),
        ([PROBED, SHIFT, HARM], ("probes:duplicates",), "retrain", "costs more"),
        ([PROBED, SHIFT, HARM], ("probes:mixes",), "ask", "tries the model out"),
        ([LABELS, SHIFT, HARM], ("feedback",), "retrain", "costs more"),
        ([SHIFT, NO_LABELS, NOT_EXPECTED], ("data_drift",), "skip", "what fired calls for nothing"),
        ([STILL, NO_LABELS, EXPECTED], ("estimate",), "skip", "what fired calls for nothing"),
        ([STILL, HARM], ("decay",), "skip", "what fired calls for nothing"),
        ([STILL, HARM, TURNED], ("decay",), "retrain", "more are wrong"),
        ([STILL, NO_HARM, FEWER], ("volume",), "skip", "few arrived"),
    ],
)
def test_what_is_advisory_is_told_and_calls_for_nothing(checks, advisory, action, word):
    decision = look(*told_only(checks, advisory))
    assert decision.action == action
    assert word in " ".join(decision.reasons)
    assert [check["name"] for check in decision.evidence["checks"]] == [check.name for check in checks]


def test_retraining_says_what_it_learns_from():
    first = look(STILL, TURNED)
    assert "it learns from every labelled row" in first.reasons
    lesson = Lesson(since=701, without=((1, 20), (40, 50)))
    told = look(STILL, TURNED, lesson=lesson)
    assert told.evidence["inputs"]["lesson"] == {"since": 701, "without": ((1, 20), (40, 50)), "audited": (), "until": None}
    assert "from place 701 of the log on" in told.reasons[-1]
    assert "except those of 2 stretches that were blocked or probed, and from older ones unless they mislead" in told.reasons[-1]
    # Another lesson is another decision; where nothing is retrained, nothing is learnt.
    assert told.id != first.id
    assert "lesson" not in look(STILL, NO_HARM, lesson=lesson).evidence["inputs"]


def test_buying_names_the_share_and_is_another_decision_once_it_was_bought():
    first = look(SHIFT, NO_LABELS, EXPECTED)
    assert first.evidence["inputs"]["share"] == 229 / 2000
    assert look(SHIFT, NO_LABELS, EXPECTED, audit_share=0.1, audits_awaited=229).id != first.id


def test_a_pause_holds_retraining_and_says_so():
    decision = look(SHIFT, HARM, paused=True)
    assert decision.action == "skip"
    assert "paused" in decision.reasons[0]


def test_the_id_hashes_inputs_not_wording():
    one = decide("skip", "version 1", ["because"], {"to": 9})
    assert one.id == decide("skip", "version 1", ["in other words"], {"to": 9}).id
    assert one.id != decide("skip", "version 1", ["because"], {"to": 10}).id
    assert one.id != decide("wait", "version 1", ["because"], {"to": 9}).id
