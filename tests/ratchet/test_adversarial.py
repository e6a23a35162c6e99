"""What an attacker may do to his record, and what the attack makes of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ratchet.data.rules import keeps
from ratchet.evaluation.adversarial import adversarial, attack


@pytest.fixture(scope="module")
def refused(credit):
    """Bad cases of the simulated world."""
    rows = credit.open_source(None, 21).traffic(2000, drifted=False)
    return rows[rows["defaulted"] == 1].head(25).reset_index(drop=True)


class Listening:
    """A model that remembers every record it was asked about."""

    def __init__(self, model):
        self.model, self.heard = model, []

    def __call__(self, frame):
        self.heard.append(frame)
        return self.model(frame)


def by_amount(frame):
    """Refuses what asks for much; the more, the surer."""
    return 1 / (1 + np.exp(-(frame["amount"].to_numpy(float) - 9000) / 2000))


def test_every_question_is_a_record_that_somebody_could_send(credit, refused):
    contract, model = credit.contract, Listening(by_amount)
    done = attack(credit.problem, contract, refused, model, 0, 100)
    asked = pd.concat(model.heard, ignore_index=True)
    assert len(asked) > 500
    for column in contract.features:
        told = asked[column.name].dropna()
        if column.values is not None:
            assert set(told) <= set(column.values)
            continue
        if column.scale != "binary":
            low, high = column.range
            assert told.between(low, high).all(), column.name
        if column.scale in ("discrete", "binary"):
            assert (told == told.round()).all(), column.name
    assert (done.queries <= 100).all()
    fixed = [column.name for column in contract.features if not column.attacker_can_change]
    assert fixed
    by_row = dict(zip(refused[contract.id], refused.index, strict=True))
    origin = refused.loc[asked[contract.id].map(by_row), fixed].reset_index(drop=True)
    pd.testing.assert_frame_equal(asked[fixed], origin, check_dtype=False)


def test_what_is_found_is_approved_near_and_keeps_the_rules(credit, refused):
    done = attack(credit.problem, credit.contract, refused, by_amount, 0, 200)
    assert done.found
    spread = refused["amount"].quantile([0.01, 0.99]).to_numpy()
    for item in done.found:
        row = refused.loc[[item["row"]]].copy()
        before = row["amount"].iloc[0]
        for name, (was, now) in item["changed"].items():
            assert row[name].iloc[0] == was
            row[name] = now
        assert by_amount(row)[0] < credit.problem.threshold
        assert abs(row["amount"].iloc[0] - before) <= credit.problem.gate.attack_budget * (spread[1] - spread[0]) * 1.001
        assert all(keeps(row, rule, credit.contract).all() for rule in credit.contract.rules)
        assert not done.withstood[item["row"]]


def test_more_questions_find_more(credit, refused):
    few, many = (attack(credit.problem, credit.contract, refused, by_amount, 0, queries).robust_accuracy for queries in (41, 300))
    assert many <= few


def test_the_same_seed_finds_the_same_and_leaves_the_global_generator_alone(credit, refused):
    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    one, two = (attack(credit.problem, credit.contract, refused, by_amount, 5, 80) for _ in range(2))
    assert np.random.random() == expected
    assert one.found == two.found
    assert one.queries.tolist() == two.queries.tolist()


def test_a_record_that_was_approved_anyway_is_not_attacked(credit, refused):
    model = Listening(lambda frame: np.zeros(len(frame)))
    done = attack(credit.problem, credit.contract, refused, model, 0, 100)
    assert not done.right.any()
    assert done.queries.sum() == 0
    assert len(model.heard) == len(refused)


def test_a_missing_value_stays_missing(credit, refused):
    rows, model = refused.assign(income=np.nan), Listening(by_amount)
    attack(credit.problem, credit.contract, rows, model, 0, 60)
    assert pd.concat(model.heard)["income"].isna().all()


def test_too_few_cases_no_champion_and_nothing_to_change(problem, credit, refused):
    done = attack(credit.problem, credit.contract, refused, by_amount, 0, 41)
    assert adversarial(problem, done, done, 5).verdict == "undecided"
    first = adversarial(problem, done, None, 25)
    assert first.verdict == "not_applicable"
    assert "stay refused" in first.reason
    assert adversarial(problem, None, None, 25).verdict == "not_applicable"
    same = adversarial(problem, done, done, 25)
    assert same.value == 0
    assert same.low < 0 < same.high
