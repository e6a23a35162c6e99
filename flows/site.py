"""Where does the loop run: in a stack on this machine, or in one that is reached over HTTP alone?"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import httpx
import pandas as pd
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogHandler

from flows import traffic
from flows.result import ask_prefect, run_and_read
from flows.setting import Setting
from ratchet.errors import StackError
from ratchet.ledger import Entry
from ratchet.prediction import LIVE
from ratchet.settings import Settings

GENERATION_WITHIN = 900.0
REPORT_WITHIN = 300.0
RUN_WITHIN = 180.0
TOLD_WITHIN = 5.0


class Site(Protocol):
    """What a client of the loop needs of the place where it runs."""

    setting: Setting

    def generation(self, batch: pd.DataFrame, name: str, trigger: str) -> dict[str, Any]:
        """Make a generation of a batch; what the lifecycle flow returned."""

    def monitor(self) -> dict[str, Any]:
        """Check the newest window of the log now; what the monitor flow returned."""

    def drill(self) -> dict[str, Any]:
        """Plant known faults into a copy of the newest window; what the drill flow returned."""

    def live(self) -> int:
        """How many live predictions are in the log."""

    def decisions(self, *actions: str, newest: int = 100) -> list[Entry]:
        """The newest decisions, oldest of them first; only those actions where some are named."""

    def report(self, journal: dict[str, Any], reports: Path) -> dict[str, Any]:
        """Write the report of a demonstration under `reports`; its summary."""


@dataclass(frozen=True)
class Here:
    """The stack of this machine: flows run in this process, the store is read directly."""

    setting: Setting

    def generation(self, batch: pd.DataFrame, name: str, trigger: str) -> dict[str, Any]:
        """Make a generation of a batch in this process."""
        from flows.lifecycle import lifecycle

        path = self.setting.settings.home / "batches" / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        batch.to_parquet(path, index=False)
        made: dict[str, Any] = lifecycle(str(self.setting.folder.path), str(path), trigger=trigger)
        return made

    def monitor(self) -> dict[str, Any]:
        """Run the monitor in this process."""
        from flows.monitor import monitor

        made: dict[str, Any] = monitor(str(self.setting.folder.path))
        return made

    def drill(self) -> dict[str, Any]:
        """Hold a drill in this process."""
        from flows.drill import drill

        made: dict[str, Any] = drill(str(self.setting.folder.path))
        return made

    def live(self) -> int:
        """How many live predictions are in the log."""
        return _live(self.setting.store.counts())

    def decisions(self, *actions: str, newest: int = 100) -> list[Entry]:
        """The newest decisions, oldest of them first."""
        return self.setting.store.decisions(*actions, newest=newest)

    def report(self, journal: dict[str, Any], reports: Path) -> dict[str, Any]:
        """Write the report."""
        from flows.story import tell_story

        return tell_story(self.setting, journal, reports)


def tell_prefect() -> None:
    """Send what flows of this process logged and did; to do before Prefect's server ends, else it is tried again as this process ends."""
    APILogHandler().flush()
    EventsWorker.drain_all(timeout=TOLD_WITHIN)


@dataclass(frozen=True)
class There:
    """A stack behind its published ports: MLflow takes the files, Prefect runs the flows, the service tells of its store."""

    setting: Setting

    @property
    def settings(self) -> Settings:
        """The addresses."""
        return self.setting.settings

    @cached_property
    def _name(self) -> str:
        return self.setting.problem.name

    def generation(self, batch: pd.DataFrame, name: str, trigger: str) -> dict[str, Any]:
        """Hand the batch to MLflow, and have the worker make a generation of it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.parquet"
            batch.to_parquet(path, index=False)
            address = self.setting.tracker.keep(path)
        parameters = {"batch": address, "trigger": trigger}
        return run_and_read(self.settings, self._name, f"lifecycle/{self._name}", parameters, GENERATION_WITHIN)

    def monitor(self) -> dict[str, Any]:
        """Have the worker run the monitor."""
        return run_and_read(self.settings, self._name, f"monitor/{self._name}", {}, RUN_WITHIN)

    def drill(self) -> dict[str, Any]:
        """Have the worker hold a drill."""
        return run_and_read(self.settings, self._name, f"drill/{self._name}", {}, RUN_WITHIN)

    def live(self) -> int:
        """How many live predictions are in the log."""
        return _live(self._ask("/status")["predictions"])

    def champion(self) -> str | None:
        """The version that answers; None before the first release."""
        told: str | None = self._ask("/status")["champion"]
        return told

    @contextlib.contextmanager
    def unscheduled(self) -> Iterator[None]:
        """Keep the schedule from running the monitor while the context lasts: a demonstration runs it at its own pace."""
        found = ask_prefect(self.settings, "GET", f"deployments/name/monitor/{self._name}")
        mine = [f"deployments/{found['id']}/schedules/{schedule['id']}" for schedule in found["schedules"]]
        for path in mine:
            ask_prefect(self.settings, "PATCH", path, {"active": False})
        try:
            yield
        finally:
            for path in mine:
                ask_prefect(self.settings, "PATCH", path, {"active": True})

    def decisions(self, *actions: str, newest: int = 100) -> list[Entry]:
        """The newest decisions, oldest of them first."""
        told = self._ask("/decisions", action=",".join(actions), newest=str(newest))
        return [Entry(**{**item, "at": datetime.fromisoformat(item["at"]), "reasons": tuple(item["reasons"])}) for item in told]

    def report(self, journal: dict[str, Any], reports: Path) -> dict[str, Any]:
        """Have the worker write the report, and fetch it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "journal.json"
            path.write_text(json.dumps(journal), encoding="utf-8")
            address = self.setting.tracker.keep(path)
        made = run_and_read(self.settings, self._name, f"report/{self._name}", {"journal": address}, REPORT_WITHIN)
        for part in ("summary", "page"):
            self.setting.tracker.fetch(made[part], reports)
        summary: dict[str, Any] = json.loads((reports / "summary.json").read_text(encoding="utf-8"))
        return summary

    def _ask(self, path: str, **parameters: str) -> Any:
        with httpx.Client(base_url=self.settings.service_url, headers=self.settings.authorization, timeout=30) as client:
            return traffic.patiently(lambda: client.get(path, params=parameters), f"{self.settings.service_url}{path}")


def monitored(site: Site, flow_run: Any) -> None:
    """StackError where a run of the monitor did not come to its end."""
    if flow_run.state is None or not flow_run.state.is_completed():
        page = f"{site.setting.settings.prefect_ui}/runs/flow-run/{flow_run.id}"
        raise StackError(f"The monitor did not finish: {flow_run.state}. See {page}.")


def _live(counts: dict[str, int]) -> int:
    return sum(counts.get(variant, 0) for variant in LIVE)
