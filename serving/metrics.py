"""What does the person on call see of the service? Prometheus series; those of all workers add up.

Each worker counts in files that the others can read (prometheus_client's multiprocess mode), so whichever of them
answers a scrape tells the sums. What is the same for every worker is read from the store at the scrape.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from datetime import UTC
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from ratchet.errors import RatchetError
from ratchet.problem import Watch
from ratchet.retraining import ACTIONS
from ratchet.store import Store
from serving.spill import Spill

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
FRESH_SECONDS = 2.0
MOMENTS = {
    "newest_prediction": "When the newest live prediction was asked for",
    "newest_label": "When the newest label came",
    "champion": "When the answering version was routed to",
    "watch": "When the monitor last looked at the log",
    "drill": "When the last drill was held; absent where there was none",
}

requests = Counter("ratchet_requests", "Requests by route, status and answering version", ["route", "status", "version"])
latency = Histogram(
    "ratchet_request_duration_seconds", "From request to answer, by route and version", ["route", "version"], buckets=SECONDS
)
predictions = Counter("ratchet_predictions", "Predictions answered, by version and variant", ["version", "variant"])
logged = Counter(
    "ratchet_logged_rows",
    "Rows by where they went: stored, spilled, replayed from the spill or rejected there, refused, or answered unlogged",
    ["to"],
)
shed = Counter("ratchet_shed_requests", "Requests refused because too many rows waited")
shadows = Counter("ratchet_shadow_rows", "Live rows by what became of the shadow's answer: stored, or left out", ["to"])
lag = Histogram("ratchet_log_lag_seconds", "From a scored request to its committed log row", buckets=SECONDS)
waiting = Gauge("ratchet_log_waiting_rows", "Rows that wait for the next commit", multiprocess_mode="livesum")
workers = Gauge("ratchet_workers", "Workers that answer requests", multiprocess_mode="livesum")
answering = Gauge("ratchet_answering_workers", "Workers in which that version answers", ["version"], multiprocess_mode="livesum")
for place in ("stored", "spilled", "replayed", "rejected", "refused", "unlogged"):
    # There from the start: a counter that appears with its first count has no increase.
    logged.labels(place)
# Asked for by every commit.
stored = logged.labels("stored")


def observe(route: str, version: str, seconds: Sequence[float]) -> None:
    """Count many durations at once; one by one each would cost as much as a request.

    Histograms have no such call: this adds to the buckets and the sum that `observe` would add to.
    """
    child = latency.labels(route, version)
    for bucket, times in Tally(bisect_left(child._upper_bounds, value) for value in seconds).items():
        child._buckets[bucket].inc(times)
    child._sum.inc(sum(seconds))


class Lifecycle(Collector):
    """The store's side: champion, checks by verdict, decisions, freshness. Read at most every two seconds."""

    def __init__(self, store: Store, spill: Spill, watch: Watch) -> None:
        self._store, self._spill, self._watch = store, spill, watch
        # Told by the log: a store that hangs is not to be asked.
        self.away = False
        self._read, self._at = list[Metric](), 0.0

    def collect(self) -> Iterator[Metric]:
        """The series of the moment. Those of the store are left out while it is away: `ratchet_store_up` says so."""
        if time.monotonic() - self._at > FRESH_SECONDS:
            self._read, self._at = list(self._collect()), time.monotonic()
        yield from self._read

    def _collect(self) -> Iterator[Metric]:
        yield _gauge("ratchet_spilled_rows", "Rows in the spill that wait for the store", self._spill.waiting())
        yield _gauge("ratchet_label_delay_seconds", "After how long the problem's labels are due", 86400 * self._watch.label_delay_days)
        yield _gauge("ratchet_watch_every_seconds", "How often the schedule has the monitor look", self._watch.every_seconds)
        up = int(not self.away)
        try:
            yield from self._stored() if up else []
        except (SQLAlchemyError, RatchetError):
            up = 0
        yield _gauge("ratchet_store_up", "Whether the store answers", up)

    def _stored(self) -> list[Metric]:
        store = self._store
        route, fresh, decided = store.route(), store.freshness(), store.decided()
        moments = {
            "newest_prediction": fresh["prediction"],
            "newest_label": fresh["label"],
            "champion": route.at if route else None,
            "watch": store.looked(),
            "drill": decided["drill"][1] if "drill" in decided else None,
        }
        made: list[Metric] = [
            _gauge(f"ratchet_{name}_timestamp_seconds", MOMENTS[name], at.replace(tzinfo=UTC).timestamp())
            for name, at in moments.items()
            if at is not None
        ]
        counted = CounterMetricFamily("ratchet_decisions", "Decisions in the ledger, by action", labels=["action"])
        for action, (count, _) in decided.items():
            counted.add_metric([action], count)
        verdicts = GaugeMetricFamily("ratchet_checks", "Checks of the newest window, by verdict", labels=["verdict"])
        failing = GaugeMetricFamily(
            "ratchet_check_failing", "1 for every check of the newest window that fails and is not advisory", labels=["check"]
        )
        newest = store.decided_last()
        checks = newest.evidence["checks"] if newest else []
        for verdict in ("pass", "fail", "undecided", "not_applicable"):
            verdicts.add_metric([verdict], sum(check["verdict"] == verdict for check in checks))
        for check in checks:
            failing.add_metric([check["name"]], int(check["verdict"] == "fail" and check["blocking"]))
        score = GaugeMetricFamily("ratchet_quality_score", "Share of the newest window's rows that are sound", labels=["dimension"])
        for check in checks:
            kind, _, dimension = check["name"].partition(":")
            if kind == "quality" and check["value"] is not None:
                score.add_metric([dimension], check["value"])
        action = GaugeMetricFamily("ratchet_watch_action", "1 for what the watch decided last", labels=["action"])
        for name in ACTIONS if newest else ():
            action.add_metric([name], int(newest.action == name))
        paused = _gauge("ratchet_retraining_paused", "Whether a person has paused automatic retraining", int(store.paused))
        verified = _gauge(
            "ratchet_route_verified", "Whether the answers of the routed version were verified", int(route.verified) if route else 0
        )
        held = store.decisions("drill", newest=1)
        missed = [
            _gauge(
                "ratchet_drill_missed_faults", "Planted faults that the last drill's watch did not see", len(d.evidence["inputs"]["missed"])
            )
            for d in held
        ]
        return [*made, counted, verdicts, failing, score, action, paused, verified, *missed]


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)


def exposition(lifecycle: Lifecycle) -> bytes:
    """Everything, in Prometheus' text format."""
    _forget_the_dead()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    registry.register(lifecycle)
    return generate_latest(registry)


def _forget_the_dead() -> None:
    """Take the gauges of workers that were killed out of the sums; their counts stay."""
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    for pid in {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*_*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid)
