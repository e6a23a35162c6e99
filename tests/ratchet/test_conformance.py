"""Every check fires on its planted fault, is quiet on a clean world, and is undecided on too little data.

One suite over every check there is: a check that is registered but has no plan here fails the first test.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ratchet.evaluation
import ratchet.monitoring
from load_tests.run import LoadResult, verdict
from ratchet.check import Check
from ratchet.data.encoding import fit
from ratchet.evaluation.adversarial import adversarial, attack
from ratchet.evaluation.calibration import calibration, calibration_slices
from ratchet.evaluation.champion import non_inferior_to_champion
from ratchet.evaluation.conformal import conformal
from ratchet.evaluation.consistency import error_consistency
from ratchet.evaluation.cost import cost
from ratchet.evaluation.explanation import alone, leakage, permutation_importance
from ratchet.evaluation.fairness import equal_merit, equalised_odds, fairness, group_calibration
from ratchet.evaluation.flips import negative_flips
from ratchet.evaluation.learning_curve import Point, learning_curve
from ratchet.evaluation.performance import beats_rule, floors, not_worse_than_simple
from ratchet.evaluation.robustness import robustness
from ratchet.evaluation.separation import separation
from ratchet.evaluation.slices import slices
from ratchet.evaluation.training import training
from ratchet.monitoring.adversarial_input import probes
from ratchet.monitoring.arrival import clock, volume
from ratchet.monitoring.columns import columns
from ratchet.monitoring.concept_drift import Stream, concept_drift
from ratchet.monitoring.data_drift import data_drift
from ratchet.monitoring.decay import decay
from ratchet.monitoring.domain import domain
from ratchet.monitoring.estimate import Held, expected_harm
from ratchet.monitoring.excess import QUESTIONS
from ratchet.monitoring.feedback_loop import Ratio, disparity, feedback
from ratchet.monitoring.joint_drift import joint_drift
from ratchet.monitoring.label_classes import label_classes
from ratchet.monitoring.label_conflicts import label_conflicts
from ratchet.monitoring.label_ids import label_ids
from ratchet.monitoring.quality import quality
from ratchet.monitoring.silent_failure import live_slices, silent
from ratchet.monitoring.skew import score_skew, skew
from ratchet.monitoring.validity import validity
from ratchet.problem import Folder
from ratchet.registry import CHECKS, MONITORS

ENOUGH, LITTLE = 6000, 50
# Every file of checks there is, so that none is left out because nobody imports it.
for package in (ratchet.evaluation, ratchet.monitoring):
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


@dataclass(frozen=True)
class World:
    """Rows with truth, and models of known quality on them."""

    folder: Folder
    rows: pd.DataFrame
    truth: np.ndarray
    perfect: np.ndarray
    useless: np.ndarray


def world(folder: Folder, n: int, seed: int = 3, drifted: bool = False) -> World:
    rows = folder.open_source(None, seed).traffic(n, drifted=drifted)
    rng = np.random.default_rng(seed)
    p = np.clip(rng.beta(1.2, 4.0, n), 0.01, 0.99)
    truth = (rng.random(n) < p).astype(float)
    return World(folder, rows, truth, perfect=p, useless=rng.permutation(p))


def _beats_rule(w: World, bad: bool) -> list[Check]:
    return [beats_rule(w.folder.problem, w.useless if bad else w.perfect, w.perfect if bad else w.useless, w.truth)]


def _not_worse(w: World, bad: bool) -> list[Check]:
    return [not_worse_than_simple(w.folder.problem, w.useless if bad else w.perfect, w.perfect, w.truth)]


def _champion(w: World, bad: bool) -> list[Check]:
    return [non_inferior_to_champion(w.folder.problem, w.useless if bad else w.perfect, w.perfect, w.truth)]


def _calibration(w: World, bad: bool) -> list[Check]:
    return [calibration(w.folder.problem, w.perfect**0.4 if bad else w.perfect, w.truth)]


def _grouped(ask):
    def plan(w: World, bad: bool) -> list[Check]:
        groups = pd.Series(np.where(np.arange(len(w.truth)) % 2, "a", "b"), name="group")
        p = np.where((groups == "a") & bad, np.minimum(w.perfect * 2.5, 0.99), w.perfect)
        return [ask(w.folder.problem, p, w.truth, groups)]

    return plan


def _floor(w: World, bad: bool) -> list[Check]:
    gate = w.folder.problem.gate.model_copy(update={"floors": {"roc_auc": 0.6, "brier": 0.25}})
    problem = w.folder.problem.model_copy(update={"gate": gate})
    return floors(problem, w.useless if bad else w.perfect, w.truth)


def _separation(w: World, bad: bool) -> list[Check]:
    rows = pd.DataFrame({"row": w.rows["application_id"], "entity": [f"new {i}" for i in range(len(w.rows))]})
    used = pd.DataFrame({"row": [f"old {i}" for i in range(20)], "entity": [f"old {i}" for i in range(20)]})
    # One customer in the test rows who was learnt from is one too many.
    return [separation(w.folder.problem, rows, pd.concat([used, rows.assign(row="other").tail(1)]) if bad else used)]


def _calibration_slices(w: World, bad: bool) -> list[Check]:
    categories = pd.DataFrame({"branch": np.where(np.arange(len(w.truth)) % 2, "north", "south")})
    p = np.where((categories["branch"] == "north") & bad, w.perfect**0.4, w.perfect)
    return [calibration_slices(w.folder.problem, p, w.truth, categories)]


def _conformal(w: World, bad: bool) -> list[Check]:
    return [conformal(w.folder.problem, w.perfect, w.truth, 1 - w.perfect if bad else w.perfect, w.truth)]


def _flips(w: World, bad: bool) -> list[Check]:
    return [negative_flips(w.folder.problem, w.useless if bad else w.perfect, w.perfect, w.truth)]


def _slices(w: World, bad: bool) -> list[Check]:
    # Better by far in most places, and turned around for the temporary workers.
    inside = (w.rows["employment"] == "temporary").to_numpy()
    candidate = np.where(inside, 1 - w.truth, w.truth) if bad else w.perfect
    return [slices(w.folder.problem, w.folder.contract, w.rows, candidate, w.perfect, w.truth)]


def _learnable(w: World) -> tuple[np.ndarray, Callable[[pd.DataFrame], np.ndarray]]:
    """Truth that all features have a part in, and the model that knows it; nothing single decides."""
    numeric = [c for c in w.folder.contract.features if c.is_numeric]
    middle = {c.name: (w.rows[c.name].mean(), w.rows[c.name].std()) for c in numeric}

    def probability(frame: pd.DataFrame) -> np.ndarray:
        place = sum(((frame[c.name] - middle[c.name][0]) / middle[c.name][1]).clip(-3, 3).fillna(0) for c in numeric)
        place = place + 1.5 * frame["history"].isin(["none", "poor"]) + 1.5 * frame["purpose"].isin(["debt", "business"])
        return 1 / (1 + np.exp(1.5 - place.to_numpy(float)))

    return (np.random.default_rng(1).random(len(w.rows)) < probability(w.rows)).astype(float), probability


def _robustness(w: World, bad: bool) -> list[Check]:
    truth, probability = _learnable(w)

    def brittle(frame: pd.DataFrame) -> np.ndarray:
        odd = frame[["open_loans", "late_payments", "term_months", "homeowner"]].isna().any(axis=1)
        return np.where(odd, 1 - probability(frame), probability(frame))

    return robustness(w.folder.problem, w.folder.contract, w.rows, truth, brittle if bad else probability)


def _adversarial(w: World, bad: bool) -> list[Check]:
    def steadfast(frame: pd.DataFrame) -> np.ndarray:
        return np.where(frame["late_payments"] >= 0, 0.5, 0.1)

    def gullible(frame: pd.DataFrame) -> np.ndarray:
        return np.where(frame["amount"] > 9000, 0.21, 0.1)

    rows = w.rows[w.truth == 1].head(60 if len(w.rows) > LITTLE else 10)
    # Most lie just above what the gullible model refuses from; a few show how far amounts spread.
    rows = rows.assign(amount=[30000.0, 5000.0, *np.linspace(9001, 9300, len(rows) - 2)])
    weak = attack(w.folder.problem, w.folder.contract, rows, gullible, 0, 100)
    strong = attack(w.folder.problem, w.folder.contract, rows, steadfast, 0, 100)
    return [adversarial(w.folder.problem, weak if bad else strong, strong, len(rows))]


def _leakage(w: World, bad: bool) -> list[Check]:
    truth, probability = _learnable(w)
    # The channel, for which no cause is stated, tells the outcome in every fourth row.
    leaks = (np.arange(len(truth)) % 4 == 0) & bad
    rows = w.rows.assign(channel=np.where(leaks, np.where(truth == 1, "broker", "branch"), "web"))

    def model(frame: pd.DataFrame) -> np.ndarray:
        p = probability(frame)
        return np.where(frame["channel"] == "broker", 0.99, np.where(frame["channel"] == "branch", 0.01, p))

    asked = rows if len(rows) > LITTLE else rows.head(LITTLE)
    importances = permutation_importance(w.folder.contract, asked, truth, model, 0, repeats=2)
    return [leakage(w.folder.problem, w.folder.contract, importances, truth, alone(w.folder.contract, asked, truth), 0.95)]


def _consistency(w: World, bad: bool) -> list[Check]:
    rng = np.random.default_rng(0)
    told = [rng.permutation(w.perfect) if bad else w.perfect for _ in range(3)]
    return [error_consistency(w.folder.problem, w.rows["application_id"], np.column_stack(told), w.truth)]


def _learning(w: World, bad: bool) -> list[Check]:
    steep, rng = 0.3 if bad else 0.005, np.random.default_rng(0)
    points = [
        Point(n, seed, 0.4 + steep * (n / 1000) ** -0.5 + rng.normal(0, 1e-4), 0.8, 0.4)
        for n in (1000, 2500, 5000, 10000)
        for seed in (1, 2)
    ]
    return [learning_curve(w.folder.problem, points, len(w.truth))]


def _training(w: World, bad: bool) -> list[Check]:
    epochs = np.arange(1, 21)
    curves = {"train_log_loss": list(0.4 + 0.3 / epochs), "tune_log_loss": list(0.42 + 0.3 / epochs)}
    if bad:
        curves["train_log_loss"][11] = 9.0
    return [training(w.folder.problem, curves, 20, "all 20 epochs", len(w.truth))]


def _cost(w: World, bad: bool) -> list[Check]:
    difference = (0.05, 0.02, 0.08) if bad else (-0.05, -0.08, -0.02)
    return [cost(w.folder.problem, 60.0, 1000, difference, len(w.truth), [-0.1], {"batch 1": -0.02, "batch 2": 0.01})]


def _data_drift(w: World, bad: bool) -> list[Check]:
    window = world(w.folder, len(w.rows), seed=11, drifted=bad).rows
    reference = world(w.folder, ENOUGH, seed=12).rows
    return data_drift(w.folder.problem, w.folder.contract, reference, window)


def _apart(w: World, bad: bool):
    """What tells the window from a reference in which every column has the same values, but one goes with another."""
    if len(w.rows) < w.folder.problem.watch.min_window:
        return None
    rng = np.random.default_rng(7)
    before, now = rng.normal(size=(ENOUGH, 4)), rng.normal(size=(len(w.rows), 4))
    if bad:
        now[:, 1] = np.abs(now[:, 1]) * np.sign(now[:, 0])
    return domain(before, now)


def _joint_drift(w: World, bad: bool) -> list[Check]:
    return [joint_drift(w.folder.problem, _apart(w, bad), len(w.rows))]


def _estimate(w: World, bad: bool) -> list[Check]:
    held = Held(w.perfect, w.truth)
    # Where it is hard to tell the outcome there are more errors, and confidence says so.
    probability = np.clip(0.2 + 0.1 * (w.perfect - 0.3), 0.01, 0.99) if bad else w.perfect
    return [expected_harm(w.folder.problem, held, _apart(w, False), probability)]


def _answered(w: World, n: int, seed: int) -> pd.DataFrame:
    rows = world(w.folder, n, seed=seed).rows
    return rows.assign(probability=world(w.folder, n, seed=seed).perfect)


def _silent(w: World, bad: bool) -> list[Check]:
    held, window = _answered(w, ENOUGH, 12), w.rows.assign(probability=w.perfect)
    encoder = fit(held, w.folder.contract)
    if bad:
        # Rows like none before, and sure answers.
        window.loc[window.index % 20 == 0, ["amount", "late_payments", "open_loans"]] = [75000.0, 24.0, 20.0]
        window["probability"] = window["probability"] ** 3
    found = silent(w.folder.problem, w.folder.contract, encoder, held, window)
    assert not bad or len(window) <= LITTLE or {check.verdict for check in found} == {"fail"}
    return found


def _probes(w: World, bad: bool) -> list[Check]:
    held, window = _answered(w, ENOUGH, 12), w.rows.assign(probability=w.perfect)
    encoder = fit(held, w.folder.contract)
    if bad:
        # One applicant again and again, with another amount, until the answer is at the threshold.
        burst = pd.concat([window.iloc[[7]]] * (len(window) // 20), ignore_index=True)
        burst["amount"] = np.linspace(1000, 30000, len(burst)).round(2)
        burst["probability"] = w.folder.problem.threshold + np.linspace(-0.004, 0.004, len(burst))
        # Of every second other row each value is somebody else's.
        rng = np.random.default_rng(8)
        every_second = window.index % 2 == 0
        for column in w.folder.contract.features:
            window.loc[every_second, column.name] = rng.permutation(window.loc[every_second, column.name].to_numpy())
        window = pd.concat([window.iloc[: len(window) - len(burst)], burst], ignore_index=True)
    found = probes(w.folder.problem, w.folder.contract, encoder, held, window)
    assert not bad or len(window) <= LITTLE or {check.verdict for check in found} == {"fail"}
    return found


def _live_slices(w: World, bad: bool) -> list[Check]:
    # The mean may look well: the others are decided better than their confidence says.
    inside = (w.rows["employment"] == "temporary").to_numpy() & bad
    probability = np.where(inside, 1 - w.truth, w.perfect)
    told = w.rows.assign(probability=np.clip(probability, 0.02, 0.98), truth=w.truth)
    # Of each person one row: only the newest would count.
    told[w.folder.contract.entity] = w.rows[w.folder.contract.id]
    return [live_slices(w.folder.problem, w.folder.contract, Held(w.perfect, w.truth), told)]


def _aged(w: World, bad: bool) -> pd.DataFrame:
    """Predictions whose labels are due, some of them audited."""
    rng = np.random.default_rng(4)
    n = len(w.truth)
    decided = (w.perfect >= 0.3).astype(float)
    # One label in fifty is wrong; in the bad world most labels are what the model decided, those of the gig workers are the other
    # way round, and every second refusal has none.
    outcome = np.where(rng.random(n) < 0.02, 1 - w.truth, w.truth)
    labelled = rng.random(n) < 0.9
    if bad:
        outcome = np.where(rng.random(n) < 0.6, decided, outcome)
        outcome = np.where(w.rows["employment"] == "gig", 1 - w.truth, outcome)
        labelled &= (decided == 0) | (rng.random(n) < 0.5)
    audited = rng.random(n) < 0.3
    return w.rows.assign(label=decided, outcome=np.where(labelled, outcome, np.nan), gold=np.where(audited, w.truth, np.nan))


def _feedback(w: World, bad: bool) -> list[Check]:
    found = feedback(w.folder.problem, w.folder.contract, _aged(w, bad))
    assert not bad or len(w.rows) <= LITTLE or {check.verdict for check in found} == {"fail"}
    return found


def _quality(w: World, bad: bool) -> list[Check]:
    held, window = world(w.folder, ENOUGH, seed=12).rows, w.rows.copy()
    if bad:
        # Toward the end of the window: amounts are gone, none is left of the income, no such purpose, every tenth row comes twice.
        late = window.index >= len(window) * 9 // 10
        window.loc[late & (window.index % 3 == 0), "amount"] = np.nan
        window.loc[late & (window.index % 3 == 1), "income"] = 0.0
        window.loc[late & (window.index % 3 == 2), "purpose"] = "a yacht"
        tenth = len(window) // 10
        window = pd.concat([window.iloc[tenth:], window.iloc[tenth : 2 * tenth]], ignore_index=True)
    aged = _aged(w, bad)
    late = np.random.default_rng(6).random(len(aged)) < 0.6 * (np.arange(len(aged)) > len(aged) / 2)
    aged["outcome"] = aged["outcome"].mask(late & bad)
    found = quality(w.folder.problem, w.folder.contract, held, window, aged)
    if len(w.rows) <= LITTLE:
        return found
    assert not bad or [check.reason for check in found if check.verdict != "fail"] == []
    # Only rows that were audited tell of accuracy.
    return [dataclasses.replace(check, n=len(w.rows)) if check.name == "quality:accuracy" else check for check in found]


def _volume(w: World, bad: bool) -> list[Check]:
    # Every six hours; three in four of the looks are at other hours.
    looks = 121 if len(w.rows) > LITTLE else 11
    rows = [len(w.rows) // looks - 3 + place % 5 for place in range(looks)]
    rows[-1] = 1 if bad else rows[-1]
    rows[0] += len(w.rows) - sum(rows)
    begun = datetime(2026, 3, 2)
    told = [(begun + timedelta(hours=6 * (place + 1)), 0, came) for place, came in enumerate(rows)]
    problem = w.folder.problem.model_copy(update={"watch": w.folder.problem.watch.model_copy(update={"every_seconds": 6 * 3600.0})})
    return [volume(problem, [(begun, 0, 0), *told])]


def _clock(w: World, bad: bool) -> list[Check]:
    n, present = len(w.rows), datetime(2026, 3, 1)
    at = pd.Series(present - pd.to_timedelta(np.arange(n, 0, -1), unit="s"))
    if bad:
        at.iloc[-3:] += pd.Timedelta(days=1)
    window = pd.DataFrame({"seq": np.arange(n), "at": at, "label_at": pd.NaT})
    return [clock(w.folder.problem, window, present, (present - timedelta(minutes=5), n // 2, 0))]


def _disparity(w: World, bad: bool) -> list[Check]:
    values = (0.95, 0.9, 0.8) if bad else (0.9, 0.92, 0.91)
    return disparity(w.folder.problem, {"sex": [Ratio(value, value - 0.03, value + 0.03, len(w.truth)) for value in values]})


def _decay(w: World, bad: bool) -> list[Check]:
    from ratchet.evaluation.loss import per_row

    told = per_row(w.folder.problem, w.perfect, w.truth)
    truth = 1 - w.truth if bad else w.truth
    error = float(told.std(ddof=1) / np.sqrt(len(told)))
    every = w.folder.problem.model_copy(update={"watch": w.folder.problem.watch.model_copy(update={"window": len(truth)})})
    return [decay(every, w.perfect, truth, float(told.mean()), error)]


def _label_classes(w: World, bad: bool) -> list[Check]:
    return [label_classes(w.folder.problem, world(w.folder, ENOUGH, seed=12).truth, np.zeros(len(w.truth)) if bad else w.truth)]


def _label_conflicts(w: World, bad: bool) -> list[Check]:
    return [label_conflicts(w.folder.problem, np.random.default_rng(9).random(len(w.truth)) < (0.2 if bad else 0.01))]


def _label_ids(w: World, bad: bool) -> list[Check]:
    strays = len(w.truth) // (5 if bad else 100)
    return [label_ids(w.folder.problem, len(w.truth) - strays, strays, "nobody")]


def _concept(w: World, bad: bool) -> list[Check]:
    wrong = np.where(w.perfect >= 0.5, 1.0, 0.0) != w.truth
    rng = np.random.default_rng(5)
    if bad:
        # In the second half every fifth label is the other one.
        wrong = wrong ^ ((np.arange(len(wrong)) >= len(wrong) // 2) & (rng.random(len(wrong)) < 0.2))
    return [concept_drift(w.folder.problem, Stream("adwin", np.array_split(wrong.astype(float), 7)))]


def _validity(w: World, bad: bool) -> list[Check]:
    window = w.rows.assign(utilization=0.5) if bad else w.rows
    return [validity(w.folder.problem, w.folder.contract, world(w.folder, ENOUGH, seed=12).rows, window)]


def _columns(w: World, bad: bool) -> list[Check]:
    reference, window = world(w.folder, ENOUGH, seed=12).rows, w.rows
    if bad:
        window = window.assign(income=window["amount"], amount=window["income"])
    moved = data_drift(w.folder.problem, w.folder.contract, reference, window)
    return [columns(w.folder.problem, w.folder.contract, reference, window, moved)]


def _skew(w: World, bad: bool) -> list[Check]:
    problem, contract = w.folder.problem, w.folder.contract
    online = w.rows.assign(id=[f"p{place}" for place in range(len(w.rows))], probability=w.perfect)
    replayed = w.perfect.copy()
    if bad:
        # A single row, in the last bit.
        online.loc[len(online) // 2, "amount"] = np.nextafter(online.loc[len(online) // 2, "amount"], np.inf)
        replayed[-1] = np.nextafter(replayed[-1], 0.0)
    found = [skew(problem, contract, w.rows, online), score_skew(problem, online, replayed)]
    assert not bad or len(w.rows) <= LITTLE or {check.verdict for check in found} == {"fail"}
    return found


def _load(w: World, bad: bool) -> list[Check]:
    n = len(w.rows)
    slow, rate = (900.0, 3.0) if bad else (20.0, 400.0)
    result = LoadResult(n, n // 10 if bad else 0, 5.0, 5.0, slow, rate, slow / 2, slow, n, n, Path("load.html"))
    return verdict(result, w.folder.slo)


PLANS: dict[str, Callable[[World, bool], list[Check]]] = {
    "beats_rule": _beats_rule,
    "not_worse_than_simple": _not_worse,
    "non_inferior_to_champion": _champion,
    "calibration": _calibration,
    "fairness": _grouped(fairness),
    "equal_merit": _grouped(equal_merit),
    "equalised_odds": _grouped(equalised_odds),
    "group_calibration": _grouped(group_calibration),
    "floor": _floor,
    "separation": _separation,
    "calibration_slices": _calibration_slices,
    "conformal": _conformal,
    "negative_flips": _flips,
    "slices": _slices,
    "robustness": _robustness,
    "adversarial": _adversarial,
    "leakage": _leakage,
    "error_consistency": _consistency,
    "learning_curve": _learning,
    "training": _training,
    "cost": _cost,
    "data_drift": _data_drift,
    "joint_drift": _joint_drift,
    "estimate": _estimate,
    "silent": _silent,
    "probes": _probes,
    "live_slices": _live_slices,
    "feedback": _feedback,
    "disparity": _disparity,
    "quality": _quality,
    "volume": _volume,
    "clock": _clock,
    "decay": _decay,
    "concept_drift": _concept,
    "label_classes": _label_classes,
    "label_conflicts": _label_conflicts,
    "label_ids": _label_ids,
    "validity": _validity,
    "columns": _columns,
    "skew": _skew,
    "load": _load,
}


def test_every_check_has_a_plan():
    assert set(CHECKS) == set(PLANS)
    assert sorted(name for name, stage in CHECKS.items() if stage == "monitor") == sorted(MONITORS)


@pytest.mark.parametrize(("name", "parts"), sorted((name, parts) for name, parts in MONITORS.items() if parts is not None))
def test_the_parts_that_problem_yaml_may_name_are_those_that_there_are(name, parts, credit):
    told = {check.name for check in PLANS[name](world(credit, ENOUGH), False)}
    assert told <= ({f"{name}:{part}" for part in parts} or {name})
    assert told or name == "skew"


def test_the_budget_of_false_alarms_is_shared_by_every_question_there_is(credit):
    families = {name.split(":")[0] for name in QUESTIONS}
    assert sorted(check.name for name in families for check in PLANS[name](world(credit, ENOUGH), False)) == sorted(QUESTIONS)


@pytest.mark.parametrize("name", sorted(PLANS))
def test_fires_on_its_planted_fault(name, credit):
    found = PLANS[name](world(credit, ENOUGH), True)
    assert "fail" in {check.verdict for check in found}
    assert all(check.name.split(":")[0] == name for check in found)


@pytest.mark.parametrize("name", sorted(PLANS))
def test_is_quiet_on_a_clean_world(name, credit):
    assert {check.verdict for check in PLANS[name](world(credit, ENOUGH), False)} == {"pass"}


@pytest.mark.parametrize("bad", [True, False])
# A service that hardly answers at all is not let off for it, nor one of which a single answer is another.
@pytest.mark.parametrize("name", sorted(set(PLANS) - {"load", "skew"}))
def test_is_undecided_on_too_little_data(name, bad, credit):
    found = PLANS[name](world(credit, LITTLE), bad)
    assert {check.verdict for check in found} == {"undecided"}
    assert all(str(check.n) in check.reason or "group" in check.reason for check in found)


@pytest.mark.parametrize("name", sorted(PLANS))
def test_says_its_question_number_and_limit(name, credit):
    for check in PLANS[name](world(credit, ENOUGH), False):
        assert check.question.endswith("?")
        assert check.value is not None
        assert check.limit is not None
        # An attack is too slow for every row; the other checks look at all of them.
        assert check.n == (60 if name == "adversarial" else ENOUGH)
        assert check.unit
