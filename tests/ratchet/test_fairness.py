"""Whether unequal treatment is refused where it can be told, and left undecided where it cannot."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ratchet.decision import gate
from ratchet.evaluation.fairness import equal_merit, equalised_odds, fairness, group_calibration, group_table, intersection
from ratchet.evaluation.mitigation import mitigations


def population(n, groups, seed=0):
    """n rows in equal parts of `groups`: name -> (share who deserve the favourable decision, TPR, FPR), approval being positive.

    The textbook's positive is the approval of somebody who deserves it; here label 1 is the unfavourable outcome.
    """
    rng = np.random.default_rng(seed)
    name = np.array(list(groups))[np.arange(n) % len(groups)]
    deserve, tpr, fpr = (np.array([groups[g][i] for g in name]) for i in range(3))
    good = rng.random(n) < deserve
    approved = rng.random(n) < np.where(good, tpr, fpr)
    return np.where(approved, 0.1, 0.3), (~good).astype(float), pd.Series(name, name="group")


def every(problem, told):
    return [ask(problem, *told) for ask in (fairness, equal_merit, equalised_odds)]


# Group A approves 45% in all: half of it deserve it. Group B's TPR of 0.60 and FPR of 0.25 approve at least 25%, and just
# that where nobody deserves it, so its three numbers hold together only there.
TEXTBOOK = {"A": (0.5, 0.80, 0.10), "B": (0.0, 0.60, 0.25)}


def test_the_textbook_example_is_refused(problem):
    told = population(4000, TEXTBOOK)
    table = group_table(problem, *told)
    assert table["A"]["favourable_rate"] == pytest.approx(0.45, abs=0.03)
    assert table["B"]["favourable_rate"] == pytest.approx(0.25, abs=0.03)
    checks = every(problem, told)
    assert checks[0].verdict == "fail"
    assert gate(checks, "version 2", {}).action == "refuse"


def test_its_error_rates_alone_are_refused_too(problem):
    """The same rates of errors with half of both groups deserving: approvals differ little, and yet it is unfair."""
    told = population(4000, {"A": (0.5, 0.80, 0.10), "B": (0.5, 0.60, 0.25)})
    approval, merit, odds = every(problem, told)
    assert approval.verdict != "fail"
    assert (merit.verdict, odds.verdict) == ("fail", "fail")
    assert gate([approval, merit, odds], "version 2", {}).action == "refuse"


@pytest.mark.parametrize("seed", range(3))
def test_a_fifth_fewer_approvals_at_equal_merit_are_refused(problem, seed):
    told = population(12000, {"A": (0.7, 0.75, 0.3), "B": (0.7, 0.60, 0.24)}, seed)
    assert equal_merit(problem, *told).verdict == "fail"
    assert gate(every(problem, told), "version 2", {}).action == "refuse"


def test_where_it_cannot_be_told_it_is_undecided_with_the_rows_that_would_tell(problem):
    told = population(700, {"A": (0.7, 0.75, 0.3), "B": (0.7, 0.64, 0.26)})
    check = equal_merit(problem, *told)
    assert check.verdict == "undecided"
    assert check.needed is None or check.needed > 100
    decision = gate([check], "version 2", {})
    assert decision.action == "undecided"
    assert "equal_merit:group" in decision.reasons[0]


def test_what_is_equal_passes(problem):
    told = population(12000, {"A": (0.7, 0.75, 0.3), "B": (0.7, 0.75, 0.3)})
    assert [check.verdict for check in every(problem, told)] == ["pass"] * 3


def test_a_real_group_too_small_says_so_and_does_not_block(problem):
    p, truth, groups = population(6000, {"A": (0.7, 0.75, 0.3), "B": (0.7, 0.75, 0.3)})
    groups[:40] = "C"
    p[:40] = 0.9
    checks = every(problem, (p, truth, groups))
    assert [check.verdict for check in checks] == ["pass"] * 3
    assert all("too small for a verdict: C" in check.reason for check in checks)


def test_groups_that_nobody_tells_and_scores_that_are_missing(problem):
    p, truth, groups = population(2000, {"A": (0.7, 0.75, 0.3), "B": (0.7, 0.75, 0.3)})
    nobody = pd.Series([None] * 2000, name="group")
    assert {check.verdict for check in every(problem, (p, truth, nobody))} == {"undecided"}
    p[7] = np.nan
    checks = every(problem, (p, truth, groups))
    assert {check.verdict for check in checks} == {"fail"}
    assert all("row 8" in check.reason or "missing" in check.reason for check in checks)


def test_one_class_leaves_what_it_cannot_tell(problem):
    p, _, groups = population(4000, {"A": (1.0, 0.75, 0.3), "B": (1.0, 0.75, 0.3)})
    for truth in (np.zeros(4000), np.ones(4000)):
        for check in every(problem, (p, truth, groups)):
            assert check.verdict in ("pass", "undecided", "not_applicable")
            assert check.reason


def test_a_probability_that_means_less_in_one_group(problem):
    rng = np.random.default_rng(0)
    groups = pd.Series(np.where(np.arange(8000) % 2, "a", "b"), name="group")
    p = rng.beta(2, 6, 8000)
    truth = (rng.random(8000) < p).astype(float)
    assert group_calibration(problem, p, truth, groups).verdict == "pass"
    worse = group_calibration(problem, np.where(groups == "a", p / 2, p), truth, groups)
    assert worse.verdict == "fail"
    assert "in a" in worse.reason


def test_crossed_groups_are_judged_where_single_ones_look_fair(problem):
    rng = np.random.default_rng(0)
    n = 16000
    told = pd.DataFrame({"sex": np.where(rng.random(n) < 0.5, "f", "m"), "age": np.where(rng.random(n) < 0.5, "old", "young")})
    favoured = (told["sex"] == "f") == (told["age"] == "old")
    p = np.where(rng.random(n) < np.where(favoured, 0.8, 0.5), 0.1, 0.3)
    truth = np.zeros(n)
    assert {fairness(problem, p, truth, told[name]).verdict for name in told} == {"pass"}
    crossed = fairness(problem, p, truth, intersection(told))
    assert crossed.name == "fairness:sex x age"
    assert crossed.verdict == "fail"


def test_mitigations_are_measured_on_rows_that_chose_no_threshold(problem):
    rng = np.random.default_rng(0)

    def rows(n):
        groups = pd.Series(np.where(rng.random(n) < 0.5, "a", "b"), name="group")
        p = np.clip(rng.beta(2, 6, n) + np.where(groups == "a", 0.12, 0.0), 0, 1)
        return p, (rng.random(n) < p).astype(float), groups

    as_it_is, equal_rates, equal_errors = mitigations(problem, rows(8000), rows(8000), 0)
    assert as_it_is["mitigation"] == "as it is"
    assert equal_rates["favourable_ratio"] > max(0.93, as_it_is["favourable_ratio"])
    assert equal_errors["odds_gap"] < as_it_is["odds_gap"]
    assert min(equal_rates["cost"], equal_errors["cost"]) > 0
    p, truth, groups = rows(2000)
    assert mitigations(problem, (p, truth, groups), (p, truth, pd.Series(["a"] * 2000, name="group")), 0) == []


def test_a_large_fair_group_does_not_clear_a_small_unfair_one(problem):
    """A and B of 3,000 rows at 70%; C of 250 at 53%: without B it is no pass, so with B it is none either."""
    passed = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        sizes, rates = {"A": 3000, "B": 3000, "C": 250}, {"A": 0.7, "B": 0.7, "C": 0.53}
        groups = pd.Series(np.repeat(list(sizes), list(sizes.values())), name="group")
        p = np.where(rng.random(len(groups)) < groups.map(rates), 0.1, 0.3)
        for some in (["A", "C"], ["A", "B", "C"]):
            inside = groups.isin(some).to_numpy()
            told = fairness(problem, p[inside], np.zeros(inside.sum()), groups[inside].reset_index(drop=True))
            passed.append(told.verdict == "pass")
    assert not any(passed)


def test_a_group_of_one_class_is_named_where_its_error_rate_cannot_be_told(problem):
    p, truth, groups = population(4000, {"A": (0.7, 0.75, 0.3), "B": (0.7, 0.75, 0.3), "C": (1.0, 0.75, 0.3)})
    check = equalised_odds(problem, p, truth, groups)
    assert "A and C, true positive rate" in str(check.evidence["too_few_to_tell"])
