"""Which parameters suit these rows? Optuna's search, warm-started from the champion's trials. The only file that imports optuna."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
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
# Marks a trial that another search made.
LENT = "lent"


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
    earlier: Sequence[Trial] = (),
    first: Sequence[Mapping[str, Any]] = (),
    said: Callable[[Trial], None] = lambda trial: None,
) -> Search:
    """Search with TPE (Bergstra et al., 2011) until `trials` trials are done.

    `first` are tried first. `earlier` are the trials of a search on other rows: the best of them come next; by what
    these differ from what they reached then, all are moved, and the sampler learns from them as from its own. With a
    `journal`, a search of that `name` which was cut short goes on where it stopped: what is done counts. BatchError
    where an objective is not finite.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = space(declared)
    study = _study(name, objectives, journal, seed)
    best = [Trial(t.number, _within(t.params, distributions), t.values) for t in sorted(earlier, key=lambda t: t.values)[:WARM]]
    if not study.trials:
        for params in [*(_within(params, distributions) for params in first), *(known.params for known in best)]:
            study.enqueue_trial(params, skip_if_exists=True)
    for cut_short in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(cut_short.number, state=TrialState.FAIL)
        study.enqueue_trial(cut_short.params)
    done = len(_done(study))
    # A resumed sampler must not draw again what it drew at first.
    study.sampler = _sampler(seed + done)
    while len(_done(study)) < trials:
        if best and all(any(trial.params == known.params for trial in _done(study)) for known in best):
            _lend(study, earlier, best, distributions)
        trial = study.ask(distributions)
        values = tuple(float(value) for value in evaluate(dict(trial.params)))
        if not all(map(math.isfinite, values)):
            raise BatchError(f"tuning: {trial.params} reach {values}: an objective is not finite; narrow tune.space in params.yaml.")
        study.tell(trial, values)
        said(Trial(len(_done(study)) - 1, dict(trial.params), values))
    made = _plain(_done(study))
    return Search(made, [trial for trial in made if not any(_beats(other, trial) for other in made)])


def trials_before(name: str, journal: Path) -> list[Trial]:
    """Every trial of the newest other search for the same: its name begins as this `name` does before the colon."""
    if not journal.is_file():
        return []
    storage = JournalStorage(JournalFileBackend(str(journal)))
    same = name.partition(":")[0] + ":"
    others = [study for study in optuna.get_all_study_summaries(storage) if study.study_name.startswith(same) and study.study_name != name]
    begun = [study for study in others if study.datetime_start is not None]
    if not begun:
        return []
    newest = max(begun, key=lambda study: study.datetime_start or datetime.min)
    return _plain(_done(optuna.load_study(study_name=newest.study_name, storage=storage)))


def _lend(study: optuna.Study, earlier: Sequence[Trial], best: Sequence[Trial], distributions: Mapping[str, BaseDistribution]) -> None:
    """Put the earlier trials before the sampler, once, at the values that they would have on these rows."""
    if any(LENT in trial.user_attrs for trial in study.get_trials(deepcopy=False)):
        return
    told = [(known.values, trial.values) for known in best for trial in _done(study) if trial.params == known.params]
    moved = [sum(now[place] - then[place] for then, now in told) / len(told) for place in range(len(told[0][0]))]
    for trial in earlier:
        params = _within(trial.params, distributions)
        if params.keys() != distributions.keys():
            continue
        values = [value + by for value, by in zip(trial.values, moved, strict=True)]
        lent = optuna.trial.create_trial(params=params, distributions=dict(distributions), values=values, user_attrs={LENT: True})
        study.add_trial(lent)


def _beats(one: Trial, other: Trial) -> bool:
    """Whether one trial is as good in every objective and better in one."""
    pairs = list(zip(one.values, other.values, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


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
    """The search's own finished trials."""
    return [trial for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if LENT not in trial.user_attrs]


def _plain(trials: Sequence[FrozenTrial]) -> list[Trial]:
    """Optuna's trials as ours, numbered among themselves: what was lent has numbers too."""
    return [Trial(number, dict(trial.params), tuple(trial.values)) for number, trial in enumerate(trials)]


def _within(params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """What of the parameters the space knows, moved to its edge where they lie outside."""
    kept: dict[str, Any] = {}
    for name, distribution in distributions.items():
        if name not in params:
            continue
        value = params[name]
        if isinstance(distribution, CategoricalDistribution) and value not in distribution.choices:
            continue
        if isinstance(distribution, FloatDistribution | IntDistribution):
            value = min(max(value, distribution.low), distribution.high)
        kept[name] = value
    return kept
