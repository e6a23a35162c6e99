"""What a retraining learns from: the window where the truth turned, and never what was blocked or doubted."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from models.again import window_runs
from ratchet.lesson import EVERYTHING, Lesson, begins, learn_from, settled
from ratchet.settings import parameters


def told(name, verdict="fail", first=1, last=9, **evidence):
    return {"inputs": {"from": first, "to": last}, "checks": [{"name": name, "verdict": verdict, "blocking": True, "evidence": evidence}]}


def test_a_concept_begins_with_the_labels_that_came_since_its_alarm():
    def apart(first, last):
        return last - first

    # Of a hundred labels since the alarm five may be of predictions of before it.
    since = [*range(3), *range(1000, 1097)]
    assert begins(1, [999, *since], 2000, apart) == 1001
    assert begins(1, [999], 2000, apart) == 1000
    # The population moved shortly before: the same change. Long before it is not, and what is newer counts.
    assert begins(900, [999, *since], 2000, apart) == 900
    assert begins(900, [999, *since], 50, apart) == 1001
    # It moved after the concept had turned: the rows between are of the new concept too, and have their labels.
    assert begins(9000, [999, *since], 2000, apart) == 1001


def test_older_rows_are_left_out_only_where_models_of_the_newer_ones_alone_answer_better():
    rng = np.random.default_rng(0)
    truth = (rng.random(1200) < 0.3).astype(float)
    blunt = np.full(1200, 0.3)
    sharp = np.where(truth == 1, 0.5, 0.2)
    window = learn_from(500, [])
    assert window.since == 500
    each = np.arange(1200)
    lesson, said = settled(window, np.column_stack([sharp, blunt]), truth, each, 0.25)
    assert lesson == window
    assert "are answered better" in said
    assert "on 1,200 of them" in said
    for worse in (np.column_stack([blunt, sharp]), np.column_stack([blunt, blunt])):
        lesson, said = settled(window, worse, truth, each, 0.25)
        assert lesson == EVERYTHING
        assert "are not provably" in said
    # What answers better, but decides more rows wrongly, would be refused for its negative flips.
    lesson, said = settled(window, np.column_stack([sharp, blunt]), truth, each, 0.1)
    assert lesson == window
    lesson, said = settled(window, np.column_stack([sharp, np.full(1200, 0.05)]), truth, each, 0.1)
    assert lesson == EVERYTHING
    assert f"{np.mean(truth == 0):.1%} decided wrongly instead of {np.mean(truth == 1):.1%}" in said
    # A guess at chance's mercy is no proof.
    few = settled(window, np.column_stack([sharp, blunt])[:0], truth[:0], each[:0], 0.25)
    assert few[0] == EVERYTHING
    assert "too few labelled rows since place 500" in few[1]


def test_many_rows_of_few_people_are_no_proof():
    rng = np.random.default_rng(1)
    gain = rng.normal(0, 0.05, 60)
    gain += -0.005 - gain.mean()
    people, truth = np.repeat(np.arange(60), 20), np.tile([0.0, 1.0], 600)
    off = np.sqrt(0.25 + np.repeat(gain, 20))
    told = np.column_stack([np.where(truth == 1, 1 - off, off), np.full(1200, 0.5)])
    assert settled(Lesson(500), told, truth, people, 0.5)[0] == EVERYTHING
    assert settled(Lesson(500), told, truth, np.arange(1200), 0.5)[0] == Lesson(500)


def test_models_of_newer_rows_are_asked_about_people_that_they_have_not_seen(credit):
    rows = credit.open_source(None, 5).traffic(3000, drifted=False)
    contract, params = credit.contract, parameters()["train"]
    older, newer = rows.iloc[:2000].reset_index(drop=True), rows.iloc[2000:].reset_index(drop=True)
    told = window_runs(older, newer, contract, "trees", params, 3, 7)
    assert told.shape == (1000, 2)
    assert ((told > 0) & (told < 1)).all()
    # The older rows of whom is asked about are left out: what they say of the answer does not reach the model.
    leak = newer.assign(**{contract.id: [f"copy {n}" for n in range(1000)]})
    assert np.array_equal(
        window_runs(pd.concat([older, leak], ignore_index=True), newer, contract, "trees", params, 3, 7)[:, 0], told[:, 0]
    )
    one_class = newer.assign(**{contract.target: 0.0})
    assert window_runs(older, one_class, contract, "trees", params, 3, 7).shape == (0, 2)
    # All cases are of two people: a fold without them has nothing to learn from.
    few = newer.assign(**{contract.entity: np.where(newer[contract.target] == 1, "one", newer[contract.entity])})
    assert window_runs(older.head(0), few, contract, "trees", params, 3, 7).shape == (0, 2)


def test_where_nothing_has_begun_every_row_teaches():
    assert learn_from(1, []) == EVERYTHING


def test_what_an_advisory_check_says_teaches_all_the_same():
    broken = told("validity", first=30, last=40)
    broken["checks"][0]["blocking"] = False
    assert learn_from(1, [broken]) == EVERYTHING


def test_what_was_blocked_probed_or_doubted_does_not_teach():
    ledger = [
        told("validity", first=30, last=40),
        told("skew:scores", first=35, last=60),
        told("probes:duplicates", first=80, last=90),
        told("data_drift:age", first=1, last=100),
        told("validity", verdict="pass", first=1, last=100),
        told("feedback:labels", first=90, last=100, **{"from": 10, "to": 20}),
        # One of a release of before, which did not tell where.
        told("quality:accuracy"),
    ]
    lesson = learn_from(1, ledger)
    assert lesson == Lesson(0, ((30, 60), (80, 90)), ((10, 20),))
    places = np.array([9, 10, 10, 29, 30, 60, 61, 85])
    provenance = np.array(["outcome", "outcome", "audit", "outcome", "audit", "outcome", "human", "outcome"], dtype=object)
    assert lesson.teaches(places, provenance).tolist() == [True, False, True, True, False, False, True, False]
    assert lesson.said == (
        "every labelled row, except those of 2 stretches that were blocked or probed and labels that no audit found in one stretch that was doubted"
    )


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 20)), max_size=12))
def test_stretches_are_told_apart_and_hold_the_same_places(spans):
    windows = [(first, first + length) for first, length in spans]
    lesson = learn_from(1, [told("clock", first=first, last=last) for first, last in windows])
    places = np.arange(1, 100)
    inside = np.array([any(first <= place <= last for first, last in windows) for place in places])
    assert (lesson.teaches(places, np.full(99, "outcome", dtype=object)) == ~inside).all()
    assert all(after[0] > before[1] + 1 for before, after in zip(lesson.without, lesson.without[1:], strict=False))
