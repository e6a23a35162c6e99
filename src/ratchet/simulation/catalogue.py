"""Which faults are there to plant into a stream of batches, and which monitor is meant to see each?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ratchet.contract import Column, Contract
from ratchet.simulation.skews import Skew, skews

SIZES = ("small", "medium", "large")
# Skews after which columns are as they were, in another place or unit.
MIXED_UP = ("column order", "unit", "null default", "missing-value code")
# Kinds of faults that are none of the world: a model that learnt from them would learn the fault.
MISLEADING = ("feedback", "labels", "adversary", "upstream", "skew")
# How much of the truth is turned around, of an abrupt change; a slow decay takes so many batches to get there.
TURNED, SLOW = 1.0, 6
# How long a recurring concept stays, in batches.
RECURS = 2
FOLLOWED, NOISE, LATE = 0.6, 0.2, 0.5
# What refuses a request that the contract does not know.
DOOR = "the door"
# What compares logged features with training's own table of the same rows: `ratchet parity --offline`, not the watch on its schedule.
PARITY = "parity"
PROBES, DOUBLED, ARRIVING, LACKING, STRANGE = 0.05, 0.15, 0.2, 0.3, 0.05
SLICE, SLICE_TURNED = (0.03, 0.10), 0.3


@dataclass(frozen=True)
class Drift:
    """How a world draws a batch: sizes 0 (as it was) to 3 of benign and harmful shifts, shares 0 to 1 of the concept and the prior."""

    benign: int = 0
    harmful: int = 0
    concept: float = 0.0
    prior: float = 0.0


@dataclass(frozen=True)
class Labelled:
    """What labels are made from, n rows: the rows, their truth and the model's decision, 0 or 1."""

    rows: pd.DataFrame
    truth: np.ndarray
    decided: np.ndarray


Rows = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]
Labels = Callable[[Labelled, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Fault:
    """What goes wrong from some batch on, and the monitors that are meant to see it; one of them is enough.

    `drift`: how the world draws, by the number of batches since (0 is the first). `happen`: what becomes of the rows in the world, so that
    training's own table has it too. `send`: what becomes of them on their way to the service alone. `answer`: of its probabilities.
    `label`: the labels that come back, NaN where none does. `astray`: those that do not were sent of predictions that nobody made. `before`:
    the labels that came back before these. `clock_stands`: the log's clock does. `harmless`: nothing need be seen by what looks for harm.
    None of them: a clean stream.
    """

    name: str
    kind: str
    about: str
    seen_by: tuple[str, ...]
    drift: Callable[[int], Drift] = field(default=lambda age: Drift())
    happen: Rows = field(default=lambda rows, rng: rows)
    send: Rows = field(default=lambda rows, rng: rows)
    answer: Callable[[np.ndarray], np.ndarray] = field(default=lambda probability: probability)
    label: Labels = field(default=lambda told, rng: told.truth)
    astray: bool = False
    before: Labels | None = None
    clock_stands: bool = False
    harmless: bool = False


def catalogue(contract: Contract, relied_on: Sequence[str], answer: Callable[[pd.DataFrame], np.ndarray], threshold: float) -> list[Fault]:
    """Every fault, for rows of a contract and a model that answers them; `relied_on` are the columns on which its answers hang."""
    return [*_population(), *_labels(contract), *_rows(contract, relied_on, answer, threshold), *_skews(contract)]


def _population() -> Iterator[Fault]:
    moved = ("data_drift", "joint_drift")
    for size, name in enumerate(SIZES, start=1):
        yield Fault(
            f"covariate shift, benign, {name}", "covariate", "columns that the model does not rely on", moved,
            drift=_shifted(benign=size), harmless=True,
        )  # fmt: skip
    for size, name in enumerate(SIZES, start=1):
        yield Fault(
            f"covariate shift, harmful, {name}", "covariate", "towards rows that are hard to tell", ("estimate", "decay"),
            drift=_shifted(harmful=size),
        )  # fmt: skip
    seen = ("concept_drift", "decay", "estimate")
    yield Fault("concept drift, abrupt", "concept", "at once", seen, drift=lambda age: Drift(concept=TURNED))
    yield Fault(
        "concept drift, gradual", "concept", f"over {SLOW // 2} batches", seen,
        drift=lambda age: Drift(concept=TURNED * min(1.0, (age + 1) / (SLOW // 2))),
    )  # fmt: skip
    yield Fault(
        "concept drift, recurring", "concept", f"{RECURS} batches of it, {RECURS} of the old one, and so on", seen,
        drift=lambda age: Drift(concept=TURNED * (age // RECURS % 2 == 0)),
    )  # fmt: skip
    yield Fault(
        "decay", "concept", f"a little more of the truth in each of {SLOW} batches", seen,
        drift=lambda age: Drift(concept=TURNED * min(1.0, (age + 1) / SLOW)),
    )  # fmt: skip
    yield Fault("prior shift", "prior", "the outcome comes more often", (*moved, *seen), drift=lambda age: Drift(prior=1.0))


def _shifted(benign: int = 0, harmful: int = 0) -> Callable[[int], Drift]:
    return lambda age: Drift(benign, harmful)


def _labels(contract: Contract) -> Iterator[Fault]:
    def follow(told: Labelled, rng: np.random.Generator) -> np.ndarray:
        return np.where(rng.random(len(told.truth)) < FOLLOWED, told.decided, told.truth)

    def noise(told: Labelled, rng: np.random.Generator) -> np.ndarray:
        return np.where(rng.random(len(told.truth)) < NOISE, 1 - told.truth, told.truth)

    def accepted(told: Labelled, rng: np.random.Generator) -> np.ndarray:
        return np.where((told.decided == 1) & (rng.random(len(told.truth)) < LATE), np.nan, told.truth)

    def lost(told: Labelled, rng: np.random.Generator) -> np.ndarray:
        return np.where(rng.random(len(told.truth)) < NOISE, np.nan, told.truth)

    def late(told: Labelled, rng: np.random.Generator) -> np.ndarray:
        return np.where(rng.random(len(told.truth)) < LATE, np.nan, told.truth)

    yield Fault(
        "feedback loop, labels follow decisions", "feedback", f"{FOLLOWED:.0%} of labels are what was decided", ("feedback",), label=follow
    )
    column = next((c for c in contract.features if c.values and len(c.values) > 2), None)
    if column is not None and column.values is not None:
        inside = _noise_inside(column.name, column.values[1])
        about = f"{2 * NOISE:.0%} of labels where {column.name} is {column.values[1]}"
        yield Fault("label noise in one slice", "feedback", about, ("feedback", "quality"), label=inside)
    yield Fault("selective labels", "feedback", f"{LATE:.0%} of one decision's rows bring no label", ("feedback",), label=accepted)
    yield Fault(
        "label noise", "labels", f"{NOISE:.0%} of labels are the other one", ("quality", "feedback", "decay", "concept_drift"), label=noise
    )
    yield Fault(
        "labels of one class",
        "labels",
        "all say that it did not happen",
        ("label_classes",),
        label=lambda told, rng: np.zeros(len(told.truth)),
    )
    yield Fault(
        "labels that come again", "labels", f"{NOISE:.0%} of labels replace one that said otherwise", ("label_conflicts",), before=noise
    )
    about = f"{NOISE:.0%} of labels name a prediction that nobody made"
    yield Fault("labels that go astray", "labels", about, ("label_ids",), label=lost, astray=True)
    yield Fault("labels late", "labels", f"{LATE:.0%} of labels do not come", ("quality",), label=late)


def _noise_inside(name: str, value: object) -> Labels:
    def label(told: Labelled, rng: np.random.Generator) -> np.ndarray:
        inside = (told.rows[name] == value).to_numpy()
        return np.where(inside & (rng.random(len(told.truth)) < 2 * NOISE), 1 - told.truth, told.truth)

    return label


def _rows(contract: Contract, relied_on: Sequence[str], answer: Callable[[pd.DataFrame], np.ndarray], threshold: float) -> Iterator[Fault]:
    features = [column for column in contract.features if column.name in relied_on]
    number = next(c for c in features if c.is_numeric and c.scale != "binary")
    complete = next(c for c in contract.features if c.missing == 0)
    may_miss = next((c for c in contract.features if c.missing > 0), None)
    target = contract.target

    def stuck(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        return rows.assign(**{number.name: rows[number.name].mode().iloc[0]})

    def lose(column: Column) -> Rows:
        return lambda rows, rng: rows.assign(**{column.name: rows[column.name].mask(rng.random(len(rows)) < LACKING)})

    def few(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        return rows[rng.random(len(rows)) < ARRIVING].reset_index(drop=True)

    def double(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        times = np.where(rng.random(len(rows)) < DOUBLED, 2, 1)
        return rows.loc[rows.index.repeat(times)].reset_index(drop=True)

    def turn(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        inside = _part(rows[[c.name for c in contract.features if c.is_numeric]], number.name)
        turned = inside & (rng.random(len(rows)) < SLICE_TURNED)
        return rows.assign(**{target: rows[target].mask(turned, 1 - rows[target])})

    def strange(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        numbers = [c.name for c in contract.features if c.is_numeric and c.scale != "binary"]
        chosen = rng.random(len(rows)) < STRANGE
        ends = {name: np.nanquantile(rows[name], [0.0, 1.0]) for name in numbers}
        return rows.assign(**{name: rows[name].mask(chosen, rng.choice(ends[name], len(rows))) for name in numbers})

    def probe(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        return _probes(rows, number, answer, threshold, rng)

    yield Fault("adversarial probes", "adversary", f"{PROBES:.0%} of requests look for the threshold", ("probes",), happen=probe)
    yield Fault(
        "strange rows", "upstream", f"in {STRANGE:.0%} of the rows every number is the lowest or the highest", ("silent",), happen=strange
    )
    yield Fault(
        "silent slice",
        "slice",
        f"a slice of {SLICE[0]:.0%} to {SLICE[1]:.0%} loses {SLICE_TURNED:.0%} of its truth",
        ("live_slices",),
        happen=turn,
    )
    yield Fault("stuck sensor", "upstream", f"{number.name} has one value", ("validity",), happen=stuck)
    yield Fault(
        "missing values",
        "upstream",
        f"{LACKING:.0%} of {complete.name} is gone",
        (DOOR, "quality", "validity"),
        happen=lose(complete),
    )
    if may_miss is not None:
        yield Fault(
            "more missing values than allowed",
            "upstream",
            f"{LACKING:.0%} of {may_miss.name} is gone",
            ("validity",),
            happen=lose(may_miss),
        )
    yield Fault("missing volume", "upstream", f"{ARRIVING:.0%} of the rows arrive", ("volume",), happen=few)
    yield Fault("duplicated upstream join", "upstream", f"{DOUBLED:.0%} of the rows come twice", ("quality",), happen=double)
    yield Fault("stuck clock", "upstream", "the log's clock stands still", ("clock",), clock_stands=True)


def _skews(contract: Contract) -> Iterator[Fault]:
    for skew in skews(contract):
        looks = ("columns",) if skew.name in MIXED_UP else ()
        yield Fault(f"skew: {skew.name}", "skew", skew.about, (DOOR, PARITY, *looks), send=_send(skew))
    yield Fault(
        "skew: scores in 16 bits",
        "skew",
        "the service rounds its answers",
        ("skew",),
        answer=lambda probability: probability.astype(np.float16).astype(float),
    )
    yield Fault("skew: too sure", "skew", "the service squares the odds", ("skew", "silent"), answer=_squared)


def _squared(probability: np.ndarray) -> np.ndarray:
    return np.asarray(probability**2 / (probability**2 + (1 - probability) ** 2))


def _send(skew: Skew) -> Rows:
    return lambda rows, rng: skew.plant(rows)


def _part(numbers: pd.DataFrame, name: str) -> np.ndarray:
    """Rows with the highest values of a column, so that 3 to 10% are inside where its values allow it, shape (n,)."""
    values = numbers[name].to_numpy(float)
    edge = np.nanquantile(values, 1 - np.mean(SLICE))
    inside = values >= edge
    return np.asarray(inside if inside.mean() <= SLICE[1] else values > edge)


def _probes(
    rows: pd.DataFrame, column: Column, answer: Callable[[pd.DataFrame], np.ndarray], threshold: float, rng: np.random.Generator
) -> pd.DataFrame:
    """The last rows are one person's: one row again and again, a column of it halved towards the threshold (bisection)."""
    count = round(PROBES * len(rows))
    asked = rows.iloc[: len(rows) - count]
    p = answer(asked)
    # Where the column turns the decision of a row, there is something to look for.
    levels = np.quantile(rows[column.name].dropna(), np.linspace(0.01, 0.99, 25))
    near = asked.iloc[np.argsort(np.abs(p - threshold))[:40]]
    grid = [answer(near.assign(**{column.name: level})) for level in levels]
    over = np.array(grid) >= threshold
    crossing = int(np.argmax(over.any(axis=0) & ~over.all(axis=0)))
    chosen = near.iloc[[crossing]]
    closest = levels[int(np.argmin(np.abs(np.array(grid)[:, crossing] - threshold)))]
    burst = pd.concat([chosen] * count, ignore_index=True)
    spread = float(np.ptp(levels)) * 0.5 ** rng.uniform(2, 8, count) * rng.choice((-1.0, 1.0), count)
    low, high = column.range or (float(levels[0]), float(levels[-1]))
    moved = np.clip(closest + spread, low, high)
    burst[column.name] = np.round(moved) if column.scale == "discrete" else np.round(moved, 2)
    return pd.concat([asked, burst], ignore_index=True)
