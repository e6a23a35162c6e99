"""How does a client use the service? Ask, and later tell what turned out to be true; with rows of the problem's own where it has no clients."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pandas as pd

from flows.setting import Setting
from ratchet.contract import Contract
from ratchet.data.batch import conform
from ratchet.decision import digest
from ratchet.errors import StackError
from ratchet.prediction import LIVE
from ratchet.request import records
from ratchet.settings import settings

CHUNK = 100
PATIENCE = 30.0


def ask(url: str, frame: pd.DataFrame, contract: Contract, key: str) -> list[str]:
    """Ask for a prediction of every row, in chunks of 100; the prediction ids in the rows' order.

    `key` makes the chunks idempotent: asked again under the same key, they are answered from the log.
    StackError where the service refuses, or stays away for 30 seconds.
    """
    ids: list[str] = []
    with httpx.Client(base_url=url, headers=settings().authorization, timeout=30) as client:
        for start in range(0, len(frame), CHUNK):
            body = records(frame.iloc[start : start + CHUNK], contract)
            answers = _post(client, "/predict", body, {"Idempotency-Key": f"{key}:{start}"})
            ids += [answer["prediction_id"] for answer in answers]
    return ids


def tell(url: str, ids: list[str], truth: pd.Series) -> int:
    """Send the labels of predictions; how many were new."""
    accepted = 0
    with httpx.Client(base_url=url, headers=settings().authorization, timeout=30) as client:
        for start in range(0, len(ids), 500):
            part = zip(ids[start : start + 500], truth.iloc[start : start + 500], strict=True)
            body = [{"prediction_id": identity, "label": int(value)} for identity, value in part]
            accepted += _post(client, "/feedback", body, {})["accepted"]
    return accepted


def send_own(setting: Setting, rows: int, drifted: bool, labelled: bool, seed: int, source: str | None = None) -> tuple[int, int]:
    """Ask about the next rows of the problem's own source, and tell their labels; how many were answered, how many labels were new.

    They come after those of the first batch, which a file `source` does not hold, and all that were sent before, which the state folder
    knows, so that no row comes twice. Cut short, the same call is answered from the log. BatchError where too few rows are left.
    """
    of = f"{seed}-{digest(source)}" if source else f"{seed}"
    path = setting.settings.home / "traffic" / f"{setting.problem.name}-{of}.json"
    if not path.exists():
        # What a demonstration sent was drawn from the same source.
        before = 0 if source else sum(count for variant, count in setting.store.counts().items() if variant in LIVE)
        path.parent.mkdir(parents=True, exist_ok=True)
        _keep(path, [[before, False]] if before else [])
    told = json.loads(path.read_text(encoding="utf-8"))
    opened = setting.folder.open_source(source, seed)
    if source is None:
        opened.first_batch(setting.problem.demo.first)
    for count, moved in told:
        opened.traffic(count, moved)
    frame = conform(opened.traffic(rows, drifted), setting.contract, opened.description)
    url, place = setting.settings.service_url, sum(count for count, _ in told)
    ids = ask(url, frame, setting.contract, f"traffic:{of}:{place}:{rows}:{drifted}")
    truth = frame[setting.contract.target].dropna()
    new = tell(url, [ids[place] for place in truth.index], truth) if labelled else 0
    _keep(path, [*told, [rows, drifted]])
    return len(ids), new


def _keep(path: Path, drawn: list[list[Any]]) -> None:
    """Write what was drawn so far, whole or not at all."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(drawn), encoding="utf-8")
    beside.replace(path)


def _post(client: httpx.Client, path: str, body: Any, headers: dict[str, str]) -> Any:
    return patiently(lambda: client.post(path, json=body, headers=headers), f"{client.base_url}{path}")


def patiently(send: Callable[[], httpx.Response], address: str) -> Any:
    """The answer to a request, sent again for 30 seconds while the service is away or busy. StackError where it refuses."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            response = send()
            if response.status_code == 200:
                return response.json()
            if response.status_code not in (502, 503, 504):
                raise StackError(f"{address} refused: {response.status_code} {response.text[:300]}")
            last = response.text[:300]
        except httpx.TransportError as error:
            last = str(error)
        if time.monotonic() > deadline:
            raise StackError(f"{address} does not answer: {last}.")
        time.sleep(0.25)
