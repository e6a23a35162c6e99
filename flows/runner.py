"""Who runs the deployments? One process that serves them, with the monitor's schedule and the retraining automation."""

from __future__ import annotations

import asyncio
import signal
import sys
from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.events import DeploymentEventTrigger
from prefect.runner import Runner
from prefect.states import Crashed

from flows import DEPLOYMENTS
from flows.drill import drill
from flows.lifecycle import lifecycle
from flows.monitor import RETRAIN_REQUESTED, monitor
from flows.retrain import retrain
from flows.story import report
from ratchet.problem import find_problem
from ratchet.settings import settings


def automation(problem: str) -> DeploymentEventTrigger:
    """The automation that starts the retraining deployment when the monitor's event arrives, with its reasons."""
    return DeploymentEventTrigger(
        name=f"Retrain {problem} when its monitor asks for it",
        description=f"On {RETRAIN_REQUESTED} for {problem}: start the deployment retrain/{problem} with the decision and its reasons.",
        expect={RETRAIN_REQUESTED},
        match={"prefect.resource.id": f"ratchet.problem.{problem}"},
        posture="Reactive",
        threshold=1,
        within=timedelta(0),
        parameters={
            "problem": "{{ event.payload.problem }}",
            "decision_id": "{{ event.payload.decision_id }}",
            "reasons": "{{ event.payload.reasons }}",
            # An id is no JSON of itself; as text it is.
            "event_id": "{{ event.id|string }}",
        },
    )


async def end_lost_runs() -> int:
    """Mark as crashed what a runner that was killed left running; how many those were."""
    unfinished = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    async with get_client() as client:
        runs = await client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=list(DEPLOYMENTS))),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=unfinished))),
            limit=200,
        )
        for run in runs:
            await client.set_flow_run_state(run.id, Crashed(message="Its process was lost."), force=True)
    return len(runs)


async def serve(deployments: list[object]) -> None:
    """Serve until SIGTERM; runs under way are cancelled then, and marked so."""
    loop, told_to_stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told_to_stop.set)
    await end_lost_runs()
    runner = Runner(name="ratchet", query_seconds=1, limit=4, pause_on_shutdown=False)
    for deployment in deployments:
        await runner.aadd_deployment(deployment)
    # The built-in handler never awaits the runner's stop, and is lost where the signal comes before the start.
    runner.handle_sigterm = lambda *_: loop.call_soon_threadsafe(told_to_stop.set)
    serving = asyncio.create_task(runner.start())
    await asyncio.wait({serving, asyncio.create_task(told_to_stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if not told_to_stop.is_set():
        # It ended by itself: that is a mishap, and is raised.
        await serving
        return
    if runner.started:
        await runner.astop()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def main(problem: str, scheduled: bool) -> None:
    """Serve a problem's deployments; `scheduled` puts the monitor on the problem's schedule."""
    folder = find_problem(problem, settings().problems)
    name, path = folder.problem.name, str(folder.path)
    every = timedelta(seconds=folder.problem.watch.every_seconds) if scheduled else None
    weekly = timedelta(days=7) if scheduled else None
    asyncio.run(
        serve(
            [
                monitor.to_deployment(name=name, interval=every, parameters={"problem": path}, description=f"Watches the log of {name}."),
                retrain.to_deployment(name=name, triggers=[automation(name)], description=f"Makes a new generation of {name}."),
                lifecycle.to_deployment(name=name, parameters={"problem": path}, description=f"Makes a generation of {name} from a batch."),
                drill.to_deployment(
                    name=name,
                    interval=weekly,
                    parameters={"problem": path},
                    description=f"Plants known faults, to see whether the watch of {name} sees them.",
                ),
                report.to_deployment(name=name, parameters={"problem": path}, description=f"Tells the story of a demonstration of {name}."),
            ]
        )
    )


if __name__ == "__main__":
    named = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    main(named[0] if named else settings().problem, scheduled="--scheduled" in sys.argv[1:])
