"""How far is the estimate of a window without labels off, and does it know when it is? Beside what others would say of the same windows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from flows.standing import first_rows
from models.train import train
from ratchet.contract import Contract
from ratchet.data.encoding import Encoder
from ratchet.data.splits import split
from ratchet.evaluation.loss import per_row
from ratchet.monitoring.estimate import NONE, Audits, Held, calibration, estimate, relied_on
from ratchet.monitoring.panel import Released, told_apart
from ratchet.problem import Costs, Folder, Problem, find_problem
from ratchet.report.results import Row, count, measured, share
from ratchet.scoring import Scorer
from ratchet.settings import parameters, settings
from ratchet.simulation import population
from ratchet.simulation.population import Moved

FIRST, WINDOW, LONG, AUDITED = 20_000, 2000, 10_000, 0.02
# So many windows of one stream, in a row; audits of one still count in the next.
WINDOWS = {WINDOW: 10, LONG: 4}
TEN_POINTS = 0.10
# By world: what moves, by name. Of loan applications, the knobs of their world; of the population, its own.
STREAMS: dict[str, dict[str, dict[str, float]]] = {
    "loans": {
        "as it was": {},
        "covariate, small": {"gig_wave": 0.4},
        "covariate, medium": {"gig_wave": 0.7},
        "covariate, large": {"gig_wave": 1.0},
        "concept, small": {"recession": 1.0},
        "concept, large": {"recession": 2.5},
        "both": {"gig_wave": 0.8, "recession": 1.3},
        "turning, small": {"recession": 1.0},
        "turning, large": {"recession": 2.5},
    },
    "population": {
        "as it was": {},
        "covariate, benign": {"idle": 0.6},
        "covariate, small": {"active": 0.1},
        "covariate, medium": {"active": 0.2},
        "covariate, easier": {"active": -0.2},
        "concept, small": {"concept": 0.7},
        "prior": {"prior": 1.0},
        "concept, large": {"concept": 1.0, "prior": 0.9},
        "turning, small": {"concept": 0.7},
        "turning, large": {"concept": 1.0, "prior": 0.9},
    },
}
# The same loans at what their errors cost: one kind four times the other, and rarer.
COSTLY: dict[str, dict[str, dict[str, float]]] = {
    "loans at their own costs": {
        name: STREAMS["loans"][name] for name in ("as it was", "covariate, large", "concept, large", "turning, large")
    }
}
KNOWN = STREAMS | COSTLY
# Of these the first half of the windows is as it was: audits of before are of another concept.
TURNING = "turning"
PEERS = ("CBPE", "CBPE, calibrated", "ATC", "unchanged")


@dataclass(frozen=True)
class Case:
    """Windows of one stream for one model: so many rows each, 2% of them audited."""

    world: str
    stream: str
    rows: int
    seed: int


def cases(models: int) -> list[Case]:
    """Every stream for so many models, in windows of 2,000 rows and of 10,000."""
    streams = [(world, stream) for world, known in KNOWN.items() for stream in known]
    # A model is trained once for all of its streams.
    return [Case(world, stream, rows, seed) for seed in range(models) for world, stream in streams for rows in (WINDOW, LONG)]


@dataclass(frozen=True)
class World:
    """A world, a model of it, and what its release tells."""

    problem: Problem
    released: Released
    answer: Callable[[pd.DataFrame], np.ndarray]
    draw: Callable[[int, dict[str, float], int], pd.DataFrame]
    truth: str
    probability: str


@lru_cache(maxsize=2)
def standing(world: str, seed: int) -> World:
    """Trees trained on the first 20,000 rows of a world; every error costs one, save where loans have their own costs."""
    params = parameters()["train"] | {"families": ["trees"]}
    if world in ("loans", *COSTLY):
        folder = find_problem("credit", settings().problems)
        alike = {"costs": Costs(false_positive=1.0, false_negative=1.0)}
        problem = folder.problem if world in COSTLY else folder.problem.model_copy(update=alike)
        contract, rows, draw, known = folder.contract, first_rows(folder, FIRST, seed), _loans(folder), "p_default"
    else:
        problem, contract, known = population.problem(), population.contract(), "p"
        rows, draw = population.draw(FIRST, Moved(), seed), _population
    sides = split(rows[contract.entity])
    encoder, (trees,) = train(rows, sides, contract, problem.threshold, params, seed)
    answer = Scorer(trees.graph, encoder).probability
    return World(problem, _released(contract, encoder, rows, sides, answer), answer, draw, contract.target, known)


def _loans(folder: Folder) -> Callable[[int, dict[str, float], int], pd.DataFrame]:
    source = folder.open_source(None, 0)
    module = sys.modules[type(source).__module__.rpartition(".")[0] + ".world"]
    return lambda rows, knobs, seed: pd.DataFrame(module.draw(rows, module.Knobs(**knobs), seed, 10_000_000, (0.0, 50.0)))


def _population(rows: int, knobs: dict[str, float], seed: int) -> pd.DataFrame:
    return population.draw(rows, Moved(**knobs), seed, 10_000_000)


def _released(
    contract: Contract, encoder: Encoder, rows: pd.DataFrame, sides: np.ndarray, answer: Callable[[pd.DataFrame], np.ndarray]
) -> Released:
    names = [column.name for column in contract.features]
    held = rows[np.isin(sides, ("select", "test"))]
    told = held[names].assign(probability=answer(held), truth=held[contract.target])
    return Released(contract, encoder, rows[sides == "train"][names], told, tuple(relied_on(answer, held, names)), 0.0, 0.0, 0.0)


def judge(case: Case) -> dict[str, Any]:
    """By window of a case: the true error or cost, what was estimated with and without audits, what the peers say of errors."""
    world = standing(case.world, case.seed)
    threshold, released, knobs = world.problem.threshold, world.released, KNOWN[case.world][case.stream]
    turns = WINDOWS[case.rows] // 2 if case.stream.startswith(TURNING) else 0
    before, was = released.held["probability"].to_numpy(float), released.held["truth"].to_numpy(float)
    calibrated = calibration(Held(before, was), np.ones(len(was)))

    def loss(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return per_row(world.problem, probability, truth)

    def true(probability: np.ndarray, sure: np.ndarray) -> float:
        one, nought = (loss(probability, np.full(len(probability), value)) for value in (1.0, 0.0))
        return float((sure * one + (1 - sure) * nought).mean())

    told, earlier = [], NONE
    for number in range(WINDOWS[case.rows]):
        # Streams of their own rows and audits.
        places = list(KNOWN).index(case.world), list(KNOWN[case.world]).index(case.stream)
        seed = int(np.random.SeedSequence([case.seed, *places, case.rows, number]).generate_state(1)[0])
        window = world.draw(case.rows, knobs if number >= turns else {}, seed)
        p, sure, truth = world.answer(window), window[world.probability].to_numpy(float), window[world.truth].to_numpy(float)
        apart = told_apart(world.problem, released, window)[1]
        assert apart is not None
        drawn = np.flatnonzero(np.random.default_rng(seed).random(case.rows) < AUDITED)
        held = Held(before, was)
        alone = estimate(loss, held, apart.ratio, p, apart.foreign)
        own = Audits(p[drawn], truth[drawn], np.full(len(drawn), AUDITED))
        ours = estimate(loss, held, apart.ratio, p, apart.foreign, own.after(earlier), len(own))
        earlier = Audits(*(np.concatenate(pair) for pair in zip(astuple(earlier), astuple(own), strict=True)))
        # Garg et al., 2022: as many rows are wrong as are less sure than so many held-out ones were.
        errors = float(((before >= threshold) != (was == 1)).mean())
        limit = np.quantile(np.maximum(before, 1 - before), errors)
        told.append(
            {
                "turned": number >= turns,
                "by": ours.by,
                "true": true(p, sure),
                "confidence": alone.value,
                "ours": ours.value,
                "low": ours.low,
                "high": ours.high,
                "valid": ours.valid,
                "why": ours.why,
                "CBPE": float(np.where(p >= threshold, 1 - p, p).mean()),
                "CBPE, calibrated": float(np.where(p >= threshold, 1 - calibrated(p), calibrated(p)).mean()),
                "ATC": float((np.maximum(p, 1 - p) < limit).mean()),
                "unchanged": errors,
            }
        )
    base = world.draw(50_000, {}, 99_000 + case.seed)
    p, sure = world.answer(base), base[world.probability].to_numpy(float)
    return {**asdict(case), "base": true(p, sure), "windows": told}


def measure(judged: Sequence[dict[str, Any]]) -> list[Row]:
    """Errors in points of accuracy, by stream; whether the interval holds the truth, and whether it is known where nothing can be told."""
    rows: list[Row] = []
    every, judged = judged, [told for told in judged if told["world"] in STREAMS]
    short = [told for told in judged if told["rows"] == WINDOW]
    covariate = [told for told in short if told["stream"].startswith("covariate")]
    rows.append(_mean("covariate shift, no label: mean absolute error", covariate, lambda w: abs(w["confidence"] - w["true"])))
    rows.append(_mean("covariate shift, 2% audited: mean absolute error", covariate, lambda w: abs(w["ours"] - w["true"])))
    for size in (WINDOW, LONG):
        for world, stream in [(world, stream) for world, known in STREAMS.items() for stream in known]:
            mine = [told for told in judged if (told["rows"], told["world"], told["stream"]) == (size, world, stream)]
            where = f"{world}, {stream}, {size:,} rows, 2% audited"
            rows.append(_mean(f"{where}: mean absolute error", mine, lambda w: abs(w["ours"] - w["true"])))
            for peer in PEERS:
                rows.append(_mean(f"{where}: mean absolute error, {peer}", mine, lambda w, peer=peer: abs(w[peer] - w["true"])))
                rows.append(_mean(f"{where}: ours less {peer}", mine, lambda w, peer=peer: _off(w, "ours") - _off(w, peer)))
    for peer in PEERS:
        for size in (WINDOW, LONG):
            compared = [row for row in rows if row.name.endswith(f"{size:,} rows, 2% audited: ours less {peer}")]
            worse = sum(row.low is not None and row.low > 0 for row in compared)
            rows.append(
                count(f"{size:,} rows: streams in which {peer} is nearer the truth, beyond chance", worse, len(compared), "streams")
            )
    for size in (LONG, WINDOW):
        since = [(told, w) for told in every if told["rows"] == size for w in told["windows"] if w["turned"]]
        drifting = ("concept", "both", "prior")
        for name, worlds, streams in (
            ("concept drift", STREAMS, drifting),
            ("windows since a turn of the concept", STREAMS, (TURNING,)),
            ("loans at their own costs, no concept drift", COSTLY, ("as it was", "covariate")),
            ("loans at their own costs, concept drift", COSTLY, drifting),
            ("loans at their own costs, windows since a turn of the concept", COSTLY, (TURNING,)),
        ):
            mine = [w for told, w in since if told["world"] in worlds and told["stream"].startswith(streams)]
            rows += _intervals(f"{name}, {size:,} rows, 2% audited", mine, worlds is STREAMS)
    for size in (LONG, WINDOW):
        rows += _marked(f"{size:,} rows, 2% audited: marked invalid", [told for told in judged if told["rows"] == size])
    return rows


def _marked(name: str, judged: Sequence[dict[str, Any]]) -> list[Row]:
    """How often it says that nothing can be told: where the concept moved by much, and where it did not."""
    # Of a stream in which the population moves as well, not all of the rise is the concept's.
    strong = [
        w
        for told in judged
        if told["stream"].startswith(("concept", "prior"))
        for w in told["windows"]
        if w["true"] - told["base"] >= TEN_POINTS
    ]
    none = [w for told in judged if told["stream"].startswith(("as it was", "covariate")) for w in told["windows"]]
    return [
        share(f"concept drift of 10 points or more, {name}", sum(not w["valid"] for w in strong), len(strong)),
        share(f"no concept drift, {name}", sum(not w["valid"] for w in none), len(none)),
    ]


def _intervals(of: str, windows: Sequence[dict[str, Any]], errors: bool) -> list[Row]:
    """Whether intervals hold the truth where audits count, and how wide they are.

    What confidence tells alone holds where the population moves, and is not meant to where the concept does.
    """
    mine = [w for w in windows if w["by"] != "confidence"]
    held = sum(w["low"] <= w["true"] <= w["high"] for w in mine)
    wide = [(100 if errors else 1) * (w["high"] - w["low"]) for w in mine]
    return [
        share(f"{of}: audits count", len(mine), len(windows)),
        share(f"{of}: the interval holds the truth", held, len(mine)),
        measured(f"{of}: width of the interval", wide, "points" if errors else "cost per row"),
    ]


def _off(window: dict[str, Any], by: str) -> float:
    return float(abs(window[by] - window["true"]))


def _mean(name: str, told: Sequence[dict[str, Any]], of: Callable[[dict[str, Any]], float]) -> Row:
    """The mean over models of the mean over their windows, in points, with Student's interval: windows of one model are not independent."""
    models = [
        float(np.mean([100 * of(window) for each in told if each["seed"] == seed for window in each["windows"]]))
        for seed in {t["seed"] for t in told}
    ]
    half = float(stats.t.ppf(0.975, len(models) - 1) * np.std(models, ddof=1) / np.sqrt(len(models)))
    value = float(np.mean(models))
    return Row(name, value, value - half, value + half, sum(len(each["windows"]) for each in told), "points")
