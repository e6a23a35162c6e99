"""The golden set: what is frozen stays as it is, what is not whole is not taken."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pandas as pd
import pytest

from ratchet.data.batch import conform
from ratchet.data.golden import cohorts, freeze, golden
from ratchet.errors import BatchError
from ratchet.problem import Folder, find_problem
from ratchet.settings import settings

SEED, MARGIN = 1207, 0.1


def clear_cases(folder, rows=400):
    """Applications whose true probability is well off the threshold, with the decision that is right for a label."""
    source = folder.open_source(None, SEED)
    world = sys.modules[type(source).__module__.rpartition(".")[0] + ".world"]
    drawn = world.draw(800, world.Knobs(), SEED, 90_000_000, (0.0, 20.0))
    threshold = folder.problem.threshold
    drawn = drawn[(drawn["p_default"] - threshold).abs() >= MARGIN].head(rows)
    drawn[folder.contract.target] = (drawn["p_default"] >= threshold).astype(float)
    return drawn[[column.name for column in folder.contract.columns]]


@pytest.fixture
def problem(credit, tmp_path):
    """A problem's folder of one's own, without a golden set yet."""
    shutil.copytree(credit.path, tmp_path / "credit", ignore=shutil.ignore_patterns("golden", "__pycache__"))
    return Folder(tmp_path / "credit")


@pytest.fixture
def rows(credit, tmp_path):
    path = tmp_path / "rows.csv"
    clear_cases(credit, 40).to_csv(path, index=False)
    return path


def test_the_committed_cohort_holds_the_clear_cases_that_it_says(credit):
    frozen, drawn = golden(credit), conform(clear_cases(credit), credit.contract, "the world")
    pd.testing.assert_frame_equal(frozen, drawn)
    assert 0.2 < frozen[credit.contract.target].mean() < 0.8
    (cohort,) = cohorts(credit)
    assert (cohort.rows, str(SEED) in cohort.why) == (400, True)


def test_a_problem_without_one_has_none():
    assert golden(find_problem("credit_card", settings().problems)) is None


def test_cohorts_are_added_and_read_back_as_they_were(problem, credit, rows, tmp_path):
    first = freeze(problem, "first", rows, "a person is sure of them")
    other = clear_cases(credit, 90).tail(50)
    other.to_parquet(tmp_path / "other.parquet")
    freeze(problem, "second", tmp_path / "other.parquet", "and of these")
    assert [cohort.name for cohort in cohorts(problem)] == ["first", "second"]
    assert cohorts(problem)[0] == first
    read = golden(problem)
    pd.testing.assert_frame_equal(read, conform(clear_cases(credit, 90), credit.contract, "the world"))
    assert sorted(path.name for path in (problem.path / "golden").iterdir()) == ["cohorts.json", "first.csv", "second.csv"]


@pytest.mark.parametrize("harm", ["a word changed", "gone", "a row more"])
def test_a_cohort_that_is_no_longer_what_was_frozen_is_told_of(problem, rows, harm):
    freeze(problem, "first", rows, "sure")
    path = problem.path / "golden" / "first.csv"
    if harm == "gone":
        path.unlink()
    elif harm == "a row more":
        path.write_text(path.read_text() + path.read_text().splitlines()[-1].replace("A9", "A8") + "\n")
    else:
        path.write_text(path.read_text().replace("web", "app", 1))
    with pytest.raises(BatchError, match=r"first\.csv: is not as it was frozen"):
        golden(problem)


def test_what_may_not_be_frozen(problem, credit, rows, tmp_path):
    freeze(problem, "first", rows, "sure")
    with pytest.raises(BatchError, match="a cohort 'first' already"):
        freeze(problem, "first", rows, "sure")
    with pytest.raises(BatchError, match="in the golden set already \\(40 such rows\\)"):
        freeze(problem, "second", rows, "sure")
    with pytest.raises(BatchError, match="no name of a cohort"):
        freeze(problem, "../first", rows, "sure")
    fresh = clear_cases(credit, 90).tail(50)
    for column, value, sentence in ((credit.contract.target, np.nan, "defaulted is missing"), ("amount", -1.0, "Field 'amount' must be")):
        broken = fresh.copy()
        broken.iloc[3, broken.columns.get_loc(column)] = value
        broken.to_csv(tmp_path / "broken.csv", index=False)
        with pytest.raises(BatchError, match=f"row 4: {sentence}"):
            freeze(problem, "second", tmp_path / "broken.csv", "sure")
    assert [cohort.name for cohort in cohorts(problem)] == ["first"]
    assert sorted(path.name for path in (problem.path / "golden").iterdir()) == ["cohorts.json", "first.csv"]
