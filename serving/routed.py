"""Which releases answer now? Those that the store's route names."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

from ratchet.errors import RatchetError
from ratchet.ledger import Route
from ratchet.release import Release, read
from ratchet.store import Store
from serving import metrics

logger = logging.getLogger("ratchet.serving")
POLL_SECONDS = 0.2
# After this long a release that could not be read is tried again: it may have been mended.
AGAIN_SECONDS = 10.0


class Routed:
    """Follows the route: a release is loaded and probed beside those that answer, then takes its place between two requests.

    `remembered` is a file with the version that answered last, for a start while the store is away.
    """

    def __init__(self, store: Store, releases: Path, remembered: Path) -> None:
        self._store, self._folder, self._remembered = store, releases / store.problem, remembered
        self.champion: Release | None = None
        self.challenger: Release | None = None
        self.shadow: Release | None = None
        self.share = 0.0
        self._seq = 0
        self._again_at: dict[str, float] = {}
        self._lost = False

    def refresh(self) -> None:
        """Load what the route names, where it is another route than before."""
        route = self._store.route()
        if route is None or (route.seq == self._seq and not self._again_at):
            return
        champion = self._loaded(route.champion)
        if champion is not None and champion is not self.champion:
            if self.champion is not None:
                metrics.answering.labels(self.champion.version).set(0)
            self._answer(champion)
            self._remember(route.champion)
        # Where one of the two cannot be read, its share is the champion's.
        self.challenger = self._loaded(route.challenger) if route.challenger and route.share else None
        self.share = route.share if self.challenger else 0.0
        self.shadow = self._loaded(route.shadow) if route.shadow else None
        self._seq = route.seq
        self._forget_mended(route)

    def recall(self) -> None:
        """Load the version that answered last: the store, which knows better, is away."""
        try:
            version = self._remembered.read_text(encoding="utf-8")
        except OSError as error:
            logger.warning("no version is remembered", extra={"why": str(error)})
            return
        if release := self._loaded(version):
            self._answer(release)

    def _answer(self, release: Release) -> None:
        self.champion = release
        metrics.answering.labels(release.version).set(1)
        logger.info("a version answers", extra={"version": release.version})

    def _loaded(self, version: str) -> Release | None:
        """The release, probed; None where it cannot answer as it was probed. Nobody's place is lost by that."""
        for known in (self.champion, self.challenger, self.shadow):
            if known is not None and known.version == version:
                return known
        if time.monotonic() < self._again_at.get(version, 0.0):
            return None
        try:
            release = read(self._folder / version)
            release.answer_probe()
        except RatchetError as error:
            # Whoever set the route verifies it, and sets it back.
            self._again_at[version] = time.monotonic() + AGAIN_SECONDS
            logger.error("%s", error)
            return None
        self._again_at.pop(version, None)
        return release

    def _forget_mended(self, route: Route) -> None:
        named = {route.champion, route.challenger, route.shadow}
        self._again_at = {version: at for version, at in self._again_at.items() if version in named}

    def _remember(self, version: str) -> None:
        draft = self._remembered.with_name(f".{self._remembered.name}.{os.getpid()}")
        try:
            self._remembered.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(version, encoding="utf-8")
            os.replace(draft, self._remembered)
        except OSError as error:
            logger.warning("the answering version cannot be remembered", extra={"why": str(error)})

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
