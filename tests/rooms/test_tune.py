"""The search for parameters: it finds, it goes on where it was cut short, it starts warm, it keeps a front."""

from __future__ import annotations

import numpy as np
import pytest

from flows.setting import Setting
from models.objectives import OBJECTIVES, objective
from models.tune import WARM, Trial, search, space, trials_before
from ratchet.errors import BatchError
from ratchet.settings import Settings, parameters

SPACE = {"x": {"low": -5.0, "high": 5.0}, "n": {"low": 1, "high": 64, "log": True, "whole": True}}
PARAMS = parameters()


def bowl(tried):
    """Lowest, at 0, for x = 2 and n = 8."""
    return [(tried["x"] - 2) ** 2 + np.log2(tried["n"] / 8) ** 2]


def looked(evaluate, **more):
    return search(evaluate, SPACE, **({"objectives": 1, "trials": 20, "seed": 0, "name": "bowl"} | more))


def test_it_finds_the_bottom_and_says_every_trial():
    heard = []
    found = looked(bowl, trials=30, said=heard.append)
    assert found.best.values[0] < 0.5
    assert [trial.number for trial in heard] == list(range(30))
    assert [trial.params for trial in heard] == [trial.params for trial in found.trials]
    assert all(isinstance(trial.params["n"], int) and 1 <= trial.params["n"] <= 64 for trial in found.trials)
    assert found.front == [found.best]


def test_a_search_that_was_cut_short_goes_on_and_asks_nothing_twice(tmp_path):
    journal, asked = tmp_path / "tuned" / "trials", []

    def dies(tried):
        asked.append(tried)
        if len(asked) == 8:
            raise KeyboardInterrupt
        return bowl(tried)

    with pytest.raises(KeyboardInterrupt):
        looked(dies, journal=journal)
    found = looked(dies, journal=journal)
    assert len(found.trials) == 20
    # The one it died in is asked again; none of the seven before is.
    assert len(asked) == 21
    assert len({str(tried) for tried in asked}) == 20
    again = looked(dies, journal=journal)
    assert len(asked) == 21
    assert again.best == found.best


def test_what_it_died_in_is_tried_again(tmp_path):
    asked = []

    def dies(tried):
        asked.append(tried)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return bowl(tried)

    with pytest.raises(KeyboardInterrupt):
        looked(dies, journal=tmp_path / "trials", first=[{"x": 1.25, "n": 4}])
    looked(dies, journal=tmp_path / "trials", trials=2)
    assert asked[0] == asked[1] == {"x": 1.25, "n": 4}


def test_a_warm_start_tries_the_best_of_the_search_before_and_learns_from_all(tmp_path):
    journal = tmp_path / "trials"
    before = looked(bowl, journal=journal, name="bowl: before", trials=30)
    known = trials_before("bowl: after", journal)
    assert known == before.trials

    # The same bowl, ten higher: the level of the values moves, the place of the best does not.
    def higher(tried):
        return [bowl(tried)[0] + 10]

    warm = looked(higher, journal=journal, name="bowl: after", earlier=known, seed=9, trials=12)
    best = [trial.params for trial in sorted(known, key=lambda trial: trial.values)[:WARM]]
    assert [trial.params for trial in warm.trials[:WARM]] == best
    assert len(warm.trials) == 12
    cold = looked(higher, name="bowl: cold", seed=9, trials=12)
    spread = [np.std([trial.params["x"] for trial in found.trials[WARM:]]) for found in (warm, cold)]
    assert spread[0] < spread[1]
    assert trials_before("bowl: before", journal)[0].values[0] > 9
    assert trials_before("another: one", journal) == trials_before("bowl: x", tmp_path / "nothing") == []


def test_what_lies_outside_the_space_now_is_moved_to_its_edge_or_left_out():
    found = looked(bowl, first=[{"x": 99.0, "n": 1000, "gone": 1}], trials=1)
    assert found.trials[0].params == {"x": 5.0, "n": 64}
    declared = {"kind": {"choices": ["a", "b"]}}
    old = [Trial(0, {"kind": "c"}, (0.1,)), Trial(1, {"kind": "b"}, (0.2,))]
    made = search(lambda tried: [0.0], declared, objectives=1, trials=3, seed=0, name="kinds", earlier=old)
    assert {trial.params["kind"] for trial in made.trials} <= {"a", "b"}


def test_an_objective_that_is_not_a_number_ends_the_search():
    with pytest.raises(BatchError, match=r"an objective is not finite; narrow tune\.space"):
        looked(lambda tried: [float("nan")])


def test_two_objectives_keep_what_nothing_beats():
    found = looked(lambda tried: [tried["x"] ** 2, (tried["x"] - 2) ** 2], objectives=2, trials=25)
    assert len(found.front) > 2
    for trial in found.front:
        assert not any(all(a < b for a, b in zip(other.values, trial.values, strict=True)) for other in found.trials)
    assert found.best.values[0] == min(trial.values[0] for trial in found.trials)


@pytest.mark.parametrize("wrong", [{"low": 1.0}, {"low": 3, "high": 1}, {"low": -1.0, "high": 1.0, "log": True}, {"choices": []}])
def test_a_wrong_space_is_a_sentence(wrong):
    with pytest.raises(BatchError, match=r"params.yaml: tune.space: rate: .*; give low and high, or choices"):
        space({"rate": wrong})


def test_the_space_of_params_yaml_holds_what_is_trained_with():
    for family, declared in PARAMS["tune"]["space"].items():
        made = space(declared)
        assert set(made) <= set(PARAMS["train"][family])


@pytest.fixture(scope="module")
def rows(credit):
    return credit.open_source(None, 6).traffic(1500, drifted=False)


def measured(credit, rows, wanted, **more):
    return objective(rows, credit.contract, credit.problem, "logistic", PARAMS["train"], wanted, **({"folds": 2, "seed": 0} | more))


def test_every_objective_is_measured_on_rows_that_were_not_learnt_from(credit, rows):
    told = dict(zip(OBJECTIVES, measured(credit, rows, OBJECTIVES, champion=("logistic", {"C": 0.003}))({"C": 1.0}), strict=True))
    assert 0.2 < told["log_loss"] < 0.7
    assert 0 < told["cost"] < 1
    assert 0 < told["negative_flips"] < 0.1
    assert 0 <= told["calibration"] < 0.2
    assert told["latency"] > 0
    # Against its own parameters nothing flips.
    assert measured(credit, rows, ["negative_flips"], champion=("logistic", {"C": 1.0}))({"C": 1.0}) == [0.0]
    # Too little regularisation or too much is not the same.
    assert told["log_loss"] < measured(credit, rows, ["log_loss"])({"C": 1e-5})[0]


def test_objectives_that_cannot_be_measured_are_a_sentence(credit, rows):
    with pytest.raises(BatchError, match="'beauty' is not known; there are log_loss"):
        measured(credit, rows, ["beauty"])
    with pytest.raises(BatchError, match="there is no champion yet"):
        measured(credit, rows, ["negative_flips"])


def test_the_next_generation_is_made_with_what_was_found(credit, tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    monkeypatch.delenv("RATCHET_RELEASE_TESTS", raising=False)
    made = Setting(credit, Settings())
    assert made.workspace.parameters == PARAMS
    kept = made.settings.tuned("credit")
    kept.parent.mkdir(parents=True)
    kept.write_text("train: {trees: {learning_rate: 0.123}}\n", encoding="utf-8")
    monkeypatch.setenv("RATCHET_RELEASE_TESTS", "short")
    tuned = Setting(credit, Settings())
    told = tuned.workspace.parameters
    assert told["train"]["trees"] == PARAMS["train"]["trees"] | {"learning_rate": 0.123}
    assert told["train"]["network"] == PARAMS["train"]["network"]
    assert told["examine"]["form"] == "short"
    assert (
        (tuned.root / "params.yaml").read_text(encoding="utf-8").startswith("# params.yaml, but train.trees: tuned; examine.form: short.")
    )
