"""Which release answers now? The one that the store's route names."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

from ratchet.errors import RatchetError
from ratchet.release import Release, read
from ratchet.store import Store
from serving import metrics

logger = logging.getLogger("ratchet.serving")
POLL_SECONDS = 0.2
# After this long a release that could not be read is tried again: it may have been mended.
AGAIN_SECONDS = 10.0


class Champion:
    """Follows the route: a new champion is loaded and probed beside the old one, then takes over between two requests.

    `remembered` is a file with the version that answered last, for a start while the store is away.
    """

    def __init__(self, store: Store, releases: Path, remembered: Path) -> None:
        self._store, self._folder, self._remembered = store, releases / store.problem, remembered
        self.release: Release | None = None
        self._refused, self._again_at = 0, 0.0
        self._lost = False

    def refresh(self) -> None:
        """Load the champion that the route names, where it is another one than before."""
        route = self._store.route()
        if route is None or (route.seq == self._refused and time.monotonic() < self._again_at):
            return
        if self.release is not None and self.release.version == route.champion:
            return
        try:
            self._load(route.champion)
        except RatchetError as error:
            # The old champion goes on answering; whoever set the route verifies it, and sets it back.
            self._refused, self._again_at = route.seq, time.monotonic() + AGAIN_SECONDS
            logger.error("%s", error)
            return
        draft = self._remembered.with_name(f".{self._remembered.name}.{os.getpid()}")
        try:
            self._remembered.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(route.champion, encoding="utf-8")
            os.replace(draft, self._remembered)
        except OSError as error:
            logger.warning("the answering version cannot be remembered", extra={"why": str(error)})

    def recall(self) -> None:
        """Load the version that answered last: the store, which knows better, is away."""
        try:
            self._load(self._remembered.read_text(encoding="utf-8"))
        except (OSError, RatchetError) as error:
            logger.warning("no version is remembered", extra={"why": str(error)})

    def _load(self, version: str) -> None:
        release = read(self._folder / version)
        release.answer_probe()
        if self.release is not None:
            metrics.answering.labels(self.release.version).set(0)
        self.release = release
        metrics.answering.labels(version).set(1)
        logger.info("a version answers", extra={"version": version})

    async def follow(self) -> None:
        """Look at the route again and again, until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.refresh)
                self._lost = False
            except Exception as error:
                # A store that is away for a moment must not end the service; it is said once.
                if not self._lost:
                    logger.warning("the route cannot be read", extra={"why": str(getattr(error, "orig", None) or error).splitlines()[0]})
                self._lost = True
            await asyncio.sleep(POLL_SECONDS)
