"""Which monitor sees which fault, how soon, and how often does it see what is not there? Planted streams, and what others say of them."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.peers import evidently
from flows.watched import Answer, Watched, release
from ratchet.contract import Column, Contract
from ratchet.data.batch import conform, read_table
from ratchet.errors import BatchError
from ratchet.evaluation.loss import log_odds, per_row
from ratchet.monitoring.concept_drift import DETECTORS, Stream
from ratchet.monitoring.panel import Released
from ratchet.monitoring.skew import skew
from ratchet.problem import Problem, find_problem
from ratchet.report.results import Row, measured, share
from ratchet.request import accepted, as_sent
from ratchet.settings import settings
from ratchet.simulation import population
from ratchet.simulation.catalogue import DOOR, MISLEADING, PARITY, Drift, Fault, Labelled, catalogue
from ratchet.simulation.population import Moved

BATCH, DELAY, FIRST = 2000, 2, 20_000
# Of real rows so many train, and so many there must be.
TRAINED, LEAST = 0.6, 15_000
# Amounts of real rows are whole, and none is missing: one is kept in a currency of which one is worth so many, another lacks so often.
RATE, LACKS = 32.5, 0.05
# Batches before the fault, with it, and of a clean year.
QUIET, FAULTY, YEAR = 3, 8, 52
# Clean years cost most, and Evidently two seconds a batch: it is asked in the first of each.
RUNS_WITH_PEER, YEARS_WITH_PEER = 1, 1
EVERY = 4
CLEAN, AUTOCORRELATED = "a clean year", "a clean year of autocorrelated rows"
YEARS = (CLEAN, AUTOCORRELATED)
# So much neighbours correlate in such years, in turn.
NEIGHBOURS = (0.2, 0.5, 0.8)
ACTS, RETRAINS = "the watch acts", "the watch retrains"
# Its window is tested anew for every row.
SLOW = ("kswin",)
RIVER = tuple(f"river: {name}" for name in DETECTORS if name not in SLOW)
EVIDENTLY = ("Evidently: half of the columns", "Evidently: any column")
DUMMIES = (f"alarm every {EVERY} batches", "never")
OURS = (
    DOOR, "validity", "columns", "quality", "volume", "clock", "skew", PARITY, "data_drift", "joint_drift", "estimate", "silent", "probes", "live_slices",
    "decay", "concept_drift", "feedback", "label_classes", "label_conflicts", "label_ids",
)  # fmt: skip
WATCH = (*OURS, ACTS, RETRAINS)
MONITORS = (*WATCH, *EVIDENTLY, *RIVER, *DUMMIES)


@dataclass(frozen=True)
class Case:
    """One stream: a fault by its name in one world, or a clean year; real rows come from the file `source`."""

    world: str
    fault: str
    seed: int
    source: str = ""


@dataclass(frozen=True)
class World:
    """A problem, a release of it, and batches drawn as its world is, or as it has drifted."""

    problem: Problem
    released: Released
    answer: Answer
    draw: Callable[[int, Drift, int], pd.DataFrame]
    faults: dict[str, Fault]


def cases(runs: int, years: int, source: Path | None) -> list[Case]:
    """Every fault so many times and so many clean years, in the simulated world, and in real rows where there is a file of them.

    Real rows are drawn by lot, so years of autocorrelated ones are of the simulated world.
    """
    worlds = [("population", ""), *([("credit_card", str(source.resolve()))] if source else [])]
    made = []
    for seed in range(max(runs, years)):
        for name, file in worlds:
            # A model is trained once for all that is planted into its stream.
            made += [Case(name, year, seed, file) for year in ((CLEAN,) if file else YEARS) if seed < years]
            made += [Case(name, fault, seed, file) for fault in world(name, file, 0).faults] if seed < runs else []
    return made


@lru_cache(maxsize=2)
def world(name: str, source: str, seed: int, autocorrelation: float = 0.0) -> World:
    """The simulated population, or a file's rows: the first of them train, batches are drawn from the others."""
    if name == "population":
        problem, contract = population.problem(), population.contract()
        released, answer = release(problem, contract, population.draw(FIRST, Moved(autocorrelation=autocorrelation), seed), seed)
        return World(problem, released, answer, _simulated(seed, autocorrelation), _faults(contract, released, answer, problem))
    folder = find_problem(name, settings().problems)
    problem = folder.problem.model_copy(update={"watch": population.problem().watch})
    every, contract = _kept(conform(read_table(Path(source)), folder.contract, source), _named(folder.contract))
    every = every[every[contract.target].notna()].sample(frac=1.0, random_state=seed).reset_index(drop=True)
    if contract.entity != folder.contract.entity:
        every[contract.entity] = every[contract.id]
    if len(every) < LEAST:
        raise BatchError(f"{source}: {len(every):,} labelled rows are too few; a drill needs {LEAST:,}.")
    first = min(FIRST, round(TRAINED * len(every)))
    rows, left = every.iloc[:first], every.iloc[first:].reset_index(drop=True)
    released, answer = release(problem, contract, rows.reset_index(drop=True), seed)
    return World(problem, released, answer, _replayed(left, released, answer, problem), _faults(contract, released, answer, problem))


def _named(contract: Contract) -> Contract:
    """A contract whose rows name their entity, and not by the row's id alone: rows that are drawn again are of the same one."""
    if contract.entity != contract.id:
        return contract
    return contract.model_copy(update={"columns": (*contract.columns, Column(name="drawn_from", role="entity", scale="text"))})


def _kept(rows: pd.DataFrame, contract: Contract) -> tuple[pd.DataFrame, Contract]:
    """Rows and their contract as a system might keep them whose amounts may be rounded and may lack, so that every skew can be planted.

    Of the continuous columns the one with the largest range is in another currency, and the last one lacks in one of twenty rows.
    """
    continuous = [column for column in contract.features if column.scale == "continuous"]
    large, lacks = max(continuous, key=lambda column: (column.range or (0.0, 0.0))[1]), continuous[-1]
    lacking = np.random.default_rng(0).random(len(rows)) < LACKS
    kept = rows.assign(**{large.name: rows[large.name] / RATE})
    kept[lacks.name] = kept[lacks.name].mask(lacking)
    columns = tuple(
        column.model_copy(update={"missing": 2 * LACKS}) if column.name == lacks.name else column for column in contract.columns
    )
    return kept, contract.model_copy(update={"columns": columns})


def _faults(contract: Contract, released: Released, answer: Answer, problem: Problem) -> dict[str, Fault]:
    """By name; a skew that leaves rows of this world as they are is none, as rounding where numbers are whole."""
    rows, rng = released.reference, np.random.default_rng(0)
    score = answer(rows)

    def changes(fault: Fault) -> bool:
        return not fault.send(rows, rng).equals(rows) or bool((fault.answer(score) != score).any())

    every = catalogue(contract, released.relies_on, answer, problem.threshold)
    return {fault.name: fault for fault in every if fault.kind != "skew" or changes(fault)}


def _simulated(seed: int, autocorrelation: float) -> Callable[[int, Drift, int], pd.DataFrame]:
    idle, active = (0.0, 0.3, 0.6, 1.0), (0.0, 0.1, 0.2, 0.3)

    def draw(rows: int, drift: Drift, place: int) -> pd.DataFrame:
        moved = Moved(idle[drift.benign], active[drift.harmful], drift.prior, 0.9 * drift.concept, autocorrelation)
        return population.draw(rows, moved, seed, FIRST + 1_000_000 * (1 + place))

    return draw


def _replayed(left: pd.DataFrame, released: Released, answer: Answer, problem: Problem) -> Callable[[int, Drift, int], pd.DataFrame]:
    """Real rows, each once in a batch, in other proportions where the world has drifted; the concept turns the truth of every third."""
    tilts, contract = (0.0, 0.3, 0.6, 1.0), released.contract
    p, target = answer(left), left[contract.target].to_numpy(float)
    hard = _standard(-np.abs(log_odds(p) - log_odds(problem.threshold)))
    numbers = [c.name for c in contract.features if c.is_numeric and c.scale != "binary"]
    # What goes least with how hard a row is, of what the model does not rely on.
    idle = [name for name in numbers if name not in released.relies_on] or numbers
    quiet = min(idle, key=lambda name: abs(np.corrcoef(_standard(left[name].rank().to_numpy(float)), hard)[0, 1]))
    benign = _standard(left[quiet].rank().to_numpy(float))

    def draw(rows: int, drift: Drift, place: int) -> pd.DataFrame:
        rng = np.random.default_rng([7, place])
        weight = np.exp(tilts[drift.benign] * benign + tilts[drift.harmful] * hard + drift.prior * target)
        chosen = rng.choice(len(left), rows, replace=False, p=weight / weight.sum())
        drawn = left.iloc[chosen].reset_index(drop=True)
        turned = rng.random(rows) < drift.concept / 3
        return drawn.assign(**{contract.target: drawn[contract.target].mask(turned, 1 - drawn[contract.target])})

    return draw


def _standard(values: np.ndarray) -> np.ndarray:
    return np.asarray((values - values.mean()) / values.std())


def judge(case: Case) -> dict[str, Any]:
    """By monitor, in which batches it rang, as plain data; of a fault, the harm that it does and in which batch it began."""
    clean = case.fault in YEARS
    autocorrelation = NEIGHBOURS[case.seed % len(NEIGHBOURS)] if case.fault == AUTOCORRELATED else 0.0
    at = world(case.world, case.source, case.seed, autocorrelation)
    stream = _Planted(at, None if clean else at.faults[case.fault], case.seed)
    peer = case.seed < (YEARS_WITH_PEER if clean else RUNS_WITH_PEER)
    rang: dict[str, list[int]] = {name: [] for name in MONITORS if peer or name not in EVIDENTLY}
    for place in range(YEAR if clean else QUIET + FAULTY):
        alarms = stream.step(place, look=clean or place >= QUIET - 1, peer=peer)
        for name in alarms:
            rang[name].append(place)
    return {**asdict(case), "batches": YEAR if clean else QUIET + FAULTY, "harm": stream.harm(), "rang": rang}


class _Planted:
    """A watched stream into which a fault is planted from some batch on, with everybody who looks at it."""

    def __init__(self, at: World, fault: Fault | None, seed: int) -> None:
        self._at, self._fault, self._seed = at, fault, seed
        self._watched = Watched(at.problem, at.released, at.answer, DELAY, BATCH)
        self._streams = {name: Stream(name.removeprefix("river: ")) for name in RIVER}
        self._fed = 0
        self._before: list[float] = []
        self._since: list[float] = []

    def step(self, place: int, look: bool, peer: bool) -> list[str]:
        """The next batch; who rang."""
        at, age = self._at, place - QUIET
        fault = self._fault if self._fault is not None and age >= 0 else None
        contract = at.released.contract
        # The draw is the same for every fault of a seed, what is planted is not.
        rng = np.random.default_rng([self._seed, place, zlib.crc32(fault.name.encode()) if fault else 0])
        rows = at.draw(BATCH, fault.drift(age) if fault else Drift(), place)
        rows = fault.happen(rows, rng) if fault else rows
        sent = fault.send(rows, rng) if fault else rows
        taken = accepted(as_sent(sent, contract), contract)
        alarms = {DOOR} if not taken.all() else set()
        logged, known = (frame[taken].reset_index(drop=True) for frame in (sent, rows))
        probability = at.answer(logged)
        probability = fault.answer(probability) if fault else probability
        truth = known[contract.target].to_numpy(float)
        decided = (probability >= at.problem.threshold).astype(float)
        told = Labelled(known, truth, decided)
        outcome = fault.label(told, rng) if fault else truth
        before = fault.before(told, rng) if fault and fault.before else outcome
        astray, stands_still = (fault.astray, fault.clock_stands) if fault else (False, False)
        batch = logged.assign(**{contract.target: truth})
        self._watched.arrive(batch, probability, outcome, before, astray=astray, stands_still=stands_still)
        if len(truth):
            (self._since if fault else self._before).append(float(per_row(at.problem, probability, truth).mean()))
        alarms |= self._by_labels()
        if not look:
            return []
        decision = self._watched.look()
        failed = {check["name"].split(":")[0] for check in decision.evidence["checks"] if check["verdict"] == "fail"}
        alarms |= failed & set(OURS)
        window = self._watched.batches[-1]
        if len(known) and skew(at.problem, contract, known, window).verdict == "fail":
            alarms.add(PARITY)
        if decision.action not in ("skip", "wait"):
            alarms.add(ACTS)
        if decision.action == "retrain":
            alarms.add(RETRAINS)
        if peer:
            any_column, half = evidently(contract, at.released.reference, window)
            alarms |= {name for name, rings in zip(EVIDENTLY, (half, any_column), strict=True) if rings}
        if (place + self._seed) % EVERY == EVERY - 1:
            alarms.add(DUMMIES[0])
        return sorted(alarms)

    def _by_labels(self) -> set[str]:
        """river's detectors, each fed with the labels that are due; a change in either direction is an alarm."""
        due = self._watched.batches[: len(self._watched.batches) - DELAY]
        rang = set()
        for batch in due[self._fed :]:
            known = batch[batch["outcome"].notna()]
            wrong = (known["label"] != known["outcome"]).to_numpy(float)
            for name, stream in self._streams.items():
                before = len(stream.changes)
                stream.feed(wrong)
                if len(stream.changes) > before:
                    rang.add(name)
        self._fed = len(due)
        return rang

    def harm(self) -> float | None:
        """By how much a decision costs more since the fault than before, by the truth; None in a clean stream, 0 where nothing was decided."""
        if self._fault is None:
            return None
        return float(np.mean(self._since) - np.mean(self._before)) if self._since else 0.0


def board(judged: Sequence[dict[str, Any]], about: dict[str, dict[str, Fault]]) -> list[dict[str, Any]]:
    """By world: every fault with its harm and, by monitor, the share of runs in which it was seen and the median delay in rows; clean years.

    A monitor has seen a fault where it rings in a batch that has it. The delay counts the rows from the fault's begin to the end of that
    batch.
    """
    worlds = []
    for name in dict.fromkeys(told["world"] for told in judged):
        mine = [told for told in judged if told["world"] == name]
        by_fault: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for told in mine:
            by_fault[told["fault"]].append(told)
        years = {year: by_fault.pop(year, []) for year in YEARS}
        worlds.append(
            {
                "name": name,
                "title": "The simulated world"
                if name == "population"
                else f"Real rows: {name} (one amount in another currency, one with gaps)",
                "faults": [_of_fault(about[name][fault], runs) for fault, runs in by_fault.items()],
                "clean": {monitor: _of_years(years[CLEAN], monitor) for monitor in MONITORS},
                "autocorrelated": {monitor: _of_years(years[AUTOCORRELATED], monitor) for monitor in MONITORS},
            }
        )
    return worlds


def _of_fault(fault: Fault, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    cells = {}
    for monitor in MONITORS:
        asked = [told["rang"][monitor] for told in runs if monitor in told["rang"]]
        delays = [BATCH * (min(after) - QUIET + 1) for rang in asked if (after := [place for place in rang if place >= QUIET])]
        cells[monitor] = {"n": len(asked), "seen": len(delays), "delay": float(np.median(delays)) if delays else None}
    saw = [{name for name in fault.seen_by if any(place >= QUIET for place in told["rang"][name])} for told in runs]
    return {
        "name": fault.name,
        "kind": fault.kind,
        "about": fault.about,
        "harmless": fault.harmless,
        "seen_by": list(fault.seen_by),
        "harm": [told["harm"] for told in runs],
        "meant": sum(bool(names) for names in saw),
        "scheduled": sum(bool(names - {PARITY}) for names in saw),
        "n": len(runs),
        "cells": cells,
    }


def _of_years(years: Sequence[dict[str, Any]], monitor: str) -> dict[str, int]:
    asked = [told["rang"][monitor] for told in years if monitor in told["rang"]]
    return {"n": len(asked), "with_alarm": sum(bool(rang) for rang in asked), "alarms": sum(map(len, asked)), "checks": YEAR * len(asked)}


def measure(worlds: Iterable[dict[str, Any]]) -> tuple[list[Row], list[Row]]:
    """The scoreboard as rows: what is in sum, and every fault by every monitor."""
    rows: list[Row] = []
    cells: list[Row] = []
    for at in worlds:
        name, faults = at["name"], at["faults"]
        runs = sum(fault["n"] for fault in faults)
        rows.append(share(f"{name}: faults seen by a monitor that is meant to", sum(fault["meant"] for fault in faults), runs))
        rows.append(share(f"{name}: the same without {PARITY}", sum(fault["scheduled"] for fault in faults), runs))
        if harmless := [fault for fault in faults if fault["harmless"]]:
            spared = sum(fault["n"] - fault["cells"][RETRAINS]["seen"] for fault in harmless)
            rows.append(share(f"{name}: benign shifts that do not retrain", spared, sum(fault["n"] for fault in harmless)))
        if misleading := [fault for fault in faults if fault["kind"] in MISLEADING]:
            learnt = sum(fault["cells"][RETRAINS]["seen"] for fault in misleading)
            rows.append(share(f"{name}: misleading faults that retrain", learnt, sum(fault["n"] for fault in misleading)))
        for monitor in MONITORS:
            asked = sum(fault["cells"][monitor]["n"] for fault in faults)
            if asked:
                rows.append(share(f"{name}: faults seen, {monitor}", sum(fault["cells"][monitor]["seen"] for fault in faults), asked))
            for kind, years in (("clean", "clean years"), ("autocorrelated", "clean years of autocorrelated rows")):
                if (clean := at[kind][monitor])["n"]:
                    rows.append(share(f"{name}: {years} with an alarm, {monitor}", clean["with_alarm"], clean["n"]))
                    rows.append(share(f"{name}: checks of {years} that ring, {monitor}", clean["alarms"], clean["checks"]))
        for fault in faults:
            rows.append(share(f"{name}, {fault['name']}: seen by {' or '.join(fault['seen_by'])}", fault["meant"], fault["n"]))
            rows.append(measured(f"{name}, {fault['name']}: harm", fault["harm"], "of the metric, a row"))
            for monitor, cell in fault["cells"].items():
                if cell["n"]:
                    cells.append(share(f"{name}, {fault['name']}, {monitor}: seen", cell["seen"], cell["n"]))
                if cell["delay"] is not None:
                    unit = f"rows, {cell['delay'] / (DELAY * BATCH):g} label delays"
                    cells.append(Row(f"{name}, {fault['name']}, {monitor}: delay", cell["delay"], None, None, cell["seen"], unit))
    return rows, cells


def faults(judged: Sequence[dict[str, Any]]) -> dict[str, dict[str, Fault]]:
    """By world, the faults that there are, by name."""
    return {name: world(name, source, 0).faults for name, source in dict.fromkeys((told["world"], told["source"]) for told in judged)}
