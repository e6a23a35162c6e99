"""What happens to rows and labels on their way: quality row by row, the volume, the clock."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from ratchet.data.quality import flaws
from ratchet.evaluation.slices import view
from ratchet.monitoring.arrival import clock, intervals, volume
from ratchet.monitoring.quality import scores

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
    found = {name: np.flatnonzero(flags).tolist() for name, flags in flaws(contract, rows).items()}
    assert found == {"completeness": [1], "validity": [2, 3, 4], "consistency": [5], "uniqueness": [7]}
    assert flaws(contract, rows.drop(columns="amount"))["completeness"].all()
    assert all(flags.shape == (0,) for flags in flaws(contract, rows.head(0)).values())


def test_scores_tell_where_in_the_window_it_got_worse():
    flawed = np.arange(1000) >= 900
    assert scores(flawed) == [1.0] * 9 + [0.0]
    assert scores(flawed[:3]) == [1.0, 1.0, 1.0]


def looks(rows, every=300.0):
    """Looks at the log, every so many seconds, between which so many rows came."""
    places = np.cumsum([0, *rows]).tolist()
    return [(PRESENT + timedelta(seconds=every * n), place) for n, place in enumerate(places)]


def test_looks_in_close_succession_count_as_one():
    told = [*looks([100, 100]), (PRESENT + timedelta(seconds=610), 201), (PRESENT + timedelta(seconds=900), 310)]
    assert intervals(told, 150.0) == ([300.0, 300.0, 300.0], [100, 100, 110])
    assert intervals([], 150.0) == ([], [])


@pytest.mark.parametrize(
    ("newest", "verdict"), [(100, "pass"), (70, "pass"), (400, "pass"), (20, "fail"), (0, "fail")], ids=lambda case: str(case)
)
def test_less_than_half_of_the_usual_volume_is_seen(credit, newest, verdict):
    rows = [95 + 7 * n % 11 for n in range(40)]
    assert volume(credit.problem, *intervals(looks([*rows, newest]), 150.0)).verdict == verdict


def test_nights_without_traffic_are_usual(credit):
    rows = [0 if n % 24 < 8 else 100 for n in range(60)]
    assert volume(credit.problem, *intervals(looks([*rows, 0]), 150.0)).verdict == "pass"


def logged(at, label_at=None):
    return pd.DataFrame({"seq": np.arange(1, len(at) + 1), "at": at, "label_at": label_at if label_at is not None else pd.NaT})


def seconds_ago(*ago):
    return pd.Series([PRESENT - timedelta(seconds=float(each)) for each in ago])


def test_a_clock_that_stands_still_is_seen_and_one_that_ran_back_is_not_taken_for_sound(credit):
    at = seconds_ago(*range(1000, 500, -1))
    before = (PRESENT - timedelta(seconds=700), 300)
    assert clock(credit.problem, logged(at), PRESENT, before).verdict == "pass"
    stuck = at.where(at.index < 300, at[299] - timedelta(seconds=120))
    told = clock(credit.problem, logged(stuck), PRESENT, before)
    assert (told.verdict, told.value) == ("fail", 0.4)
    assert told.reason.startswith("200 rows came since the last look, all with a time before it")
    # Rows that waited on the service's disk are late, but not wrong.
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
