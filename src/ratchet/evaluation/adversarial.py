"""Can somebody who may change a little of his own record turn a refusal into an approval?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ratchet.check import Check, answered, not_applicable, undecided
from ratchet.contract import Column, Contract
from ratchet.data.rules import keeps
from ratchet.evaluation.loss import interval
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Do as many bad cases stay refused under attack as with the champion?"
QUERIES = 500
STARTS = 40
FEWEST = 20
Probability = Callable[[pd.DataFrame], np.ndarray]


@dataclass(frozen=True)
class Attack:
    """What an attacker could do to each of n rows, all of shape (n,): whether the decision was refusal and right to
    begin with, whether it stayed so within the budget of changes, and how many questions he asked."""

    right: np.ndarray
    withstood: np.ndarray
    queries: np.ndarray
    found: list[dict[str, Any]]

    @property
    def robust_accuracy(self) -> float:
        """Share of rows that are decided rightly whatever the attacker tried."""
        return float(self.withstood.mean())


class _Spent(Exception):
    """The attacker has asked as often as he may, or has what he wanted."""


def attack(
    problem: Problem,
    contract: Contract,
    frame: pd.DataFrame,
    probability: Probability,
    seed: int,
    queries: int = QUERIES,
) -> Attack:
    """HopSkipJump (Chen, Jordan & Wainwright, 2020) against each of n rows whose truth is label 1.

    Under the contract: only columns that `attacker_can_change`, within their range and their known values; whole numbers
    stay whole, missing values stay missing, and a record that breaks a cross-column rule is refused. The attack succeeds
    where a record is approved in which each number moved by at most `attack_budget` of the spread (1 to 99%) of these
    rows, each ordinal value by one step, and one category was exchanged. The attacker sees decisions, no
    probabilities, and may ask `queries` times a row.
    """
    rights, withstood, asked, found = [], [], [], []
    moves = [_Move(column, frame[column.name]) for column in contract.features if column.attacker_can_change]
    with _quiet():
        for place in range(len(frame)):
            row = frame.iloc[[place]].reset_index(drop=True)
            target = _Target(problem, contract, moves, row, probability, queries)
            if target.refused_now:
                target.search(seed + place)
            rights.append(target.refused_now)
            withstood.append(target.refused_now and target.won is None)
            asked.append(target.asked)
            if target.won is not None:
                found.append({"row": place, "changed": target.won})
    return Attack(np.array(rights, dtype=bool), np.array(withstood, dtype=bool), np.array(asked), found)


class _Move:
    """A column that may be changed, as places in [0, 1] and back."""

    def __init__(self, column: Column, values: pd.Series) -> None:
        self.column = column
        self.values = list(column.values) if column.values is not None else [0, 1] if column.scale == "binary" else []
        if not self.values:
            assert column.range is not None
            told = values.dropna().to_numpy(float)
            low, high = np.quantile(told, [0.01, 0.99]) if told.size else column.range
            self.low = max(float(low), column.range[0])
            self.high = max(min(float(high), column.range[1]), self.low + 1e-9)

    def place(self, value: Any) -> float:
        """Where a value stands; beyond the middle 98% it stands at the edge."""
        if self.values:
            return (self.values.index(value) if value in self.values else 0) / max(len(self.values) - 1, 1)
        return float(np.clip((float(value) - self.low) / (self.high - self.low), 0, 1))

    def at(self, places: np.ndarray, now: Any) -> np.ndarray:
        """The values at m places, shape (m,); the present value where the place is the present one."""
        here = self.place(now)
        if self.values:
            index = np.clip(np.round(places * (len(self.values) - 1)), 0, len(self.values) - 1).astype(int)
            return np.asarray(np.array(self.values, dtype=float if self.column.scale == "binary" else object)[index])
        moved = self.low + places * (self.high - self.low)
        if self.column.scale == "discrete":
            moved = np.round(moved)
        return np.asarray(np.where(np.abs(places - here) < 1e-6, float(now), moved.astype(float)))

    def distance(self, values: np.ndarray, now: Any, budget: float) -> np.ndarray:
        """How far m values lie from the present one, in budgets; an exchanged category is told by `exchanged`."""
        if not self.values:
            return np.asarray(np.abs(values.astype(float) - float(now)) / (budget * (self.high - self.low)))
        if self.column.scale == "ordinal":
            here = self.values.index(now) if now in self.values else 0
            return np.asarray(np.abs(np.array([self.values.index(value) for value in values], dtype=float) - here))
        return np.zeros(len(values))

    @property
    def is_category(self) -> bool:
        """Whether its values have no order: then it is exchanged, not moved."""
        return bool(self.values) and self.column.scale != "ordinal"

    def reach(self, budget: float) -> float:
        """How far the place may move: the budget for a number, one step for a rank; just inside it."""
        return 1 / max(len(self.values) - 1, 1) if self.values else budget * (1 - 1e-6)

    def exchanged(self, values: np.ndarray, now: Any) -> np.ndarray:
        """Whether each of m values is another category."""
        return np.asarray(values != now) if self.is_category else np.zeros(len(values), dtype=bool)


class _Target:
    """One row as the attacker sees it: a point in [0, 1]^k of what he may change, and an answer to each try."""

    def __init__(
        self, problem: Problem, contract: Contract, moves: list[_Move], row: pd.DataFrame, probability: Probability, queries: int
    ) -> None:
        self._problem, self._contract, self._row, self._probability = problem, contract, row, probability
        # What is missing stays missing: he has no value to start from.
        self._moves = [move for move in moves if pd.notna(row[move.column.name].iloc[0])]
        self._now = [row[move.column.name].iloc[0] for move in self._moves]
        self._queries = queries
        self.asked = 0
        self.won: dict[str, Any] | None = None
        self.refused_now = bool(probability(row)[0] >= problem.threshold)

    def search(self, seed: int) -> None:
        """Try the corners of what he may change, then let HopSkipJump come closer, then spend what is left on more corners."""
        from art.attacks.evasion import HopSkipJump
        from art.estimators.classification import BlackBoxClassifier

        k = len(self._moves)
        if not k:
            return
        start = np.array([[move.place(now) for move, now in zip(self._moves, self._now, strict=True)]], dtype=np.float32)
        rng = np.random.default_rng(seed)
        before = np.random.get_state()
        # The attack draws from the global generator.
        np.random.seed(seed)
        try:
            tries = np.vstack([self._corners(start, STARTS // 2, rng), rng.random((STARTS // 2, k))]).astype(np.float32)
            approved = np.flatnonzero(self._ask(tries) == 0)
            if approved.size:
                nearest = approved[np.argmin(np.abs(tries[approved] - start).max(axis=1))]
                classifier = BlackBoxClassifier(self._answer, (k,), 2, clip_values=(0.0, 1.0))
                hop = HopSkipJump(classifier, norm=2, max_iter=20, max_eval=80, init_eval=20, init_size=1, verbose=False)
                with suppress(_Spent):
                    hop.generate(start, x_adv_init=tries[[nearest]])
            if self.won is None:
                self._ask(self._corners(start, self._queries - self.asked, rng))
        except _Spent:
            pass
        finally:
            np.random.set_state(before)

    def _corners(self, start: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Places with each number and rank as far away as the budget allows, up or down, and one category exchanged."""
        points = np.repeat(start.astype(float), max(count, 0), axis=0)
        free = [place for place, move in enumerate(self._moves) if move.is_category]
        for place, move in enumerate(self._moves):
            if not move.is_category:
                points[:, place] += rng.choice([-1.0, 1.0], len(points)) * move.reach(self._problem.gate.attack_budget)
        if free:
            # Half of the tries lie about one of the categories.
            lies = np.flatnonzero(rng.random(len(points)) < 0.5)
            points[lies, rng.choice(free, len(lies))] = rng.random(len(lies))
        return np.asarray(np.clip(points, 0.0, 1.0))

    def _answer(self, points: np.ndarray) -> np.ndarray:
        return np.asarray(np.eye(2, dtype=np.float32)[self._ask(points)])

    def _ask(self, points: np.ndarray) -> np.ndarray:
        """The decision for each of m points, shape (m,): 1 refused, 0 approved. _Spent where there is nothing more to ask."""
        if not len(points) or self.asked + len(points) > self._queries:
            raise _Spent
        self.asked += len(points)
        columns: dict[str, Any] = {name: np.repeat(self._row[name].to_numpy(), len(points)) for name in self._row.columns}
        far, lies = np.zeros(len(points)), np.zeros(len(points))
        for place, (move, now) in enumerate(zip(self._moves, self._now, strict=True)):
            values = move.at(points[:, place], now)
            columns[move.column.name] = values
            far = np.maximum(far, move.distance(values, now, self._problem.gate.attack_budget))
            lies += move.exchanged(values, now)
        records = pd.DataFrame(columns)
        approved = self._probability(records) < self._problem.threshold
        for rule in self._contract.rules:
            approved &= keeps(records, rule, self._contract)
        near = np.flatnonzero(approved & (far <= 1 + 1e-9) & (lies <= 1))
        if near.size:
            best = records.iloc[int(near[0])]
            told = ((move.column.name, now) for move, now in zip(self._moves, self._now, strict=True))
            self.won = {name: [_plain(now), _plain(best[name])] for name, now in told if best[name] != now}
            raise _Spent
        return np.asarray(np.where(approved, 0, 1))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


@registered("adversarial", "release")
def adversarial(problem: Problem, candidate: Attack | None, champion: Attack | None, n: int) -> Check:
    """Robust accuracy of the candidate less the champion's on the same attacked rows, within `attack_margin`.

    `n` counts the rows there were to attack. Without a champion the number is told, and nothing is judged.
    """
    limit, unit = -problem.gate.attack_margin, "difference of robust accuracy"
    if candidate is None:
        return not_applicable("adversarial", QUESTION, "the contract has no feature that an attacker could change")
    told = (
        f"{candidate.robust_accuracy:.0%} of {len(candidate.right)} bad cases stay refused (unattacked {candidate.right.mean():.0%})"
        if n
        else ""
    )
    if n < FEWEST:
        return undecided("adversarial", QUESTION, f"{n} bad cases to attack; {FEWEST} are needed", n, limit=limit)
    evidence = {
        "robust_accuracy": candidate.robust_accuracy,
        "accuracy": float(candidate.right.mean()),
        "queries": float(candidate.queries[candidate.right].mean()) if candidate.right.any() else 0.0,
        "examples": candidate.found[:5],
    }
    if champion is None:
        return not_applicable("adversarial", QUESTION, f"the first generation has no champion; {told}", n=n, limit=limit, evidence=evidence)
    difference = candidate.withstood.astype(float) - champion.withstood.astype(float)
    mean, low, high = interval(difference)
    # As good as never different is not certain: three rows more could be (the rule of three).
    low, high = min(low, mean - 3 / n), max(high, mean + 3 / n)
    evidence |= {"champion": champion.robust_accuracy}
    reason = f"{told}; the champion keeps {champion.robust_accuracy:.0%}: {mean:+.1%} [{low:+.1%}, {high:+.1%}], at least {limit:+.0%} is asked for"
    return answered("adversarial", QUESTION, (mean, low, high), limit, "at_least", reason, n, unit, evidence=evidence)


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("art")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
