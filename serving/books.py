"""What is kept of every request? Its metrics, and a line in the service's own log."""

from __future__ import annotations

import asyncio
import logging
import time

from serving import metrics
from serving.batching import Reply

logger = logging.getLogger("ratchet.serving")
IDS_A_LINE = 100
EVERY_SECONDS = 0.01
TOLD = ("/predict", "/feedback")


class Books:
    """Requests are counted together, a hundred times a second: one by one would cost as much as they do.

    With `told`, the log names the ids of every prediction and label, so that one can be searched for.
    """

    def __init__(self, told: bool) -> None:
        self._told = told and logger.isEnabledFor(logging.INFO)
        self._open: dict[tuple[str, int, str], list[tuple[float, Reply]]] = {}

    def count(self, route: str, reply: Reply, begun: float) -> None:
        """Count a request that began then (`time.perf_counter`) and is answered now."""
        if not self._open:
            asyncio.get_running_loop().call_later(EVERY_SECONDS, self.close)
        self._open.setdefault((route, reply.status, reply.version), []).append((time.perf_counter() - begun, reply))

    def close(self) -> None:
        """Write down what has been counted."""
        entries, self._open = self._open, {}
        for (route, status, version), counted in entries.items():
            metrics.requests.labels(route, str(status), version).inc(len(counted))
            metrics.observe(route, version, [seconds for seconds, _ in counted])
            if self._told and route in TOLD:
                slowest = round(1000 * max(seconds for seconds, _ in counted), 3)
                ids = [identity for _, reply in counted for identity in reply.ids]
                told = {"route": route, "status": status, "version": version, "requests": len(counted), "ms": slowest}
                for start in range(0, max(len(ids), 1), IDS_A_LINE):
                    logger.info("request", extra=told | {"prediction_ids": ids[start : start + IDS_A_LINE]})
