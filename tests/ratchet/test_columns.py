"""Columns that hold another unit or another column's values are told from a population that moved."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ratchet.data.entities import newest_of_each
from ratchet.monitoring.columns import columns
from ratchet.monitoring.data_drift import data_drift


@pytest.fixture(scope="module")
def worlds(credit):
    """Training rows, and a window of the same world."""
    return credit.open_source(None, 31).traffic(5000, drifted=False), credit.open_source(None, 32).traffic(2000, drifted=False)


@pytest.fixture
def told(credit, worlds):
    def ask(**changed):
        reference, window = worlds
        sent = window.assign(**changed)
        moved = data_drift(credit.problem, credit.contract, reference, sent)
        return columns(credit.problem, credit.contract, reference, sent, moved)

    return ask


@pytest.mark.parametrize(
    ("name", "factor", "said"),
    [
        ("amount", 0.001, "amount is as it was, but 1000 times smaller: its unit changed"),
        ("income", 100.0, "income is as it was, but 100 times as large: its unit changed"),
        ("term_months", 1 / 12, "term_months is as it was, but 12 times smaller: its unit changed"),
    ],
)
def test_another_unit_is_told_with_its_factor(told, worlds, name, factor, said):
    check = told(**{name: worlds[1][name] * factor})
    assert (check.verdict, check.reason) == ("fail", said)
    assert check.evidence["columns"] == [name]


def test_columns_that_changed_places_are_told(told, worlds):
    _, window = worlds
    check = told(amount=window["income"], income=window["amount"])
    assert check.verdict == "fail"
    assert "they changed places" in check.reason
    assert check.evidence["columns"] == ["amount", "income"]


@pytest.mark.parametrize("seed", range(8))
def test_two_alike_that_move_apart_have_not_changed_places(credit, worlds, seed):
    """Like this month's and last month's bill when a trend turns: each moves towards what the other was, and few rows tell them from it."""
    rng = np.random.default_rng(seed)
    reference, window = worlds[0], newest_of_each(credit.contract, worlds[1]).head(300)

    def bills(rows, one, other):
        return rows.assign(amount=np.exp(9 + rng.normal(one, 1, len(rows))), income=np.exp(9 + rng.normal(other, 1, len(rows))))

    before, after = bills(reference, 0.0, 0.35), bills(window, 0.5, -0.15)
    moved = data_drift(credit.problem, credit.contract, before, after)
    assert columns(credit.problem, credit.contract, before, after, moved).verdict == "pass"
    swapped = bills(window, 1.5, 0.0), bills(reference, 0.0, 1.5)
    moved = data_drift(credit.problem, credit.contract, swapped[1], swapped[0])
    assert columns(credit.problem, credit.contract, swapped[1], swapped[0], moved).verdict == "fail"


@pytest.mark.parametrize("value", [0.0, -999.0, 30000.0])
def test_gaps_that_are_filled_are_told_with_the_value(credit, worlds, value):
    name = next(column.name for column in credit.contract.features if column.missing > 0 and column.scale == "continuous")
    reference, window = (rows.assign(**{name: rows[name].mask(np.random.default_rng(0).random(len(rows)) < 0.1)}) for rows in worlds)
    sent = window.assign(**{name: window[name].fillna(value)})
    moved = data_drift(credit.problem, credit.contract, reference, sent)
    check = columns(credit.problem, credit.contract, reference, sent, moved)
    assert (check.verdict, check.evidence["columns"]) == ("fail", [name])
    assert check.reason == f"{name} is {value:.0f} where it was missing: gaps are filled"


@pytest.mark.parametrize(("gaps", "noughts", "value"), [(0.03, 0.0, 0.0), (0.03, 0.0, -999.0), (0.12, 0.2, 0.0)])
def test_few_gaps_are_seen_filled_and_those_with_a_value_that_is_usual(credit, worlds, gaps, noughts, value):
    name, rng = "income", np.random.default_rng(0)

    def gappy(rows):
        amounts = rows[name].fillna(30000.0).mask(rng.random(len(rows)) < noughts, 0.0)
        return rows.assign(**{name: amounts.mask(rng.random(len(rows)) < gaps)})

    reference, window = map(gappy, worlds)
    sent = window.assign(**{name: window[name].fillna(value)})
    check = columns(credit.problem, credit.contract, reference, sent, data_drift(credit.problem, credit.contract, reference, sent))
    assert (check.verdict, check.evidence["columns"]) == ("fail", [name])


def test_fewer_gaps_are_no_fault(credit, worlds):
    name = next(column.name for column in credit.contract.features if column.missing > 0 and column.scale == "continuous")
    reference = worlds[0].assign(**{name: worlds[0][name].mask(np.random.default_rng(0).random(len(worlds[0])) < 0.2)})
    window = worlds[1].assign(**{name: worlds[1][name].fillna(worlds[1][name].sample(len(worlds[1]), random_state=0, ignore_index=True))})
    moved = data_drift(credit.problem, credit.contract, reference, window)
    assert any(check.verdict == "fail" for check in moved)
    assert columns(credit.problem, credit.contract, reference, window, moved).verdict == "pass"


@pytest.mark.parametrize("share", [0.6, 0.95])
def test_fewer_gaps_in_a_column_of_mostly_one_value_are_no_fault(credit, worlds, share):
    """The value that all rise with is the most frequent one: it fills no gaps."""
    column = next(column for column in credit.contract.features if column.scale == "binary" or column.values)
    rng, (one, other) = np.random.default_rng(1), column.values[:2]
    reference, window = (
        rows.assign(
            **{column.name: pd.Series(np.where(rng.random(len(rows)) < share, one, other), dtype=object).mask(rng.random(len(rows)) < gaps)}
        )
        for rows, gaps in zip(worlds, (0.2, 0.05), strict=True)
    )
    moved = data_drift(credit.problem, credit.contract, reference, window)
    assert any(check.verdict == "fail" for check in moved)
    assert columns(credit.problem, credit.contract, reference, window, moved).verdict == "pass"


@pytest.mark.parametrize("factor", [0.5, 1.5, 2.0, 9.0])
def test_amounts_that_grew_are_a_population_that_moved(told, worlds, factor):
    check = told(amount=worlds[1]["amount"] * factor, income=worlds[1]["income"] * factor)
    assert check.verdict == "pass"
    assert "2 columns moved, and are like no other unit or column of before, nor filled gaps" in check.reason


def test_what_is_gone_or_empty_or_nought_is_no_unit(told, worlds, credit):
    assert told(amount=np.nan).verdict == told(amount=0.0).verdict == told(amount="x").verdict == told(amount=1e308).verdict == "pass"
    reference, window = worlds
    gone = window.drop(columns="amount")
    moved = data_drift(credit.problem, credit.contract, reference, gone)
    assert columns(credit.problem, credit.contract, reference, gone, moved).verdict == "pass"


def test_a_world_that_drifts_is_not_taken_for_a_mistake(credit, worlds):
    window = credit.open_source(None, 33).traffic(2000, drifted=True)
    moved = data_drift(credit.problem, credit.contract, worlds[0], window)
    assert any(check.verdict == "fail" for check in moved)
    assert columns(credit.problem, credit.contract, worlds[0], window, moved).verdict == "pass"
