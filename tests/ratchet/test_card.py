"""What the card says: from what a run measured, and of what is missing that it is missing."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from ratchet.check import Check, not_applicable
from ratchet.decision import gate
from ratchet.generation import Generation
from ratchet.registry import CHECKS
from ratchet.report.card import LONGEST, PARTS, card, card_page, card_pictures, summary
from ratchet.report.questions import five
from tests.ratchet import test_conformance

FIRST = Generation("credit", None, "s1", "i1", "p", "d", "c", "abc", labels=(("outcome", 900), ("human", 120)))
CHILD = replace(FIRST, parent="1", snapshot="s2", trigger="decision 7")
ROWS = {"train": 600, "tune": 200, "select": 100, "test": 120, "labelled": 1020}
FAMILIES = {"trees": {"test": {"roc_auc": 0.8123}}, "logistic": {"test": {"roc_auc": 0.7456}}}
EVALUATION = {"rows": ROWS, "learnt_from": "every labelled row", "picked": "trees", "families": FAMILIES, "mitigations": {}}
NO_LIFE = {"days": 2.0, "retrained": 0}


def answers(problem, generation=FIRST, checks=(), fixed=None, life=NO_LIFE):
    return five(problem, generation, EVALUATION, list(checks), fixed, life)


def page(problem, checks, generation=CHILD, told=None):
    decision = gate(checks, "version 2", {})
    return card_page(problem, "2", generation, decision, checks, EVALUATION, told or answers(problem, generation, checks), {})


class Text(HTMLParser):
    """What a person reads, and whether every tag is closed."""

    void = frozenset({"meta", "br", "link", "img", "path", "use"})

    def __init__(self, html):
        super().__init__()
        self.text, self.open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_a_missing_answer_says_so(problem):
    told = answers(problem)
    assert [answer.known for answer in told] == [True, False, False, False, False]
    assert "no learning curve was measured" in told[1].text
    assert "first generation" in told[2].text
    assert "no retraining yet" in told[3].text


def test_the_answers_are_this_runs_numbers(problem):
    half = {"labels": 500, "accuracy": 0.801, "log_loss": 0.41, "cost": 0.3}
    curve = Check(
        "learning_curve", "?", "pass", "", value=0.0012, evidence={"half": half, "all": half | {"labels": 1000, "accuracy": 0.822}}
    )
    rule = Check("beats_rule", "?", "pass", "", value=-0.1, low=-0.2, high=-0.05, n=120)
    fixed = {"row": "A7", "truth": 1, "champion": 0.1, "candidate": 0.64, "record": {"income": 100.0, "history": None, "amount": 5308.48}}
    told = answers(problem, CHILD, [curve, rule], fixed, {"days": 30.0, "retrained": 2})
    assert "500 instead of 1,000" in told[1].text
    assert "80.1% instead of 82.2%" in told[1].text
    assert "0.0012" in told[1].text
    for word in ("A7", "10%", "64%", "income 100, history missing, amount 5308.48.", problem.outcome.positive):
        assert word in told[2].text
    assert "2 times in 30.0 days, so one in 15.0 days" in told[3].text
    assert "-0.1000 [-0.2000, -0.0500]: lower" in told[4].text
    assert "0.8123, the simple model's 0.7456" in told[4].text


def test_no_row_was_corrected(problem):
    assert "no test row" in answers(problem, CHILD)[2].text


@pytest.mark.parametrize("verdict", ["pass", "fail", "undecided"])
def test_what_holds_a_promotion_stands_at_the_top(problem, verdict):
    check = Check("calibration", "Is it?", verdict, "error 0.05 & <more>", value=0.05, low=0.0, high=0.1, limit=0.04, n=120, needed=777)
    html = page(problem, [check])
    read = Text(html)
    assert not read.open
    top = html.partition("Five questions")[0]
    assert {"pass": "may go live", "fail": "refused", "undecided": "undecided"}[verdict] in top
    assert ("error 0.05 &amp; &lt;more&gt;" in top) == (verdict != "pass")
    assert ("777 more rows would tell" in top) == (verdict != "pass")


def test_advisory_and_unknown_checks_are_shown_as_such(problem):
    advisory = Check("training", "?", "fail", "it spiked", blocking=False)
    unknown = replace(advisory, name="something_new:x", blocking=True, verdict="pass")
    html = page(problem, [advisory, unknown, not_applicable("slices", "?", "the first generation has no champion")])
    assert "What else was asked?" in html
    assert "advisory" in html
    assert "not applicable" in html


def test_every_release_check_has_its_place():
    placed = {name for _, names in PARTS for name in names}
    # The load test comes after the card.
    assert placed | {"load"} == {name for name, stage in CHECKS.items() if stage == "release"}


def test_who_labelled_and_how_much_work_it_was(problem):
    priced = problem.model_copy(update={"prices": problem.prices.model_copy(update={"label_minutes": 3.0})})
    assert "6.0 hours for 120 labels" in " ".join(Text(page(priced, [])).text)
    unpriced = problem.model_copy(update={"prices": None})
    assert "how long one takes is not stated" in page(unpriced, [])
    assert "none on the labels" in page(problem, [], replace(CHILD, labels=(("outcome", 900),)))


def test_the_page_asks_for_nothing_from_elsewhere_and_draws_what_was_measured(credit):
    world = test_conformance.world(credit, 3000)
    plans = test_conformance.PLANS
    checks = [check for name in ("robustness", "learning_curve", "slices") for check in plans[name](world, False)]
    examination = {"importance": [{"feature": "income", "value": 0.1, "low": 0.05, "high": 0.15}]}
    generations = [{"version": "2", "parent": "1", "inherited": 5, "introduced": 3, "fixed": 9}]
    explained = pd.DataFrame({"income": [0.2, -0.1]}, index=["A1: default 80%", "A2: default 3%"])
    pictures = card_pictures(credit.problem, checks, EVALUATION, examination, {"importance": []}, generations, explained, {})
    assert set(pictures) >= {"learning", "robustness", "importance", "genealogy", "answer 1", "answer 2"}
    told = answers(credit.problem, CHILD, checks)
    html = card_page(credit.problem, "2", CHILD, gate(checks, "version 2", {}), checks, EVALUATION, told, pictures)
    assert html.count("<svg") == len(pictures)
    for word in ("src=", "<link", "@import", "<script"):
        assert word not in html


def test_what_a_trackers_database_keeps_is_not_cut_in_the_middle(problem):
    long = [Check(f"robustness:{i}", "?", "fail", "it loses " + "very " * 60 + "much") for i in range(30)]
    decision = gate(long, "version 2", {})
    told = summary(problem, "2", CHILD, decision, long, EVALUATION | {"select_by": "log_loss"})
    assert len(told) <= LONGEST
    assert told.startswith("# Loan applications: version 2")
    assert told.rstrip().endswith("robustness:29")
    assert "very much" in told


def test_a_champion_that_could_not_be_asked_is_not_told_as_none(problem):
    reason = "version 1 reads income, which the contract no longer has: it cannot be asked"
    check = Check("non_inferior_to_champion", "?", "undecided", reason)
    assert reason in answers(problem, CHILD, [check])[2].text
    text = card(problem, "2", CHILD, gate([check], "version 2", {}), [check], EVALUATION | {"select_by": "log_loss"}, None)
    assert "could not be compared with its parent, version 1" in text
    assert "first generation" not in text
