"""Which rows, and which labels, does the next snapshot start from?"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from flows.setting import Setting
from flows.stages import LEFT_OUT
from ratchet.audit import AUDIT
from ratchet.data.batch import conform
from ratchet.data.splits import split
from ratchet.database import now
from ratchet.draft import drafted
from ratchet.errors import BatchError
from ratchet.lesson import EVERYTHING, Lesson, Span, learn_from, settled
from ratchet.monitoring.label_delay import hurried
from ratchet.release import Release
from ratchet.retraining import ACTIONS
from snapshots.workspace import published, restore

# Which rows teach better is told by trees: of the families they learn most from few rows in little time.
FAMILY, FOLDS = "trees", 3
# The newest decisions that are asked what must not teach: more than one, since two looks at once do not know of each other.
LOOKED_BACK = 20
# By the labels of so many rows it is told whether those of one class come sooner; of a log in which none is due, where nearly all are in.
DELAYS, NEARLY_ALL = 5000, 0.9


def from_file(setting: Setting, batch: Path, champion: Release | None = None, lesson: Lesson = EVERYTHING) -> None:
    """Put a batch into the inbox, with no label but those that its rows bring along.

    The lesson says which of the log's rows that the snapshot has teach; files of before that the champion was not taught do not.
    """
    frame = conform(pd.read_parquet(batch), setting.contract, batch.name)
    known, live = _previous(setting, frame), _live(setting, lesson)
    left_out = set(live.loc[~_taught(live, lesson), "id"])
    if champion and lesson.since:
        sides = sides_of(setting, champion.facts["lock"])
        left_out |= set(sides.index[sides == LEFT_OUT]) - set(live["id"])
    _fill(setting, frame, pd.DataFrame({"row": [], "value": [], "provenance": []}), known & left_out)


def from_log(setting: Setting, lesson: Lesson = EVERYTHING) -> tuple[int, str]:
    """Put the logged predictions whose label is in into the inbox, with every label's latest value; the lesson says which of them teach.

    Rows that were not what they seemed stay in the log. Returns from which place of the log on rows teach, 0 being all, and which do and
    why, in words. BatchError where there is none.
    """
    live = _live(setting, lesson)
    if live.empty:
        raise BatchError("the log: no prediction has a label yet; there is nothing to learn from.")
    sound = live[_taught(live, replace(lesson, since=0))].reset_index(drop=True)
    if sound.empty:
        raise BatchError(
            "the log: every labelled prediction is of a stretch that was blocked, probed or doubted, or too young where labels of one class "
            "come sooner or may; `ratchet trust` lists them and takes back what was wrong about one."
        )
    contract = setting.contract
    # A row that named nobody stands for itself.
    entity = sound[contract.entity].fillna(sound["id"]) if contract.entity in sound else sound["id"]
    made = {contract.id: sound["id"], contract.entity: entity.astype(str)}
    if contract.time is not None:
        made[contract.time] = sound["at"]
    made |= {column.name: sound[column.name] for column in contract.requested}
    made[contract.target] = sound["truth"]
    frame = conform(pd.DataFrame(made), contract, "the log")
    labels = pd.DataFrame({"row": sound["id"], "value": sound["truth"].astype(float), "provenance": sound["provenance"]})
    known, why = _previous(setting, frame), ""
    if lesson.since:
        lesson, why = _settled(setting, frame, sound["seq"].to_numpy(int), set(live["id"]), lesson)
    left_out = set(live.loc[~_taught(live, lesson), "id"])
    if lesson.since:
        # What came by a file is taken to be of before.
        left_out |= known - set(live["id"])
    _fill(setting, frame, labels, (known | set(sound["id"])) & left_out)
    return lesson.since, f"{lesson.said} ({why})" if why else lesson.said


def _live(setting: Setting, lesson: Lesson) -> pd.DataFrame:
    """The log's labelled rows; where labels were doubted what an audit found counts, also where another label came after it."""
    return _found(setting, setting.store.window(labelled=True), lesson)


def _found(setting: Setting, live: pd.DataFrame, lesson: Lesson) -> pd.DataFrame:
    begins = [first for first, _ in lesson.audited] + ([] if lesson.until is None else [lesson.until + 1])
    if begins and len(live):
        found = live["id"].map(setting.store.gold(min(begins)))
        told = lesson.doubts(live["seq"].to_numpy(int)) & found.notna().to_numpy()
        live = live.assign(truth=found.where(told, live["truth"]), provenance=live["provenance"].mask(told, AUDIT))
    return live


def sound_rows(setting: Setting, live: pd.DataFrame, lesson: Lesson) -> pd.DataFrame:
    """Of labelled rows of the log those that may teach, and by which a model may be judged: what misleads the one misleads the other."""
    found = _found(setting, live, lesson)
    return found[_taught(found, lesson)]


def _taught(live: pd.DataFrame, lesson: Lesson) -> np.ndarray:
    return lesson.teaches(live["seq"].to_numpy(int), live["provenance"].to_numpy(object))


def _settled(setting: Setting, sound: pd.DataFrame, places: np.ndarray, logged: set[str], lesson: Lesson) -> tuple[Lesson, str]:
    """Whether sound rows of the log since the change teach better alone than with older ones and files; test rows are not asked."""
    from models.again import window_runs

    contract, params = setting.contract, setting.workspace.parameters
    previous = pd.read_parquet(setting.root / "inbox/previous.parquet")
    since = places >= lesson.since
    older = pd.concat([previous[~previous[contract.id].isin(logged)], sound[~since]], ignore_index=True)
    older, newer = (rows[rows[contract.target].notna() & (split(rows[contract.entity]) != "test")] for rows in (older, sound[since]))
    told = window_runs(older, newer, contract, FAMILY, params["train"], FOLDS, params["seed"])
    return settled(lesson, told, newer[contract.target].to_numpy(float), newer[contract.entity].to_numpy(object), setting.problem.threshold)


def lesson_of(setting: Setting, begun: int) -> Lesson:
    """What ledger and log let a retraining learn from, once a new population or concept has begun at a place of the log (1: none has)."""
    store = setting.store
    ledger = [entry.evidence for entry in store.decisions(*ACTIONS, newest=LOOKED_BACK)]
    # Decisions of earlier releases do not tell what was known before them.
    if not any("kept_out" in evidence for evidence in ledger):
        ledger = [entry.evidence for entry in store.decisions("block", "ask")]
    return replace(learn_from(begun, ledger, trusted(setting)), until=_until(setting))


def _until(setting: Setting) -> int | None:
    """The last place of the log whose labels are due, where labels of one class come sooner than those of the other, or may."""
    store, watch = setting.store, setting.problem.watch
    due = store.place_at(now() - timedelta(days=watch.label_delay_days))
    told = store.delays(DELAYS, due)
    # Of a young log nothing is due yet. What has come so soon tells it only if little is still to come: that may be all of one class.
    if len(told) < watch.min_window:
        told = store.delays(DELAYS)
        most = round(len(told) * (1 / NEARLY_ALL - 1))
        if len(told) and store.unlabelled(int(told["seq"].iloc[0]), int(told["seq"].iloc[-1]), most + 1) > most:
            return due
    delay = (told["label_at"] - told["at"]) / pd.Timedelta(seconds=1)
    return due if hurried(delay.to_numpy(float), told["truth"].to_numpy(float)) else None


def trusted(setting: Setting) -> list[Span]:
    """The stretches of the log that a person found sound, whatever a monitor says of them."""
    said = [entry.evidence["inputs"] for entry in setting.store.decisions("trust")]
    return [(told["from"], told["to"]) for told in said]


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
        with drafted(inbox / f"{name}.parquet") as draft:
            frame.to_parquet(draft, index=False)
