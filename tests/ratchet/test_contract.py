"""A declaration that does not say what it must is refused with file, key and reason."""

from __future__ import annotations

import pytest
import yaml

from ratchet.contract import load_contract
from ratchet.errors import ContractError
from ratchet.problem import find_problem
from ratchet.settings import ROOT

PLAIN = {
    "name": "x",
    "columns": [
        {"name": "row", "role": "id", "scale": "nominal"},
        {"name": "size", "scale": "continuous", "range": [0, 1]},
        {"name": "y", "role": "target", "scale": "binary"},
    ],
}


def load(tmp_path, **changes):
    path = tmp_path / "contract.yaml"
    path.write_text(yaml.safe_dump(PLAIN | changes), encoding="utf-8")
    return load_contract(path)


def test_the_least_contract(tmp_path):
    contract = load(tmp_path)
    assert (contract.id, contract.entity, contract.target, contract.time) == ("row", "row", "y", None)
    assert [column.name for column in contract.requested] == ["size"]


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        ({"name": "a", "scale": "nominal"}, "needs its `values`"),
        ({"name": "a", "scale": "continuous"}, "needs its `range`"),
        ({"name": "a", "scale": "continuous", "range": [1, 0]}, "from low to high"),
        ({"name": "a", "scale": "continuous", "range": [0, 1], "missing": 2}, "between 0 and 1"),
        ({"name": "a", "scale": "fluffy"}, "Input should be"),
        ({"name": "a", "scale": "continuous", "range": [0, 1], "colour": "red"}, "Extra inputs"),
        ({"name": "size", "scale": "continuous", "range": [0, 1]}, "declared twice"),
        ({"name": "b", "role": "target", "scale": "binary"}, "exactly one column"),
        ({"name": "b", "scale": "text"}, "it can be watched (role: watched)"),
        ({"name": "b", "role": "protected", "scale": "image"}, "it can be watched (role: watched)"),
        ({"name": "b", "role": "watched", "scale": "nominal"}, "needs its `values`"),
    ],
)
def test_a_wrong_column_is_said(tmp_path, column, sentence):
    with pytest.raises(ContractError, match=r"contract\.yaml") as error:
        load(tmp_path, columns=[*PLAIN["columns"], column])
    assert sentence in str(error.value)


def test_a_file_that_is_not_there_or_not_yaml(tmp_path):
    with pytest.raises(ContractError, match="does not exist"):
        load_contract(tmp_path / "contract.yaml")
    (tmp_path / "contract.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(ContractError, match="not valid YAML"):
        load_contract(tmp_path / "contract.yaml")


def test_an_unknown_problem_names_the_known_ones():
    with pytest.raises(ContractError, match="credit, credit_card"):
        find_problem("nix", ROOT / "problems")


@pytest.mark.parametrize("name", ["credit", "credit_card"])
def test_the_problems_that_come_along_are_whole(name):
    folder = find_problem(name, ROOT / "problems")
    assert folder.contract.name == folder.problem.name == name
    assert folder.contract.protected
