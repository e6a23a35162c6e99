"""Smaller networks: what they decide otherwise is told, a bad one is not exported, a good one runs on a device of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnxruntime as ort
import pytest

from flows import compress
from flows.compress import judge, variants
from flows.standing import first_rows
from models.edge import single_file
from models.train import train
from ratchet.contract import Contract
from ratchet.data.encoding import Encoder
from ratchet.data.splits import split
from ratchet.request import records
from ratchet.scoring import Scorer
from ratchet.settings import ROOT, parameters
from ratchet.simulation.sample import draw

# A device has ONNX Runtime and what comes with it; nothing of Ratchet, and none of what trains.
DEVICE = """
import importlib.abc, runpy, sys
class Bare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"ratchet", "models", "flows", "torch", "sklearn", "pandas", "onnx", "msgspec", "mlflow"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Bare())
sys.argv = ["predict.py", sys.argv[1]]
runpy.run_path("examples/edge/predict.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def made(credit):
    params = parameters()["train"] | {"families": ["network"]}
    rows = first_rows(credit, 9000, 3)
    sides = split(rows[credit.contract.entity])
    encoder, (network,) = train(rows, sides, credit.contract, credit.problem.threshold, params, 3)
    graphs, told = variants(credit, encoder, network.graph, rows, sides, params, 3)
    return encoder, rows[sides == "test"], graphs, {variant.name: variant for variant in told}


def test_the_quantised_network_is_half_the_size_and_decides_as_the_whole_one(made):
    _, _, graphs, told = made
    assert list(told) == list(graphs) == ["network", "quantised", "student", "quantised student"]
    assert (told["network"].flips, told["network"].negative_flips, told["network"].worst_slice) == (0.0, 0.0, "")
    assert told["quantised"].bytes < 0.6 * told["network"].bytes
    assert told["quantised"].flips <= 0.003
    assert told["student"].bytes < 0.15 * told["network"].bytes
    assert told["student"].accuracy > told["network"].accuracy - 0.03
    for variant in told.values():
        assert 0 <= variant.negative_flips <= variant.flips < 0.1
        assert variant.negative_flips <= variant.worst_negative_flips


def test_a_quantised_network_that_decides_otherwise_is_refused_with_the_first_row(made, credit):
    encoder, test, graphs, _ = made
    # The student decides some rows otherwise than the network: passed off as its quantised form, it must not get through.
    variant = judge(credit, "quantised", graphs["student"], encoder, test, Scorer(graphs["network"], encoder))
    assert variant.flips > compress.MOST_FLIPS
    assert "decides" in variant.refused
    first = variant.refused.rsplit(" ", 1)[1]
    row = test[test[credit.contract.id] == first]
    whole, student = (Scorer(graphs[name], encoder).probability(row)[0] >= credit.problem.threshold for name in ("network", "student"))
    assert whole != student


def test_a_quantised_network_that_turns_a_golden_row_is_refused_with_it(made, credit, monkeypatch):
    encoder, test, graphs, told = made
    assert {variant.golden for variant in told.values() if variant.name.startswith("quantised")} == {0}
    network, student = (Scorer(graphs[name], encoder) for name in ("network", "student"))
    turned = test[(network.probability(test) >= credit.problem.threshold) != (student.probability(test) >= credit.problem.threshold)]
    monkeypatch.setattr(compress, "MOST_FLIPS", 1.0)
    monkeypatch.setattr(compress, "golden", lambda folder: turned.tail(2))
    variant = judge(credit, "quantised", graphs["student"], encoder, test, network)
    assert variant.golden == 2
    assert 0 <= variant.golden_wrong <= 2
    assert (
        variant.refused == f"decides 2 rows of the golden set otherwise, none is borne; the first is {turned[credit.contract.id].iloc[-2]}"
    )
    monkeypatch.setattr(compress, "golden", lambda folder: None)
    variant = judge(credit, "quantised", graphs["student"], encoder, test, network)
    assert (variant.golden, variant.refused) == (None, "")


@pytest.mark.parametrize("name", ["network", "quantised", "student", "quantised student"])
def test_one_file_answers_on_a_device_as_the_service_would(made, credit, tmp_path, name):
    encoder, test, graphs, _ = made
    path = tmp_path / "model.edge.onnx"
    path.write_bytes(single_file(graphs[name], encoder, credit.contract, "7", credit.problem.threshold))
    asked = [*records(test.head(150), credit.contract), *draw(credit.contract, 50, 1)]
    lines = "\n".join(json.dumps(record) for record in asked)
    done = subprocess.run([sys.executable, "-c", DEVICE, str(path)], input=lines, capture_output=True, text=True, cwd=ROOT)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == 200, done.stderr[-500:]
    here = Scorer(graphs[name], encoder).probability({c.name: [r[c.name] for r in asked] for c in credit.contract.features})
    # A number that is rounded to 16 bits on the way may fall to either side, one row at a time or many.
    bound = 1e-4 if name.startswith("quantised") else 1e-6
    assert np.abs(np.array([one["probability"] for one in told]) - here).max() <= bound
    assert [one["label"] for one in told] == (here >= credit.problem.threshold).astype(int).tolist()
    assert {one["model_version"] for one in told} == {"7"}


def test_what_the_device_cannot_read_is_a_sentence(made, credit, tmp_path):
    encoder, _, graphs, _ = made
    path = tmp_path / "model.edge.onnx"
    path.write_bytes(single_file(graphs["student"], encoder, credit.contract, "7", credit.problem.threshold))
    (record,) = draw(credit.contract, 1, 0)
    told = {
        "{": "line 1",
        "[1]": "this is no JSON object",
        "{}": "'amount' is missing",
        json.dumps(record | {"incom": 5}): "'incom' is no field of this model",
        json.dumps(record | {"income": "much"}): "'income' is \"much\", which is no number",
        json.dumps(record | {"income": {}}): "'income' is {}, which is no number",
        json.dumps(record | {"amount": [1, 2]}): "'amount' is [1, 2], which is no number",
        json.dumps(record | {"amount": True}): "'amount' is true, which is no number",
        json.dumps(record | {"purpose": "yacht"}): "'purpose' is 'yacht'; it must be one of car, home",
    }
    for line, sentence in told.items():
        done = subprocess.run([sys.executable, "-c", DEVICE, str(path)], input=line, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 1
        assert sentence in done.stderr, line
        assert "Traceback" not in done.stderr
        assert not done.stdout
    session = ort.InferenceSession(path)
    assert {item.name for item in session.get_inputs()} == {column.name for column in credit.contract.features}


def test_a_feature_may_have_any_name_that_a_contract_takes(made, credit):
    encoder, test, graphs, _ = made
    odd = dict(zip((c.name for c in encoder.numeric), ("low", "high", "nought", "column", "numeric", "codes", "net"), strict=False))
    odd |= {encoder.categories[0].name: "net_codes"}
    plain = encoder.as_dict()
    for item in (*plain["numeric"], *plain["categories"]):
        item["name"] = odd.get(item["name"], item["name"])
    named = credit.contract.model_dump(mode="json", exclude_defaults=True)
    for column in named["columns"]:
        column["name"] = odd.get(column["name"], column["name"])
    contract = Contract.model_validate(named | {"rules": []})
    session = ort.InferenceSession(single_file(graphs["student"], Encoder.from_dict(plain), contract, "7", 0.2))
    rows = test.head(30)
    feed = {
        odd.get(c.name, c.name): rows[c.name].to_numpy(float) if c in encoder.numeric else rows[c.name].fillna("").to_numpy(object)
        for c in (*encoder.numeric, *encoder.categories)
    }
    told = session.run(None, feed)[0].reshape(-1)
    assert np.abs(told - Scorer(graphs["student"], encoder).probability(rows)).max() <= 1e-6


def test_only_the_network_has_a_single_file(standing, credit, made):
    encoder, *_ = made
    trees = (standing / "releases" / "credit" / "2" / "model.onnx").read_bytes()
    with pytest.raises(ValueError, match="a graph over bins has no single file"):
        single_file(trees, encoder, credit.contract, "7", 0.2)
