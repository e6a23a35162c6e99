"""What does a flow work with? A problem's folder, its store, its tracker, its workspace."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from models.tracking import Tracker
from ratchet.contract import Contract
from ratchet.problem import Folder, Problem, find_problem
from ratchet.release import Release, read
from ratchet.settings import ROOT, Settings, settings
from ratchet.store import Store
from snapshots.workspace import Workspace, create

CODE = ("src/ratchet", "expectations", "models")


def stages_code() -> str:
    """A hash of the code that the stages run: a change of it makes every stage run again."""
    found = hashlib.sha256()
    parts = [ROOT / "flows" / "stages.py", *(path for room in CODE for path in sorted((ROOT / room).rglob("*.py")))]
    for path in parts:
        found.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Setting:
    """One problem in one environment; what is expensive is opened on first use."""

    folder: Folder
    settings: Settings

    @staticmethod
    def of(problem: str) -> Setting:
        """The setting of a problem, by its name or the path of its folder."""
        return Setting(find_problem(problem, settings().problems), settings())

    @property
    def problem(self) -> Problem:
        """The frame."""
        return self.folder.problem

    @property
    def contract(self) -> Contract:
        """The contract."""
        return self.folder.contract

    @property
    def releases(self) -> Path:
        """The folder of the problem's releases, one by version."""
        return self.settings.releases / self.problem.name

    def release(self, version: str) -> Release:
        """A version's release. ReleaseError where it is missing or damaged."""
        return read(self.releases / version)

    @cached_property
    def store(self) -> Store:
        """The ledger, route, log and labels."""
        return Store(self.settings.store_url, self.problem.name)

    @cached_property
    def tracker(self) -> Tracker:
        """MLflow's runs and versions."""
        return Tracker(self.settings.mlflow_tracking_uri, self.problem.name)

    @cached_property
    def workspace(self) -> Workspace:
        """The Git and DVC repository of the stages, with today's definition."""
        path = self.settings.workspace(self.problem.name)
        made = {"dvc.yaml": (ROOT / "dvc.yaml").read_text(encoding="utf-8"), "params.yaml": self._parameters()}
        return create(path, self.settings.home, made, self.folder.path, stages_code(), self.settings.remote)

    def _parameters(self) -> str:
        """params.yaml, with what tuning found and what this environment says otherwise; as committed where that is nothing."""
        text = (ROOT / "params.yaml").read_text(encoding="utf-8")
        params: dict[str, Any] = yaml.safe_load(text)
        changes: list[str] = []
        if self.settings.tuned(self.problem.name).is_file():
            for family, values in yaml.safe_load(self.settings.tuned(self.problem.name).read_text(encoding="utf-8"))["train"].items():
                params["train"][family] |= values
                changes.append(f"train.{family}: tuned")
        if self.settings.release_tests is not None:
            params["examine"]["form"] = self.settings.release_tests
            changes.append(f"examine.form: {self.settings.release_tests}")
        return f"# params.yaml, but {'; '.join(changes)}.\n{yaml.safe_dump(params, sort_keys=False)}" if changes else text

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Hold what one run at a time may hold: the store's lock and this machine's workspace; yields whether both were free.

        The workspace has a lock of its own, as the store's goes with its connection: PostgreSQL may be restarted.
        """
        name = f"lifecycle-{self.problem.name}"
        mine = FileLock(self.settings.home / f".{name}-workspace.lock")
        try:
            mine.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            with self.store.exclusive(name) as free:
                yield free
        finally:
            mine.release()

    @property
    def root(self) -> Path:
        """The workspace's folder."""
        return self.workspace.path
