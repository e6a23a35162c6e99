"""Cycles: what comes and goes with the hour of the day is neither drift nor harm; what stays is."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.check import Check
from ratchet.monitoring.concept_drift import Stream, concept_drift
from ratchet.monitoring.cycle import in_cycles, spanning, unspanned
from ratchet.monitoring.decay import decay
from ratchet.simulation import population

START, A_DAY, ROWS = np.datetime64("2026-03-02T00:00", "us"), 24.0, 20_000


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


def labels(values, at, made=None):
    return pd.DataFrame({"wrong": values, "prediction": np.arange(len(values)) + 1, "at": at, "made": at if made is None else made})


def fed(parts, *asked):
    return [part["wrong"].to_numpy(float) for part in in_cycles(parts, *asked)]


@settings(max_examples=100, deadline=None)
@given(
    gaps=st.lists(st.floats(0.01, 6), min_size=1, max_size=200),
    rows=st.integers(1, 50),
    hours=st.sampled_from([0.0, 1.0, 24.0]),
    age=st.sampled_from([None, 10, 30, 1000]),
)
def test_what_is_looked_at_are_whole_cycles_evenly_or_the_newest_rows(gaps, rows, hours, age):
    at = START + (np.cumsum(gaps) * 3.6e9).astype("timedelta64[us]")
    since = None if age is None else (pd.Timestamp(at[-1]).floor("us") - timedelta(hours=age)).to_pydatetime()
    places = spanning(at, rows, hours, since)
    assert places[-1] == len(at) - 1
    assert (np.diff(places) > 0).all()
    back = (at[-1] - at[max(0, len(at) - rows)]) / np.timedelta64(1, "h")
    if not hours or (age is not None and age < hours):
        assert places.tolist() == list(range(max(0, len(at) - rows), len(at)))
        return
    count = max(1, -(-back // hours)) if age is None else min(max(1, -(-back // hours)), age // hours)
    inside = int((at > at[-1] - np.timedelta64(round(count * hours * 3.6e12), "ns")).sum())
    assert len(places) == min(rows, inside)
    # Evenly: from the newest to one of the oldest.
    assert len(at) - inside <= places[0] <= len(at) - inside + -(-inside // rows)
    assert rows == 1 or len(places) == 1 or np.ptp(np.diff(places)) <= 1


def test_rows_of_a_part_of_the_day_are_told_and_not_judged_by():
    told = Check("decay", "?", "fail", "worse")
    late = unspanned(told, A_DAY)
    assert (late.verdict, late.reason) == ("undecided", "worse; its rows do not span a cycle of 24 hours yet (watch.cycle_hours)")
    lacking = Check("decay", "?", "undecided", "few")
    assert unspanned(lacking, A_DAY) == lacking


@settings(max_examples=50, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 599), max_size=6),
    odd=st.integers(0, 599),
    by=st.sampled_from([-36, 0, 24 * 300]),
    hours=st.sampled_from([0.0, 7.0, 24.0]),
)
def test_however_labels_are_read_each_finished_cycle_comes_once_and_in_the_same_order(cuts, odd, by, hours):
    at, _ = days(6, 100)
    # One label says that it is older than those that came before it, or of next year.
    at[odd] += np.timedelta64(by, "h")
    told = labels(np.arange(600.0), at)
    until = datetime(2026, 3, 7, 12)
    once = np.concatenate(fed([told], hours, until))
    parts = [told.iloc[first:last] for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), 600], strict=True)]
    assert np.concatenate(fed(parts, hours, until)).tolist() == once.tolist()
    assert sorted(once) == list(range(len(once)))
    if hours:
        assert 500 - 30 <= len(once) < 600
    else:
        assert once.tolist() == told["wrong"].tolist()
    # What comes later changes nothing of what was told before.
    sooner = np.concatenate([np.zeros(0), *fed([told.head(400)], hours, datetime(2026, 3, 5, 12))])
    assert once[: len(sooner)].tolist() == sooner.tolist()


def test_a_label_that_comes_late_changes_nothing_of_the_order_of_others():
    at, _ = days(3, 100)
    told = labels(np.arange(300.0), at)
    before, after = (np.concatenate(fed([rows], A_DAY, datetime(2026, 3, 5))).tolist() for rows in (told.drop(index=150), told))
    assert [value for value in after if value != 150] == before


def test_labels_that_are_uploaded_at_once_come_by_the_days_of_their_predictions():
    """A concept that turned within them is seen all the same."""
    made, _ = days(6, 2000)
    wrong = (np.random.default_rng(0).random(12_000) < np.where(np.arange(12_000) < 6000, 0.2, 0.5)).astype(float)
    told = labels(wrong, np.full(12_000, START + np.timedelta64(7, "D")), made)
    stream = Stream("adwin", fed([told], A_DAY, datetime(2026, 3, 12)))
    found = concept_drift(framed(A_DAY), stream)
    assert found.verdict == "fail"
    assert 6000 < found.evidence["at"] < 6500


def test_the_first_cycle_begins_with_the_first_answer():
    at, _ = days(2, 100)
    evening = datetime(2026, 3, 2, 20)
    told = labels(np.arange(200.0), at).iloc[84:]
    assert not fed([told.head(40)], A_DAY, datetime(2026, 3, 3, 6), evening)
    assert len(np.concatenate(fed([told], A_DAY, datetime(2026, 3, 3, 21), evening))) == 100


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
            stream = Stream("adwin", fed([labels(wrong, at)], hours, datetime(2026, 3, 7)))
            rang[hours] += len(stream.changes) > 0
        at, wrong = by_the_hour(seed, 7, rise_from=5, rise=0.08)
        told = concept_drift(framed(A_DAY), Stream("adwin", fed([labels(wrong, at)], A_DAY, datetime(2026, 3, 9))))
        seen += told.verdict == "fail" and 5 * ROWS < told.evidence["at"] < 5 * ROWS + 2000
    assert rang == {0.0: 4, A_DAY: 0}
    assert seen == 4


def test_a_window_of_a_day_and_a_third_is_looked_at_over_two_days():
    """Else the hours that it holds twice would count twice."""
    hour = np.arange(6000) % 1500 / 1500
    at = START + (np.arange(6000) * (86400e9 / 1500)).astype("timedelta64[ns]")
    wrong = (np.random.default_rng(1).random(6000) < np.where(hour > 2 / 3, 0.4, 0.1)).astype(float)
    asked = np.where(wrong, 0.9, 0.1), np.zeros(6000), 0.2, 0.0045
    newest, of_days = (decay(framed(hours), *asked, at=at) for hours in (0.0, A_DAY))
    assert newest.value > 0.03
    assert abs(of_days.value) < 0.02
