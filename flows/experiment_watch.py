"""How often does the watch ring for nothing, and does it ring in time? Years of weekly checks, shifts and changes of known harm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from flows.peers import evidently
from flows.watched import Answer, Scope, Watched, release
from ratchet.decision import Decision
from ratchet.monitoring.panel import Released
from ratchet.report.results import Row, measured, share
from ratchet.retraining import drifts
from ratchet.simulation.population import WEEK, Moved, contract, draw, problem

FIRST, BATCH = 20_000, 2000
WEEKS, DELAY = 52, 2
LARGE = 1_000_000
PROBLEM, CONTRACT = problem(), contract()
# The more often it looks, the less may each look ring for nothing: as the problems here come, a look every five minutes.
OFTEN = 300.0
SCHEDULES = {WEEK: PROBLEM, OFTEN: problem(PROBLEM.watch.model_copy(update={"every_seconds": OFTEN}))}
# What moves, by how much: the standard deviations of population.Moved.
HARMFUL = {"harmful, small": Moved(active=0.1), "harmful, medium": Moved(active=0.2), "harmful, large": Moved(active=0.3)}
BENIGN = {"benign, small": Moved(idle=0.3), "benign, medium": Moved(idle=0.6), "benign, large": Moved(idle=1.0)}
CONCEPT = {"small": Moved(concept=0.7), "medium": Moved(concept=0.8), "large": Moved(concept=0.9)}
# Autocorrelated years take turns: neighbours correlate by so much; both kinds are of other rows.
YEARS = {"independent": (Moved(),), "autocorrelated": tuple(Moved(autocorrelation=correlation) for correlation in (0.2, 0.5, 0.8))}
YEARS_APART = 10_000
# An alarm rings far out: how often is a test's p-value below these, where nothing has moved?
TAILS = (1e-3, 1e-4, 1e-5)
HARM, NO_HARM = 0.03, 0.005
UNIT = "of decisions, more of them wrong"
# What the watch does about harm, and the checks that see it on labels.
RAISED, HARMED = ("retrain", "buy_labels", "ask"), ("decay", "concept_drift")
LEFT_ALONE = ("skip", "wait")
# Evidently takes two seconds for a batch of 2,000 rows: it is asked in some of the runs.
PEER_EVERY = 5
YEARS_WITH_PEER = 2
EVIDENTLY = {"evidently": "Evidently's alarm, half of the columns", "evidently_any": "Evidently, any column"}
# Those who do not look, by the number of the batch.
DUMMIES: dict[str, Callable[[int], bool]] = {"alarm every 10 batches": lambda batch: batch % 10 == 0, "never": lambda batch: False}


@dataclass(frozen=True)
class Case:
    """One run, looked at every so many seconds: a year, a shift without labels, or a change of the concept with them."""

    kind: str
    what: str
    rows: int
    seed: int
    every: float = WEEK


def cases(runs: int, years: int, large: int) -> list[Case]:
    """Of each shift `runs`, of them `large` with a million rows a batch; `years` clean ones, and as many whose rows are autocorrelated."""
    made = [Case("year", what, BATCH, YEARS_APART * kind + seed) for kind, what in enumerate(YEARS) for seed in range(years)]
    made += [Case("shift", what, BATCH, seed) for what in (*HARMFUL, *BENIGN) for seed in range(runs)]
    made += [Case("shift", what, LARGE, seed) for what in BENIGN for seed in range(large)]
    made += [Case("shift", what, BATCH, seed, OFTEN) for what in HARMFUL for seed in range(runs)]
    # Twice as many, for a few that are late leave the bar undecided.
    made += [Case("concept", what, BATCH, seed, every) for every in SCHEDULES for what in CONCEPT for seed in range(2 * runs)]
    # The long ones first, so that no process waits for the last of them; those of one release side by side, so that it is made once.
    return sorted(made, key=lambda case: (case.kind != "year", -case.rows, case.seed))


@lru_cache(maxsize=2)
def standing(seed: int, autocorrelation: float) -> tuple[Released, Answer]:
    """Trees trained on a first batch, as their release would tell of it, and what they answer."""
    return release(PROBLEM, CONTRACT, draw(FIRST, Moved(autocorrelation=autocorrelation), seed), seed)


class Run:
    """Batches of one population, watched."""

    def __init__(self, seed: int, autocorrelation: float = 0.0, delay: int = DELAY, every: float = WEEK) -> None:
        self._seed = seed
        self.released, answer = standing(seed, autocorrelation)
        self._watched = Watched(SCHEDULES[every], self.released, answer, delay, BATCH)

    def arrive(self, rows: int, moved: Moved) -> pd.DataFrame:
        """The next batch with its answers."""
        first = FIRST + LARGE * (1 + len(self._watched.batches))
        frame = draw(rows, moved, self._seed, first)
        return self._watched.arrive(frame, self._watched.answer(frame))

    def decide(self, labels: bool = True, scope: Scope = "rows") -> Decision:
        """What the watch decides on the newest batch."""
        return self._watched.look(scope, labels)


def judge(case: Case) -> dict[str, Any]:
    """What came of a case, as plain data."""
    return {**asdict(case), **{"year": _year, "shift": _shift, "concept": _concept}[case.kind](case)}


def _year(case: Case) -> dict[str, Any]:
    """A clean year: whether any week retrained, raised harm that was not there, or saw a shift that was not."""
    moved = YEARS[case.what][case.seed % len(YEARS[case.what])]
    watched = Run(case.seed, moved.autocorrelation)
    told: dict[str, Any] = {"retrained": 0, "raised": 0, "columns": 0, "joint": 0} | dict.fromkeys(DUMMIES, 0)
    peers: list[tuple[bool, bool]] = []
    p_values: dict[str, list[float]] = {"columns": [], "decay": []}
    for week in range(1, WEEKS + 1):
        window = watched.arrive(case.rows, moved)
        decision = watched.decide(scope="harm")
        failed = {check["name"].split(":")[0] for check in decision.evidence["checks"] if check["verdict"] == "fail"}
        for check in decision.evidence["checks"]:
            if check["name"].startswith("data_drift:"):
                p_values["columns"].append(check["value"])
            elif check["name"] == "decay" and "p_value" in check["evidence"]:
                p_values["decay"].append(check["evidence"]["p_value"])
        told["retrained"] += decision.action == "retrain"
        told["raised"] += decision.action in RAISED
        told["columns"] += "data_drift" in failed
        told["joint"] += "joint_drift" in failed
        for name, rings in DUMMIES.items():
            told[name] += rings(week)
        if case.seed % YEARS_APART < YEARS_WITH_PEER:
            peers.append(evidently(CONTRACT, watched.released.reference, window))
    tails = {of: {"tests": len(values), "below": [sum(p < tail for p in values) for tail in TAILS]} for of, values in p_values.items()}
    return told | {"tails": tails} | told_by_peers(peers)


def _shift(case: Case) -> dict[str, Any]:
    """A shift of the population, no label: in which of its batches harm was raised, and what harm it really does."""
    moved = (HARMFUL | BENIGN)[case.what]
    watched = Run(case.seed, every=case.every)
    batches = 2 if case.rows == BATCH else 1
    decisions, peers, harms = list[Decision](), list[tuple[bool, bool]](), list[float]()
    for _ in range(batches):
        window = watched.arrive(case.rows, moved)
        decisions.append(watched.decide(labels=False))
        harms.append(expected_wrong(window))
        if case.seed % PEER_EVERY == 0 and case.rows == BATCH and case.every == WEEK:
            peers.append(evidently(CONTRACT, watched.released.reference, window))
    return {
        "harm": float(np.mean(harms)) - usual(case.seed),
        "raised": any(map(raises, decisions)),
        "left": all(decision.action in LEFT_ALONE and not raises(decision) for decision in decisions),
        "seen": any(map(drifted, decisions)),
        **{name: any(map(rings, range(1, batches + 1))) for name, rings in DUMMIES.items()},
        **told_by_peers(peers),
    }


def _concept(case: Case) -> dict[str, Any]:
    """Five clean batches, then a change of the concept, labels at once: after which of its batches harm was raised."""
    watched = Run(case.seed, delay=0, every=case.every)
    for _ in range(5):
        before = watched.arrive(case.rows, Moved())
    early = _harmed(watched.decide(scope="harm"))
    harms, found = [], None
    for number in range(1, 4):
        harms.append(expected_wrong(watched.arrive(case.rows, CONCEPT[case.what])) - expected_wrong(before))
        if found is None and _harmed(watched.decide(scope="harm")):
            found = number
    return {"harm": float(np.mean(harms)), "raised": found is not None and not early, "after": found, "early": early}


@lru_cache(maxsize=2)
def usual(seed: int) -> float:
    """The share of decisions expected to be wrong where nothing has moved."""
    return expected_wrong(Run(seed).arrive(50_000, Moved()))


def told_by_peers(told: Sequence[tuple[bool, bool]]) -> dict[str, int]:
    """In how many batches Evidently rang, where it was asked."""
    return {"evidently_any": sum(any_ for any_, _ in told), "evidently": sum(most for _, most in told)} if told else {}


def raises(decision: Decision) -> bool:
    """Whether harm is told, be it that labels which would confirm it were asked for already."""
    named = {check["name"] for check in decision.evidence["checks"] if check["verdict"] == "fail"}
    return decision.action in RAISED or bool(named & {"estimate", *HARMED})


def _harmed(decision: Decision) -> bool:
    return any(check["verdict"] == "fail" and check["name"] in HARMED for check in decision.evidence["checks"])


def drifted(decision: Decision) -> bool:
    """Whether a shift is told, be there harm or not."""
    return any(check["verdict"] == "fail" and drifts(check["name"]) for check in decision.evidence["checks"])


def expected_wrong(window: pd.DataFrame) -> float:
    """The share of decisions that the true P(y | x) expects to be wrong."""
    p = window["p"].to_numpy(float)
    return float(np.where(window["probability"] >= PROBLEM.threshold, 1 - p, p).mean())


def measure(judged: Sequence[dict[str, Any]]) -> list[Row]:
    """Every promise of the watch, and what others say of the same rows."""
    years = [told for told in judged if told["kind"] == "year"]
    rows = [share("clean years, of both kinds: a false retraining", sum(told["retrained"] > 0 for told in years), len(years))]
    for what in YEARS:
        mine = [told for told in years if told["what"] == what]
        for name, key in (
            ("a false retraining", "retrained"),
            ("labels bought, a person asked or a false retraining, by drift and harm alone", "raised"),
            ("a column's false alarm", "columns"),
            ("a false alarm of all columns together", "joint"),
        ):
            rows.append(share(f"clean years, {what}: {name}", sum(told[key] > 0 for told in mine), len(mine)))
        for of, name in (("columns", "tests of a column"), ("decay", "tests of decay")):
            for place, tail in enumerate(TAILS):
                below = sum(told["tails"][of]["below"][place] for told in mine)
                rows.append(
                    share(f"clean years, {what}: {name} with p below {tail:g}", below, sum(told["tails"][of]["tests"] for told in mine))
                )
        rows += others(f"clean years, {what}", mine)
    rows += _shifts(judged)
    rows += _concepts(judged)
    return rows


def others(of: str, judged: Sequence[dict[str, Any]]) -> list[Row]:
    """In how many runs those beside us rang, of those in which they were asked."""
    rows = []
    for key, name in (*EVIDENTLY.items(), *zip(DUMMIES, DUMMIES, strict=True)):
        if asked := [told for told in judged if key in told]:
            rows.append(share(f"{of}: {name}", sum(told[key] > 0 for told in asked), len(asked)))
    return rows


def _shifts(judged: Sequence[dict[str, Any]]) -> list[Row]:
    """Harmful and benign are what the truth says: three points of accuracy and more, or less than half a point."""
    shifted = [told for told in judged if told["kind"] == "shift" and told["every"] == WEEK]
    harmful = [told for told in shifted if told["harm"] >= HARM]
    rows = [share("harmful shifts: raised within 2 batches, no label", sum(told["raised"] for told in harmful), len(harmful))]
    for what in HARMFUL:
        mine = [told for told in harmful if told["what"] == what]
        rows.append(share(f"{what}: raised within 2 batches, no label", sum(told["raised"] for told in mine), len(mine)))
    often = [told for told in judged if told["kind"] == "shift" and told["every"] == OFTEN and told["harm"] >= HARM]
    name = "harmful shifts, looked at every 5 minutes: raised within 2 batches, no label"
    rows.append(share(name, sum(told["raised"] for told in often), len(often)))
    benign = [told for told in shifted if abs(told["harm"]) < NO_HARM]
    for size in (BATCH, LARGE):
        mine = [told for told in benign if told["rows"] == size]
        rows.append(share(f"benign shifts, {size:,} rows a batch: left alone", sum(told["left"] for told in mine), len(mine)))
        rows.append(share(f"benign shifts, {size:,} rows a batch: seen as a shift", sum(told["seen"] for told in mine), len(mine)))
    for kind, of in (("harmful", harmful), ("benign", benign)):
        rows += others(f"{kind} shifts, {BATCH:,} rows a batch", [told for told in of if told["rows"] == BATCH])
    return rows


def _concepts(judged: Sequence[dict[str, Any]]) -> list[Row]:
    """Harmful is what turns three decisions in a hundred and more; each size by itself too, since the smallest are hardest to tell."""
    rows = []
    for every, name in ((WEEK, "harmful changes of the concept"), (OFTEN, "harmful changes of the concept, looked at every 5 minutes")):
        turned = [told for told in judged if told["kind"] == "concept" and told["every"] == every]
        harmful = [told for told in turned if told["harm"] >= HARM]
        rows.append(share(f"{name}: raised within 3 batches of labels", sum(told["raised"] for told in harmful), len(harmful)))
        for what in CONCEPT:
            mine = [told for told in harmful if told["what"] == what]
            rows.append(share(f"{name}, {what}: raised within 3 batches of labels", sum(told["raised"] for told in mine), len(mine)))
            harms = [told["harm"] for told in turned if told["what"] == what]
            rows.append(measured(f"{name}, {what}: what they really do, less harmful ones too", harms, UNIT))
        prompt = sum(told["after"] == 1 and not told["early"] for told in harmful)
        rows.append(share(f"{name}: raised within 1 batch of labels", prompt, len(harmful)))
        rows.append(share(f"{name}: raised before they came", sum(told["early"] for told in harmful), len(harmful)))
    return rows
