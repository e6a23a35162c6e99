"""Whether a slice that got worse is found, told from chance, and left undecided where it is too small to tell."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ratchet.evaluation.flips import negative_flips
from ratchet.evaluation.slices import inside_of, rows_for, slices, view
from ratchet.monitoring.estimate import Held
from ratchet.monitoring.silent_failure import live_slices
from ratchet.problem import Costs
from ratchet.simulation.regressions import plant

ROWS = 20000


@pytest.fixture(scope="module")
def judged(credit):
    """Rows of the simulated world, a champion that errs on a fifth of them, and what became true."""
    rows = credit.open_source(None, 11).traffic(ROWS, drifted=False)
    truth = rows["defaulted"].to_numpy(float)
    rng = np.random.default_rng(0)
    champion = np.clip(0.25 + 0.5 * truth + rng.normal(0, 0.3, ROWS), 0.01, 0.99)
    return rows, champion, truth


@pytest.fixture(scope="module")
def framed(problem):
    """One wrong decision costs one, slices of 3% are asked for; the threshold is a half."""
    limits = {"slice_margin": 0.01, "slice_regression": 0.15, "slice_support": 0.03, "negative_flips": 0.1}
    return problem.model_copy(
        update={"costs": Costs(false_positive=1.0, false_negative=1.0, unit="error"), "gate": problem.gate.model_copy(update=limits)}
    )


@pytest.mark.parametrize("seed", range(3))
def test_what_is_planted_is_what_was_asked_for(credit, judged, seed):
    rows, champion, truth = judged
    made = plant(rows, credit.contract, champion, truth, 0.5, churn=0.02, points=0.05, gain=0.002, seed=seed)
    before = ((champion >= 0.5) == truth).astype(float)
    after = (made.decided == truth).astype(float)
    assert 0.03 <= made.inside.mean() <= 0.08
    assert (after - before)[made.inside].mean() == pytest.approx(-0.05, abs=0.002)
    assert (after - before).mean() == pytest.approx(0.002, abs=0.0005)
    changed = made.decided != (champion >= 0.5)
    assert changed[~made.inside].mean() == pytest.approx(0.02, abs=0.004)


def test_a_planted_slice_is_named(credit, framed, judged):
    rows, champion, truth = judged
    inside = ((rows["purpose"] == "business") & (rows["channel"] == "broker")).to_numpy()
    assert 0.01 < inside.mean() < 0.2
    worse = np.where(inside & (np.arange(ROWS) % 4 == 0), 1 - champion, champion)
    check = slices(framed, credit.contract, rows, worse, champion, truth)
    assert check.verdict == "fail"
    assert "business" in check.reason
    assert "broker" in check.reason
    assert check.low > framed.gate.slice_margin
    worst = check.evidence["slices"][0]
    assert worst["negative_flips"] > 0.1


def test_noise_names_nothing(credit, framed, judged):
    rows, champion, truth = judged
    rng = np.random.default_rng(3)
    failed = 0
    for _ in range(3):
        other = np.where(rng.random(ROWS) < 0.01, 1 - champion, champion)
        failed += slices(framed, credit.contract, rows, other, champion, truth).verdict == "fail"
    # Each fails at most once in twenty.
    assert failed <= 1


def test_too_few_rows_are_undecided_and_say_how_many_more(credit, framed, judged):
    rows, champion, truth = (part[:1500] for part in judged)
    other = np.where(np.arange(1500) % 50 == 0, 1 - champion, champion)
    check = slices(framed, credit.contract, rows, other, champion, truth)
    assert check.verdict == "undecided"
    assert check.needed > 1000
    assert slices(framed, credit.contract, rows[:50], other[:50], champion[:50], truth[:50]).verdict == "undecided"


def test_no_champion_and_no_number(credit, framed, judged):
    rows, champion, truth = judged
    assert slices(framed, credit.contract, rows, champion, None, truth).verdict == "not_applicable"
    broken = champion.copy()
    broken[3] = np.nan
    for candidate, other in ((broken, champion), (champion, broken)):
        assert slices(framed, credit.contract, rows, candidate, other, truth).verdict == "fail"
        assert negative_flips(framed, candidate, other, truth).verdict == "fail"


def test_the_same_model_passes(credit, framed, judged):
    rows, champion, truth = judged
    check = slices(framed, credit.contract, rows, champion, champion, truth)
    assert check.verdict == "pass"
    assert check.value == 0.0
    for constant in (np.zeros(ROWS), np.full(ROWS, 0.9)):
        assert slices(framed, credit.contract, rows, constant, constant, truth).verdict == "pass"


def test_one_class_is_judged_like_any_other(credit, framed, judged):
    rows, champion, _ = judged
    assert slices(framed, credit.contract, rows, champion, champion, np.zeros(ROWS)).verdict == "pass"


def test_slices_are_of_values_that_a_person_reads(credit, judged):
    rows, *_ = judged
    odd = rows.assign(income=np.where(np.arange(ROWS) % 3 == 0, np.nan, rows["income"]))
    told = view(odd, credit.contract)
    assert set(told) == {column.name for column in credit.contract.requested}
    assert told["income"].cat.ordered
    assert (told["income"] == "missing").sum() == odd["income"].isna().sum() > ROWS / 3
    assert (
        inside_of(told, {"income": ("missing",), "sex": ("male",)}).sum() == ((told["income"] == "missing") & (rows["sex"] == "male")).sum()
    )
    assert not told.isna().any().any()


def test_fewer_rows_are_needed_for_what_stands_out_more():
    difference = np.zeros(1000)
    difference[:20] = 1
    assert rows_for(difference, 0.01, 0.2) < rows_for(difference, 0.01, 0.1) < rows_for(difference, 0.01, 0.05)


def test_negative_flips_are_counted_by_group_and_overall(framed):
    truth = np.zeros(4000)
    champion = np.full(4000, 0.1)
    groups = pd.Series(np.where(np.arange(4000) % 2, "a", "b"), name="g")
    candidate = np.where((groups == "a") & (np.arange(4000) < 1000), 0.9, 0.1)
    overall = negative_flips(framed, candidate, champion, truth)
    assert overall.value == pytest.approx(500 / 4000)
    assert overall.verdict == "fail"
    worst = negative_flips(framed, candidate, champion, truth, groups)
    assert worst.value == pytest.approx(500 / 2000)
    assert "group a" in worst.reason
    few = groups.copy()
    few[:] = "b"
    few[:3] = "a"
    named = negative_flips(framed, champion, champion, truth, few)
    assert named.verdict == "pass"
    assert "a" in named.reason.partition("too small")[2]


def test_rows_of_one_entity_that_comes_again_do_not_prove_each_other(credit):
    rng = np.random.default_rng(4)
    rows = credit.open_source(None, 4).traffic(1500, drifted=False).drop_duplicates(credit.contract.entity)
    p, before = rng.beta(1.2, 4.0, len(rows)), rng.beta(1.2, 4.0, 6000)
    rows = rows.assign(probability=p, truth=(rng.random(len(rows)) < p).astype(float))
    again = pd.concat([rows] * 16, ignore_index=True)
    held = Held(before, (rng.random(6000) < before).astype(float))
    told = live_slices(credit.problem, credit.contract, held, again)
    assert (told.verdict, told.n) == ("undecided", len(rows))
    assert "one of less than" in told.reason
    assert told.needed + told.n == 4096
    # As many rows of others would be a proof, which these are not.
    others = again.assign(**{credit.contract.entity: [f"e{n}" for n in range(len(again))]})
    assert live_slices(credit.problem, credit.contract, held, others).verdict == "fail"
