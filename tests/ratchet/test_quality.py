"""What happens to rows and labels on their way: quality row by row, the volume, the clock."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from ratchet.data.quality import flaws
from ratchet.evaluation.slices import view
from ratchet.monitoring.arrival import Span, clock, intervals, volume
from ratchet.monitoring.quality import quality, scores, usually_lacking

PRESENT = datetime(2026, 3, 1, 12)


def test_each_flaw_is_told_in_its_dimension(credit):
    contract = credit.contract
    rows = credit.open_source(None, 5).traffic(8, drifted=False).reset_index(drop=True)
    # The income may be missing; the amount may not.
    rows.loc[0, "income"], rows.loc[1, "amount"] = np.nan, np.nan
    rows.loc[2, "purpose"] = "a yacht"
    rows.loc[3, "term_months"] = 12.5
    rows.loc[4, "homeowner"] = 2.0
    rows.loc[5, ["income", "amount"]] = [100.0, 60_000.0]
    rows.loc[7] = rows.loc[6]
    known = set(rows.columns)
    found = {name: np.flatnonzero(flags).tolist() for name, flags in flaws(contract, rows, known).items()}
    assert found == {"completeness": [1], "validity": [2, 3, 4], "consistency": [5], "uniqueness": [6, 7]}
    assert flaws(contract, rows.drop(columns="amount"), known - {"amount"})["completeness"].all()
    assert all(flags.shape == (0,) for flags in flaws(contract, rows.head(0), known).values())


def test_scores_tell_where_in_the_window_it_got_worse():
    flawed = np.arange(1000) >= 900
    assert scores(flawed) == [1.0] * 9 + [0.0]
    assert scores(flawed[:3]) == [1.0, 1.0, 1.0]


def looks(rows, every=300.0):
    """Looks at the log, every so many seconds, between which so many rows came; the last one is on a Sunday at noon."""
    begun = PRESENT - timedelta(seconds=every * len(rows))
    return [(begun, 0, 0), *((begun + timedelta(seconds=every * (n + 1)), 0, came) for n, came in enumerate(rows))]


def test_looks_in_close_succession_count_as_one():
    day = [PRESENT - timedelta(seconds=each) for each in (900, 600, 300, 290, 0)]
    at = [*(moment - timedelta(days=1) for moment in day), *day]
    told = [(moment, 0, rows) for moment, rows in zip(at, 2 * (7, 100, 100, 1, 109), strict=True)]
    # Of the day before also those around that time.
    assert intervals(told, 150.0) == [Span(day[3], day[4], 109), Span(at[3], at[4], 109), Span(at[1], at[3], 101), Span(at[0], at[1], 100)]
    assert intervals([], 150.0) == []


def test_a_look_after_a_long_time_is_held_against_as_long_a_time(credit):
    """The service answers day and night in office hours' rhythm; nobody looked from six in the evening to ten in the morning."""
    every = looks(week(200, 0), 3600.0)
    at = next(n for n in range(len(every) - 1, 0, -1) if every[n][0].hour == 10 and every[n][0].weekday() == 3)
    told = [*every[: at - 15], (every[at][0], 0, sum(rows for _, _, rows in every[at - 15 : at + 1]))]
    assert volume(hourly(credit), told).verdict == "pass"
    assert volume(hourly(credit), [*told[:-1], (told[-1][0], 0, 10)]).verdict == "fail"


@pytest.mark.parametrize("quiet", [0.2, 1, 30])
def test_a_quiet_night_after_a_quiet_weekend_is_no_outage(credit, quiet):
    busy = np.array(week(200, 0)) > 100
    every = looks(np.random.default_rng(1).poisson(np.where(busy, 200, quiet)).tolist(), 3600.0)
    told = [(every[place][0], volume(hourly(credit), every[: place + 1])) for place in range(len(every) - 7 * 24, len(every))]
    assert not [f"{at:%a %H:%M}: {check.reason}" for at, check in told if check.verdict == "fail"]


@pytest.mark.parametrize("a_day", [100, 500, 1500])
def test_where_few_arrive_an_outage_is_seen_once_nothing_would_be_beyond_chance(credit, a_day):
    """Looked at every five minutes, on a Sunday; the last three days may bring none."""
    rng = np.random.default_rng(0)
    arrived = rng.poisson(a_day / 288, 28 * 288)
    gone = np.where(np.arange(len(arrived)) < 24 * 288, arrived, 0)
    thursday = -3 * 288
    assert volume(credit.problem, looks(arrived.tolist())[:thursday]).verdict == "pass"
    outage = [volume(credit.problem, looks(gone.tolist())[: len(gone) - back]).verdict for back in (2 * 288 + 144, 3 * 288)]
    assert outage == ["fail", "fail"]
    # So few that a whole day without any could be chance.
    rare = looks(rng.poisson(3 / 288, 28 * 288).tolist())[:thursday]
    assert volume(credit.problem, rare).verdict == "undecided"


@pytest.mark.parametrize("a_day", [500, 1500])
def test_traffic_that_comes_by_chance_rings_for_nothing(credit, a_day):
    """Of two weeks of looks, every five minutes, those are asked after which the fewest had come for an hour."""
    arrived = np.random.default_rng(2).poisson(a_day / 288, 42 * 288)
    every = looks(arrived.tolist())
    lately = np.convolve(arrived, np.ones(12), "valid")
    quietest = 12 + np.argsort(lately[28 * 288 :])[:60] + 28 * 288
    told = [volume(credit.problem, every[: place + 1]) for place in quietest]
    assert not [check.reason for check in told if check.verdict == "fail"]


def test_an_outage_of_a_weekend_is_seen_where_few_arrive(credit):
    """A hundred a day for twelve weeks; none since Friday evening."""
    arrived = np.random.default_rng(3).poisson(100 / 288, 84 * 288)
    friday = len(arrived) - 288 * 3 // 2 - 72
    arrived[friday:] = 0
    assert {volume(credit.problem, looks(arrived.tolist())[: len(arrived) + 1 - back]).verdict for back in (0, 72)} == {"fail"}


def test_looks_in_no_order_break_nothing(credit):
    told = looks(week(100, 100), 3600.0)
    told[-5], told[-200] = told[-200], told[-5]
    assert volume(hourly(credit), told).verdict in ("pass", "undecided")


def week(busy, quiet, days=28, every=3600.0):
    """Rows by look of so many days: many in office hours of working days."""
    moments = [at for at, _, _ in looks([0] * round(days * 86400 / every), every)][1:]
    return [(busy if at.weekday() < 5 and 8 <= at.hour < 18 else quiet) + at.day % 5 for at in moments]


def hourly(credit):
    return credit.problem.model_copy(update={"watch": credit.problem.watch.model_copy(update={"every_seconds": 3600.0})})


@pytest.mark.parametrize(
    ("newest", "verdict"), [(100, "pass"), (70, "pass"), (400, "pass"), (20, "fail"), (0, "fail")], ids=lambda case: str(case)
)
def test_less_than_half_of_the_usual_volume_is_seen(credit, newest, verdict):
    told = volume(hourly(credit), looks([*week(100, 100)[:-1], newest], 3600.0))
    assert told.verdict == verdict


def test_nights_and_weekends_are_usual_and_a_dead_morning_is_not(credit):
    rows = week(200, 5)
    every = looks(rows, 3600.0)
    told = [(every[place][0], volume(hourly(credit), every[: place + 1]).verdict) for place in range(len(rows) - 7 * 24, len(rows) + 1)]
    assert {verdict for _, verdict in told} == {"pass", "undecided"}
    # Where few are usual at that hour, or that kind of day was seldom seen, it cannot be told.
    assert {verdict for at, verdict in told if at.weekday() < 5 and 9 <= at.hour < 18} == {"pass"}
    # On a Thursday at eleven.
    at = len(rows) - 3 * 24
    dead = looks(rows, 3600.0)[:at]
    assert dead[-1][0].weekday() == 3
    assert volume(hourly(credit), [*dead[:-1], (dead[-1][0], 0, 3)]).verdict == "fail"


def test_an_outage_does_not_become_usual(credit):
    rows = [100 + n % 7 for n in range(28 * 24)]
    rows[-9:] = [0] * 9
    assert {volume(hourly(credit), looks(rows, 3600.0)[: len(rows) + 1 - gone]).verdict for gone in range(9)} == {"fail"}


def test_the_first_days_tell_nothing_of_what_is_usual(credit):
    told = volume(hourly(credit), looks([100] * 48, 3600.0))
    assert told.verdict == "undecided"
    assert "tell how many are usual" in told.reason


def logged(at, label_at=None):
    return pd.DataFrame({"seq": np.arange(1, len(at) + 1), "at": at, "label_at": label_at if label_at is not None else pd.NaT})


def seconds_ago(*ago):
    return pd.Series([PRESENT - timedelta(seconds=float(each)) for each in ago])


def test_a_clock_that_stands_still_is_seen_and_one_that_ran_back_is_not_taken_for_sound(credit):
    at = seconds_ago(*range(1000, 500, -1))
    before = (PRESENT - timedelta(seconds=600), 300, 0)
    assert clock(credit.problem, logged(at), PRESENT, before).verdict == "pass"
    stuck = at.where(at.index < 300, at[299])
    told = clock(credit.problem, logged(stuck), PRESENT, before)
    assert (told.verdict, told.value) == ("fail", 0.4)
    assert told.reason.startswith("200 rows came since the last look, all with one time before it")
    # Rows that waited on the service's disk have times of their own.
    waited = at.where(at.index < 300, at - timedelta(seconds=100))
    assert clock(credit.problem, logged(waited), PRESENT, before).verdict == "undecided"
    # Those of one request have one, but it is not that of the row before.
    together = at.where(at.index < 300, at[100])
    assert clock(credit.problem, logged(together), PRESENT, before).verdict == "undecided"
    # They are late, but not wrong.
    late = at.where(at.index < 450, at - timedelta(seconds=400))
    told = clock(credit.problem, logged(late), PRESENT, before)
    assert told.verdict == "undecided"
    assert told.reason.startswith("50 rows stand after later ones")


def test_labels_before_their_predictions_and_rows_ahead_of_now_are_seen(credit):
    at = seconds_ago(*range(1000, 500, -1))
    early = pd.Series(pd.NaT, index=at.index).where(at.index != 7, at[7] - timedelta(hours=1))
    told = clock(credit.problem, logged(at, early), PRESENT, None)
    assert (told.verdict, told.reason) == ("fail", "1 rows are later than their own label")
    assert clock(credit.problem, logged(at + timedelta(hours=1)), PRESENT, None).value == 1.0


def test_slices_of_rows_that_lack_a_column_are_those_of_the_others(credit):
    rows = credit.open_source(None, 5).traffic(50, drifted=False)
    assert "income" not in view(rows.drop(columns="income"), credit.contract)
    assert set(view(rows, credit.contract)) == {column.name for column in credit.contract.requested}


def test_rows_that_are_alike_by_nature_are_no_flaw_however_many(credit):
    rng = np.random.default_rng(0)
    names = [column.name for column in credit.contract.features]
    base = credit.open_source(None, 5).traffic(400, drifted=False).reset_index(drop=True)
    for _ in range(20):
        held, window = (base.iloc[rng.integers(0, 400, 2000)].reset_index(drop=True) for _ in range(2))
        aged = window.head(0).assign(outcome=np.nan, gold=np.nan)
        told = {check.name: check for check in quality(credit.problem, credit.contract, held[names], window, aged)}
        assert told["quality:uniqueness"].verdict == "pass"
        assert told["quality:consistency"].verdict == "pass"


def test_rows_that_come_twice_count_once(credit):
    """Twenty pairs in a window, forty in the next: as single rows that would be beyond chance, as what happened it is not."""
    names = [column.name for column in credit.contract.features]
    base = credit.open_source(None, 5).traffic(4000, drifted=False)[names].reset_index(drop=True)

    def pairs(rows, count):
        return pd.concat([rows.iloc[: 2000 - count], rows.iloc[:count]]).sample(frac=1, random_state=1).reset_index(drop=True)

    def verdict(before, now):
        window = pairs(base.iloc[2000:], now)
        told = quality(credit.problem, credit.contract, pairs(base, before), window, window.head(0).assign(outcome=np.nan, gold=np.nan))
        return next(check.verdict for check in told if check.name == "quality:uniqueness")

    assert [verdict(10, 40), verdict(10, 120)] == ["pass", "fail"]


def office_hours(shifted, gone=0):
    """Five weeks of looks every five minutes, 100 predictions in each from 8 to 18 o'clock of a working day, give or take ten minutes.

    The last week comes an hour sooner by the log's clock where it is `shifted`; of its Wednesday's hours from 11 on so many bring nothing.
    """
    rng, every = np.random.default_rng(0), np.arange(288) * 5
    rows = []
    for day in range(35):
        begins, ends = (60 * hour + rng.normal(0, 10) - 60 * (shifted and day >= 28) for hour in (8, 18))
        busy = np.clip((every - begins) / 30 + 0.5, 0, 1) * np.clip((ends - every) / 30 + 0.5, 0, 1) * (day % 7 < 5)
        rows.append(rng.poisson(100 * busy))
    rows[30][11 * 12 : (11 + gone) * 12] = 0
    monday = datetime(2026, 9, 7)
    return [(monday, 0, 0), *((monday + timedelta(minutes=5 * (n + 1)), 0, int(came)) for n, came in enumerate(np.concatenate(rows)))]


@pytest.mark.parametrize("shifted", [False, True])
def test_traffic_that_begins_and_ends_with_the_hour_is_no_outage_even_where_clocks_are_put_on(credit, shifted):
    told = office_hours(shifted)
    edges = [
        28 * 288 + day * 288 + place for day in range(5) for hour in (6, 7, 8, 16, 17, 18) for place in range(12 * hour, 12 * hour + 12, 3)
    ]
    assert {volume(credit.problem, told[: place + 1]).verdict for place in edges} <= {"pass", "undecided"}
    dead = office_hours(shifted, gone=1)
    assert volume(credit.problem, dead[: 30 * 288 + 12 * 12]).verdict == "fail"


@pytest.mark.parametrize("usual", [20, 45])
def test_a_lasting_fall_is_seen_where_few_predictions_come_between_two_looks(credit, usual):
    """None at all would be beyond chance in few minutes, 40% of the usual is so in hours."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.poisson(usual, 28 * 288), rng.poisson(0.4 * usual, 288)])
    told = looks(rows.tolist())
    assert volume(credit.problem, told[: 28 * 288]).verdict == "pass"
    later = [volume(credit.problem, told[: 28 * 288 + place]).verdict for place in range(36, 289, 36)]
    assert later.count("fail") >= 7


def test_bursts_that_are_usual_at_release_are_single_events(credit):
    """A job that asks for one row a hundred times, as it did at release, beside pairs: now and then there is one more of them."""
    names = [column.name for column in credit.contract.features]
    base = credit.open_source(None, 5).traffic(4000, drifted=False)[names].reset_index(drop=True)

    def with_jobs(rows, jobs):
        of = np.arange(2000)
        for job in range(jobs):
            of[100 * job : 100 * (job + 1)] = 100 * job
        return rows.iloc[of].reset_index(drop=True)

    def verdict(before, now):
        window = with_jobs(base.iloc[2000:], now)
        told = quality(credit.problem, credit.contract, with_jobs(base, before), window, window.head(0).assign(outcome=np.nan, gold=np.nan))
        return next(check.verdict for check in told if check.name == "quality:uniqueness")

    assert [verdict(1, 3), verdict(0, 3)] == ["pass", "fail"]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_one_row_that_is_sent_again_and_again_is_no_single_event(credit, share):
    names = [column.name for column in credit.contract.features]
    base = credit.open_source(None, 5).traffic(4000, drifted=False)[names].reset_index(drop=True)
    held, window = base.iloc[:2000], base.iloc[2000:].reset_index(drop=True)
    window = window.iloc[np.where(np.arange(2000) < share * 2000, 0, np.arange(2000))].reset_index(drop=True)
    told = quality(credit.problem, credit.contract, held, window, window.head(0).assign(outcome=np.nan, gold=np.nan))
    assert next(check.verdict for check in told if check.name == "quality:uniqueness") == "fail"


@pytest.mark.parametrize(
    ("of_the_newest", "of_those_before", "doubted"),
    [(0, 0, False), (4, 0, False), (8, 0, True), (4, 8, True), (0, 4, False)],
)
def test_audits_of_the_newest_labels_doubt_harm_before_there_are_enough_for_an_alarm(credit, of_the_newest, of_those_before, doubted):
    """Two windows of labels, of each of which 40 are audited; so many of them are wrong."""
    window = credit.problem.watch.window
    audited = np.tile(np.arange(window) % (window // 40) == 0, 2)
    wrong = np.concatenate([np.arange(40) < of_those_before, np.arange(40) < of_the_newest])
    outcome, gold = np.zeros(2 * window), np.where(audited, 0.0, np.nan)
    outcome[np.flatnonzero(audited)[wrong]] = 1.0
    aged = pd.DataFrame({"outcome": outcome, "gold": gold})
    found = quality(credit.problem, credit.contract, pd.DataFrame(), pd.DataFrame(), aged)
    accuracy = next(check for check in found if check.name == "quality:accuracy")
    assert accuracy.verdict == "undecided"
    assert (accuracy.evidence["lately"]["p_value"] < 0.05) == doubted


def test_labels_that_never_came_of_some_rows_are_usual_and_such_as_stop_coming_are_not(credit):
    window = credit.open_source(None, 5).traffic(2000, drifted=False)
    rng = np.random.default_rng(1)

    def timeliness(lacking):
        aged = window.assign(outcome=np.where(lacking, np.nan, 0.0), gold=np.nan)
        found = quality(credit.problem, credit.contract, window, window, aged)
        return next(check for check in found if check.name == "quality:timeliness").verdict

    assert timeliness(rng.random(2000) < 0.4) == "pass"
    assert timeliness(rng.random(2000) < np.where(np.arange(2000) < 1000, 0.1, 0.5)) == "fail"
    assert timeliness(np.ones(2000, dtype=bool)) == "undecided"


@pytest.mark.parametrize("stray", [0.0, 0.01])
def test_labels_that_stopped_coming_stay_told_however_long_it_lasts(credit, stray):
    """A tenth of the rows never get a label; then none does but a stray one, and what was labelled leaves the rows that are looked at."""
    rng = np.random.default_rng(1)
    lacking = np.concatenate([rng.random(4000) < 0.1, rng.random(4000) >= stray])
    ledger, told = [], []
    for end in range(2000, 8001, 500):
        aged = pd.DataFrame({"outcome": np.where(lacking[end - 2000 : end], np.nan, 0.0), "gold": np.nan})
        found = quality(
            credit.problem, credit.contract, pd.DataFrame(), pd.DataFrame(), aged, True, usual=usually_lacking(reversed(ledger))
        )
        check = next(check for check in found if check.name == "quality:timeliness")
        ledger.append({"checks": [check.as_dict()]})
        told.append(check.verdict)
    assert told == ["pass"] * 5 + ["fail"] * 8
    assert 0.09 < usually_lacking(reversed(ledger)) < 0.14


def test_what_lacks_by_chance_a_little_more_often_than_at_best_is_usual(credit):
    rng = np.random.default_rng(2)
    ledger = []
    for _ in range(200):
        aged = pd.DataFrame({"outcome": np.where(rng.random(600) < 0.4, np.nan, 0.0), "gold": np.nan})
        found = quality(
            credit.problem, credit.contract, pd.DataFrame(), pd.DataFrame(), aged, True, usual=usually_lacking(reversed(ledger))
        )
        check = next(check for check in found if check.name == "quality:timeliness")
        assert check.verdict == "pass"
        ledger.append({"checks": [check.as_dict()]})
