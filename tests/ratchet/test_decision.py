"""The policies: what they decide, and that the same evidence is the same decision."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ratchet.check import Check
from ratchet.decision import decide, gate, watch

GOOD = Check("beats_rule", "Does it?", "pass", "it does", value=-0.1, limit=0.0, n=1000)
SHIFT = Check("data_drift:income", "Did it?", "fail", "income moved", value=1e-9, limit=1e-4, n=2000)
STILL = replace(SHIFT, verdict="pass")
HARM = Check("decay", "Does it?", "fail", "it costs more", value=0.3, limit=0.04, n=2000)
NO_HARM = replace(HARM, verdict="pass")
NO_LABELS = replace(HARM, verdict="undecided", reason="0 labels")
TURNED = Check("concept_drift", "Are they?", "fail", "more are wrong", value=0.1, limit=0.02, n=5000)
BROKEN = Check("validity", "Is it?", "fail", "income is stuck", value=0.1, limit=0.0, n=2000)


def look(*checks, paused=False, short=0):
    return watch(checks, "version 1", {"to": 9}, paused=paused, labels_short=short)


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
        ([STILL, NO_LABELS], 0, "skip", "no check fired"),
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
        ([], 0, "skip", "no check fired"),
    ],
)
def test_the_watch(checks, short, action, word):
    decision = look(*checks, short=short)
    assert decision.action == action
    assert word in " ".join(decision.reasons)


def test_a_pause_holds_retraining_and_says_so():
    decision = look(SHIFT, HARM, paused=True)
    assert decision.action == "skip"
    assert "paused" in decision.reasons[0]


def test_the_id_hashes_inputs_not_wording():
    one = decide("skip", "version 1", ["because"], {"to": 9})
    assert one.id == decide("skip", "version 1", ["in other words"], {"to": 9}).id
    assert one.id != decide("skip", "version 1", ["because"], {"to": 10}).id
    assert one.id != decide("wait", "version 1", ["because"], {"to": 9}).id
