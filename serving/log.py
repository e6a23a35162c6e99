"""How does every answer reach the log before it is given? Group commit: one transaction for all that wait."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ratchet.errors import StoreError
from ratchet.store import Store
from serving import metrics
from serving.spill import Spill

logger = logging.getLogger("ratchet.serving")
# What says that the store is away, rather than that it does not want these rows.
AWAY = (OperationalError, InterfaceError, PoolTimeout, TimeoutError, StoreError)
PATIENCE_SECONDS = 3.0
LOOK_AGAIN_SECONDS = 1.0
# Spilled answers kept in memory for requests that are repeated under their Idempotency-Key.
REMEMBERED = 100_000

Rows = list[dict[str, Any]]


class PredictionLog:
    """Requests hand in their rows and wait; one writer commits everything that waits in one transaction.

    While the store is away the rows go to the spill, and from there to the store when it is back.
    """

    def __init__(self, store: Store, spill: Spill) -> None:
        self._store, self._spill = store, spill
        self._waiting: list[tuple[Rows, asyncio.Future[None], float]] = []
        self._wake = asyncio.Event()
        self._spilled: dict[str, dict[str, Any]] = {}
        self.away = False

    async def append(self, rows: Rows) -> None:
        """Return once the rows are committed or spilled; raises what the store or the disk raised where they are neither."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, done, time.monotonic()))
        metrics.waiting.set(sum(len(entry[0]) for entry in self._waiting))
        self._wake.set()
        await done

    async def answered(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The answers that the log, or the spill of this process, holds under those ids, in order."""
        if known := [self._spilled[identity] for identity in ids if identity in self._spilled]:
            return [dict(answer) for answer in known]
        if self.away:
            return []
        try:
            return await self._ask(self._store.answered, ids)
        except AWAY as error:
            self._lose(error)
            return []

    async def write(self) -> None:
        """Commit what waits, again and again, until cancelled and nothing waits."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._commit()
        except asyncio.CancelledError:
            await self._commit()
            self._spill.rest()
            raise

    async def mend(self) -> None:
        """See whether a store that was away is back, and replay what was spilled meanwhile, by this process or a lost one."""
        while True:
            if self.away or self._spill.files():
                try:
                    await asyncio.to_thread(self._store.check)
                    if self.away:
                        self.away = False
                        logger.info("the store is back")
                    self._spill.rest()
                    if new := await asyncio.to_thread(self._spill.replay, self._store):
                        metrics.logged.labels("replayed").inc(new)
                        logger.info("rows replayed from the spill", extra={"rows": new})
                    self._spilled.clear()
                except AWAY as error:
                    self._lose(error)
                except Exception:
                    logger.exception("the spill could not be replayed; it is kept")
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    def _lose(self, error: BaseException) -> None:
        if not self.away:
            self.away = True
            said = str(getattr(error, "orig", None) or error or type(error).__name__).splitlines()
            logger.warning("the store is away: answers go to the spill", extra={"why": said[0] if said else type(error).__name__})

    async def _ask(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.wait_for(asyncio.to_thread(function, *arguments), PATIENCE_SECONDS)

    async def _commit(self) -> None:
        taken, self._waiting = self._waiting, []
        metrics.waiting.set(0)
        if not taken:
            return
        rows = [row for entry in taken for row in entry[0]]
        if not self.away:
            try:
                await self._ask(self._store.log, rows)
            except IntegrityError:
                # One request repeats what is logged already; the others must not pay for it.
                for part, done, since in taken:
                    await self._commit_alone(part, done, since)
                return
            except AWAY as error:
                self._lose(error)
            except Exception as error:
                for _, done, _ in taken:
                    _settle(done, error)
                return
            else:
                metrics.logged.labels("stored").inc(len(rows))
                for _, done, since in taken:
                    metrics.lag.observe(time.monotonic() - since)
                    _settle(done, None)
                return
        await self._put_aside(rows, taken)

    async def _put_aside(self, rows: Rows, taken: list[tuple[Rows, asyncio.Future[None], float]]) -> None:
        """Spill the rows. Whether the store took them before it went is not known: the replay passes over what it has."""
        told: OSError | None = None
        try:
            await asyncio.to_thread(self._spill.append, rows)
        except OSError as error:
            logger.error("neither the store nor the spill takes an answer", extra={"why": str(error)})
            told = error
        else:
            metrics.logged.labels("spilled").inc(len(rows))
            kept = {
                "id": "prediction_id",
                "probability": "probability",
                "label": "label",
                "version": "model_version",
                "features": "features",
            }
            self._spilled |= {row["id"]: {to: row[name] for name, to in kept.items()} for row in rows}
            for identity in list(self._spilled)[:-REMEMBERED]:
                del self._spilled[identity]
        for _, done, since in taken:
            metrics.lag.observe(time.monotonic() - since)
            _settle(done, told)

    async def _commit_alone(self, rows: Rows, done: asyncio.Future[None], since: float) -> None:
        try:
            await self._ask(self._store.log, rows)
        except AWAY as error:
            self._lose(error)
            await self._put_aside(rows, [(rows, done, since)])
        except Exception as error:
            _settle(done, error)
        else:
            metrics.logged.labels("stored").inc(len(rows))
            _settle(done, None)


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
