"""How do labels that arrive one by one reach the store? Together: one transaction for all that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ratchet.store import Store
from serving import metrics
from serving.batching import Refusal
from serving.log import AWAY, PredictionLog

GROUP_ROWS = 2000
Told = list[bool | None]


class Labels:
    """Labels are handed in and wait; what waits is stored at once, then each request is told of its own.

    Stored one request at a time, under load they would wait for one another and for the log of predictions until the store
    seems away. `most` is how many labels may wait; what comes on top is refused with 503, unless nothing else waits.
    """

    def __init__(self, store: Store, log: PredictionLog, most: int) -> None:
        self._store, self._log, self._most = store, log, most
        self._waiting: list[tuple[Sequence[dict[str, Any]], asyncio.Future[Told]]] = []
        self._task: asyncio.Task[None] | None = None
        self._rows = 0

    async def add(self, rows: Sequence[dict[str, Any]]) -> Told:
        """Append the labels of one request; of each whether it was new, None where its prediction is unknown.

        Refusal (503) where too much waits; one of AWAY where the store does not answer.
        """
        if self._rows and self._rows + len(rows) > self._most:
            metrics.shed.inc()
            raise Refusal(503, error="Too many labels wait already; the service takes no more. Try again.")
        done: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, done))
        self._rows += len(rows)
        if self._task is None:
            self._task = asyncio.create_task(self._store_all())
        return await done

    async def _store_all(self) -> None:
        """Store what waits, group after group, until nothing does."""
        try:
            while self._waiting:
                taken, size = 0, 0
                while taken < len(self._waiting) and (not taken or size + len(self._waiting[taken][0]) <= GROUP_ROWS):
                    size += len(self._waiting[taken][0])
                    taken += 1
                group, self._waiting = self._waiting[:taken], self._waiting[taken:]
                await self._store_group(group)
                self._rows -= size
        finally:
            self._task = None

    def _take(self, rows: Sequence[dict[str, Any]]) -> Told:
        told = self._store.add_labels(rows)
        # One that is still on its way to the log is none any more once it is there.
        self._store.add_strays({row["prediction_id"] for row, new in zip(rows, told, strict=True) if new is None})
        return told

    async def _store_group(self, group: list[tuple[Sequence[dict[str, Any]], asyncio.Future[Told]]]) -> None:
        try:
            told = await self._log.ask(self._take, [row for rows, _ in group for row in rows])
        except AWAY as error:
            _fail(group, error)
        except Exception as error:
            if len(group) == 1:
                _fail(group, error)
                return
            # What the store does not want of one request is no fault of the others: it is looked for by halves.
            for half in (group[: len(group) // 2], group[len(group) // 2 :]):
                await self._store_group(half)
        else:
            place = 0
            for rows, done in group:
                if not done.done():
                    done.set_result(told[place : place + len(rows)])
                place += len(rows)


def _fail(group: list[tuple[Sequence[dict[str, Any]], asyncio.Future[Told]]], error: Exception) -> None:
    for _, done in group:
        if not done.done():
            done.set_exception(error)
