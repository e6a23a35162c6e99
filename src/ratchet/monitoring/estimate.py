"""What do decisions cost in a window whose labels are not in? Confidence, calibrated for its population, corrected by what was audited."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from ratchet.check import Check, Verdict, undecided
from ratchet.evaluation.loss import POWER, Z, log_odds, per_row
from ratchet.monitoring.autocorrelation import inflation
from ratchet.monitoring.domain import Domain
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Would decisions in this window cost more than at release, as far as that can be told without its labels?"
# What a row's answer costs when the truth is as given: probabilities and truths of shape (n,) to losses of shape (n,).
Loss = Callable[[np.ndarray, np.ndarray], np.ndarray]
# The audited rows contradict the estimate where chance would seldom bring that much about, and seldomer still where they cost less.
COSTLIER, CHEAPER = 0.016, 0.004
# Fewer audited rows would put more chance into the estimate than they take out of it. Where a window has fewer, those before it count as
# well, up to so many.
LEAST_AUDITED, MOST_AUDITED = 100, 400
# From so many on the interval is told by the window's own: those before it may be of another concept.
LEAST_OWN = 20
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
class Audits:
    """Rows that were drawn by chance to find out their truth: the model's probabilities, the truth, the chance of each, of shape (a,)."""

    probability: np.ndarray
    truth: np.ndarray
    chance: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)

    def after(self, earlier: Audits) -> Audits:
        """These, and the newest of those that were found out earlier, where these alone are too few."""
        lacking = MOST_AUDITED - len(self) if len(self) < LEAST_AUDITED else 0
        if not lacking or not len(earlier):
            return self
        return Audits(earlier.probability[-lacking:], earlier.truth[-lacking:], earlier.chance[-lacking:]).and_then(self)

    def and_then(self, later: Audits) -> Audits:
        """These and others, in that order."""
        pairs = ((self.probability, later.probability), (self.truth, later.truth), (self.chance, later.chance))
        return Audits(*(np.concatenate(pair) for pair in pairs))


NONE = Audits(np.empty(0), np.empty(0), np.empty(0))


@dataclass(frozen=True)
class Audited:
    """What audits found: `here`, in the window, `earlier`, before it, oldest first, and `bought`, wherever it is, because of harm that was feared."""

    here: Audits = NONE
    earlier: Audits = NONE
    bought: Audits = NONE

    @property
    def own(self) -> Audits:
        """What tells of the window: also what was bought of one that has moved on since."""
        return self.bought.and_then(self.here)


NOTHING = Audited()


@dataclass(frozen=True)
class Estimate:
    """The mean loss of a window with its 95% interval, and by how much it is above that of the held-out rows, with its own.

    `by` says from what: confidence alone, or confidence corrected by audited rows, or those alone where they contradict it.
    `valid` is whether they do not; `why` says why nothing can be told, empty where something can. `p_value` is that of "it is not above".
    `spread` is the standard deviation of what a row costs beyond its expectation.
    """

    value: float
    low: float
    high: float
    rise: float
    rise_low: float
    rise_high: float
    p_value: float
    by: str
    valid: bool
    audited: int
    spread: float
    why: str = ""


def estimate(
    loss: Loss,
    held: Held,
    ratio: np.ndarray,
    probability: np.ndarray,
    foreign: float = 0.0,
    audits: Audits = NONE,
    own: int | None = None,
) -> Estimate:
    """The mean loss of a window of m rows, of which `probability` has shape (m,); `ratio` is how much likelier each held-out row is in it.

    Without labels: the model's confidence, calibrated on held-out rows weighted as the window has them, tells each row's
    expected loss (PAPE; Białek et al., 2024). That holds where the population moves and the truth of a row does not. With
    audited rows, drawn at random: the mean of what they cost beyond their expectation corrects it, whatever moved
    (prediction-powered inference; Angelopoulos et al., 2023), and contradicts it where it is not chance. What a row costs beyond its
    expectation may be told by rows of before the window too, as long as the truth of a row has not moved since: `own` is how many of the
    audits, the last ones, are of the window itself (all where it is left out), and from 20 on the interval is told by these, and is no narrower
    than the spread of all of them makes it for so few.
    """
    calibrate = calibration(held, ratio)
    confident = _expected(loss, probability, calibrate(probability))
    at_release = _expected(loss, held.probability, calibration(held, np.ones(len(held.truth)))(held.probability))
    told = loss(held.probability, held.truth)
    beyond = told - _expected(loss, held.probability, calibrate(held.probability))
    value, base = float(confident.mean()), float(at_release.mean())
    drawn = np.var(confident) * inflation(confident) / len(confident)
    error = float(np.sqrt(drawn + np.square(ratio * beyond).sum() / ratio.sum() ** 2))
    # The same labels tell of both populations: what chance has put into them cancels out where those are alike.
    between = np.square((ratio / ratio.sum() - 1 / len(ratio)) * beyond).sum()
    rise_error = float(np.sqrt(drawn + np.var(at_release) * inflation(at_release) / len(at_release) + between))
    effective = _worth(ratio)
    why = ""
    if foreign > MOST_FOREIGN:
        why = f"{foreign:.0%} of the window's rows are like nothing that was held out at release"
    elif effective < LEAST_EFFECTIVE:
        why = f"what was held out tells of this population as much as {effective:.0f} rows would; {LEAST_EFFECTIVE} are needed"
    each, n = float(beyond.std(ddof=1)), len(audits)
    if n < LEAST_AUDITED:
        numbers = (value, value - Z * error, value + Z * error, value - base, value - base - Z * rise_error, value - base + Z * rise_error)
        return Estimate(*numbers, _chance(value - base, rise_error), "confidence", not why, n, each, why)
    weight = 1 / audits.chance
    excess = loss(audits.probability, audits.truth) - _expected(loss, audits.probability, calibrate(audits.probability))
    mean, spread = _weighted(excess, weight)
    at_rest = float(np.var(told) * inflation(told) / len(told))
    rise, rise_audited = value + mean - base, float(np.sqrt(spread**2 + drawn + at_rest))
    # Of the rows that were drawn from the intervals hold whatever has moved, so they are theirs, even where these agree with confidence.
    last = n if own is None or own < LEAST_OWN else own
    shift, wide = _weighted(excess[-last:], weight[-last:])
    # A costly error is rare: few rows may hold none, and would seem to be sure.
    wide = max(wide, spread * math.sqrt(_worth(weight) / _worth(weight[-last:])))
    sure = float(stats.t.ppf(0.975, last - 1))

    def around(point: float, less: float, more: float) -> tuple[float, float]:
        """The interval about the audits' answer, less what is subtracted from it, with what makes its variance larger; it holds the point."""
        middle, half = value + shift - less, sure * float(np.sqrt(wide**2 + drawn + more))
        return min(middle - half, point), max(middle + half, point)

    surprise = mean / float(np.hypot(spread, error)) if spread > 0 else 0.0
    if not why and CHEAPER <= stats.t.cdf(surprise, n - 1) <= 1 - COSTLIER:
        # Two estimates of one number, weighted by what each may be off.
        share = error**2 / (spread**2 + error**2)
        both = float(np.hypot(rise_error, share * np.hypot(spread, error)))
        point = value + share * mean
        numbers = (point, *around(point, 0.0, 0.0), point - base, *around(point - base, base, at_rest))
        return Estimate(*numbers, _chance(point - base, both, n - 1), "confidence and audit", True, n, each)
    numbers = (value + mean, *around(value + mean, 0.0, 0.0), rise, *around(rise, base, at_rest))
    return Estimate(*numbers, _chance(rise, rise_audited, n - 1), "audit", False, n, float(excess.std(ddof=1)), why)


def _worth(weight: np.ndarray) -> float:
    """How many rows of one weight tell as much (Kish's effective size)."""
    return float(weight.sum() ** 2 / np.square(weight).sum())


def _weighted(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """The weighted mean of n values, and its standard error."""
    n, mean = len(values), float((weight * values).sum() / weight.sum())
    return mean, float(np.sqrt(np.square(weight * (values - mean)).sum() * n / (n - 1)) / weight.sum())


def _expected_rise(loss: Loss, held: Held, ratio: np.ndarray, probability: np.ndarray) -> float | None:
    """By how much rows of those answers are expected, from confidence alone, to cost more than held-out ones; None where there are none."""
    if not len(probability):
        return None
    at_release = _expected(loss, held.probability, calibration(held, np.ones(len(held.truth)))(held.probability))
    return float(_expected(loss, probability, calibration(held, ratio)(probability)).mean() - at_release.mean())


def _chance(rise: float, error: float, freedom: float = float("inf")) -> float:
    """How likely chance brings about such a rise where there is none."""
    return float(stats.t.sf(rise / error, freedom)) if error > 0 else float(rise <= 0)


def calibration(held: Held, ratio: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Platt's curve (1999) on the log-odds, fitted to n weighted rows; it takes probabilities and gives those that hold there."""
    x = np.column_stack([log_odds(held.probability), np.ones(len(held.truth))])
    theta = np.array([1.0, 0.0])
    for _ in range(25):
        p = 1 / (1 + np.exp(-x @ theta))
        hessian = (x * (ratio * p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(2)
        step = np.clip(np.linalg.solve(hessian, x.T @ (ratio * (p - held.truth))), -2.0, 2.0)
        theta = theta - step
        if np.abs(step).max() < 1e-9:
            break
    slope, shift = theta
    return lambda p: np.asarray(1 / (1 + np.exp(-(slope * log_odds(p) + shift))))


def relied_on(answer: Callable[[pd.DataFrame], np.ndarray], rows: pd.DataFrame, names: Sequence[str], seed: int = 0) -> list[str]:
    """The columns on which a model's answers hang: those whose shuffling moves the log-odds by a tenth or more of the largest such move.

    `answer` gives probabilities of shape (n,) for a frame of n rows. What the model does not look at says nothing of its errors, and
    would drown what does.
    """
    rng = np.random.default_rng(seed)
    told = log_odds(answer(rows))
    moves = {
        name: float(np.abs(log_odds(answer(rows.assign(**{name: rng.permutation(rows[name].to_numpy())}))) - told).mean()) for name in names
    }
    largest = max(moves.values())
    return [name for name in names if moves[name] >= LEAST_MOVE * largest]


def _expected(loss: Loss, probability: np.ndarray, calibrated: np.ndarray) -> np.ndarray:
    one, nought = (loss(probability, np.full(len(probability), value)) for value in (1.0, 0.0))
    return np.asarray(calibrated * one + (1 - calibrated) * nought)


@registered("estimate", "monitor")
def expected_harm(
    problem: Problem,
    held: Held,
    found: Domain | None,
    probability: np.ndarray,
    audited: Audited = NOTHING,
    labelled: np.ndarray = NONE.probability,
) -> Check:
    """By how much decisions cost more in a window of m rows than at release, told from confidence and from audited rows.

    `found` tells the window from the held-out rows; None where there are too few. `probability`, of shape (m,), are the model's answers.
    `labelled` are those to rows whose labels are in, of shape (k,): by how much more they were expected to cost is in the evidence, as
    `of_labelled`, for who holds it against what they do cost. It fails like `decay` does: beyond the problem's margin, and beyond chance at
    a level that spends half of the year's budget over the year's checks; or where what was bought tells so by itself, at one that spends
    the other half over as many audits as the year's budget buys. Undecided where it cannot tell: with rows unlike those held out, with a
    rise that may be chance, or where the interval leaves room for one beyond the margin.
    """
    n, limit, unit = len(probability), problem.gate.margin, f"{problem.metric} per row"
    alpha = problem.watch.false_alarms_per_check / 2
    by_audit = min(problem.watch.false_alarms_per_year / 2 * LEAST_AUDITED / max(problem.watch.audit_budget, LEAST_AUDITED), 0.05)
    told: dict[str, float | str | None] = {"limit": limit, "unit": unit}
    least = problem.watch.min_window
    if found is None or n < least:
        reason = f"{n} predictions with every feature, {len(held.truth)} rows held out at release; {least} of each are needed"
        return undecided("estimate", QUESTION, reason, n, **told)
    if np.unique(held.truth).size < 2:
        return undecided("estimate", QUESTION, f"cannot tell: the {len(held.truth)} held-out rows are of one class", n, **told)
    own = audited.own

    def loss(p: np.ndarray, y: np.ndarray) -> np.ndarray:
        return per_row(problem, p, y)

    made, level = estimate(loss, held, found.ratio, probability, found.foreign, own.after(audited.earlier), len(own)), alpha
    # What was bought is the same at every look: it is asked once. What every window has, and what was before it, is asked in every look.
    if len(audited.bought) >= LEAST_AUDITED:
        alone = estimate(loss, held, found.ratio, probability, found.foreign, audited.bought)
        if alone.by == "audit" and alone.rise > limit and alone.p_value < by_audit:
            made, level, own = alone, by_audit, audited.bought
    matters = max(made.rise, limit)
    needed = math.ceil(((stats.norm.isf(by_audit) + POWERFUL) * made.spread / matters) ** 2) if matters > 0 else LEAST_AUDITED
    evidence = {
        "p_value": made.p_value,
        "p_limit": level,
        "estimated": made.value,
        "by": made.by,
        "valid": made.valid,
        "audited": len(own),
        "audited_before": made.audited - len(own),
        "bought": len(audited.bought),
        "foreign": found.foreign,
        "audits_needed": max(LEAST_AUDITED, needed),
        "of_labelled": _expected_rise(loss, held, found.ratio, labelled),
    }
    if made.why and made.by != "audit":
        return undecided("estimate", QUESTION, f"cannot tell: {made.why}", n, evidence=evidence, **told)
    verdict: Verdict = "pass"
    if made.rise > limit:
        verdict = "fail" if made.p_value < level else "undecided"
    elif made.rise_high > limit:
        verdict = "undecided"
    contradiction = "; audited rows contradict the model's confidence, so they alone count" if made.by == "audit" else ""
    told_by = ""
    if made.by != "confidence" and made.audited > len(own):
        told_by = f" by the window's {len(own)}" if len(own) >= LEAST_OWN else " by those before it as well"
    reason = (
        f"{problem.metric} {made.value:.4f} expected from {made.by} ({_counted(made.audited, len(own))}), {made.rise:+.4f} "
        f"[{made.rise_low:+.4f}, {made.rise_high:+.4f}{told_by}] against release, p = {made.p_value:.1e}, limit {level:.1e}, "
        f"margin {limit:.4f}{contradiction}"
    )
    return Check(
        name="estimate",
        question=QUESTION,
        verdict=verdict,
        reason=reason,
        value=made.rise,
        low=made.rise_low,
        high=made.rise_high,
        limit=limit,
        n=n,
        unit=unit,
        evidence=evidence,
    )


def _counted(audited: int, own: int) -> str:
    before = f", {audited - own} of them before the window" if audited > own else ""
    return f"{audited} audited rows{before}"
