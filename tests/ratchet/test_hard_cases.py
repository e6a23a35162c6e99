"""Bad input to the release tests: a sentence, or undecided with its reason; never a green check, never a traceback."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from ratchet.check import unsettled
from ratchet.decision import weigh
from ratchet.errors import ContractError
from ratchet.evaluation.calibration import calibration, calibration_error, calibration_slices, perfect_ceiling
from ratchet.evaluation.champion import non_inferior_to_champion
from ratchet.evaluation.conformal import conformal
from ratchet.evaluation.consistency import error_consistency
from ratchet.evaluation.cost import cost
from ratchet.evaluation.explanation import Importance, leakage
from ratchet.evaluation.fairness import equal_merit, equalised_odds, fairness, group_calibration
from ratchet.evaluation.flips import negative_flips
from ratchet.evaluation.learning_curve import Point, learning_curve
from ratchet.evaluation.performance import METRICS, beats_rule, floors, not_worse_than_simple
from ratchet.evaluation.robustness import robustness
from ratchet.evaluation.separation import separation
from ratchet.evaluation.slices import slices
from ratchet.evaluation.training import training
from ratchet.problem import Gate, Prices, Watch
from ratchet.registry import FLOORS

N = 2000


@pytest.fixture(scope="module")
def strict(problem):
    """With a floor for every metric there is for classes."""
    stated = dict.fromkeys(set(METRICS) - {"mse", "mae"}, 0.6)
    return problem.model_copy(update={"gate": problem.gate.model_copy(update={"floors": stated})})


@pytest.fixture(scope="module")
def world(credit):
    """Rows, calibrated probabilities and the truth."""
    rows = credit.open_source(None, 3).traffic(N, drifted=False)
    rng = np.random.default_rng(0)
    p = rng.beta(1, 4, N)
    return rows, p, (rng.random(N) < p).astype(float)


def every(credit, problem, rows, p, truth, other=None):
    """All that the release tests say of n rows, their probabilities and the truth."""
    other = p if other is None else other
    categories = pd.DataFrame({"branch": rows["channel"].astype(str).to_numpy()})
    told = [
        *floors(problem, p, truth),
        beats_rule(problem, p, other, truth),
        not_worse_than_simple(problem, p, other, truth),
        non_inferior_to_champion(problem, p, other, truth),
        negative_flips(problem, p, other, truth),
        slices(problem, credit.contract, rows, p, other, truth),
        calibration(problem, p, truth),
        calibration_slices(problem, p, truth, categories),
        conformal(problem, other, truth, p, truth),
        error_consistency(problem, rows[credit.contract.id], np.column_stack([p, p]), truth),
        *robustness(
            problem, credit.contract, rows, truth, lambda frame: p[: len(frame)] if len(frame) <= len(p) else np.resize(p, len(frame))
        ),
    ]
    for ask in (fairness, equal_merit, equalised_odds, group_calibration):
        told += [ask(problem, p, truth, rows[name]) for name in ("sex", "age_group")]
    return told


def test_a_missing_score_fails_every_check(credit, strict, world):
    rows, p, truth = world
    for hole in (np.nan, np.inf, -np.inf):
        broken = p.copy()
        broken[5] = hole
        for check in every(credit, strict, rows, broken, truth, p):
            assert check.verdict == "fail", check.name
            assert "missing" in check.reason or "not finite" in check.reason, check.reason


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_only_is_never_green_where_two_are_needed(credit, strict, world, label):
    rows, p, _ = world
    told = {check.name: check for check in every(credit, strict, rows, p, np.full(N, label))}
    for name in ("floor:roc_auc", "floor:pr_auc", "floor:f1", "floor:recall", *(name for name in told if name.startswith("robustness"))):
        assert told[name].verdict == "undecided"
        assert "one class" in told[name].reason
    assert all(check.reason for check in told.values())


def test_three_rows_are_undecided(credit, strict, world):
    rows, p, truth = (part[:3] for part in world)
    for check in every(credit, strict, rows, p, truth):
        assert check.verdict == "undecided", f"{check.name}: {check.verdict}"
        assert check.reason


def test_constant_scores_are_judged(credit, strict, world):
    rows, p, truth = world
    told = {check.name: check for check in every(credit, strict, rows, np.full(N, 0.5), truth, p)}
    assert told["floor:roc_auc"].verdict in ("fail", "undecided")
    assert told["beats_rule"].verdict != "pass"
    # What does not rank has no ranking to lose.
    assert {check.verdict for name, check in told.items() if name.startswith("robustness")} == {"undecided"}
    assert told["calibration"].verdict == "fail"


def test_a_floor_nobody_knows_is_a_mistake_in_the_file():
    with pytest.raises(ValidationError, match="'auroc' is no metric with a floor; there are accuracy, "):
        Gate(margin=0.01, floors={"auroc": 0.5})
    assert set(METRICS) == set(FLOORS)


def test_the_floors_of_a_spam_filter(problem):
    """F1 of 0.92 or more and precision above 0.95, as a problem may state them."""
    stated = problem.model_copy(update={"gate": problem.gate.model_copy(update={"floors": {"f1": 0.92, "precision": 0.95}})})
    rng = np.random.default_rng(0)
    truth = (rng.random(8000) < 0.4).astype(float)

    def filtered(missed, false):
        says = np.where(truth == 1, rng.random(8000) >= missed, rng.random(8000) < false)
        return [check.verdict for check in floors(stated, says.astype(float), truth)]

    assert filtered(0.05, 0.01) == ["pass", "pass"]
    assert filtered(0.20, 0.01) == ["fail", "pass"]
    assert filtered(0.02, 0.08) == ["pass", "fail"]


def test_a_predicted_number_has_floors_too(problem):
    stated = problem.model_copy(update={"gate": problem.gate.model_copy(update={"floors": {"mse": 1.2, "mae": 0.5}})})
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 10, 4000)
    squared, absolute = floors(stated, truth + rng.normal(0, 1, 4000), truth)
    assert squared.value == pytest.approx(1.0, abs=0.1)
    assert (squared.verdict, absolute.verdict) == ("pass", "fail")


def test_a_row_on_both_sides_is_found_by_its_id_or_its_entity(problem):
    tested = pd.DataFrame({"row": [f"t{i}" for i in range(1000)], "entity": [f"e{i}" for i in range(1000)]})
    used = pd.DataFrame({"row": [f"u{i}" for i in range(500)], "entity": [f"v{i}" for i in range(500)]})
    assert separation(problem, tested, used).verdict == "pass"
    for column, value in (("row", "t7"), ("entity", "e7")):
        again = used.copy()
        again.loc[3, column] = value
        check = separation(problem, tested, again)
        assert check.verdict == "fail"
        assert "'t7'" in check.reason
        assert check.value == pytest.approx(0.001)


def test_a_slice_too_small_for_a_perfect_model_is_undecided_not_failed(problem, world):
    _, p, truth = world
    few = calibration(problem.model_copy(update={"gate": problem.gate.model_copy(update={"calibration_limit": 0.005})}), p, truth)
    assert few.verdict == "undecided"
    assert few.needed is None or few.needed > 0
    assert perfect_ceiling(p, 0) > 0.005


def test_the_upper_bound_of_the_calibration_error_covers_it():
    """A model that is off by 0.05 everywhere: the bound lies above that in 19 of 20 draws."""
    covered = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        p = rng.uniform(0.1, 0.8, 3000)
        covered += calibration_error(p, (rng.random(3000) < p + 0.05).astype(float))[2] >= 0.05
    # 76 of 80 are expected; fewer than 70 would happen once in two hundred.
    assert covered >= 70


def test_training_that_went_wrong_is_said(problem):
    n, good = 4000, [0.6, 0.5, 0.45, 0.43, 0.42, 0.415]
    worse = [*good, 0.43, 0.45, 0.48, 0.52]
    kept_too_long = training(problem, {"train_log_loss": good + [0.41] * 4, "tune_log_loss": worse}, 10, "all epochs", n)
    assert kept_too_long.verdict == "fail"
    assert "lowest at 6" in kept_too_long.reason
    stopped = training(problem, {"train_log_loss": good + [0.41] * 4, "tune_log_loss": worse}, 6, "stopped: 4 epochs without gain", n)
    assert stopped.verdict == "pass"
    assert "4 epochs without gain" in stopped.reason
    by_heart = training(problem, {"train_log_loss": [v / 10 for v in good], "tune_log_loss": good}, 6, "", n)
    assert "by heart" in by_heart.reason
    gradients = {"train_log_loss": good, "tune_log_loss": good, "gradient_norm": [1.0, 1.1, 0.9, 80.0, 1.0, 1.0]}
    assert "gradient norm spikes at 4" in training(problem, gradients, 6, "", n).reason
    lost = training(problem, {"train_log_loss": [*good[:5], np.nan], "tune_log_loss": good}, 6, "", n)
    assert "train log loss is not finite from epoch 6 on" in lost.reason
    assert training(problem, {}, None, "closed form", n).verdict == "not_applicable"


def test_a_learning_curve_needs_three_sizes_and_finite_losses(problem):
    two = [Point(size, 0, 0.4, 0.8, 0.3) for size in (1000, 2000)]
    assert learning_curve(problem, two, 3000).verdict == "undecided"
    lost = [Point(size, 0, np.nan, 0.8, 0.3) for size in (1000, 2000, 4000)]
    assert learning_curve(problem, lost, 3000).verdict == "fail"
    steep = [Point(size, seed, 0.3 + 0.2 * (size / 1000) ** -0.5, 0.8, 0.3) for size in (500, 1000, 2000, 5000) for seed in (0, 1)]
    check = learning_curve(problem, steep, 3000)
    assert check.value == pytest.approx(0.2 * (5**-0.5 - 6**-0.5), abs=1e-4)
    assert not check.blocking


def test_a_feature_that_tells_alone_what_the_model_tells_is_a_suspect(problem, credit):
    names = [column.name for column in credit.contract.features]
    importances = [Importance(name, 0.01, 0.008, 0.012) for name in names if name != "channel"]
    truth = np.arange(N) % 4 == 0
    quiet = dict.fromkeys(names, 0.55)
    assert leakage(problem, credit.contract, importances, truth, quiet, 0.8).verdict == "pass"
    loud = leakage(problem, credit.contract, importances, truth, quiet | {"income": 0.795}, 0.8)
    assert loud.verdict == "fail"
    assert "income" in loud.reason
    assert leakage(problem, credit.contract, importances, np.zeros(N), quiet, 0.8).verdict == "undecided"


def test_cost_is_told_with_and_without_prices(problem):
    unpriced = problem.model_copy(update={"prices": None})
    first = cost(unpriced, 30.0, 1000, None, N, [], {})
    assert first.verdict == "not_applicable"
    assert "no prices are stated" in first.reason
    priced = problem.model_copy(update={"prices": Prices(compute_hour=36.0, label=0.5, label_minutes=2, unit="EUR")})
    check = cost(priced, 100.0, 200, (-0.05, -0.06, -0.04), N, [-0.1], {"a": -0.1, "b": 0.02})
    assert check.evidence["money"] == pytest.approx(1 + 100)
    assert check.evidence["money_per_point"] == pytest.approx(101 / 5)
    assert check.evidence["minutes_of_people"] == 400
    assert "1 of 2 segments" in check.reason


def test_deciding_as_the_rule_does_is_not_better_than_it(problem, world):
    _, p, truth = world
    check = beats_rule(problem, p, p, truth)
    assert check.verdict == "fail"
    assert "as the rule does" in check.reason


def test_too_few_of_one_class_for_an_interval_are_undecided(strict):
    rng = np.random.default_rng(0)
    truth = np.zeros(1000)
    truth[0] = 1
    told = {check.name: check for check in floors(strict, rng.random(1000), truth)}
    assert told["floor:roc_auc"].verdict == "undecided"
    assert "too few of one class" in told["floor:roc_auc"].reason


def test_what_would_pass_on_rows_that_cannot_tell_is_undecided(problem, world):
    _, p, truth = world
    passed, failed = beats_rule(problem, p, 1 - p, truth), beats_rule(problem, 1 - p, p, truth)
    told = unsettled([passed, failed], "one class only")
    assert [check.verdict for check in told] == ["undecided", "fail"]
    assert told[0].reason.startswith("one class only; ")


@pytest.mark.parametrize(
    "wrong",
    [
        {"coverage": 2.0},
        {"min_group": -1},
        {"margin": float("nan")},
        {"slice_regression": 0.05, "slice_margin": 0.3},
        {"robust_drop": -0.1},
    ],
)
def test_limits_that_cannot_be_meant_are_refused(problem, wrong):
    with pytest.raises(ValidationError):
        Gate(**(problem.gate.model_dump() | wrong))


def test_a_window_that_could_never_be_judged_is_refused(problem):
    with pytest.raises(ValidationError, match="min_window must not be larger than window"):
        Watch(**(problem.watch.model_dump() | {"window": 1000, "min_window": 2000}))
    with pytest.raises(ValidationError, match="'probs:mixes' is no check of the watch; there are clock, "):
        Watch(**(problem.watch.model_dump() | {"advisory": ("probs:mixes",)}))
    with pytest.raises(ValidationError, match="'probes:mixs' is no check of the watch; there are probes:boundary, "):
        Watch(**(problem.watch.model_dump() | {"advisory": ("probes:mixs",)}))
    named = ("probes", "probes:mixes", "data_drift:income", "decay")
    assert Watch(**(problem.watch.model_dump() | {"advisory": named})).advisory == named


def test_a_misspelt_check_holds_nothing_and_is_refused(problem, world):
    _, p, truth = world
    with pytest.raises(ContractError, match="'beatsrule' is no check; there are beats_rule"):
        weigh([beats_rule(problem, p, 1 - p, truth)], ["beatsrule"], [])
