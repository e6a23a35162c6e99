"""Cycles: what comes and goes with the hour of the day is neither drift nor harm; what stays is."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.check import Check
from ratchet.monitoring.concept_drift import Stream, concept_drift
from ratchet.monitoring.cycle import in_cycles, spanning, unspanned, whole
from ratchet.monitoring.decay import decay
from ratchet.simulation import population

START, A_DAY, ROWS = np.datetime64("2026-03-02T00:00", "ns"), 24.0, 20_000


def days(count, rows=ROWS):
    """When each of so many rows a day was, and how far its day had gone (0 to 1)."""
    at = START + (np.arange(count * rows) * (86400e9 / rows)).astype("timedelta64[ns]")
    return at, np.arange(count * rows) % rows / rows


def by_the_hour(seed, count, rise_from=np.inf, rise=0.0):
    """Decisions of which a fifth is wrong, three points more and fewer with the hour; from some day on `rise` more."""
    at, hour = days(count)
    share = 0.2 + 0.03 * np.sin(2 * np.pi * hour) + rise * (np.arange(len(at)) >= rise_from * ROWS)
    return at, (np.random.default_rng(seed).random(len(at)) < share).astype(float)


def framed(hours):
    problem = population.problem()
    return problem.model_copy(update={"watch": problem.watch.model_copy(update={"cycle_hours": hours})})


def decayed(hours, at, wrong, last):
    told = slice(max(0, last - 3 * ROWS), last)
    return decay(framed(hours), np.where(wrong[told] > 0, 0.9, 0.1), np.zeros(len(wrong[told])), 0.2, 0.0045, at=at[told])


@settings(max_examples=100, deadline=None)
@given(gaps=st.lists(st.floats(0, 6), min_size=1, max_size=200), rows=st.integers(1, 50), hours=st.sampled_from([0.0, 1.0, 24.0]))
def test_what_is_looked_at_are_the_newest_rows_or_as_many_over_a_whole_cycle(gaps, rows, hours):
    at = START + (np.cumsum(gaps) * 3.6e12).astype("timedelta64[ns]")
    places = spanning(at, rows, hours)
    inside = int((at > at[-1] - np.timedelta64(int(hours * 3.6e12), "ns")).sum())
    assert len(places) == min(rows, len(at))
    assert places[-1] == len(at) - 1
    assert (np.diff(places) > 0).all()
    if inside > rows:
        # Evenly: from the newest to one of the oldest of the cycle.
        assert places[0] >= len(at) - inside
        assert places[0] <= len(at) - inside + -(-inside // rows)
        assert np.ptp(np.diff(places)) <= 1 if rows > 1 else True
    else:
        assert places.tolist() == list(range(len(at) - len(places), len(at)))


def test_rows_of_a_part_of_the_day_span_none():
    last = datetime(2026, 3, 3, 15)
    newest = pd.Series([last - timedelta(minutes=n) for n in range(120)])
    since = last - timedelta(hours=3)
    assert not whole(newest, A_DAY, [(since, None)])
    assert whole(newest, 0.0, [(since, None)])
    # At night nobody may have asked.
    assert whole(newest, A_DAY, [(last - timedelta(days=2), None)])
    assert not whole(newest, A_DAY, [(last - timedelta(days=9), last - timedelta(days=8)), (since, None)])
    assert whole(pd.concat([newest, pd.Series([last - timedelta(days=1)])]), A_DAY, [(since, None)])
    told = Check("decay", "?", "fail", "worse")
    late = unspanned(told, A_DAY)
    assert (late.verdict, late.reason) == ("undecided", "worse; its rows do not span a cycle of 24 hours yet (watch.cycle_hours)")
    lacking = Check("decay", "?", "undecided", "few")
    assert unspanned(lacking, A_DAY) == lacking


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(1, 599), max_size=6), late=st.integers(0, 599), hours=st.sampled_from([0.0, 7.0, 24.0]))
def test_however_labels_are_read_each_finished_cycle_comes_once_and_in_the_same_order(cuts, late, hours):
    at, _ = days(6, 100)
    # One label says that it is older than those that came before it.
    at[late] -= np.timedelta64(36, "h")
    values = np.arange(600.0)
    until = datetime(2026, 3, 7, 12)
    once = np.concatenate(list(in_cycles([(values, at)], hours, until)))
    parts = zip(np.split(values, sorted(cuts)), np.split(at, sorted(cuts)), strict=True)
    assert np.concatenate(list(in_cycles(parts, hours, until))).tolist() == once.tolist()
    assert sorted(once) == values[: len(once)].tolist()
    if hours:
        ended = int((np.maximum.accumulate(at) < np.datetime64(until) - np.timedelta64(int(hours), "h")).sum())
        assert ended - 1 <= len(once) < 600
    else:
        assert once.tolist() == values.tolist()
    # What comes later changes nothing of what was told before.
    sooner = np.concatenate([np.zeros(0), *in_cycles([(values[:400], at[:400])], hours, datetime(2026, 3, 5, 12))])
    assert once[: len(sooner)].tolist() == sooner.tolist()


def test_errors_that_swing_with_the_hour_are_no_decay_and_a_rise_that_stays_is():
    rang = {0.0: 0, A_DAY: 0}
    for seed in range(5):
        at, wrong = by_the_hour(seed, 4)
        for last in range(3 * ROWS, 4 * ROWS, ROWS // 12):
            for hours in rang:
                rang[hours] += decayed(hours, at, wrong, last).verdict == "fail"
    assert rang[0.0] >= 5
    assert rang[A_DAY] == 0
    seen = []
    for seed in range(20):
        at, wrong = by_the_hour(seed, 5, rise_from=4, rise=0.08)
        assert decayed(A_DAY, at, wrong, 4 * ROWS).verdict != "fail"
        seen.append(decayed(A_DAY, at, wrong, 5 * ROWS).verdict == "fail")
    assert sum(seen) >= 19


def test_errors_that_swing_with_the_hour_are_no_change_of_the_concept_and_a_rise_that_stays_is():
    rang, seen = {0.0: 0, A_DAY: 0}, 0
    for seed in range(4):
        for hours in rang:
            at, wrong = by_the_hour(seed, 5)
            stream = Stream("adwin", in_cycles([(wrong, at)], hours, datetime(2026, 3, 7)))
            rang[hours] += len(stream.changes) > 0
        at, wrong = by_the_hour(seed, 7, rise_from=5, rise=0.08)
        told = concept_drift(framed(A_DAY), Stream("adwin", in_cycles([(wrong, at)], A_DAY, datetime(2026, 3, 9))))
        seen += told.verdict == "fail" and 5 * ROWS < told.evidence["at"] < 5 * ROWS + 2000
    assert rang == {0.0: 4, A_DAY: 0}
    assert seen == 4


@pytest.mark.parametrize("hours", [0.0, A_DAY])
def test_a_log_that_has_less_than_a_window_a_day_is_looked_at_as_it_is(hours):
    at, wrong = days(60, 100)[0], np.random.default_rng(1).random(6000) < 0.3
    asked = np.where(wrong, 0.9, 0.1), np.zeros(6000), 0.2, 0.0045
    assert decay(framed(hours), *asked, at=at) == decay(framed(hours), *asked)
