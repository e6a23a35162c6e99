"""Is what was served what the training path makes of the same rows? The log, replayed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from flows.setting import Setting
from ratchet.check import Check
from ratchet.data.batch import conform, read_table
from ratchet.errors import BatchError
from ratchet.monitoring.skew import score_skew, skew
from ratchet.release import Release

CHUNK = 50_000


def parity(setting: Setting, offline: Path | None, progress: Callable[[int], None] = lambda _: None) -> list[Check]:
    """Replay every logged request of the champion through the training path; with `offline`, compare its features too.

    `offline` is a file of the contract's features as the training path has them, with the column `prediction_id`.
    BatchError where nothing is logged, the file lacks a column, or names no logged prediction.
    """
    route = setting.store.route()
    if route is None:
        raise BatchError(f"{setting.problem.name}: no model has been released yet, so there is nothing to replay.")
    release = setting.release(route.champion)
    logged: list[pd.DataFrame] = []
    replayed: list[np.ndarray] = []
    known: list[pd.DataFrame] = []
    wanted = _offline(setting, offline) if offline else None
    for window in windows(setting, release.version, progress):
        logged.append(window[["id", "probability"]])
        replayed.append(replay(release, window))
        if wanted is not None:
            known.append(window[window["id"].isin(wanted.index)])
    if not logged:
        raise BatchError(f"{setting.problem.name}: the log holds no prediction of version {release.version}.")
    checks = [score_skew(setting.problem, pd.concat(logged, ignore_index=True), np.concatenate(replayed))]
    if wanted is not None:
        online = pd.concat(known, ignore_index=True)
        if online.empty:
            raise BatchError(f"{offline}: none of its {len(wanted)} prediction ids is in the log.")
        checks.append(skew(setting.problem, setting.contract, wanted.loc[online["id"]].reset_index(drop=True), online))
    return checks


def windows(setting: Setting, version: str, progress: Callable[[int], None] = lambda _: None) -> Iterator[pd.DataFrame]:
    """The log of a version, oldest first, so many rows at a time; probes and load tests are logged requests too."""
    after = done = 0
    while not (window := setting.store.requests(after, CHUNK, version)).empty:
        after, done = int(window["seq"].iloc[-1]), done + len(window)
        progress(done)
        yield window


def replay(release: Release, window: pd.DataFrame) -> np.ndarray:
    """The probabilities of n logged requests by the road that a training's rows take: a table, a file of it, the encoder."""
    table = window[[column.name for column in release.contract.requested]].reset_index(drop=True)
    with io.BytesIO() as file:
        _typed(table, release).to_parquet(file, index=False)
        file.seek(0)
        return release.scorer.probability(pd.read_parquet(file))


def _typed(table: pd.DataFrame, release: Release) -> pd.DataFrame:
    """Logged values in the types of a snapshot."""
    contract = release.contract
    filled = table.assign(**{contract.id: np.arange(len(table)).astype(str)})
    for column in contract.columns:
        if column.name not in filled:
            filled[column.name] = None
    return conform(filled, contract, "the log")[list(table.columns)]


def _offline(setting: Setting, path: Path) -> pd.DataFrame:
    frame = read_table(path)
    names = [column.name for column in setting.contract.features]
    for name in ("prediction_id", *names):
        if name not in frame:
            raise BatchError(f"{path}: column {name!r} is missing. It must hold prediction_id and {', '.join(names)}.")
    for column in setting.contract.features:
        # A CSV does not tell 6 from "6": what the contract says counts.
        if column.values is None or (path.suffix != ".parquet" and all(isinstance(value, int) for value in column.values)):
            frame[column.name] = pd.to_numeric(frame[column.name], errors="coerce")
    return frame.drop_duplicates("prediction_id", keep="last").set_index("prediction_id")[names]
