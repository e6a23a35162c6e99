"""What do all monitors say of one window? Every check, from plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ratchet.audit import AUDIT
from ratchet.check import Check
from ratchet.contract import Contract
from ratchet.data.encoding import Encoder
from ratchet.data.entities import newest_of_each
from ratchet.lesson import DOUBTED
from ratchet.monitoring.adversarial_input import probes
from ratchet.monitoring.arrival import Look, clock, volume
from ratchet.monitoring.columns import columns
from ratchet.monitoring.concept_drift import Stream, concept_drift
from ratchet.monitoring.cycle import spanning
from ratchet.monitoring.data_drift import data_drift
from ratchet.monitoring.decay import decay
from ratchet.monitoring.domain import Domain, domain, thinned
from ratchet.monitoring.estimate import NOTHING, Audited, Held, expected_harm
from ratchet.monitoring.feedback_loop import feedback
from ratchet.monitoring.joint_drift import joint_drift
from ratchet.monitoring.label_classes import label_classes
from ratchet.monitoring.label_conflicts import label_conflicts
from ratchet.monitoring.quality import quality
from ratchet.monitoring.silent_failure import silent
from ratchet.monitoring.validity import validity
from ratchet.problem import Problem


@dataclass(frozen=True)
class Released:
    """What a release tells of the rows it was made from.

    `reference`: training rows, in their order, with the features and what is watched besides. `held`: labelled rows that the model has not
    learnt from, with the columns `probability` and `truth`. Both may tell rows of one entity, by its column. `relies_on`: the columns on
    which its answers hang. `mean` and `error`: its loss on them, and the standard error. `threshold`: that by which the service decides.
    `newest`: rows of every side that followed one another, with the features; releases of before have none.
    """

    contract: Contract
    encoder: Encoder
    reference: pd.DataFrame
    held: pd.DataFrame
    relies_on: tuple[str, ...]
    mean: float
    error: float
    threshold: float
    newest: pd.DataFrame | None = None

    @property
    def following(self) -> pd.DataFrame:
        """Rows that followed one another: of held-out ones many a neighbour stands on another side."""
        return self.held if self.newest is None else self.newest

    @property
    def distinct(self) -> pd.DataFrame:
        """Of the held-out rows the newest of each entity, where they tell it."""
        return newest_of_each(self.contract, self.held)


Apart = tuple[Domain, Domain] | tuple[None, None]


def without_labels(
    problem: Problem, released: Released, window: pd.DataFrame, apart: Apart, spread: pd.DataFrame | None = None
) -> list[Check]:
    """The monitors that need no label, of a window of n predictions, oldest first.

    Whether the population has moved is asked of predictions that are `spread` over a whole cycle, the window where that is left out;
    whether rows are broken, or somebody tries the model out, of the window.
    """
    contract, encoder = released.contract, released.encoder
    population = window if spread is None else spread
    each = newest_of_each(contract, population)
    return [
        *by_column(problem, released, window, spread),
        joint_drift(problem, apart[0], len(each)),
        *silent(problem, contract, encoder, released.distinct, each),
        *probes(problem, contract, encoder, released.held, window, released.following, population),
    ]


def by_column(problem: Problem, released: Released, window: pd.DataFrame, spread: pd.DataFrame | None = None) -> list[Check]:
    """The monitors that look at columns, one at a time or beside each other; drift is asked of what is `spread`, as above."""
    asked = problem, released.contract, released.reference
    lately = data_drift(*asked, window)
    moved = lately if spread is None or spread is window else data_drift(*asked, spread)
    return [validity(*asked, window), columns(*asked, window, lately), *moved]


def held_of(released: Released) -> Held:
    """The held-out rows' probabilities and truths."""
    held = released.distinct
    return Held(held["probability"].to_numpy(float), held["truth"].to_numpy(float))


def on_labels(
    problem: Problem,
    released: Released,
    window: pd.DataFrame,
    apart: Apart,
    labelled: pd.DataFrame,
    stream: Stream,
    audited: Audited = NOTHING,
    doubtful: pd.DataFrame | None = None,
) -> list[Check]:
    """The monitors of what decisions cost, and of the labels that tell it.

    `window` are the predictions that are estimated, with `probability`. `labelled` are the newest labelled predictions, or those spread over
    a whole cycle, as many as `decay` looks at or more, with `seq`, `at`, `probability`, `truth`, `provenance` and `relabelled` (another
    label was there before). `stream` was fed with whether each decision was wrong, in the order in which labels came. `audited` is what
    audits found. `doubtful` are the newest labelled predictions whose labels are to be doubted, more than a window of them, `labelled`
    where that is left out: those by which the model is judged need not be all of them.
    """
    told = labelled if doubtful is None else doubtful
    newly = told.tail(problem.watch.window)
    # A few sound labels must not hide that all others are of one class.
    came = newly[(newly["provenance"] != AUDIT).to_numpy()]
    conflicts = label_conflicts(problem, told["relabelled"].to_numpy(bool))
    # Of a long stretch only that part is doubted in which they are.
    contradicted = told.tail(conflicts.evidence["stretch"])
    contradicted = contradicted[contradicted["relabelled"].to_numpy(bool)]
    held, asked = held_of(released), (problem.watch.window, problem.watch.cycle_hours)
    newest = labelled.iloc[spanning(labelled["at"].to_numpy("datetime64[ns]"), *asked)]
    # As many rows of an entity as count at release.
    each = newest_of_each(released.contract, labelled) if released.contract.entity in released.held else labelled
    truth, answered = (each[name].to_numpy(float) for name in ("truth", "probability"))
    at, sure = each["at"].to_numpy("datetime64[ns]"), len(held.truth) or np.inf
    probability, told_of = (rows["probability"].to_numpy(float) for rows in (window, newest))
    return [
        expected_harm(problem, held, apart[1], probability, audited, told_of),
        decay(problem, answered, truth, released.mean, released.error, sure, at),
        concept_drift(problem, stream, share_wrong(released.threshold, held)),
        _placed(label_classes(problem, held.truth, came["truth"].to_numpy(float)), came),
        _placed(conflicts, contradicted),
    ]


def share_wrong(threshold: float, held: Held) -> float:
    """The share of decisions on held-out rows that are wrong; 0 where there are none."""
    return float(((held.probability >= threshold) != held.truth).mean()) if len(held.truth) else 0.0


def on_the_way(
    problem: Problem,
    released: Released,
    window: pd.DataFrame,
    aged: pd.DataFrame,
    looks: Sequence[Look],
    labelled_before: bool = False,
    newest: pd.DataFrame | None = None,
    usual: float | None = None,
) -> list[Check]:
    """The monitors of what happens to rows and labels on their way: quality, feedback, volume, the clock.

    `window` has the columns `seq`, `at` and `label_at`. `aged` are predictions older than the label delay, with `seq`, `label`, `outcome`
    and `gold`; `labelled_before` is whether labels have come at all, `newest` the newest labelled ones, however young, `usual` the share of
    rows that lacked one when they came best of the version's. `looks` are those at the log, oldest first; the last one is the present.
    """
    contract = released.contract
    scored = quality(problem, contract, released.held, window, aged, labelled_before, newest, usual, released.following)
    of_labels = [*scored, *feedback(problem, contract, aged)]
    return [
        *(_placed(check, aged) if check.name in DOUBTED else check for check in of_labels),
        volume(problem, looks),
        clock(problem, window, looks[-1][0], looks[-2] if len(looks) > 1 else None),
    ]


def _placed(check: Check, rows: pd.DataFrame) -> Check:
    """The check with the places of its rows in the log: which labels are doubted is asked again when a retraining learns from them."""
    return replace(check, evidence=check.evidence | {"from": int(rows["seq"].min()), "to": int(rows["seq"].max())}) if len(rows) else check


def told_apart(problem: Problem, released: Released, window: pd.DataFrame) -> Apart:
    """What tells the window from the held-out rows: by all features, and by those that the model relies on.

    None where there are too few rows of either, or a column is gone. Where nothing tells them apart, no row weighs more than another. Of each
    entity the newest row counts: a classifier would know the others by it.
    """
    names, held = [column.name for column in released.contract.features], released.distinct
    window = newest_of_each(released.contract, window)
    if min(len(window), len(held)) < problem.watch.min_window or not set(names) <= set(window.columns):
        return None, None
    # Of a large window no more rows are looked at than these.
    looked_at = window.iloc[thinned(len(window))]
    before, now = (released.encoder.encode({name: rows[name] for name in names}, ("bins",))["bins"] for rows in (held, looked_at))
    everything = domain(before, now)
    if everything.alike:
        return everything, everything.without_difference()
    columns = [released.encoder.names.index(name) for name in released.relies_on]
    apart = domain(before[:, columns], now[:, columns])
    return everything, apart.without_difference() if apart.alike else apart


def typed(rows: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    """The same rows; what is no finite number is missing in a column of numbers, amounts or codes; a list among words is its text."""
    made = {}
    for column in contract.requested:
        if column.name in rows:
            values = rows[column.name]
            if column.is_words:
                made[column.name] = values.map(lambda value: str(value) if isinstance(value, list | dict) else value)
            else:
                made[column.name] = pd.to_numeric(values, errors="coerce").replace([np.inf, -np.inf], np.nan)
    return rows.assign(**made)
