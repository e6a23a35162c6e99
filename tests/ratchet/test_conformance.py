"""Every check fires on its planted fault, is quiet on a clean world, and is undecided on too little data.

One suite over every check there is: a check that is registered but has no plan here fails the first test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ratchet.evaluation.calibration
import ratchet.evaluation.champion
import ratchet.evaluation.fairness
import ratchet.evaluation.performance
import ratchet.monitoring.data_drift
import ratchet.monitoring.decay
import ratchet.monitoring.validity  # noqa: F401
from load_tests.run import LoadResult, verdict
from ratchet.check import Check
from ratchet.evaluation.calibration import calibration
from ratchet.evaluation.champion import non_inferior_to_champion
from ratchet.evaluation.fairness import fairness
from ratchet.evaluation.performance import beats_rule, not_worse_than_simple
from ratchet.monitoring.data_drift import data_drift
from ratchet.monitoring.decay import decay
from ratchet.monitoring.validity import validity
from ratchet.problem import Folder
from ratchet.registry import CHECKS

ENOUGH, LITTLE = 6000, 50


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


def _fairness(w: World, bad: bool) -> list[Check]:
    groups = pd.Series(np.where(np.arange(len(w.truth)) % 2, "a", "b"), name="group")
    p = np.where((groups == "a") & bad, np.minimum(w.perfect * 2.5, 0.99), w.perfect)
    return [fairness(w.folder.problem, p, w.truth, groups)]


def _data_drift(w: World, bad: bool) -> list[Check]:
    window = world(w.folder, len(w.rows), seed=11, drifted=bad).rows
    reference = world(w.folder, ENOUGH, seed=12).rows
    return data_drift(w.folder.problem, w.folder.contract, reference, window)


def _decay(w: World, bad: bool) -> list[Check]:
    from ratchet.evaluation.loss import per_row

    told = per_row(w.folder.problem, w.perfect, w.truth)
    truth = 1 - w.truth if bad else w.truth
    error = float(told.std(ddof=1) / np.sqrt(len(told)))
    return [decay(w.folder.problem, w.perfect, truth, float(told.mean()), error)]


def _validity(w: World, bad: bool) -> list[Check]:
    window = w.rows.assign(utilization=0.5) if bad else w.rows
    return [validity(w.folder.problem, w.folder.contract, world(w.folder, ENOUGH, seed=12).rows, window)]


def _load(w: World, bad: bool) -> list[Check]:
    n = len(w.rows)
    result = LoadResult(n, n // 10 if bad else 0, 5.0, 900.0 if bad else 20.0, 400.0, n, Path("load.html"))
    return verdict(result, w.folder.problem.load)


PLANS: dict[str, Callable[[World, bool], list[Check]]] = {
    "beats_rule": _beats_rule,
    "not_worse_than_simple": _not_worse,
    "non_inferior_to_champion": _champion,
    "calibration": _calibration,
    "fairness": _fairness,
    "data_drift": _data_drift,
    "decay": _decay,
    "validity": _validity,
    "load": _load,
}


def test_every_check_has_a_plan():
    assert set(CHECKS) == set(PLANS)


@pytest.mark.parametrize("name", sorted(PLANS))
def test_fires_on_its_planted_fault(name, credit):
    found = PLANS[name](world(credit, ENOUGH), True)
    assert "fail" in {check.verdict for check in found}
    assert all(check.name.split(":")[0] == name for check in found)


@pytest.mark.parametrize("name", sorted(PLANS))
def test_is_quiet_on_a_clean_world(name, credit):
    assert {check.verdict for check in PLANS[name](world(credit, ENOUGH), False)} == {"pass"}


@pytest.mark.parametrize("bad", [True, False])
@pytest.mark.parametrize("name", sorted(PLANS))
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
        assert check.n == ENOUGH
        assert check.unit
