"""How is every answer kept before it is given? Group commit: one transaction for all that wait, or the spill."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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

Rows = list[dict[str, Any]]


@dataclass
class _Waiting:
    """The rows of one request, and whom to tell."""

    rows: Rows
    keyed: bool
    done: asyncio.Future[None]
    since: float

    def settle(self, error: Exception | None = None) -> None:
        """Tell the request how it went."""
        metrics.lag.observe(time.monotonic() - self.since)
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class PredictionLog:
    """Requests hand in their rows and wait; one writer commits everything that waits in one transaction.

    While the store is away the rows go to the spill, and from there to the store when it is back.
    """

    def __init__(self, store: Store, spill: Spill) -> None:
        self._store, self._spill = store, spill
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        # A store that hangs may keep every other thread: the disk has one of its own.
        self._disk = ThreadPoolExecutor(1, "spill")
        self.away = False

    async def append(self, rows: Rows, *, keyed: bool = False) -> None:
        """Return once the rows are committed or spilled; raises what the store or the disk raised where they are neither."""
        waiting = _Waiting(rows, keyed, asyncio.get_running_loop().create_future(), time.monotonic())
        self._waiting.append(waiting)
        metrics.waiting.inc(len(rows))
        self._wake.set()
        await waiting.done

    async def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Ask the store in a thread. One of AWAY where it does not answer in time; at once where that is known."""
        if self.away:
            raise StoreError("The store is away.")
        try:
            return await asyncio.wait_for(asyncio.to_thread(function, *arguments), PATIENCE_SECONDS)
        except AWAY as error:
            self._lose(error)
            raise

    async def answered(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The answers to a keyed request that the spill or the log holds under those ids, in order."""
        if self.away or self._spill.files():
            loop = asyncio.get_running_loop()
            if known := await loop.run_in_executor(self._disk, self._spill.answered, ids):
                return list(known)
        try:
            return list(await self.ask(self._store.answered, ids))
        except AWAY:
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
                    new, rejected = await asyncio.to_thread(self._spill.replay, self._store)
                    metrics.logged.labels("rejected").inc(rejected)
                    if new:
                        metrics.logged.labels("replayed").inc(new)
                        logger.info("rows replayed from the spill", extra={"rows": new})
                except AWAY as error:
                    self._lose(error)
                except Exception:
                    logger.exception("the spill could not be replayed; it is kept")
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    def _lose(self, error: BaseException) -> None:
        if not self.away:
            self.away = True
            said = str(getattr(error, "orig", None) or error).splitlines()
            logger.warning("the store is away: answers go to the spill", extra={"why": said[0] if said else type(error).__name__})

    async def _commit(self) -> None:
        taken, self._waiting = self._waiting, []
        if not taken:
            return
        try:
            await self._keep(taken)
        except Exception as error:
            # Whatever went wrong, nobody is left waiting, and the next commit goes on.
            logger.exception("rows could not be kept")
            for waiting in taken:
                waiting.settle(error)
        finally:
            metrics.waiting.dec(sum(len(waiting.rows) for waiting in taken))

    async def _keep(self, taken: list[_Waiting]) -> None:
        rows = [row for waiting in taken for row in waiting.rows]
        if not self.away:
            try:
                await self.ask(self._store.log, rows)
            except IntegrityError as error:
                if len(taken) == 1:
                    taken[0].settle(error)
                    return
                # One request repeats what is logged already; the others must not pay for it.
                for waiting in taken:
                    await self._keep([waiting])
                return
            except AWAY:
                pass
            else:
                metrics.logged.labels("stored").inc(len(rows))
                for waiting in taken:
                    waiting.settle()
                return
        await self._put_aside(taken)

    async def _put_aside(self, taken: list[_Waiting]) -> None:
        """Spill the rows. Whether the store took them before it went is not known: the replay passes over what it has."""
        loop = asyncio.get_running_loop()
        for keyed in (False, True):
            part = [waiting for waiting in taken if waiting.keyed == keyed]
            if not part:
                continue
            rows = [row for waiting in part for row in waiting.rows]
            told: OSError | None = None
            try:
                await loop.run_in_executor(self._disk, self._spill.append, rows, keyed)
            except OSError as error:
                logger.error("neither the store nor the spill takes an answer", extra={"why": str(error)})
                told = error
            else:
                metrics.logged.labels("spilled").inc(len(rows))
            for waiting in part:
                waiting.settle(told)
