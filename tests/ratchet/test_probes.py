"""What an attacker's questions look like: told from ordinary rows, and nothing said where there is nothing to compare with."""

from __future__ import annotations

import numpy as np
import pytest

from ratchet.data.encoding import fit
from ratchet.monitoring.adversarial_input import probes
from ratchet.simulation import population
from ratchet.simulation.population import Moved

PROBLEM, CONTRACT = population.problem(), population.contract()
HELD = population.draw(6000, Moved(), 0).assign(probability=np.linspace(0.05, 0.95, 6000))
ENCODER = fit(HELD, CONTRACT)


def asked(window, held=HELD, following=None):
    return {check.name: check for check in probes(PROBLEM, CONTRACT, ENCODER, held, window, following)}


def retried(rows, seed, share, again=1):
    """Rows of which a share is asked for again at once, with two values changed, so many times."""
    rng = np.random.default_rng(seed)
    times = np.where(rng.random(len(rows)) < share, 1 + again, 1)
    made = rows.loc[rows.index.repeat(times)].reset_index(drop=True)
    later = np.r_[False, np.diff(np.repeat(np.arange(len(rows)), times)) == 0]
    for name in ("x00", "x01"):
        made.loc[later, name] = rng.normal(size=int(later.sum()))
    return made


@pytest.mark.parametrize(("share", "again", "verdict"), [(0.1, 1, "pass"), (0.2, 3, "fail")])
def test_who_asks_again_as_often_as_before_tries_nothing_out_though_held_out_rows_do_not_show_it(share, again, verdict):
    """Sides are drawn by the row where a contract knows no entity: seven in ten of the neighbours of held-out rows are not held out."""
    before = retried(population.draw(6000, Moved(), 0), 1, 0.1).assign(probability=0.3)
    window = retried(population.draw(2000, Moved(), 0, 50_000), 2, share, again).tail(2000).assign(probability=0.3)
    held = before[np.random.default_rng(3).random(len(before)) < 0.3]
    assert asked(window, held, before)["probes:duplicates"].verdict == verdict
    assert asked(window, held)["probes:duplicates"].verdict == "fail"


@pytest.mark.parametrize(("share", "verdict"), [(0.0, "pass"), (0.5, "fail")])
def test_values_of_different_rows_are_an_odd_mix_though_each_column_is_as_it_was(share, verdict):
    window = population.draw(2000, Moved(), 0, 50_000).assign(probability=np.linspace(0.05, 0.95, 2000))
    rng, mixed = np.random.default_rng(1), np.arange(2000) % 10 < 10 * share
    for column in CONTRACT.features:
        window.loc[mixed, column.name] = rng.permutation(window.loc[mixed, column.name].to_numpy())
    assert asked(window)["probes:mixes"].verdict == verdict


@pytest.mark.parametrize(("near", "verdict"), [(0, "undecided"), (2, "undecided"), (300, "fail")])
def test_where_next_to_no_row_of_the_release_is_near_the_threshold_nobody_can_say_whether_more_are(near, verdict):
    far = HELD.assign(probability=np.where(np.arange(6000) < near, np.linspace(0.42, 0.58, 6000), 0.01))
    window = population.draw(2000, Moved(), 0, 50_000).assign(probability=0.02)
    window.loc[:20, "probability"] = PROBLEM.threshold
    found = asked(window, far)["probes:boundary"]
    assert found.verdict == verdict, found.reason


def test_autocorrelated_rows_do_not_look_odd_beside_neighbours_that_were_learnt_from():
    """With every second row learnt from, all 40 such windows have a p-value below 0.05."""
    low = 0
    for seed in range(40):
        rows = population.draw(8000, Moved(autocorrelation=0.9), seed).assign(probability=0.01)
        held, window = rows.iloc[:6000], population.draw(2000, Moved(autocorrelation=0.9), seed, 900_000).assign(probability=0.01)
        (check,) = (check for check in probes(PROBLEM, CONTRACT, fit(held, CONTRACT), held, window) if check.name == "probes:mixes")
        low += check.value is not None and check.value < 0.05
    assert low <= 6
