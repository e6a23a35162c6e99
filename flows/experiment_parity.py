"""Does what is served equal what is trained on, over a million requests, and is every known skew caught?"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx
import numpy as np
import pandas as pd

from flows.parity import replay, windows
from flows.setting import Setting
from load_tests.crowd import Crowd, request
from models.train import Native
from ratchet.data.batch import conform
from ratchet.monitoring.skew import differs
from ratchet.release import Release
from ratchet.report.results import Row, count, share
from ratchet.request import as_sent, records
from ratchet.simulation.skews import Skew

CHUNK = 50_000
CONNECTIONS = 64
# So many requests may pass before a skew is caught.
SOON = 1000
STEP = 50
Say = Callable[[str], None]


@dataclass(frozen=True)
class Compared:
    """n requests, asked one by one: of how many a feature or a score differed, and how far native models were off."""

    n: int
    features: int
    scores: int
    native_gap: float
    native_flips: int
    unanswered: int


def million(setting: Setting, release: Release, native: Native, url: str, requests: int, seed: int, say: Say) -> Compared:
    """Ask the service at `url`, one record a request; then replay the log and compare with the rows that were asked."""
    contract = setting.contract
    source = setting.folder.open_source(None, seed)
    asked: list[pd.DataFrame] = []
    unanswered = 0
    host, port = httpx.URL(url).host, httpx.URL(url).port or 80
    crowd = Crowd(host, port, CONNECTIONS)
    try:
        while (done := sum(map(len, asked))) < requests:
            rows = conform(source.traffic(min(CHUNK, requests - done), drifted=bool(len(asked) % 2)), contract, "the world")
            rows[contract.entity] = rows[contract.id]
            bodies = [json.dumps(r | {contract.entity: name}) for r, name in zip(records(rows, contract), rows[contract.id], strict=True)]
            outcome = crowd.closed([request("/predict", body.encode(), {}) for body in bodies])
            unanswered += outcome.failed
            asked.append(rows)
            say(f"{done + len(rows):,} asked, {unanswered} unanswered")
    finally:
        crowd.close()
    offline = pd.concat(asked, ignore_index=True).set_index(contract.id)
    found = Compared(0, 0, 0, 0.0, 0, unanswered)
    for window in windows(setting, release.version):
        window = window[window[contract.entity].isin(offline.index)]
        if window.empty:
            continue
        truth = offline.loc[window[contract.entity]].reset_index(drop=True)
        told = window["probability"].to_numpy(float)
        feature = np.logical_or.reduce([differs(truth[c.name], window[c.name].reset_index(drop=True), c) for c in contract.features])
        # Equal values are not enough: the bytes that the model is given must be the same.
        views = [release.encoder.encode(frame) for frame in (truth, window)]
        feature |= np.logical_or.reduce([(views[0][name] != views[1][name]).any(axis=1) for name in views[0]])
        native_p = native(truth)
        found = Compared(
            n=found.n + len(window),
            features=found.features + int(feature.sum()),
            scores=found.scores + int((told != replay(release, window)).sum()),
            native_gap=max(found.native_gap, float(np.abs(native_p - told).max())),
            native_flips=found.native_flips + int(((native_p >= release.threshold) != (told >= release.threshold)).sum()),
            unanswered=unanswered,
        )
        say(f"{found.n:,} replayed")
    return found


def caught(setting: Setting, url: str, skew: Skew, seed: int, requests: int = SOON) -> tuple[int | None, str]:
    """After how many requests of an upstream with that skew it was caught, and by what: the contract or the comparison."""
    contract = setting.contract
    rows = conform(setting.folder.open_source(None, seed).traffic(requests, drifted=False), contract, "the world")
    sent = as_sent(skew.plant(rows), contract)
    with httpx.Client(base_url=url, headers=setting.settings.authorization, timeout=30) as client:
        for start in range(0, requests, STEP):
            ids = []
            for place, record in enumerate(sent[start : start + STEP], start=start + 1):
                answer = client.post("/predict", json=record)
                if answer.status_code == 422:
                    return place, "contract"
                ids.append(answer.raise_for_status().json()["prediction_id"])
            logged = pd.DataFrame([json.loads(row.features) for row in setting.store.answered(ids)])
            offline = rows.iloc[start : start + STEP].reset_index(drop=True)
            wrong = np.logical_or.reduce([differs(offline[c.name], logged[c.name], c) for c in contract.features])
            if wrong.any():
                return start + int(np.flatnonzero(wrong)[0]) + 1, "comparison"
    return None, "nothing"


def measure(found: dict[str, Compared], drilled: Sequence[tuple[str, int, int]]) -> list[Row]:
    """The rows of parity.md: what was compared, family by family, then each skew with how many of its runs were caught in time."""
    rows = []
    for family, one in found.items():
        rows += [
            count(f"{family}: requests with a feature that differs", one.features, one.n, "requests"),
            count(f"{family}: requests answered otherwise by the training path", one.scores, one.n, "requests"),
            count(f"{family}: largest difference from the native model", one.native_gap, one.n, ""),
            count(f"{family}: decisions that the native model takes otherwise", one.native_flips, one.n, "requests"),
            count(f"{family}: requests without an answer", one.unanswered, one.n, "requests"),
        ]
    rows += [share(f"skew caught within {SOON:,} requests: {name}", hits, runs) for name, hits, runs in drilled]
    return [*rows, count("skews caught", sum(hits == runs for _, hits, runs in drilled), len(drilled), f"of {len(drilled)}")]
