"""The estimate of a window without labels: near the truth where the population moves, honest where the concept does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from ratchet.monitoring.autocorrelation import inflation
from ratchet.monitoring.domain import Domain, domain
from ratchet.monitoring.estimate import NONE, Audited, Audits, Held, estimate, expected_harm, relied_on
from ratchet.simulation.population import problem as framed


def wrong(probability, truth):
    return ((probability >= 0.5) != (truth == 1)).astype(float)


def rows(rng, n, middle=-1.5, turned=0.0):
    """Rows with one feature that tells the probability, which the model knows; of some the outcome is turned around."""
    x = rng.normal(middle, 1.0, n)
    p = 1 / (1 + np.exp(-x))
    true = p * (1 - turned) + (1 - p) * turned
    return x, p, true, (rng.random(n) < true).astype(float)


def one(seed, middle=-1.5, turned=0.0, audited=0, n=4000):
    rng = np.random.default_rng(seed)
    x, p, _, y = rows(rng, 3000)
    new, q, true, truth = rows(rng, n, middle, turned)
    ratio = np.ones(3000)
    if middle != -1.5:
        found = domain(x[:, None], new[:, None], seed)
        ratio = np.ones(3000) if found.alike else found.ratio
    places = np.sort(rng.choice(n, audited, replace=False))
    made = estimate(wrong, Held(p, y), ratio, q, 0.0, Audits(q[places], truth[places], np.full(audited, audited / n)))
    return made, float(np.where(q >= 0.5, 1 - true, true).mean())


def test_a_rise_that_may_be_beyond_the_margin_is_no_pass():
    """Without an audit too: below the margin in the mean, but not in all of the interval."""
    rng = np.random.default_rng(3)
    _, p, _, y = rows(rng, 3000)
    _, q, _, _ = rows(rng, 400)
    found = Domain(0.5, 0.48, 0.52, 0.5, np.ones(3000), 0.0)
    told = expected_harm(framed(), Held(p, y), found, q)
    assert told.low < told.value < told.high
    margin = (told.value + told.high) / 2
    at, above = (framed().model_copy(update={"gate": framed().gate.model_copy(update={"margin": m})}) for m in (margin, told.high + 0.001))
    near = expected_harm(at, Held(p, y), found, q)
    assert (near.verdict, near.evidence["by"]) == ("undecided", "confidence")
    assert expected_harm(above, Held(p, y), found, q).verdict == "pass"


@pytest.mark.parametrize("middle", [-1.5, -1.2, -0.8, -2.2])
def test_where_the_population_moves_it_is_near_the_truth(middle):
    told = [one(seed, middle) for seed in range(6)]
    assert np.mean([abs(made.value - true) for made, true in told]) < 0.008
    assert {made.by for made, _ in told} == {"confidence"}


def test_audits_hold_the_truth_whatever_moves():
    told = [one(seed, turned=turned, audited=300) for seed in range(40) for turned in (0.0, 0.05, 0.2)]
    held = sum(made.low <= true <= made.high for made, true in told)
    assert held >= 0.9 * len(told)
    # What turns a fifth of the outcomes is contradicted nearly always, what turns none seldom.
    strong = [made.valid for made, _ in told[2::3]]
    none = [made.valid for made, _ in told[0::3]]
    assert sum(strong) <= 4
    assert sum(none) >= 36


def test_chance_is_chance_with_many_audits_too():
    values = [one(seed, audited=2000)[0].p_value for seed in range(60)]
    assert sum(p < 0.05 for p in values) <= 8


def test_fewer_than_a_hundred_audits_change_nothing():
    few, none = one(3, turned=0.2, audited=99)[0], one(3, turned=0.2)[0]
    assert (few.by, few.value) == ("confidence", none.value)


def check(rng, q, truth, chance, foreign=0.0, margin=0.02, ratio=None, **watch):
    _, p, _, y = rows(rng, 3000)
    problem = framed(margin=margin)
    problem = problem.model_copy(update={"watch": problem.watch.model_copy(update=watch)})
    found = Domain(0.5, 0.48, 0.52, 0.5, np.ones(3000) if ratio is None else ratio, foreign)
    return expected_harm(problem, Held(p, y), found, q, audited(q, truth, chance))


def audited(q, truth, chance):
    known = np.isfinite(truth)
    return Audited(Audits(q[known], truth[known], chance[known]))


def test_it_says_where_it_cannot_tell():
    rng = np.random.default_rng(0)
    _, q, _, _ = rows(rng, 4000)
    nobody, never = np.full(4000, np.nan), np.zeros(4000)
    strange = check(rng, q, nobody, never, foreign=0.3)
    assert (strange.verdict, strange.value) == ("undecided", None)
    assert "30% of the window's rows are like nothing" in strange.reason
    thin = np.r_[np.full(100, 30.0), np.full(2900, 1e-3)]
    assert "as much as 100 rows would" in check(rng, q, nobody, never, ratio=thin).reason


def test_audits_that_leave_room_for_harm_are_no_pass():
    told = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        _, q, _, truth = rows(rng, 4000)
        chance = np.where(np.arange(4000) % 33 == 0, 0.03, 0.0)
        told.append(check(rng, q, np.where(chance > 0, truth, np.nan), chance))
        assert check(rng, q, truth, np.ones(4000), margin=0.05).verdict == "pass"
    # A hundred and twenty rows can seldom exclude a rise of two points; four thousand can.
    assert sum(c.verdict == "undecided" for c in told) >= 5
    assert all((c.verdict == "pass") == (c.high <= c.limit) for c in told)


@pytest.mark.parametrize(("alarms", "budget"), [(1.0, 0), (1.0, 100), (2.0, 200), (20.0, 2000)])
def test_whatever_budgets_may_be_stated_it_answers(alarms, budget):
    rng = np.random.default_rng(6)
    _, q, _, truth = rows(rng, 4000)
    told = check(rng, q, truth, np.ones(4000), false_alarms_per_year=alarms, audit_budget=budget)
    assert told.verdict in ("pass", "undecided", "fail")


def test_a_margin_of_nothing_is_a_margin():
    rng = np.random.default_rng(2)
    _, q, _, _ = rows(rng, 4000, middle=-2.0)
    assert check(rng, q, np.full(4000, np.nan), np.zeros(4000), margin=0.0).verdict == "pass"


def test_what_the_model_does_not_look_at_is_left_out(contract, credit):
    frame = credit.open_source(None, 1).traffic(500, drifted=False)
    told = relied_on(
        lambda f: 1 / (1 + np.exp(-(f["late_payments"] - 2 + 0.5 * f["open_loans"]))), frame, [c.name for c in contract.features]
    )
    assert told == ["open_loans", "late_payments"]


@pytest.mark.parametrize("shape", ["alone", "columns"])
def test_autocorrelated_rows_are_worth_fewer(shape):
    rng = np.random.default_rng(4)
    alone = rng.normal(size=(3000, 3))
    together = np.repeat(rng.normal(size=(300, 3)), 10, axis=0)
    step = alone + (np.arange(3000) >= 1500)[:, None]
    if shape == "alone":
        alone, together, step = alone[:, 0], together[:, 0], step[:, 0]
    assert inflation(alone) == 1.0
    assert 7 < inflation(together) < 20
    # One step is drift, not dependence.
    assert inflation(step) == 1.0


@pytest.mark.parametrize("common", [0.0, 0.5])
def test_the_more_columns_there_are_the_less_dependence_is_overlooked(common):
    """Neighbours correlate by 0.2: of one column's 2,000 rows that is within what chance brings about, of thirty it is not."""
    rng = np.random.default_rng(8)

    def told(columns, correlation):
        fresh = np.sqrt(1 - common) * rng.normal(size=(2100, columns)) + np.sqrt(common) * rng.normal(size=(2100, 1))
        return inflation(lfilter([np.sqrt(1 - correlation**2)], [1, -correlation], fresh, axis=0)[100:], several=True)

    independent, together = ([told(30, correlation) for _ in range(60)] for correlation in (0.0, 0.2))
    assert sum(factor > 1 for factor in independent) <= 6
    # The true factor is 1.5.
    assert sum(factor < 1.3 for factor in together) <= 9
    assert max(together) < 4


def audits(n, seed=0):
    rng = np.random.default_rng(seed)
    return Audits(rng.random(n), (rng.random(n) < 0.5).astype(float), np.full(n, 0.02))


def test_audits_of_before_the_window_count_where_its_own_are_too_few():
    own, before = audits(40), audits(900, 1)
    both = own.after(before)
    assert len(both) == 400
    assert (both.probability[-40:] == own.probability).all()
    # The newest of those before.
    assert (both.truth[:360] == before.truth[-360:]).all()
    enough = audits(100)
    assert enough.after(before) is enough
    assert own.after(NONE) is own


def test_after_a_turn_the_interval_is_the_windows_own():
    """Audits of before are of the old concept: pooled, they tell of neither."""
    rng = np.random.default_rng(11)
    _, p, _, y = rows(rng, 3000)
    held, pooled = [], []
    for _ in range(60):
        _, old, _, old_truth = rows(rng, 360)
        _, q, true, truth = rows(rng, 2000, turned=0.3)
        told = Audits(np.r_[old, q[:40]], np.r_[old_truth, truth[:40]], np.full(400, 0.02))
        expected = float(np.where(q >= 0.5, 1 - true, true).mean())
        for own, made in ((40, held), (None, pooled)):
            found = estimate(wrong, Held(p, y), np.ones(3000), q, 0.0, told, own)
            assert found.low <= found.value <= found.high
            made.append(found.low <= expected <= found.high)
    assert np.mean(held) > 0.85 > 0.5 > np.mean(pooled)


def test_few_audits_are_not_sure_where_costly_errors_are_rare():
    """An error of one kind costs four times the other, and is rare: the window's 20 audits often hold none."""

    def costs(probability, truth):
        decided = probability >= 0.2
        return np.where(decided & (truth == 0), 1.0, np.where(~decided & (truth == 1), 4.0, 0.0))

    held = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        _, p, _, y = rows(rng, 3000)
        _, q, true, truth = rows(rng, 2000)
        _, old, _, old_truth = rows(rng, 380)
        told = Audits(old, old_truth, np.full(380, 0.02)).and_then(Audits(q[:20], truth[:20], np.full(20, 0.02)))
        found = estimate(costs, Held(p, y), np.ones(3000), q, 0.0, told, 20)
        expected = float(np.where(q >= 0.2, 1 - true, 4 * true).mean())
        held.append(found.low <= expected <= found.high)
    assert np.mean(held) > 0.93


def test_what_was_bought_is_asked_once_and_the_window_that_moves_on_at_every_look():
    """At the level of a purchase only what was bought may tell; with later audits of the window it would be asked anew in every look."""
    rng = np.random.default_rng(5)
    _, p, _, y = rows(rng, 3000)
    _, q, _, truth = rows(rng, 2000, turned=0.16)
    found = Domain(0.5, 0.48, 0.52, 0.5, np.ones(3000), 0.0)
    every = Audits(q[:300], truth[:300], np.full(300, 0.15))

    def first(count):
        parts = [
            Audits(*(getattr(every, name)[rows] for name in ("probability", "truth", "chance")))
            for rows in (slice(count, None), slice(count))
        ]
        return Audited(here=parts[0], bought=parts[1])

    told = [expected_harm(framed(), Held(p, y), found, q, first(count)) for count in (0, 99, 300)]
    assert [each.verdict for each in told] == ["undecided", "undecided", "fail"]
    assert [each.evidence["bought"] for each in told] == [0, 99, 300]
    assert [each.evidence["audited"] for each in told] == [300, 300, 300]
    assert told[2].evidence["p_limit"] > told[2].evidence["p_value"] > told[0].evidence["p_limit"]


def test_a_concept_that_turned_windows_ago_is_seen_by_audits_of_before():
    rng = np.random.default_rng(8)
    _, p, _, y = rows(rng, 3000)
    _, old, _, old_truth = rows(rng, 400, turned=0.2)
    _, q, true, truth = rows(rng, 2000, turned=0.2)
    found = Domain(0.5, 0.48, 0.52, 0.5, np.ones(3000), 0.0)
    asked, before = (framed(), Held(p, y), found, q), Audits(old, old_truth, np.full(400, 0.02))
    here = Audits(q[:40], truth[:40], np.full(40, 0.02))
    alone, with_earlier = expected_harm(*asked, Audited(here)), expected_harm(*asked, Audited(here, before))
    assert (alone.evidence["by"], alone.evidence["audited_before"]) == ("confidence", 0)
    assert (with_earlier.evidence["by"], with_earlier.evidence["audited_before"]) == ("audit", 360)
    assert with_earlier.evidence["audited"] == 40
    assert "400 audited rows, 360 of them before the window" in with_earlier.reason
    assert "by the window's 40]" in with_earlier.reason
    assert "by the window's" not in alone.reason
    few = expected_harm(*asked, Audited(Audits(q[:10], truth[:10], np.full(10, 0.005)), before))
    assert "by those before it as well]" in few.reason
    expected = float(np.where(q >= 0.5, 1 - true, true).mean())
    assert abs(with_earlier.evidence["estimated"] - expected) < abs(alone.evidence["estimated"] - expected)
    assert with_earlier.verdict == "fail"
