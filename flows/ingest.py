"""Which rows, and which labels, does the next snapshot start from?"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from flows.setting import Setting
from ratchet.data.batch import conform
from ratchet.errors import BatchError
from ratchet.retraining import EVERYTHING, Lesson
from snapshots.workspace import published, restore


def from_file(setting: Setting, batch: Path) -> None:
    """Put a batch into the inbox, with no label but those that its rows bring along."""
    frame = conform(pd.read_parquet(batch), setting.contract, batch.name)
    _fill(setting, frame, pd.DataFrame({"row": [], "value": [], "provenance": []}), pd.Series([]))


def from_log(setting: Setting, lesson: Lesson = EVERYTHING) -> None:
    """Put the logged predictions whose label is in into the inbox, with every label's latest value, and say which of them teach.

    BatchError where there is none.
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
    teaches = (live["seq"] >= lesson.since) & (live["provenance"].isin(lesson.only) if lesson.only else True)
    _fill(setting, frame, labels, live.loc[teaches, "id"] if lesson != EVERYTHING else live["id"].head(0))


def _fill(setting: Setting, batch: pd.DataFrame, labels: pd.DataFrame, teach: pd.Series) -> None:
    inbox = setting.root / "inbox"
    inbox.mkdir(exist_ok=True)
    lock = published(setting.workspace)
    if lock is None:
        nothing = batch.head(0).assign(cohort=pd.Series(dtype="int64"), provenance=pd.Series(dtype=object))
        nothing.to_parquet(inbox / "previous.parquet", index=False)
    else:
        restore(setting.workspace, lock, "data/snapshot.parquet", inbox / "previous.parquet")
    typed = labels.astype({"row": object, "value": float, "provenance": object})
    for name, frame in (("labels", typed), ("teach", pd.DataFrame({"row": teach.astype(object)})), ("batch", batch)):
        draft = inbox / f".{name}.draft"
        frame.to_parquet(draft, index=False)
        os.replace(draft, inbox / f"{name}.parquet")
