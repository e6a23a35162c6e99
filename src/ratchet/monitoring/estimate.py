"""What do decisions cost in a window whose labels are not in? Confidence, calibrated for its population, corrected by what was audited."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from ratchet.check import Check, Verdict, undecided
from ratchet.evaluation.loss import POWER, per_row
from ratchet.monitoring.domain import Domain
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Would decisions in this window cost more than at release, as far as that can be told without its labels?"
# What a row's answer costs when the truth is as given: probabilities and truths of shape (n,) to losses of shape (n,).
Loss = Callable[[np.ndarray, np.ndarray], np.ndarray]
Z = float(stats.norm.ppf(0.975))
# The audited rows contradict the estimate where chance would seldom bring that much about, and seldomer still where they cost less.
COSTLIER, CHEAPER = 0.016, 0.004
# Fewer audited rows would put more chance into the estimate than they take out of it.
LEAST_AUDITED = 100
MOST_FOREIGN = 0.05
LEAST_EFFECTIVE = 300
LEAST_MOVE = 0.1
# So many audited rows are asked for that a rise of the size expected is told from none with power 0.8.
POWERFUL = float(stats.norm.ppf(POWER))


@dataclass(frozen=True)
class Held:
    """Labelled rows of the release that its model has not learnt from: its probabilities and the truth, of shape (n,)."""

    probability: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """The mean loss of a window with its 95% interval, and by how much it is above that of the held-out rows, with a standard error.

    `by` says from what: confidence alone, or confidence corrected by audited rows, or those alone where they contradict it.
    `valid` is whether they do not; `why` says why nothing can be told, empty where something can. `df` are the degrees of freedom
    of the rise's error; `spread` is the standard deviation of what a row costs beyond its expectation.
    """

    value: float
    low: float
    high: float
    rise: float
    rise_error: float
    by: str
    valid: bool
    audited: int
    spread: float
    why: str = ""
    df: float = float("inf")


def estimate(
    loss: Loss,
    held: Held,
    ratio: np.ndarray,
    probability: np.ndarray,
    foreign: float = 0.0,
    audited: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    chance: np.ndarray | None = None,
) -> Estimate:
    """The mean loss of a window of m rows, of which `probability` has shape (m,); `ratio` is how much likelier each held-out row is in it.

    Without labels: the model's confidence, calibrated on held-out rows weighted as the window has them, tells each row's
    expected loss (PAPE; Białek et al., 2024). That holds where the population moves and the truth of a row does not. With
    audited rows, drawn at random: the mean of what they cost beyond their expectation corrects it, whatever moved
    (prediction-powered inference; Angelopoulos et al., 2023), and contradicts it where it is not chance. `audited` are their
    places, `truth` their labels, `chance` the probability with which each was drawn, all of shape (a,).
    """
    calibrate = calibration(held, ratio)
    confident = _expected(loss, probability, calibrate(probability))
    at_release = _expected(loss, held.probability, calibration(held, np.ones(len(held.truth)))(held.probability))
    told = loss(held.probability, held.truth)
    beyond = told - _expected(loss, held.probability, calibrate(held.probability))
    each = float(beyond.std(ddof=1))
    value, base = float(confident.mean()), float(at_release.mean())
    drawn = float(np.std(confident) / np.sqrt(len(confident)))
    error = float(np.hypot(drawn, np.sqrt(np.square(ratio * beyond).sum()) / ratio.sum()))
    # The same labels tell of both populations: what chance has put into them cancels out where those are alike.
    between = np.square((ratio / ratio.sum() - 1 / len(ratio)) * beyond).sum()
    rise_error = float(np.sqrt(drawn**2 + np.var(at_release) / len(at_release) + between))
    effective = float(ratio.sum() ** 2 / np.square(ratio).sum())
    why = ""
    if foreign > MOST_FOREIGN:
        why = f"{foreign:.0%} of the window's rows are like nothing that was held out at release"
    elif effective < LEAST_EFFECTIVE:
        why = f"what was held out tells of this population as much as {effective:.0f} rows would; {LEAST_EFFECTIVE} are needed"
    n = 0 if audited is None else len(audited)
    if audited is None or truth is None or n < LEAST_AUDITED:
        low, high = value - Z * error, value + Z * error
        return Estimate(value, low, high, value - base, rise_error, "confidence", not why, n, each, why)
    weight = np.ones(n) if chance is None else 1 / chance
    excess = loss(probability[audited], truth) - confident[audited]
    mean = float((weight * excess).sum() / weight.sum())
    spread = float(np.sqrt(np.square(weight * (excess - mean)).sum() * n / (n - 1)) / weight.sum())
    # The interval holds whatever has moved, so it is that of the audited rows, even where they agree with confidence.
    half = float(stats.t.ppf(0.975, n - 1)) * float(np.hypot(spread, drawn))
    low, high = value + mean - half, value + mean + half
    surprise = mean / float(np.hypot(spread, error)) if spread > 0 else 0.0
    if not why and CHEAPER <= stats.t.cdf(surprise, n - 1) <= 1 - COSTLIER:
        # Two estimates of one number, weighted by what each may be off.
        both = value + error**2 / (spread**2 + error**2) * mean
        return Estimate(both, low, high, both - base, rise_error, "confidence and audit", True, n, each)
    rise_error = float(np.sqrt(spread**2 + drawn**2 + np.var(told) / len(told)))
    return Estimate(value + mean, low, high, value + mean - base, rise_error, "audit", False, n, each, why, n - 1.0)


def calibration(held: Held, ratio: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Platt's curve (1999) on the log-odds, fitted to n weighted rows; it takes probabilities and gives those that hold there."""
    x = np.column_stack([_logit(held.probability), np.ones(len(held.truth))])
    theta = np.array([1.0, 0.0])
    for _ in range(25):
        p = 1 / (1 + np.exp(-x @ theta))
        hessian = (x * (ratio * p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(2)
        step = np.clip(np.linalg.solve(hessian, x.T @ (ratio * (p - held.truth))), -2.0, 2.0)
        theta = theta - step
        if np.abs(step).max() < 1e-9:
            break
    slope, shift = theta
    return lambda p: np.asarray(1 / (1 + np.exp(-(slope * _logit(p) + shift))))


def relied_on(answer: Callable[[pd.DataFrame], np.ndarray], rows: pd.DataFrame, names: Sequence[str], seed: int = 0) -> list[str]:
    """The columns on which a model's answers hang: those whose shuffling moves the log-odds by a tenth or more of the largest such move.

    `answer` gives probabilities of shape (n,) for a frame of n rows. What the model does not look at says nothing of its errors, and
    would drown what does.
    """
    rng = np.random.default_rng(seed)
    told = _logit(answer(rows))
    moves = {
        name: float(np.abs(_logit(answer(rows.assign(**{name: rng.permutation(rows[name].to_numpy())}))) - told).mean()) for name in names
    }
    largest = max(moves.values())
    return [name for name in names if moves[name] >= LEAST_MOVE * largest]


def _expected(loss: Loss, probability: np.ndarray, calibrated: np.ndarray) -> np.ndarray:
    one, nought = (loss(probability, np.full(len(probability), value)) for value in (1.0, 0.0))
    return np.asarray(calibrated * one + (1 - calibrated) * nought)


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p / (1 - p)))


@registered("estimate", "monitor")
def expected_harm(
    problem: Problem,
    held: Held,
    found: Domain | None,
    probability: np.ndarray,
    truth: np.ndarray,
    chance: np.ndarray,
) -> Check:
    """By how much decisions cost more in a window of m rows than at release, told from confidence and from audited rows.

    `found` tells the window from the held-out rows; None where there are too few. `truth` has the labels of rows that were drawn for
    an audit, NaN elsewhere, and `chance` the probability with which each was drawn, both of shape (m,). It fails like `decay` does:
    beyond the problem's margin, and beyond chance at a level that spends the year's budget over the year's checks. Undecided where it
    cannot tell: with rows unlike those held out, or a rise that may be chance.
    """
    n, limit, unit = len(probability), problem.gate.margin, f"{problem.metric} per row"
    alpha = problem.watch.false_alarms_per_year / problem.watch.checks_per_year
    told: dict[str, float | str | None] = {"limit": limit, "unit": unit}
    if found is None or n < problem.watch.min_window:
        return undecided("estimate", QUESTION, f"{n} predictions; {problem.watch.min_window} are needed", n, **told)
    if np.unique(held.truth).size < 2:
        return undecided("estimate", QUESTION, f"cannot tell: the {len(held.truth)} held-out rows are of one class", n, **told)
    places = np.flatnonzero(~np.isnan(truth))
    made = estimate(
        lambda p, y: per_row(problem, p, y), held, found.ratio, probability, found.foreign, places, truth[places], chance[places]
    )
    half = float(stats.t.ppf(0.975, made.df)) * made.rise_error
    p = float(stats.t.sf(made.rise / made.rise_error, made.df)) if made.rise_error > 0 else float(made.rise <= 0)
    evidence = {
        "p_value": p,
        "p_limit": alpha,
        "estimated": made.value,
        "by": made.by,
        "valid": made.valid,
        "audited": made.audited,
        "foreign": found.foreign,
        "audits_needed": max(LEAST_AUDITED, math.ceil(((Z + POWERFUL) * made.spread / max(made.rise, limit)) ** 2)),
    }
    if made.why and made.by != "audit":
        return undecided("estimate", QUESTION, f"cannot tell: {made.why}", n, evidence=evidence, **told)
    beyond = made.rise > limit
    verdict: Verdict = "pass" if not beyond else "fail" if p < alpha else "undecided"
    contradiction = "; audited rows contradict the model's confidence, so they alone count" if made.by == "audit" else ""
    reason = (
        f"{problem.metric} {made.value:.4f} expected from {made.by} ({made.audited} audited rows), {made.rise:+.4f} "
        f"[{made.rise - half:+.4f}, {made.rise + half:+.4f}] against release, p = {p:.1e}, limit {alpha:.1e}, margin {limit:.4f}{contradiction}"
    )
    return Check(
        name="estimate",
        question=QUESTION,
        verdict=verdict,
        reason=reason,
        value=made.rise,
        low=made.rise - half,
        high=made.rise + half,
        limit=limit,
        n=n,
        unit=unit,
        evidence=evidence,
    )
