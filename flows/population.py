"""Which predictions, and which of their labels, is the champion judged by?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from flows.audit import looked_at
from flows.ingest import sound_rows
from flows.setting import Setting
from ratchet.check import Check
from ratchet.contract import Contract
from ratchet.data.entities import newest_of_each
from ratchet.decision import JUDGEMENTS
from ratchet.lesson import EVERYTHING, Lesson, Span, begins, inside
from ratchet.log import Stretch
from ratchet.monitoring.cycle import in_cycles, spanning
from ratchet.monitoring.decay import WINDOWS
from ratchet.monitoring.panel import Released, typed
from ratchet.retraining import ACTIONS, drifts
from ratchet.store import Store

# Labels are read from the store so many at a time.
OUTCOMES = 20_000
# A slice is a part of the rows: to see one it takes more of them than to see the mean.
SLICE_ROWS = 20_000
# Of a cycle of which more rows than a quarter were faults nobody knows what it would be like.
LEFT = 0.75


@dataclass(frozen=True)
class Population:
    """The predictions of a version that are looked at.

    `window`: the newest ones. `stretch`: those of which drift is asked and audits are drawn; `spread`: as many as the window has, evenly spread
    over it, or the window where no cycle is whole. `spans`: whether the stretch is of whole cycles, of which faults left enough.
    `steady`: since when the version has answered a share that did not change. `entity`: the column that tells whose each is, where one does.
    """

    window: pd.DataFrame
    stretch: Stretch
    spread: pd.DataFrame
    spans: bool
    steady: datetime | None
    entity: str | None


@dataclass(frozen=True)
class Labelled:
    """The labelled predictions of a version, oldest first.

    `every`: the newest ones. `sound`: those of them that may teach. `population`: sound ones of the new population, spread over whole cycles
    where there are some. `newest`: as many of these as decay is asked of; `spans`: whether they are of whole cycles, of which faults and doubts left enough. `doubtful`: those of the
    new population whose labels nobody has found sound.
    """

    every: pd.DataFrame
    sound: pd.DataFrame
    population: pd.DataFrame
    newest: pd.DataFrame
    spans: bool
    doubtful: pd.DataFrame


def population(setting: Setting, version: str, released: Released, lesson: Lesson) -> Population:
    """What is looked at of a version's predictions, as the log stands."""
    store, watch, contract = setting.store, setting.problem.watch, released.contract
    window = typed(store.window(newest=watch.window, version=version), contract)
    entity = contract.entity if contract.entity in window and contract.entity in released.held else None
    stretch = looked_at(setting, version, lesson, entity, until=int(window["seq"].max()) if len(window) else 0)
    spread = window
    if watch.cycle_hours and stretch.whole:
        spread = typed(store.window(newest=watch.window, version=version, spread=stretch), contract)
    return Population(window, stretch, spread, stretch.whole and _enough(stretch), store.steady(version), entity)


def labelled(
    setting: Setting,
    version: str,
    contract: Contract,
    seen: Population,
    onset: int,
    lesson: Lesson,
    trusted: Sequence[Span],
    present: datetime,
) -> Labelled:
    """What is known of a version's predictions by their labels; `onset` is where its new population begins.

    Rows of before the population moved may teach, but tell nothing of how it is answered.
    """
    store, watch = setting.store, setting.problem.watch
    rows, hours = WINDOWS * watch.window, watch.cycle_hours
    most = max(SLICE_ROWS, rows, watch.min_labels)
    every = _newest_labelled(setting, version, most, lesson, contract)
    # What was no fault of the model is not held against it.
    sound = sound_rows(setting, every, lesson)
    known = sound[sound["seq"] >= onset]
    newest, spans = known.tail(rows), True
    # What a person found sound is doubted no more.
    doubtful = every[(every["seq"] >= onset).to_numpy() & ~inside(trusted, every["seq"].to_numpy(int))]
    if hours:
        # Of a population that began at noon there are no rows of the night before.
        moments = [moment for moment in (seen.steady, _first(known["at"]) if onset > 1 else None) if moment is not None]
        since, without = max(moments, default=None), seen.stretch.without
        stretch = store.stretch(most, hours, version, since=since, labelled=True, until=lesson.until, without=without, entity=seen.entity)
        spans = stretch.whole and _enough(stretch)
        if stretch.whole:
            evenly = _newest_labelled(setting, version, most, lesson, contract, stretch)
            left = sound_rows(setting, evenly, lesson)
            known = left[left["seq"] >= onset]
            # Nor is it a day where the labels of half of it are doubted.
            spans = spans and len(left) >= LEFT * len(evenly)
        each = (newest_of_each(contract, known) if seen.entity else known).assign(at=known["at"].clip(upper=present))
        newest = each.iloc[spanning(each["at"].to_numpy("datetime64[ns]"), rows, hours, since)]
    return Labelled(every, sound, known, newest, spans, doubtful)


def outcomes(setting: Setting, version: str, lesson: Lesson, trusted: Sequence[Span], finished: datetime) -> Iterator[pd.DataFrame]:
    """Whether a version's decisions were wrong, as the detector is told of them: by whole cycles, as far as these have ended by `finished`.

    The columns are those of `in_cycles`, and wrong; NaN where a label is not to be judged by.
    """
    first = min((begun for begun, _ in setting.store.answering(version)), default=None)
    return in_cycles(_wrong(setting.store, version, lesson, trusted), setting.problem.watch.cycle_hours, finished, first)


def fresh(sound: pd.DataFrame, learnt: Lesson, used: int, taught: Lesson) -> int:
    """How many sound labelled rows a retraining would learn from that the one before, which knew the labels up to place `used`, did not.

    What was left out then, and teaches now, is as new as what has come since.
    """
    places, kinds = sound["seq"].to_numpy(int), sound["provenance"].to_numpy(object)
    return int(((places >= learnt.since) & ((sound["label_seq"].to_numpy(int) > used) | ~taught.teaches(places, kinds))).sum())


def onset_of(setting: Setting, version: str, drifting: bool, judged: bool = True) -> tuple[int, int, Lesson]:
    """The log's place where the champion's new population begins, the newest label that an earlier retraining may have learnt from, and what
    that one left out.

    The new population begins after the last window that did not drift; without drift every row counts. Where drift cannot be `judged`, it is
    as it was.
    """
    store, subject = setting.store, f"version {version}"
    done = answered(setting)
    asked = [(e.evidence["inputs"], e.at) for e in store.decisions("retrain", subject=subject) if e.id in done]
    # Older decisions do not tell it, but when they were taken.
    used = max((told["labels_seen"] if "labels_seen" in told else store.label_before(at) for told, at in asked), default=0)
    taught = Lesson(**(asked[-1][0].get("lesson", {}) | {"since": 0})) if asked else EVERYTHING
    before = [entry.evidence for entry in store.decisions(*ACTIONS, newest=1, subject=subject)]
    if not before or (judged and not drifting):
        return 1, used, taught
    told, checks = before[0]["inputs"], before[0]["checks"]
    known = not judged or drift_failed(checks) or (not drift_judged(checks) and told["onset"] > 1)
    return told["onset"] if known else told["to"] + 1, used, taught


def begun(setting: Setting, version: str, onset: int, concept: Check, told: Iterable[pd.DataFrame]) -> int:
    """The log's place where the champion's new population (`onset`) or concept begins; 1 where neither has changed.

    `told` are the labels that the detector was fed with, from the first one on, with the places of their predictions. Where they came in
    cycles, their order within one is of chance: a new concept begins with the cycle of the alarm.
    """
    if concept.verdict != "fail" or not concept.blocking:
        return onset
    store, watch = setting.store, setting.problem.watch
    places, passed, alarm = list[int](), 0, int(concept.evidence["at"]) - 1
    for part in told:
        first = 0 if places or watch.cycle_hours else max(0, alarm - passed)
        passed += len(part)
        if passed > alarm:
            places += part["prediction"].iloc[first:].tolist()
        if len(places) >= OUTCOMES:
            break
    return begins(onset, places[:OUTCOMES], watch.window, lambda first, last: store.between(version, first, last, watch.window + 1))


def answered(setting: Setting) -> set[str]:
    """The decisions for which a generation was made already, or whose rows had made one that was judged before."""
    again = [entry for entry in setting.store.decisions("superseded") if "same_as" in entry.evidence["inputs"]]
    made = [*setting.store.decisions(*JUDGEMENTS), *again]
    return {str(entry.evidence["inputs"].get("trigger")).removeprefix("decision ") for entry in made}


def _newest_labelled(
    setting: Setting, version: str, newest: int, lesson: Lesson, contract: Contract, spread: Stretch | None = None
) -> pd.DataFrame:
    """The newest labelled rows, or so many spread over a cycle; of those that are too young to be judged by their labels only what was
    audited, by chance as it was.
    """
    every = typed(setting.store.window(newest=newest, version=version, labelled=True, until=lesson.until, spread=spread), contract)
    if lesson.until is None:
        return every
    young = typed(setting.store.window(newest=newest, version=version, labelled=True, after=lesson.until), contract)
    parts = [rows for rows in (every, sound_rows(setting, young, lesson)) if len(rows)]
    return pd.concat(parts, ignore_index=True) if parts else every


def _wrong(store: Store, version: str, lesson: Lesson, trusted: Sequence[Span]) -> Iterator[pd.DataFrame]:
    """Whether a version's decisions were wrong, in the order of their labels, so many at a time; NaN where that is not to be judged by.

    Columns: wrong, prediction (its place of the log), made (when it was) and at (when its label came).
    Where labels of one class come sooner, that order would tell of the labels: in the order of the predictions, as far as labels are due.
    Of rows that a person found sound it is what their labels say by now: those that were corrected meanwhile told something else at first.
    """
    after, corrected = 0, [place for first, last in trusted for place in store.corrected(version, first, last)]
    while len(part := store.outcomes(after, OUTCOMES, version, lesson.until)):
        sound = lesson.teaches(part["prediction"].to_numpy(int), part["provenance"].to_numpy(object))
        # Of two classes, what is corrected was right where it had been wrong.
        wrong = part["wrong"].to_numpy(bool) ^ part["prediction"].isin(corrected).to_numpy()
        yield part[["prediction", "made", "at"]].assign(wrong=np.where(sound, wrong.astype(float), np.nan))
        after = int(part["seq" if lesson.until is None else "prediction"].iloc[-1])


def _enough(stretch: Stretch) -> bool:
    """Whether so many rows of a cycle are left without those of faults that it is one still."""
    return stretch.rows >= LEFT * (stretch.rows + stretch.spoilt)


def _first(at: pd.Series) -> datetime | None:
    """The earliest of some times, None where there is none."""
    return None if at.empty else at.min().to_pydatetime()


def drift_failed(checks: list[dict[str, Any]]) -> bool:
    """Whether a check tells that the population has moved."""
    return any(drifts(check["name"]) and check["verdict"] == "fail" and check["blocking"] for check in checks)


def drift_judged(checks: list[dict[str, Any]]) -> bool:
    """Whether any check could tell if the population has moved."""
    return any(drifts(check["name"]) and check["verdict"] in ("pass", "fail") for check in checks)
