"""How does the whole loop close? One story, step by step, each of which can be cut short and taken up again."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from flows import traffic
from flows.result import FAILED, ask_prefect
from flows.setting import Setting
from flows.site import Site, monitored
from ratchet.data.batch import conform
from ratchet.decision import JUDGEMENTS
from ratchet.draft import drafted
from ratchet.errors import ContractError, StackError
from ratchet.ledger import answers
from ratchet.problem import Demonstration
from ratchet.retraining import ACTIONS

RETRAINED_WITHIN = 420.0


class Narrator(Protocol):
    """Tells a person what happens and why."""

    def step(self, title: str, why: str) -> contextlib.AbstractContextManager[Callable[[str], None]]:
        """Announce a step; the function it yields tells how the step came out."""


@dataclass(frozen=True)
class Journal:
    """What the demonstration has done so far: one fact sheet per step, in a file that is replaced whole."""

    path: Path

    def read(self) -> dict[str, Any]:
        """All facts so far."""
        told: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        return told

    def write(self, step: str, facts: Any) -> None:
        """Add a step's facts."""
        with drafted(self.path) as draft:
            draft.write_text(json.dumps(self.read() | {step: facts}), encoding="utf-8")


def run(
    site: Site,
    source: str | None,
    sizes: Demonstration,
    seed: int,
    narrator: Narrator,
    journal: Journal,
    reports: Path,
    key: str | None = None,
) -> dict[str, Any]:
    """Run the loop from a first batch to a retrained generation; the summary, also written to `reports`.

    Called again after it was cut short, it goes on at the step that was not finished. `key` names the run where the
    store holds others: from it follow the ids of its predictions. ContractError where the watch waits for a whole cycle.
    """
    setting = site.setting
    if hours := setting.problem.watch.cycle_hours:
        raise ContractError(
            f"{setting.folder.path / 'problem.yaml'}: watch.cycle_hours is {hours:g}: all requests of the demonstration come within minutes, "
            "and drift is told by rows that span a whole cycle. Write 0 there for the demonstration."
        )
    loop = _Loop(site, journal, narrator)
    origin, batches = _draw(setting, source, sizes, seed)
    if "run" not in journal.read():
        journal.write("run", {"key": key or f"demo-{seed}", "seed": seed, "source": origin, "sizes": sizes.model_dump()})
    loop.first_generation(batches["first"])
    loop.traffic("stable", batches["stable"], "The world is as it was. Every answer is logged before it is given.")
    loop.labels("stable labels", "stable", batches["stable"], "Labels arrive by prediction id.")
    loop.watch("quiet watch", "Nothing has changed, so nothing may be done: a false alarm would retrain for no reason.")
    half = len(batches["drifted"]) // 2
    early, late = batches["drifted"].iloc[:half], batches["drifted"].iloc[half:]
    loop.traffic("drifted", early, "The world drifts: traffic now comes from a shifted population. Its labels are late.")
    loop.watch("first alarm", "Drift is seen without labels. Whether it harms is not known before labels are in.")
    some = max(setting.problem.watch.min_window, setting.problem.watch.min_labels * 2 // 3)
    loop.labels("first labels", "drifted", early.iloc[:some], "The first labels of the new population arrive.")
    loop.watch("second alarm", "Harm is seen, but there is too little of the new population to learn from yet.")
    loop.traffic("more drifted", late, "Traffic goes on while labels are awaited.")
    loop.labels("late labels", "drifted", early, "The other labels of the first half arrive.")
    loop.labels("later labels", "more drifted", late, "So do those of the second half.")
    loop.watch("third alarm", "Enough labels: the monitor emits an event, and Prefect's automation starts the retraining.")
    loop.retraining()
    loop.traffic("after", batches["after"], "The service answers with whatever the gate decided, without having dropped a request.")
    loop.labels("after labels", "after", batches["after"], "Its labels tell whether the new generation does better.")
    with narrator.step("Report", "What happened, in one page and in one file.") as result:
        loop.count_seconds()
        summary = site.report(journal.read(), reports)
        result(f"{reports / 'index.html'} and {reports / 'summary.json'}")
    journal.write("finished", True)
    return summary


def _draw(setting: Setting, source: str | None, sizes: Demonstration, seed: int) -> tuple[str, dict[str, pd.DataFrame]]:
    """Every batch of the story, drawn from the seed alone, so that a second start draws the same ones."""
    opened = setting.folder.open_source(source, seed)
    drawn = {"first": opened.first_batch(sizes.first), "stable": opened.traffic(sizes.stable, drifted=False)}
    # Drawn in one piece: what comes after the retraining is of the same population.
    moved = opened.traffic(sizes.drifted + sizes.after, drifted=True)
    drawn |= {"drifted": moved.iloc[: sizes.drifted], "after": moved.iloc[sizes.drifted :]}
    return opened.description, {name: conform(frame, setting.contract, name) for name, frame in drawn.items()}


class _Loop:
    """The steps of the story at one site, each done once."""

    def __init__(self, site: Site, journal: Journal, narrator: Narrator) -> None:
        self._site, self._setting, self._journal, self._narrator = site, site.setting, journal, narrator
        self._url = site.setting.settings.service_url
        self._counted = time.monotonic()

    def count_seconds(self) -> None:
        """Add the time since it was last counted to that of the attempts before this one."""
        now = time.monotonic()
        self._journal.write("seconds", self._journal.read().get("seconds", 0.0) + now - self._counted)
        self._counted = now

    @contextlib.contextmanager
    def _once(self, name: str, title: str, why: str) -> Iterator[tuple[bool, Callable[[Any, str], None]]]:
        """Yields whether the step is still to be done, and how to finish it: with its facts and a sentence."""
        if name in self._journal.read():
            yield False, lambda facts, said: None
            return
        with self._narrator.step(title, why) as result:
            started = time.monotonic()

            def finish(facts: Any, said: str) -> None:
                self._journal.write(name, facts)
                self._journal.write("steps", self._journal.read().get("steps", {}) | {name: time.monotonic() - started})
                self.count_seconds()
                result(said)

            yield True, finish

    def first_generation(self, batch: pd.DataFrame) -> None:
        """Validate, version, train, decide, release."""
        why = "Validate against the contract, version with DVC, train four ways with MLflow watching, let the gate decide, release, serve, stress."
        with self._once("first", "First generation", why) as (todo, finish):
            if not todo:
                return
            made = self._site.generation(batch, f"{self._setting.problem.name}-first", "the first batch")
            if made["action"] != "promote":
                why = "; ".join(made.get("reasons", []))
                raise StackError(f"The first generation was not promoted ({made['action']}): {why}.")
            rows = {name: value for name, value in made["rows"].items() if name != "expectations"}
            load = made["load"]
            said = f"version {made['version']} answers; {rows['accepted']:,} rows accepted, {rows['quarantined']:,} in quarantine"
            if load:
                said += f"; {load['rps']:.0f} requests a second, p99 {load['p99_ms']:.0f} ms, {load['failures']} failures"
            finish({**made, "rows": rows}, said)

    def traffic(self, name: str, frame: pd.DataFrame, why: str) -> None:
        """Ask for predictions."""
        with self._once(name, f"Traffic: {len(frame):,} {name}", why) as (todo, finish):
            if todo:
                before = self._site.live()
                key = f"{self._journal.read()['run']['key']}:{name}"
                place = self._journal.read().get(f"{name} began", before)
                self._journal.write(f"{name} began", place)
                ids = traffic.ask(self._url, frame, self._setting.contract, key)
                finish({"ids": ids, "began_at": place}, f"{len(ids):,} answered, {self._site.live():,} in the log")

    def labels(self, name: str, of: str, frame: pd.DataFrame, why: str) -> None:
        """Tell the truth about earlier predictions, the first rows of that traffic."""
        with self._once(name, f"Labels: {len(frame):,} {of}", why) as (todo, finish):
            if todo:
                ids = self._journal.read()[of]["ids"][: len(frame)]
                target = self._setting.contract.target
                accepted = traffic.tell(self._url, ids, frame[target])
                finish({"sent": len(ids), "accepted": accepted}, f"{accepted:,} new labels in the store")

    def watch(self, name: str, why: str) -> None:
        """Let the runner run the monitor."""
        from prefect.deployments import run_deployment

        with self._once(name, "Monitor", why) as (todo, finish):
            if not todo:
                return
            problem = self._setting.problem.name
            run = run_deployment(f"monitor/{problem}", timeout=180, poll_interval=0.5)
            monitored(self._site, run)
            entry = self._site.decisions(*ACTIONS, newest=1)[0]
            found = {
                "decision": entry.id,
                "action": entry.action,
                "reasons": list(entry.reasons),
                "checks": entry.evidence["checks"],
                "at_prediction": self._site.live(),
                "flow_run_id": str(run.id),
            }
            finish(found, f"{entry.action}: {entry.reasons[0]}" + (f" … {entry.reasons[-1]}" if len(entry.reasons) > 1 else ""))

    def retraining(self) -> None:
        """Follow the run that the automation started, until it ends."""
        alarm = self._journal.read()["third alarm"]
        if alarm["action"] != "retrain":
            raise StackError(f"The monitor did not ask for retraining but decided {alarm['action']}: {'; '.join(alarm['reasons'])}.")
        title, why = "Retraining", "Started by Prefect's automation: new snapshot, same gate, errors compared one by one."
        with self._once("retraining", title, why) as (todo, finish):
            if todo:
                run = self._follow(alarm["decision"])
                done = answers(self._site.decisions(*JUDGEMENTS), alarm["decision"])
                if not done:
                    raise StackError(
                        f"Retraining ended without a decision. See {self._setting.settings.prefect_ui}/runs/flow-run/{run['id']}."
                    )
                facts = {"flow_run_id": run["id"], "event_id": run["parameters"]["event_id"], "reasons": run["parameters"]["reasons"]}
                facts |= {"decision": done[-1].id, "action": done[-1].action, "subject": done[-1].subject}
                finish(facts, f"{done[-1].action} {done[-1].subject}: {done[-1].reasons[-1]}")

    def _follow(self, decision: str) -> dict[str, Any]:
        """Wait for a run of the retraining deployment that the automation started for that decision."""
        deadline = time.monotonic() + RETRAINED_WITHIN
        lost = {run["id"] for run in self._runs() if run["state_type"] in FAILED}
        asked_again = False
        while time.monotonic() < deadline:
            runs = [run for run in self._runs() if run["parameters"].get("decision_id") == decision and run["id"] not in lost]
            if completed := [run for run in runs if run["state_type"] == "COMPLETED" and not self._was_superseded(run["id"])]:
                return completed[0]
            unfinished = [run for run in runs if run["state_type"] in ("SCHEDULED", "PENDING", "RUNNING", "COMPLETED")]
            failed = [run for run in runs if run["state_type"] == "FAILED"]
            if failed:
                raise StackError(f"Retraining failed. See {self._setting.settings.prefect_ui}/runs/flow-run/{failed[0]['id']}.")
            if not unfinished and (runs or lost or time.monotonic() > deadline - RETRAINED_WITHIN + 40) and not asked_again:
                # The run was lost with its process, or the event with its server: the monitor asks once more.
                from prefect.deployments import run_deployment

                run_deployment(f"monitor/{self._setting.problem.name}", timeout=180, poll_interval=0.5)
                asked_again = True
            time.sleep(0.5)
        raise StackError(
            f"No retraining was finished within {RETRAINED_WITHIN:.0f} s. See {self._setting.settings.prefect_ui}/automations "
            "and what the runner logged."
        )

    def _runs(self) -> list[dict[str, Any]]:
        body = {"flows": {"name": {"any_": ["retrain"]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 50}
        found = ask_prefect(self._setting.settings, "POST", "flow_runs/filter", body)
        # A worker elsewhere has the problem's folder at another place.
        return [run for run in found if Path(run["parameters"].get("problem", "")).name == self._setting.folder.path.name]

    def _was_superseded(self, flow_run: str) -> bool:
        return any(e.evidence["inputs"].get("flow_run") == flow_run for e in self._site.decisions("superseded"))
