"""Which rows, and which labels, does the next snapshot start from?"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.setting import Setting
from flows.stages import LEFT_OUT
from ratchet.data.batch import conform
from ratchet.data.splits import split
from ratchet.errors import BatchError
from ratchet.lesson import EVERYTHING, Lesson, settled
from ratchet.release import Release
from snapshots.workspace import published, restore

# Which rows teach better is told by trees: of the families they learn most from few rows in little time.
FAMILY, FOLDS = "trees", 3


def from_file(setting: Setting, batch: Path, champion: Release | None = None) -> None:
    """Put a batch into the inbox, with no label but those that its rows bring along; what the champion was not taught still does not teach."""
    frame = conform(pd.read_parquet(batch), setting.contract, batch.name)
    known = _previous(setting, frame)
    _fill(setting, frame, pd.DataFrame({"row": [], "value": [], "provenance": []}), _never_taught(setting, champion, known))


def from_log(setting: Setting, champion: Release | None = None, lesson: Lesson = EVERYTHING) -> str:
    """Put the logged predictions whose label is in into the inbox, with every label's latest value; the lesson says which of them teach.

    Returns which rows do and why, in words. BatchError where there is none.
    """
    live = setting.store.window(labelled=True)
    if live.empty:
        raise BatchError("the log: no prediction has a label yet; there is nothing to learn from.")
    contract = setting.contract
    # A row that named nobody stands for itself.
    entity = live[contract.entity].fillna(live["id"]) if contract.entity in live else live["id"]
    made = {contract.id: live["id"], contract.entity: entity.astype(str)}
    if contract.time is not None:
        made[contract.time] = live["at"]
    made |= {column.name: live[column.name] for column in contract.requested}
    made[contract.target] = live["truth"]
    frame = conform(pd.DataFrame(made), contract, "the log")
    labels = pd.DataFrame({"row": live["id"], "value": live["truth"].astype(float), "provenance": live["provenance"]})
    known = _previous(setting, frame)
    why = ""
    if lesson.since:
        lesson, why = _settled(setting, live["seq"].to_numpy(int), frame, lesson)
    taught = set(live.loc[lesson.teaches(live["seq"].to_numpy(int), live["provenance"].to_numpy(object)), "id"])
    # Of the log's rows the lesson tells whether they teach; rows of before the log cannot be of after the change.
    left_out = (_never_taught(setting, champion, known) - taught) | (set(live["id"]) - taught) | (known - taught if lesson.since else set())
    _fill(setting, frame, labels, left_out)
    return f"{lesson.said} ({why})" if why else lesson.said


def _settled(setting: Setting, places: np.ndarray, live: pd.DataFrame, lesson: Lesson) -> tuple[Lesson, str]:
    """Whether the log's rows since the change, in the inbox's order, teach better alone; test rows are not asked."""
    from models.again import window_runs

    contract, params = setting.contract, setting.workspace.parameters
    previous = pd.read_parquet(setting.root / "inbox/previous.parquet")
    since = places >= lesson.since
    older = pd.concat([previous[~previous[contract.id].isin(set(live[contract.id]))], live[~since]], ignore_index=True)
    older, newer = (rows[rows[contract.target].notna() & (split(rows[contract.entity]) != "test")] for rows in (older, live[since]))
    told = window_runs(older, newer, contract, FAMILY, params["train"], FOLDS, params["seed"])
    return settled(lesson, told, newer[contract.target].to_numpy(float))


def doubts(setting: Setting) -> list[dict[str, Any]]:
    """The evidence of the decisions that kept rows or labels from being learnt from."""
    return [entry.evidence for entry in setting.store.decisions("block", "ask")]


def _previous(setting: Setting, batch: pd.DataFrame) -> set[str]:
    """Put the last snapshot into the inbox; the ids of its rows."""
    inbox = setting.root / "inbox"
    inbox.mkdir(exist_ok=True)
    lock = published(setting.workspace)
    if lock is None:
        nothing = batch.head(0).assign(cohort=pd.Series(dtype="int64"), provenance=pd.Series(dtype=object))
        nothing.to_parquet(inbox / "previous.parquet", index=False)
    else:
        restore(setting.workspace, lock, "data/snapshot.parquet", inbox / "previous.parquet")
    return set(pd.read_parquet(inbox / "previous.parquet", columns=[setting.contract.id])[setting.contract.id])


def _never_taught(setting: Setting, champion: Release | None, known: set[str]) -> set[str]:
    """The ids of known rows that the champion was not taught, and of those that it did not know, such as the last snapshot left out."""
    lock = published(setting.workspace)
    last = sides_of(setting, lock) if lock else pd.Series(dtype=object)
    mine = sides_of(setting, champion.facts["lock"]) if champion else pd.Series(dtype=object)
    newer = last[~last.index.isin(mine.index)]
    return known & {*mine.index[mine == LEFT_OUT], *newer.index[newer == LEFT_OUT]}


def sides_of(setting: Setting, lock: str) -> pd.Series:
    """By row id the side that rows had when that dvc.lock was written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "split.parquet"
        restore(setting.workspace, lock, "data/split.parquet", path)
        return pd.read_parquet(path).set_index("row")["side"]


def _fill(setting: Setting, batch: pd.DataFrame, labels: pd.DataFrame, left_out: set[str]) -> None:
    """Put the rest into the inbox: whole files only, and the batch last."""
    inbox = setting.root / "inbox"
    typed = labels.astype({"row": object, "value": float, "provenance": object})
    rows = pd.DataFrame({"row": pd.Series(sorted(left_out), dtype=object)})
    for name, frame in (("labels", typed), ("left_out", rows), ("batch", batch)):
        draft = inbox / f".{name}.draft"
        frame.to_parquet(draft, index=False)
        os.replace(draft, inbox / f"{name}.parquet")
