"""Concept drift: the stream's verdict follows from the stream alone, only rises count, and what goes back is forgiven."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from scipy.special import ndtr

from ratchet.monitoring.concept_drift import DETECTORS, Stream, concept_drift
from ratchet.problem import Watch


def decisions(seed, *parts):
    """Wrong decisions: each part so many rows, of which such a share is wrong."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.random(rows) < share for rows, share in parts]).astype(float)


def autocorrelated(seed, rows, share, swing=0.12, neighbours=0.9):
    """Wrong decisions whose chance goes up and down about a share, much like that of the row before."""
    rng = np.random.default_rng(seed)
    level = lfilter([np.sqrt(1 - neighbours**2)], [1, -neighbours], rng.normal(size=rows))
    return (rng.random(rows) < share + swing * level).astype(float)


def in_runs(seed, rows, neighbours):
    """Wrong decisions, a fifth in the mean; some rows are hard and most are not, much like the row before."""
    rng = np.random.default_rng(seed)
    level = lfilter([np.sqrt(1 - neighbours**2)], [1, -neighbours], rng.normal(size=rows))
    return (rng.random(rows) < ndtr(level) ** 4).astype(float)


def ask(problem, chunks):
    return concept_drift(problem, Stream(problem.watch.detector, chunks))


def with_watch(problem, **watch):
    return problem.model_copy(update={"watch": problem.watch.model_copy(update=watch)})


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 6999), max_size=8), seed=st.integers(0, 20))
def test_however_the_stream_is_cut_the_verdict_is_the_same(cuts, seed):
    wrong = decisions(seed, (4000, 0.2), (3000, 0.35))
    whole, cut = Stream("adwin"), Stream("adwin")
    whole.feed(wrong)
    for part in np.split(wrong, sorted(cuts)):
        cut.feed(part)
    assert cut.changes == whole.changes
    assert cut.level == whole.level


def test_a_rise_is_told_with_its_place_and_both_levels(problem):
    check = ask(problem, [decisions(1, (5000, 0.2), (1500, 0.35))])
    assert check.verdict == "fail"
    assert 5000 < check.evidence["at"] < 5500
    assert check.value == pytest.approx(0.15, abs=0.05)
    assert "6,500 labelled decisions: 2" in check.reason


def test_autocorrelated_decisions_count_as_fewer(problem):
    # Fed with every decision it sees a change in 19 of these streams.
    calm = [ask(problem, [autocorrelated(seed, 50_000, 0.2)]) for seed in range(20)]
    assert sum(bool(check.evidence["changes"]) for check in calm) <= 4
    assert all(check.verdict == "pass" for check in calm)
    worse = [ask(problem, [autocorrelated(seed, 10_000, 0.2), autocorrelated(100 + seed, 4000, 0.35)]) for seed in range(10)]
    assert all(check.verdict == "fail" for check in worse)
    assert Stream("adwin", [autocorrelated(0, 20_000, 0.2)]).together >= 4
    # What takes only right and wrong gets each of them.
    assert Stream("hddm_a", [autocorrelated(0, 20_000, 0.2)]).together == 1


def test_nothing_is_seen_before_it_is_told_how_autocorrelated_decisions_are():
    starts = [in_runs(seed, 1000, neighbours=0.9) for seed in range(40)]
    # Fed with every decision from the first on it sees a change in 34 of these streams.
    assert sum(bool(Stream("adwin", [start]).changes) for start in starts) <= 6
    # A rise that came sooner is seen then, at its place.
    early = [Stream("adwin", [decisions(seed, (250, 0.05), (250, 0.8))]) for seed in range(10)]
    assert all(250 < stream.changes[0].at <= 400 for stream in early)


@pytest.mark.parametrize("rows_before", [160, 260, 400])
def test_a_rise_is_not_lost_where_the_detector_is_made_anew(rows_before):
    # At row 24,000 decisions are autocorrelated no longer, and the detector is fed with each of them again.
    for seed in range(4):
        parts = [autocorrelated(seed, 8000, 0.2), decisions(seed, (16_000 - rows_before, 0.2), (1500, 0.35))]
        stream = Stream("adwin", [np.concatenate(parts)])
        assert stream.together == 1
        rise = stream.standing(least=0.05)
        assert rise, f"seed {seed}"
        assert 24_000 - rows_before < rise.at <= stream.rows


def test_a_detector_that_is_made_anew_changes_nothing_else():
    class Silent:
        drift_detected = False

        def update(self, _):
            pass

    # Of these not all are alike autocorrelated, and some are not to judge.
    wrong = np.concatenate([autocorrelated(0, 9000, 0.2), decisions(0, (24_000, 0.2))])
    wrong[::7] = np.nan
    stream = Stream(Silent, [wrong])
    assert (stream.changes, stream.together) == ([], 1)
    assert stream.level == pytest.approx(np.nanmean(wrong), abs=1e-12)


def test_a_fall_is_no_harm_and_takes_an_alarm_back(problem):
    better = ask(problem, [decisions(2, (5000, 0.35), (2000, 0.2))])
    assert better.verdict == "pass"
    assert better.evidence["changes"], "the fall was seen"
    back = ask(problem, [decisions(3, (5000, 0.2), (1500, 0.4), (4000, 0.2))])
    assert back.verdict == "pass"
    assert len(back.evidence["changes"]) >= 2
    again = ask(problem, [decisions(3, (5000, 0.2), (1500, 0.4), (4000, 0.2), (1500, 0.4))])
    assert again.verdict == "fail"


def test_decisions_that_were_better_for_a_while_and_are_as_they_were_do_no_harm(problem):
    dip = [decisions(seed, (4000, 0.25), (4000, 0.12), (4000, 0.25)) for seed in range(10)]
    told = [concept_drift(problem, Stream("adwin", [wrong]), usual=0.25) for wrong in dip]
    assert [check.verdict for check in told] == ["pass"] * 10
    assert all(len(check.evidence["changes"]) >= 2 for check in told)
    # What rises above the share at release is harm, whatever was before.
    worse = [decisions(seed, (4000, 0.25), (4000, 0.12), (8000, 0.25), (2000, 0.4)) for seed in range(10)]
    told = [concept_drift(problem, Stream("adwin", [wrong]), usual=0.25) for wrong in worse]
    assert [check.verdict for check in told] == ["fail"] * 10
    # It began with that rise, not with the return.
    assert all(16_000 < check.evidence["at"] < 17_500 for check in told)


def test_a_rise_in_steps_too_small_to_matter_alone_is_harm(problem):
    steps = [(8000, 0.2 + 0.03 * step) for step in range(6)]
    told = [concept_drift(with_watch(problem, min_rise=0.05), Stream("adwin", [decisions(seed, *steps)]), usual=0.2) for seed in range(10)]
    assert [check.verdict for check in told] == ["fail"] * 10
    # A step that looked larger than it was as it was seen may be taken for one that went back: then it is told from the next.
    assert np.median([check.value for check in told]) == pytest.approx(0.15, abs=0.03)


@pytest.mark.parametrize(("share", "rows", "calm"), [(0.6, 250, 1500), (0.9, 280, 5000), (0.9, 120, 3000)])
def test_a_short_burst_is_over_when_it_is_over(problem, share, rows, calm):
    told = [ask(problem, [decisions(seed, (5000, 0.2), (rows, share), (calm, 0.2))]).verdict for seed in range(20)]
    assert told.count("pass") >= 19
    # While it lasts it is seen.
    told = [ask(problem, [decisions(seed, (5000, 0.2), (rows, share))]).verdict for seed in range(20)]
    assert told.count("fail") >= 19


def test_a_rise_too_small_to_matter_is_seen_and_passes(problem):
    wrong = decisions(4, (60_000, 0.2), (60_000, 0.23))
    assert ask(problem, [wrong]).verdict == "fail"
    check = ask(with_watch(problem, min_rise=0.1), [wrong])
    assert check.verdict == "pass"
    assert 0.0 < check.value < 0.1
    assert "10.0% matters" in check.reason


@pytest.mark.parametrize("chunks", [[], [np.array([])], [decisions(5, (50, 0.9))]])
def test_too_little_says_nothing(problem, chunks):
    check = ask(problem, chunks)
    assert check.verdict == "undecided"
    assert "500 are needed" in check.reason
    check = ask(with_watch(problem, min_window=800), [*chunks, decisions(5, (600, 0.9))])
    assert (check.verdict, "800 are needed" in check.reason) == ("undecided", True)


def test_what_no_detector_has_looked_at_is_not_passed(problem):
    soon = with_watch(problem, min_window=100)
    assert ask(soon, [decisions(5, (499, 0.9))]).verdict == "undecided"
    assert ask(soon, [decisions(5, (500, 0.9))]).verdict == "pass"


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_one_kind_of_decision_is_no_change(problem, constant):
    check = ask(problem, [np.full(3000, constant)])
    assert (check.verdict, check.value) == ("pass", 0.0)


@pytest.mark.parametrize("name", [name for name in DETECTORS if name != "ddm"])
def test_every_detector_sees_a_large_rise(problem, name):
    check = ask(with_watch(problem, detector=name), [decisions(6, (1500, 0.1), (1500, 0.7))])
    assert check.verdict == "fail", check.reason
    assert check.reason.startswith(name)


def test_the_names_in_problem_yaml_are_those_of_the_detectors():
    assert set(Watch.model_fields["detector"].annotation.__args__) == set(DETECTORS)
