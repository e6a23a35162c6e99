"""What is to be decided, what does an error cost, and where does the data come from?"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import pandas as pd
from pydantic import Field, ValidationError, field_validator, model_validator

from ratchet.contract import NAME, Contract, Strict, load_contract, read_yaml
from ratchet.decision import digest
from ratchet.errors import ContractError
from ratchet.registry import FLOORS, MONITORS

YEAR = 365.25 * 24 * 3600


Share = Annotated[float, Field(ge=0, le=1)]
Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Milliseconds = Annotated[float, Field(gt=0)]


class Costs(Strict):
    """What each kind of error costs, in the same unit."""

    false_positive: float = Field(gt=0, allow_inf_nan=False)
    false_negative: float = Field(gt=0, allow_inf_nan=False)
    unit: str = ""


class Outcome(Strict):
    """What the two labels are called: 1 and 0."""

    positive: str
    negative: str


class Gate(Strict):
    """What a candidate must hold. Margins are in units of the metric of record, other limits as each line says.

    `blocking` and `advisory` name checks (`name` or `name:part`) that are to hold a promotion, or only to be told,
    against their own default.
    """

    margin: Margin
    min_rows: int = Field(default=400, ge=2)
    # The smallest group, in rows, on which a verdict is given.
    min_group: int = Field(default=100, ge=2)
    # Lowest (for losses: highest) value of a metric.
    floors: dict[str, float] = Field(default_factory=dict)
    # Expected calibration error, over all rows and within a slice.
    calibration_limit: Share = 0.02
    slice_calibration_limit: Share = 0.05
    # Share of truths that the conformal sets must hold, and what chance in the calibration rows may take off it.
    coverage: Share = 0.9
    coverage_slack: Share = 0.02
    # Four fifths: lowest ratio of favourable decisions; the same among rows of equal merit; largest gap of error rates.
    approval_ratio: Share = 0.8
    merit_ratio: Share = 0.85
    odds_gap: Share = 0.1
    group_calibration_gap: Share = 0.05
    # Largest share of rows that the champion decided rightly and the candidate wrongly.
    negative_flips: Share = 0.1
    # A slice may lose this much; a loss of `slice_regression` in a share `slice_support` of the rows must be seen.
    slice_margin: Margin = 0.01
    slice_regression: Margin = 0.05
    slice_support: Share = 0.03
    # Largest relative loss of ROC AUC under a corruption of severity 3.
    robust_drop: Share = 0.15
    # What an attacker may move each column by, as a share of its range, and the loss of robust accuracy that is borne.
    attack_budget: Share = 0.1
    attack_margin: Share = 0.1
    # Largest share of wrong decisions that another seed or fold would not have made.
    luck: Share = 0.5
    # Largest gap between the log loss on training rows and on tuning rows.
    memorised: Margin = 0.1
    # Smallest loss of ROC AUC when a feature is shuffled that counts as "it matters".
    importance: Margin = 0.005
    # Gain of another thousand labels, in log loss, above which more labels are worth their while.
    label_gain: Margin = 0.002
    blocking: tuple[str, ...] = ()
    advisory: tuple[str, ...] = ()

    @field_validator("floors")
    @classmethod
    def _are_known(cls, floors: dict[str, float]) -> dict[str, float]:
        if wrong := sorted(set(floors) - set(FLOORS)):
            raise ValueError(f"{wrong[0]!r} is no metric with a floor; there are {', '.join(FLOORS)}")
        return floors

    @model_validator(mode="after")
    def _tells_apart(self) -> Gate:
        if self.slice_regression <= self.slice_margin:
            raise ValueError("slice_regression must be larger than slice_margin, else no number of rows could tell them apart")
        return self


class Prices(Strict):
    """What a generation's making costs: an hour of computing, a label, and the minutes that a person takes over one."""

    compute_hour: float = 0.0
    label: float = 0.0
    label_minutes: float = 0.0
    unit: str = ""


class Watch(Strict):
    """How the log is watched: window sizes in rows, error rates per year.

    Of the predictions a share `audit_share` is drawn for an audit, and the policy may raise it as long as audits bring no more than
    `audit_budget` labels a year. A retraining comes `cooldown_days` after the last one at the earliest, and at most `retrainings_per_year`
    come by themselves. What a check in `advisory` says (`name` or `name:part`) is told, and nothing is done about it. `detector` looks for
    concept drift in the labelled stream; a rise of the share of wrong decisions by less than `min_rise` does not matter. What comes and goes within
    `cycle_hours` is neither drift nor harm: these are asked of rows that span so many hours; 0 is of the newest, whatever they span.
    """

    window: Count = 2000
    min_window: int = Field(default=300, ge=20)
    min_labels: Count = 1000
    false_alarms_per_year: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    label_delay_days: Margin = 30.0
    every_seconds: float = Field(default=300.0, ge=1, allow_inf_nan=False)
    cycle_hours: Annotated[float, Field(ge=0, le=24 * 366, allow_inf_nan=False)] = 24.0
    detector: Literal["adwin", "page_hinkley", "kswin", "ddm", "eddm", "hddm_a", "hddm_w"] = "adwin"
    min_rise: Share = 0.02
    audit_share: Share = 0.02
    audit_budget: Annotated[int, Field(ge=0)] = 2000
    cooldown_days: Margin = 1.0
    retrainings_per_year: Count = 12
    advisory: tuple[str, ...] = ()

    @field_validator("advisory")
    @classmethod
    def _is_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            kind, _, part = name.partition(":")
            if kind not in MONITORS:
                raise ValueError(f"{name!r} is no check of the watch; there are {', '.join(MONITORS)}")
            parts = MONITORS[kind]
            if part and parts is not None and part not in parts:
                there = f"there are {', '.join(f'{kind}:{each}' for each in parts)}" if parts else f"there is {kind}"
                raise ValueError(f"{name!r} is no check of the watch; {there}")
        return names

    @model_validator(mode="after")
    def _can_judge(self) -> Watch:
        if self.min_window > self.window:
            raise ValueError("min_window must not be larger than window, else no window could be judged")
        return self

    @property
    def checks_per_year(self) -> float:
        """How often the schedule checks in a year: the false alarms allowed are spread over so many."""
        return YEAR / self.every_seconds

    @property
    def false_alarms_per_check(self) -> float:
        """What of the year's false alarms one look at the log may spend, in each group of checks (docs/watch.md names them)."""
        return self.false_alarms_per_year / self.checks_per_year


class Load(Strict):
    """The load test of a release: how many users, for how long, in which shape, from how many processes.

    A user asks `throughput` times a second, or as often as it is answered where that is less.
    """

    users: Count = 16
    seconds: Annotated[int, Field(ge=0)] = 8
    shape: Literal["constant", "ramp", "spike"] = "constant"
    processes: Count = 1
    throughput: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 25.0


def changed(load: Load, **changes: Any) -> Load:
    """The load test with those of the changes that are not None. ContractError where one cannot be."""
    try:
        return Load.model_validate(load.model_dump() | {name: value for name, value in changes.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise ContractError(f"--{first['loc'][0]}: {first['msg']}.") from error


class Slo(Strict):
    """slo.yaml: what the service must hold under the problem's load.

    A version that does not is set back, unless `gates` is false: then it is only told.

    The mean and the slowest hundredth are the server's own, in milliseconds from request to answer; the share of failed
    requests and the requests a second are the clients'.
    """

    average_ms: Milliseconds = 250.0
    p99_ms: Milliseconds = 500.0
    max_failure_share: Share = 0.0
    min_rps: Annotated[float, Field(ge=0)] = 1.0
    gates: bool = True


class Replay(Strict):
    """How real rows are replayed in shifted proportions once the world has drifted.

    `favour` maps pandas expressions, true or false of a row, to the weight of the rows where they hold.
    """

    favour: dict[str, float]


class Demonstration(Strict):
    """The sizes of the demonstration's batches, in rows."""

    first: int = 20000
    stable: int = 2000
    drifted: int = 6000
    after: int = 2000


class Problem(Strict):
    """problem.yaml: the frame around a contract.

    `metric` is the metric of record: `cost` is the mean cost of the decisions per row, lower is better.
    """

    name: str = Field(pattern=NAME)
    title: str
    question: str
    metric: Literal["cost", "brier", "log_loss"] = "cost"
    outcome: Outcome
    costs: Costs
    gate: Gate
    prices: Prices | None = None
    watch: Watch = Watch()
    load: Load = Load()
    replay: Replay | None = None
    demo: Demonstration = Demonstration()

    @property
    def threshold(self) -> float:
        """The probability from which label 1 is the cheaper decision (Elkan, 2001)."""
        return self.costs.false_positive / (self.costs.false_positive + self.costs.false_negative)


class Source(Protocol):
    """Where rows come from. Every frame holds the contract's columns; an unknown target is missing."""

    description: str

    def first_batch(self, rows: int) -> pd.DataFrame:
        """The batch that starts the problem's life, with the labels known by then."""

    def traffic(self, rows: int, drifted: bool) -> pd.DataFrame:
        """The next rows that ask for a prediction, with the truth that their labels will tell later."""


def counted(problem: Problem) -> dict[str, Any]:
    """How a problem counts losses: two losses that were counted otherwise cannot be compared."""
    return {"metric": problem.metric, "costs": [problem.costs.false_positive, problem.costs.false_negative]}


@dataclass(frozen=True)
class Folder:
    """A problem's folder: problem.yaml, contract.yaml, baseline.py, source.py."""

    path: Path

    @cached_property
    def problem(self) -> Problem:
        """The frame, from problem.yaml. ContractError where its name is not the contract's."""
        read = read_yaml(self.path / "problem.yaml", Problem)
        if read.name != self.contract.name:
            raise ContractError(f"{self.path}: problem.yaml is named {read.name!r}, contract.yaml {self.contract.name!r}; they must agree.")
        return read

    @cached_property
    def contract(self) -> Contract:
        """The contract, from contract.yaml."""
        return load_contract(self.path / "contract.yaml")

    @cached_property
    def slo(self) -> Slo:
        """What the service must hold under load, from slo.yaml; the defaults where there is none."""
        path = self.path / "slo.yaml"
        return read_yaml(path, Slo) if path.is_file() else Slo()

    def rule(self, frame: pd.DataFrame) -> np.ndarray:
        """The hand-written rule's probabilities for a frame of n rows, shape (n,), from baseline.py."""
        return np.asarray(self._module("baseline").probability(frame), dtype=float)

    def open_source(self, source: str | None, seed: int) -> Source:
        """The problem's own source, from source.py; `source` names a file where it reads one."""
        opened: Source = self._module("source").open_source(source, seed, self.problem, self.contract)
        return opened

    def _module(self, name: str) -> ModuleType:
        if not (self.path / f"{name}.py").is_file():
            raise ContractError(f"{self.path / name}.py does not exist: a problem needs this file.")
        # The folder becomes a package of its own, so that its files can import one another.
        package = f"problem_{digest(str(self.path))}"
        if package not in sys.modules:
            made = ModuleType(package)
            made.__path__ = [str(self.path)]
            sys.modules[package] = made
        return importlib.import_module(f"{package}.{name}")


def find_problem(name: str, problems: Path) -> Folder:
    """The folder of a problem, by its name under `problems` or by its own path. ContractError where there is none."""
    for path in (Path(name), problems / name):
        if (path / "problem.yaml").is_file():
            return Folder(path.resolve())
    known = ", ".join(sorted(p.parent.name for p in problems.glob("*/problem.yaml")))
    raise ContractError(f"There is no problem called {name!r}. Known: {known}; or give the path of a problem's folder.")
