"""Which release answers now? The one that the store's route names."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from ratchet.errors import RatchetError
from ratchet.release import Release, read
from ratchet.store import Store

logger = logging.getLogger("ratchet.serving")
POLL_SECONDS = 0.2


class Champion:
    """Follows the route: a new champion is loaded and probed beside the old one, then takes over between two requests."""

    def __init__(self, store: Store, releases: Path) -> None:
        self._store, self._folder = store, releases / store.problem
        self.release: Release | None = None
        self._refused = 0

    def refresh(self) -> None:
        """Load the champion that the route names, where it is another one than before."""
        route = self._store.route()
        if route is None or route.seq == self._refused:
            return
        if self.release is not None and self.release.version == route.champion:
            return
        try:
            release = read(self._folder / route.champion)
            release.answer_probe()
        except RatchetError as error:
            # The old champion goes on answering; whoever set the route verifies it, and sets it back.
            self._refused = route.seq
            logger.error("%s", error)
            return
        self.release = release

    async def follow(self) -> None:
        """Look at the route again and again, until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.refresh)
            except Exception:
                # A store that is away for a moment must not end the service.
                logger.exception("the route could not be read")
            await asyncio.sleep(POLL_SECONDS)
