"""The experiment of the watch: what is counted of its runs, and that every bar is measured."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import yaml

from flows import experiment_power
from flows.experiment_watch import BATCH, DUMMIES, EVIDENTLY, LARGE, OFTEN, WEEK, YEARS_APART, cases, measure
from ratchet.settings import ROOT

# Of a year's tests so many have a p-value below 1e-3, 1e-4 and 1e-5.
TAILED = {"columns": {"tests": 1560, "below": [2, 1, 0]}, "decay": {"tests": 50, "below": [0, 0, 0]}}


def made(case, **changed):
    """What came of a case where the watch does as it should."""
    peers = dict.fromkeys(EVIDENTLY, 1) if case.seed % YEARS_APART == 0 and case.rows < LARGE else {}
    dummies = {name: int(rings(10)) for name, rings in DUMMIES.items()}
    told = {
        "year": {"retrained": 0, "raised": 0, "columns": 0, "joint": 0, "tails": TAILED} | dummies,
        "shift": {"harm": 0.05, "raised": True, "left": False, "seen": True} | dummies
        if case.what.startswith("harmful")
        else {"harm": 0.001, "raised": False, "left": True, "seen": True} | dummies,
        "concept": {"harm": 0.06, "raised": True, "after": 1, "early": False},
    }[case.kind]
    return {**asdict(case), **told, **(peers if case.kind != "concept" else {}), **changed}


@pytest.fixture(scope="module")
def every():
    return cases(5, 40, 5)


def test_every_bar_has_a_row(every):
    rows = {row.name: row for row in measure([made(case) for case in every])}
    bars = yaml.safe_load((ROOT / "docs/results/bars.yaml").read_text(encoding="utf-8"))["watch"]
    assert set(bars) <= set(rows)
    assert rows["clean years, of both kinds: a false retraining"].n == 80
    tail = rows["clean years, independent: tests of a column with p below 0.001"]
    assert (tail.value, tail.n) == (2 / 1560, 40 * 1560)
    assert rows["harmful changes of the concept, looked at every 5 minutes: raised within 3 batches of labels"].n == 30
    assert rows["harmful changes of the concept, small: raised within 3 batches of labels"].n == 10
    assert (rows["clean years, independent: alarm every 10 batches"].value, rows["harmful shifts, 2,000 rows a batch: never"].value) == (
        1,
        0,
    )


def test_power_is_told_by_size_and_by_who_was_asked():
    def told(case):
        peers = dict.fromkeys(EVIDENTLY, 1) if case.rows <= experiment_power.PEER_ROWS and case.seed == 0 else {}
        return {**asdict(case), "harm": 0.02, "raised": False, "seen": case.rows > 1000, **peers}

    rows = {row.name: row for row in experiment_power.measure([told(case) for case in experiment_power.cases(8)])}
    assert (rows["no shift, 500 rows: seen"].value, rows["no shift, 2,000 rows: seen"].value) == (0, 1)
    assert (rows["no shift, 500 rows: seen"].n, rows["no shift, 1,000,000 rows: seen"].n) == (8, 5)
    assert rows["no shift, 500 rows: Evidently, any column"].n == 1
    assert "no shift, 1,000,000 rows: Evidently, any column" not in rows
    assert experiment_power.curves(list(rows.values())).axes


def test_what_goes_wrong_is_counted_where_it_did(every):
    def wrong(case):
        """One false retraining among autocorrelated rows, a benign shift that blocks, an alarm that rang before its change."""
        if case.seed % YEARS_APART:
            return {}
        if (case.kind, case.what) == ("year", "autocorrelated"):
            return {"retrained": 2}
        if (case.kind, case.what, case.rows) == ("shift", "benign, small", BATCH):
            return {"left": False}
        return {"raised": False, "early": True} if (case.kind, case.what, case.every) == ("concept", "small", OFTEN) else {}

    rows = {row.name: row.value for row in measure([made(case, **wrong(case)) for case in every])}
    assert rows["clean years, of both kinds: a false retraining"] == 1 / 80
    assert rows["clean years, autocorrelated: a false retraining"] == 1 / 40
    assert rows["clean years, independent: a false retraining"] == 0
    assert rows["benign shifts, 2,000 rows a batch: left alone"] == 14 / 15
    often = "harmful changes of the concept, looked at every 5 minutes: raised"
    assert (rows[f"{often} within 3 batches of labels"], rows[f"{often} within 1 batch of labels"]) == (29 / 30, 29 / 30)
    assert rows["harmful changes of the concept, looked at every 5 minutes, small: raised within 3 batches of labels"] == 0.9
    assert rows[f"{often} before they came"] == 1 / 30
    assert rows["harmful changes of the concept: raised within 1 batch of labels"] == 1


def test_seeds_are_the_same_for_every_schedule(every):
    weekly, often = ({(case.what, case.seed) for case in every if (case.kind, case.every) == ("concept", at)} for at in (WEEK, OFTEN))
    assert weekly == often
