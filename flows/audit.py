"""Which predictions are to be audited, and what was found out about them?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.ingest import lesson_of
from flows.setting import Setting
from ratchet.audit import AUDIT, chances, drawn
from ratchet.data.batch import read_table
from ratchet.database import now
from ratchet.errors import BatchError
from ratchet.lesson import Lesson, Span
from ratchet.log import Stretch
from ratchet.lot import lot

ID, LABEL = "prediction_id", "label"


def looked_at(setting: Setting, version: str, lesson: Lesson, entity: str | None = None, until: int | None = None) -> Stretch:
    """The stretch of a version's predictions of which drift is asked, and audits are drawn: its newest window, or whole cycles that hold as many.

    Rows that never teach are none of it. But those of the newest window are: what it is like is no matter of what was made of it before.
    """
    store, watch = setting.store, setting.problem.watch
    newest = store.stretch(watch.window, 0.0, version, until=until).first
    spoilt = [(first, min(last, newest - 1)) for first, last in lesson.without if first < newest]
    return store.stretch(watch.window, watch.cycle_hours, version, since=store.steady(version), until=until, without=spoilt, entity=entity)


def left(setting: Setting, version: str, drawn_here: Collection[str], without: Sequence[Span] = ()) -> int:
    """How many more labels the year's budget buys, beside those that came, those bought of a version, and those drawn in the newest window.

    What was bought in stretches `without` tells nothing, and is not asked for.
    """
    store, year = setting.store, now() - timedelta(days=365.25)
    return max(
        0, setting.problem.watch.audit_budget - store.bought(year) - len(store.open_audits(year, version, without) | set(drawn_here))
    )


def in_time(setting: Setting) -> datetime:
    """Since when audits must have been asked for to come in time still."""
    return now() - timedelta(days=max(1.0, setting.problem.watch.label_delay_days))


def todo(setting: Setting) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The champion's drawn predictions that no audit has told of yet, with the facts of the draw.

    They are those of the newest window, or of the whole cycle where that holds more rows, and those before it that were bought within the
    label delay: later they would come too late.

    Columns: prediction_id, at, then the request's columns; the answer is left out, so that who looks is not led by it. BatchError where
    no model answers yet.
    """
    store, route = setting.store, setting.store.route()
    if route is None:
        raise BatchError(f"{setting.problem.name}: no model has been released yet, so there is nothing to audit.")
    stretch = looked_at(setting, route.champion, lesson_of(setting, 1))
    mine = store.drawn(stretch, route.champion)
    known = mine["id"].isin(store.audits(route.champion, stretch.first - 1)["id"])
    lacking, bought = set(mine["id"][~known]), store.open_audits(in_time(setting), route.champion, stretch.without)
    facts = {"version": route.champion, "rows": stretch.rows, "drawn": len(mine), "audited": int(known.sum())}
    facts |= {"left": left(setting, route.champion, lacking, stretch.without), "before": len(bought - set(mine["id"]))}
    rows = store.asked(lacking | bought)
    # What was bought comes first, and by lot: who answers a part has a sample of all.
    rows = rows.loc[sorted(rows.index, key=lambda place: (rows["id"][place] not in bought, lot(rows["id"][place])))].reset_index(drop=True)
    names = [column.name for column in setting.contract.requested if column.name in rows]
    return rows[["id", "at", *names]].rename(columns={"id": ID}), facts


def take(setting: Setting, path: Path) -> int:
    """Keep the labels that a file tells of drawn predictions, all of them or none; how many were new.

    The file has the columns prediction_id and label, which is 0 or 1; rows without a label are passed over. BatchError says the row that
    is wrong: of a prediction that the log does not know, or that was not drawn, whose label would make the sample one of choice.
    """
    frame = read_table(path)
    if lacking := sorted({ID, LABEL} - set(frame.columns)):
        raise BatchError(f"{path}: column {lacking[0]!r} is missing; an audit's file has the columns {ID} and {LABEL}.")
    frame = frame.assign(row=np.arange(len(frame)) + 2)[frame[LABEL].notna().to_numpy()]
    if frame.empty:
        raise BatchError(f"{path}: no row has a label yet; fill in the column {LABEL} with 0 or 1.")
    values = pd.to_numeric(frame[LABEL], errors="coerce")
    if len(wrong := frame[~values.isin([0, 1])]):
        raise BatchError(f"{path}: row {wrong['row'].iloc[0]}: label {str(wrong[LABEL].iloc[0])!r} is neither 0 nor 1.")
    ids = frame[ID].astype(str)
    if len(twice := frame[ids.duplicated().to_numpy()]):
        raise BatchError(f"{path}: row {twice['row'].iloc[0]}: prediction {twice[ID].iloc[0]} stands in the file already.")
    told, draws = [setting.store.prediction(identity) for identity in ids], setting.store.draws()
    for row, identity, found in zip(frame["row"], ids, told, strict=True):
        if found is None:
            raise BatchError(f"{path}: row {row}: the log knows no prediction {identity}.")
        if not drawn([identity], chances(draws, np.array([found[0]["seq"]])))[0]:
            raise BatchError(f"{path}: row {row}: prediction {identity} was not drawn for an audit; send its label as feedback.")
    entries = [
        {"prediction_id": i, "at": now(), "value": int(v), "provenance": AUDIT} for i, v in zip(ids, values[frame.index], strict=True)
    ]
    return sum(bool(new) for new in setting.store.add_labels(entries))
