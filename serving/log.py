"""How does every answer reach the log before it is given? Group commit: one transaction for all that wait."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy.exc import IntegrityError

from ratchet.store import Store


class PredictionLog:
    """Requests hand in their rows and wait; one writer commits everything that waits in one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[list[dict[str, Any]], asyncio.Future[None]]] = []
        self._wake = asyncio.Event()

    async def append(self, rows: list[dict[str, Any]]) -> None:
        """Return once the rows are committed; raises what the store raised where they are not."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, done))
        self._wake.set()
        await done

    async def write(self) -> None:
        """Commit what waits, again and again, until cancelled and nothing waits."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._commit()
        except asyncio.CancelledError:
            await self._commit()
            raise

    async def _commit(self) -> None:
        taken, self._waiting = self._waiting, []
        if not taken:
            return
        try:
            await asyncio.to_thread(self._store.log, [row for rows, _ in taken for row in rows])
        except IntegrityError:
            # One request repeats what is logged already; the others must not pay for it.
            for rows, done in taken:
                await self._commit_alone(rows, done)
        except Exception as error:
            for _, done in taken:
                _settle(done, error)
        else:
            for _, done in taken:
                _settle(done, None)

    async def _commit_alone(self, rows: list[dict[str, Any]], done: asyncio.Future[None]) -> None:
        try:
            await asyncio.to_thread(self._store.log, rows)
        except Exception as error:
            _settle(done, error)
        else:
            _settle(done, None)


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
