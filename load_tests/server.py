"""What does the service itself say of its latency? Its histogram, before and after.

Locust's own event loop adds to what its users measure; the server's histogram is the truth, and both are shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx

_LINE = re.compile(r"^ratchet_request_duration_seconds_(bucket|sum|count)\{([^}]*)\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Histogram:
    """Requests for predictions so far: by upper bound in seconds, cumulated; their number and the sum of their seconds."""

    buckets: tuple[tuple[float, float], ...]
    count: float
    total: float

    def since(self, before: Histogram) -> Histogram:
        """What came after an earlier look."""
        then = dict(before.buckets)
        buckets = tuple((bound, value - then.get(bound, 0.0)) for bound, value in self.buckets)
        return Histogram(buckets, self.count - before.count, self.total - before.total)

    @property
    def average_ms(self) -> float:
        """The mean; not a number where there was none."""
        return 1000 * self.total / self.count if self.count else float("nan")

    def quantile_ms(self, share: float) -> float:
        """Interpolated within its bucket, as Prometheus' histogram_quantile does; the last finite bound beyond it.

        >>> Histogram(((0.001, 50.0), (0.002, 100.0), (float("inf"), 100.0)), 100.0, 0.1).quantile_ms(0.75)
        1.5
        """
        wanted, low, below = share * self.count, 0.0, 0.0
        for bound, value in self.buckets:
            if value >= wanted and value > below:
                return 1000 * (low if bound == float("inf") else low + (bound - low) * (wanted - below) / (value - below))
            low, below = bound, value
        return float("nan")


def look(url: str) -> Histogram:
    """The histogram of now, over all workers and versions. httpx.HTTPError where the service does not answer."""
    text = httpx.get(f"{url}/metrics", timeout=20).raise_for_status().text
    buckets: dict[float, float] = {}
    sums = {"sum": 0.0, "count": 0.0}
    for part, labels, value in _LINE.findall(text):
        if 'route="/predict"' not in labels:
            continue
        if part == "bucket":
            bound = float(labels.partition('le="')[2].partition('"')[0])
            buckets[bound] = buckets.get(bound, 0.0) + float(value)
        else:
            sums[part] += float(value)
    return Histogram(tuple(sorted(buckets.items())), sums["count"], sums["sum"])
