"""Every family learns, says when it stopped, and its export decides as the native model does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from models.train import Candidate, train
from ratchet.data.splits import split
from ratchet.errors import BatchError
from ratchet.evaluation.loss import per_row
from ratchet.scoring import Scorer
from ratchet.settings import parameters
from ratchet.simulation.sample import draw

PARAMS = parameters()


@pytest.fixture(scope="module")
def rows(credit):
    return credit.open_source(None, 6).traffic(6000, drifted=False)


@pytest.fixture(scope="module")
def trained(credit, rows):
    sides = split(rows["customer_id"])
    return sides, *train(rows, sides, credit.contract, credit.problem.threshold, PARAMS["train"], PARAMS["seed"])


def test_every_family_is_exact_and_better_than_nothing(credit, rows, trained):
    sides, encoder, candidates = trained
    test = rows[sides == "test"]
    truth = test["defaulted"].to_numpy()
    nothing = per_row(credit.problem, np.full(len(test), truth.mean()), truth).mean()
    assert [c.family for c in candidates] == ["logistic", "trees", "network"]
    for candidate in candidates:
        assert candidate.exportable
        assert candidate.gap < 1e-6
        assert candidate.flips == 0
        assert candidate.stopped
        answers = Scorer(candidate.graph, encoder).probability(test)
        assert per_row(credit.problem, answers, truth).mean() < nothing


def test_the_network_has_embeddings(trained):
    network = next(c for c in trained[2] if c.family == "network")
    nodes = {node.op_type for node in onnx.load_model_from_string(network.graph).graph.node}
    assert "Gather" in nodes


def test_the_network_stops_before_its_last_epoch_where_it_gets_no_better(credit, rows):
    patient = PARAMS["train"] | {"families": ["network"], "network": PARAMS["train"]["network"] | {"epochs": 200}}
    _, (network,) = train(rows, split(rows["customer_id"]), credit.contract, credit.problem.threshold, patient, PARAMS["seed"])
    assert len(network.curves["tune_log_loss"]) < 200


def test_the_same_rows_give_the_same_bytes(credit, rows, trained):
    sides, _, before = trained
    _, again = train(rows, sides, credit.contract, credit.problem.threshold, PARAMS["train"], PARAMS["seed"])
    assert [c.graph for c in before] == [c.graph for c in again]


def test_rows_of_one_class_are_refused_in_a_sentence(credit, rows):
    with pytest.raises(BatchError, match="fewer than two classes"):
        train(rows.assign(defaulted=0.0), split(rows["customer_id"]), credit.contract, 0.2, PARAMS["train"], 0)


def test_an_unknown_family_is_refused_in_a_sentence(credit, rows):
    with pytest.raises(BatchError, match="'oracle' is not known"):
        train(rows, split(rows["customer_id"]), credit.contract, 0.2, PARAMS["train"] | {"families": ["oracle"]}, 0)


@pytest.mark.parametrize(("gap", "flips", "fit"), [(1e-7, 0, True), (1e-4, 0, False), (1e-7, 1, False)])
def test_a_family_whose_export_differs_cannot_be_champion(gap, flips, fit):
    assert Candidate("x", b"", 1.0, 0.0, gap, flips, "").exportable is fit


def test_an_answer_does_not_depend_on_the_rows_that_come_with_it(trained, contract):
    """Whatever the size of its group, a row's probability is the same to the last bit: a replay finds no difference."""
    _, encoder, candidates = trained
    rows = draw(contract, 600, 3)
    names = [column.name for column in contract.requested]
    for candidate in candidates:
        probability = Scorer(candidate.graph, encoder).probability
        whole = probability({name: [row[name] for row in rows] for name in names})
        for size in (1, 2, 3, 7, 16, 33, 64, 257):
            for start in range(0, 600, max(size, 41)):
                part = rows[start : start + size]
                alone = probability({name: [row[name] for row in part] for name in names})
                assert (alone == whole[start : start + size]).all(), (candidate.family, size, start)
