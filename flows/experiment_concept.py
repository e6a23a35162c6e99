"""How soon is a change of the concept seen on labels, and how often is one seen where there is none? Detectors side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from river import drift
from scipy import stats
from scipy.signal import lfilter
from scipy.special import ndtr

from flows.standing import first_rows
from models.train import train
from ratchet.data.batch import conform
from ratchet.data.splits import split
from ratchet.monitoring.concept_drift import CLOCK, DETECTORS, Stream
from ratchet.problem import Watch, find_problem
from ratchet.report.results import Row, share
from ratchet.scoring import Scorer
from ratchet.settings import parameters, settings

OURS = "adwin"
# The default at other deltas: what being later saves in false alarms, and being sooner costs.
DELTAS = {f"{OURS}, delta {delta}": partial(drift.ADWIN, delta=delta, clock=CLOCK) for delta in (0.003, 0.006)}
STABLE_ROWS = 100_000
STABLE = ("stable", "stable, autocorrelated")
STREAMS = (*STABLE, "abrupt", "gradual", "recurring")
# So much a row's chance of being wrong is like that of the row before (a Gaussian copula), in turn.
NEIGHBOURS = (0.5, 0.8)
BEFORE, AFTER, GRADUAL = 10_000, 6_000, 4_000
RISE = 0.10
LOOK = 20
MIN_RISE = Watch().min_rise
ROWS, POOL = 20_000, 200_000
# Its window is tested anew for every row: a stream takes minutes.
SLOW = "kswin"


class Every:
    """An alarm whenever so many rows have come."""

    def __init__(self, rows: int) -> None:
        self._every, self._seen, self.drift_detected = rows, 0, False

    def update(self, _: float) -> None:
        """Count a row."""
        self._seen += 1
        self.drift_detected = self._seen % self._every == 0


class Fixed:
    """An alarm when the mean of the newest rows is so much above what it was at first: no thought of their number."""

    def __init__(self, rows: int, rise: float) -> None:
        self._rows, self._rise, self._recent, self._first = rows, rise, np.zeros(rows), float("nan")
        self._seen, self._sum, self.drift_detected = 0, 0.0, False

    def update(self, value: float) -> None:
        """Take a row into the mean, and the oldest out of it."""
        place = self._seen % self._rows
        self._sum += value - self._recent[place]
        self._recent[place] = value
        self._seen += 1
        if self._seen == self._rows:
            self._first = self._sum / self._rows
        self.drift_detected = self._seen > self._rows and self._sum / self._rows > self._first + self._rise


class Never:
    """No alarm."""

    drift_detected = False

    def update(self, _: float) -> None:
        """Nothing."""


# As they come, both directions, and rules that need no library.
PEERS: dict[str, Callable[[], Any]] = {
    "river's ADWIN as it comes": drift.ADWIN,
    "river's Page-Hinkley as it comes": drift.PageHinkley,
    "mean of 500 rows 5 points above the first": lambda: Fixed(500, 0.05),
    "alarm every 5,000 rows": lambda: Every(5000),
    "never": Never,
}
WATCHED: dict[str, Callable[[], Any]] = {**DETECTORS, **DELTAS}
NAMES = [*WATCHED, *PEERS]


@dataclass(frozen=True)
class Case:
    """One stream for one detector: stable, or with a rise of 10 points that comes abruptly, gradually, or comes back."""

    detector: str
    stream: str
    source: str
    seed: int


def cases(runs: int, source: str) -> list[Case]:
    """Of `runs` streams of each kind for the default, whatever its delta, a tenth for the others, and two for the slow one.

    Of autocorrelated ones a fifth as many.
    """
    made = []
    for name in NAMES:
        n = runs if name == OURS or name in DELTAS else 2 if name == SLOW else max(2, runs // 10)
        made += [Case(name, stream, source, seed) for stream in STREAMS for seed in range(max(2, n // 5) if stream == STABLE[1] else n)]
    return made


@lru_cache(maxsize=1)
def pool(source: str) -> np.ndarray:
    """Whether each decision of a trained model is wrong, on rows that it has not seen: of the simulated world, or a file's."""
    folder = find_problem("credit_card" if source else "credit", settings().problems)
    params = parameters()["train"] | {"families": ["trees"]}
    if source:
        opened = folder.open_source(str(Path(source).resolve()), 0)
        rows = conform(opened.first_batch(18_000), folder.contract, source)
        fresh = conform(opened.traffic(9_000, drifted=False), folder.contract, source)
    else:
        rows = first_rows(folder, ROWS, 0)
        fresh = conform(folder.open_source(None, 1).traffic(POOL, drifted=False), folder.contract, "the world")
    encoder, (trees,) = train(rows, split(rows[folder.contract.entity]), folder.contract, folder.problem.threshold, params, 0)
    decided = Scorer(trees.graph, encoder).probability(fresh) >= folder.problem.threshold
    return np.asarray(decided != (fresh[folder.contract.target].to_numpy(float) == 1))


def stream(case: Case) -> tuple[np.ndarray, list[int]]:
    """The wrong decisions of a stream, shape (n,), and where it rises.

    Where the concept has changed, the labels of some rows are turned around, so many that the share of wrong decisions rises
    by 10 points.
    """
    rng = np.random.default_rng([case.seed, STREAMS.index(case.stream)])
    wrong = pool(case.source)
    if case.stream == STABLE[1]:
        neighbours = NEIGHBOURS[case.seed % len(NEIGHBOURS)]
        level = lfilter([np.sqrt(1 - neighbours**2)], [1, -neighbours], rng.normal(size=STABLE_ROWS))
        return np.asarray(ndtr(level) < wrong.mean()), []
    n = STABLE_ROWS if case.stream == STABLE[0] else BEFORE + AFTER
    drawn = wrong[rng.integers(0, len(wrong), n)]
    turned = RISE / (1 - 2 * wrong.mean())
    moment = np.arange(n)
    if case.stream == STABLE[0]:
        return drawn, []
    strength = np.where(moment >= BEFORE, 1.0, 0.0)
    if case.stream == "gradual":
        strength = np.clip((moment - BEFORE) / GRADUAL, 0.0, 1.0)
    elif case.stream == "recurring":
        # It rose before, for so long, and went back.
        strength[BEFORE // 4 : BEFORE // 2] = 1.0
    return drawn ^ (rng.random(n) < turned * strength), [BEFORE]


def judge(case: Case) -> dict[str, Any]:
    """After how many rows of the last rise the detector raised an alarm (None where it did not), and its alarms before."""
    wrong, rises = stream(case)
    alarms = _alarms(case.detector, wrong)
    begin = rises[0] if rises else len(wrong)
    after = [at - begin for at in alarms if at >= begin]
    return {**asdict(case), "early": sum(at < begin for at in alarms), "delay": after[0] if after else None}


def _alarms(name: str, wrong: np.ndarray) -> list[int]:
    """The rows at which an alarm begins: ours as the monitor would raise it, looking every so many rows; the peers' as they come."""
    found: list[int] = []
    if name in WATCHED:
        watched, stood = Stream(WATCHED[name]), False
        for start in range(0, len(wrong), LOOK):
            watched.feed(wrong[start : start + LOOK])
            stands = watched.standing(MIN_RISE) is not None
            if stands and not stood:
                found.append(watched.rows - 1)
            stood = stands
        return found
    detector = PEERS[name]()
    for place, value in enumerate(wrong.astype(float).tolist()):
        detector.update(value)
        if detector.drift_detected:
            found.append(place)
    return found


def measure(judged: Sequence[dict[str, Any]]) -> list[Row]:
    """Every detector on every kind of stream."""
    rows = []
    for name in NAMES:
        mine = [told for told in judged if told["detector"] == name]
        for kind, of in zip(STABLE, ("stable rows", "autocorrelated stable rows"), strict=True):
            stable = [told for told in mine if told["stream"] == kind]
            rows.append(share(f"{name}: a false alarm in 100,000 {of}", sum(told["early"] > 0 for told in stable), len(stable)))
        for kind in STREAMS[len(STABLE) :]:
            delays = [AFTER if told["delay"] is None else told["delay"] for told in mine if told["stream"] == kind]
            rows.append(_median(f"{name}: rows until a rise of 10 points is seen, {kind}", delays))
            seen = sum(told["delay"] is not None for told in mine if told["stream"] == kind)
            rows.append(share(f"{name}: seen within {AFTER:,} rows, {kind}", seen, len(delays)))
    return rows


def _median(name: str, values: Sequence[float]) -> Row:
    """The median with its interval from order statistics, whatever the distribution (Conover, 1999); of fewer than six there is none."""
    ordered, n = np.sort(values), len(values)
    if n < 6:
        return Row(name, float(np.median(ordered)), None, None, n, "rows")
    low = int(stats.binom.ppf(0.025, n, 0.5))
    return Row(name, float(np.median(ordered)), float(ordered[max(low - 1, 0)]), float(ordered[min(n - low, n - 1)]), n, "rows")
