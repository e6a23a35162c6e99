"""How quick is the watch: beside Evidently on the same rows, and however long the log is?"""

from __future__ import annotations

import json
import re
import shutil
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from flows.examine import examine
from flows.experiment_watch import CONTRACT, PROBLEM, Run
from flows.peers import evidently
from flows.setting import Setting
from flows.standing import stand
from flows.watched import BEHIND
from ratchet.audit import AUDIT, drawn
from ratchet.data.batch import conform
from ratchet.database import now
from ratchet.decision import decide
from ratchet.monitoring.joint_drift import joint_drift
from ratchet.monitoring.panel import by_column, told_apart
from ratchet.prediction import Prediction
from ratchet.problem import Folder, find_problem
from ratchet.request import records
from ratchet.schema import looks
from ratchet.settings import Settings, settings
from ratchet.simulation.population import Moved

ROWS, TRAINED = 100_000, 8000
# On a machine that others use one alone may be held up.
REPEATED = 3
LENGTHS = (20_000, 200_000)
# The log's rows are of the last year; there is a decision in the ledger and a look at the log for so many of them.
SPAN, ROWS_OF_A_DECISION, ROWS_OF_A_LOOK = timedelta(days=365), 100, 40
AUDITED = 0.02


def drift_checks(seed: int) -> dict[str, float]:
    """Seconds of the drift checks of 100,000 rows of 30 columns, ours and Evidently's preset: of three in turn the middle one.

    Each is done once before, which does not count.
    """
    watched = Run(seed)
    window = watched.arrive(ROWS, Moved()).drop(columns=list(BEHIND))

    def ours() -> None:
        by_column(PROBLEM, watched.released, window)
        joint_drift(PROBLEM, told_apart(PROBLEM, watched.released, window)[0], len(window))

    checks = {"ours": ours, "Evidently": lambda: evidently(CONTRACT, watched.released.reference, window)}
    took: dict[str, list[float]] = {name: [] for name in checks}
    for _ in range(1 + REPEATED):
        for name, check in checks.items():
            begun = time.perf_counter()
            check()
            took[name].append(time.perf_counter() - begun)
    return {name: float(np.median(seconds[1:])) for name, seconds in took.items()}


def monitors(home: Path, seed: int) -> dict[int, tuple[float, float]]:
    """Seconds and megabytes of the monitor's look at a log, by the rows that the log holds; each in a process of its own."""
    made = {}
    for length in LENGTHS:
        place = home / str(length)
        shutil.rmtree(place, ignore_errors=True)
        at = Settings(RATCHET_HOME=place, DATABASE_URL=None)
        folder = find_problem("credit", settings().problems)
        stand(folder, at, "trees", TRAINED, seed)
        _fill(Setting(folder, at), length, seed)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
            made[length] = processes.submit(_look, folder.path, place).result()
    return made


def _fill(setting: Setting, length: int, seed: int) -> None:
    """So many answered requests of a year in the log, every second one labelled and some audited; with looks at it and decisions."""
    release = setting.release("2")
    rows = conform(setting.folder.open_source(None, seed + 1).traffic(LENGTHS[0], drifted=False), setting.contract, "the world")
    probability = release.scorer.probability(rows)
    texts = [json.dumps(record) for record in records(rows, setting.contract)]
    truth, store, began = rows[setting.contract.target].to_numpy(int), setting.store, now() - SPAN
    store.set_draw(AUDITED, 1, None)
    for start in range(0, length, LENGTHS[0]):
        ids = [uuid.UUID(int=start + n).hex for n in range(LENGTHS[0])]
        times = [began + SPAN * ((start + n) / length) for n in range(LENGTHS[0])]
        decided = (probability >= release.threshold).astype(int).tolist()
        told = zip(ids, times, probability.tolist(), decided, texts, strict=True)
        store.log([Prediction(i, setting.problem.name, at, "2", "champion", 1.0, p, d, text) for i, at, p, d, text in told])
        audited = np.flatnonzero(drawn(ids, np.full(len(ids), AUDITED)))
        chosen = [(n, "outcome") for n in range(0, LENGTHS[0], 2)] + [(int(n), AUDIT) for n in audited]
        store.add_labels([{"prediction_id": ids[n], "at": now(), "value": int(truth[n]), "provenance": kind} for n, kind in chosen])
    looked = range(0, length, ROWS_OF_A_LOOK)
    with store.engine.begin() as connection:
        told = [{"at": began + SPAN * (place / length), "place": place, "rows": ROWS_OF_A_LOOK} for place in looked]
        connection.execute(sa.insert(looks), [{"problem": setting.problem.name, **look} for look in told])
    _, decision = examine.fn(setting, release)
    for place in range(0, length, ROWS_OF_A_DECISION):
        inputs = decision.evidence["inputs"] | {"from": place, "to": place + ROWS_OF_A_DECISION}
        made = decide(decision.action, decision.subject, decision.reasons, inputs)
        store.record(replace(made, evidence=decision.evidence | {"inputs": inputs}))
    store.close()


def _look(path: Path, home: Path) -> tuple[float, float]:
    setting = Setting(Folder(path), Settings(RATCHET_HOME=home, DATABASE_URL=None))
    release = setting.release("2")
    examine.fn(setting, release)
    begun = time.perf_counter()
    examine.fn(setting, release)
    return time.perf_counter() - begun, _peak()


def _peak() -> float:
    """The most memory that this process has held, in megabytes. What getrusage tells would be the parent's, where that is larger."""
    told = re.search(r"(?m)^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="utf-8"))
    if told is None:
        raise RuntimeError("/proc/self/status does not tell VmHWM; the bench needs Linux.")
    return int(told[1]) / 1024
