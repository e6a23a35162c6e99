"""Which parameters suit these rows? Optuna's search, warm-started from the champion's trials. The only file that imports optuna."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from ratchet.errors import BatchError

# How many of the champion's best trials a warm start tries first.
WARM = 5


@dataclass(frozen=True)
class Trial:
    """One set of parameters and what it reached, objective by objective (all to be low)."""

    number: int
    params: dict[str, Any]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Search:
    """A finished search: every trial in its order, and the Pareto front (one trial where there is one objective)."""

    trials: list[Trial]
    front: list[Trial]

    @property
    def best(self) -> Trial:
        """The trial on the front that is best in the first objective."""
        return min(self.front, key=lambda trial: trial.values)


def space(declared: Mapping[str, Mapping[str, Any]]) -> dict[str, BaseDistribution]:
    """The search space of params.yaml: {low, high, log, whole} for a number, {choices} for a choice. BatchError where it is wrong."""
    made: dict[str, BaseDistribution] = {}
    for name, told in declared.items():
        try:
            if "choices" in told:
                made[name] = CategoricalDistribution(told["choices"])
            elif told.get("whole"):
                made[name] = IntDistribution(told["low"], told["high"], log=told.get("log", False))
            else:
                made[name] = FloatDistribution(told["low"], told["high"], log=told.get("log", False))
        except (KeyError, ValueError, TypeError) as error:
            raise BatchError(f"params.yaml: tune.space: {name}: {error}; give low and high, or choices.") from error
    return made


def search(
    evaluate: Callable[[dict[str, Any]], Sequence[float]],
    declared: Mapping[str, Mapping[str, Any]],
    *,
    objectives: int,
    trials: int,
    seed: int,
    name: str,
    journal: Path | None = None,
    first: Sequence[dict[str, Any]] = (),
    said: Callable[[Trial], None] = lambda trial: None,
) -> Search:
    """Search with TPE (Bergstra et al., 2011) until `trials` trials are done; `first` are tried before it chooses itself.

    With a `journal`, a search of that `name` which was cut short goes on where it stopped: what is done counts.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = space(declared)
    study = _study(name, objectives, journal, seed)
    if not study.trials:
        for params in first:
            study.enqueue_trial(_within(params, distributions), skip_if_exists=True)
    done = len(_done(study))
    # A resumed sampler must not draw again what it drew at first.
    study.sampler = _sampler(seed + done)
    while len(_done(study)) < trials:
        trial = study.ask(distributions)
        values = tuple(float(value) for value in evaluate(dict(trial.params)))
        study.tell(trial, values)
        said(Trial(trial.number, dict(trial.params), values))
    return Search([_plain(t) for t in _done(study)], [_plain(t) for t in study.best_trials])


def best_of(name: str, journal: Path) -> list[dict[str, Any]]:
    """The parameters of the best trials of an earlier search in its first objective, best first; none where there was none."""
    if not journal.is_file():
        return []
    storage = JournalStorage(JournalFileBackend(str(journal)))
    if name not in optuna.get_all_study_names(storage):
        return []
    done = _done(optuna.load_study(study_name=name, storage=storage))
    return [dict(trial.params) for trial in sorted(done, key=lambda trial: trial.values)[:WARM]]


def _study(name: str, objectives: int, journal: Path | None, seed: int) -> optuna.Study:
    storage = None
    if journal is not None:
        journal.parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.create_study(
        study_name=name, storage=storage, directions=["minimize"] * objectives, sampler=_sampler(seed), load_if_exists=True
    )


def _sampler(seed: int) -> optuna.samplers.TPESampler:
    with warnings.catch_warnings():
        # Its multivariate mode is marked as experimental.
        warnings.simplefilter("ignore")
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=8)


def _done(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _plain(trial: FrozenTrial) -> Trial:
    return Trial(trial.number, dict(trial.params), tuple(trial.values))


def _within(params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """What of the parameters the space knows, moved to its edge where they lie outside."""
    kept: dict[str, Any] = {}
    for name, distribution in distributions.items():
        if name not in params:
            continue
        value = params[name]
        if isinstance(distribution, FloatDistribution | IntDistribution):
            value = min(max(value, distribution.low), distribution.high)
        kept[name] = value
    return kept
