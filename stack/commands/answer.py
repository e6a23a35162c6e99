"""What does a person ask of the answers: samples, files, load, parity, smaller networks?"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from stack.commands.common import ProblemName, ProblemOption, console, not_in_containers, problem_folder, running, sentences

app = typer.Typer()


@app.command()
def sample(
    problem: ProblemName,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same records.")] = 0,
) -> None:
    """Print valid records as JSON lines, to send to the service one by one.

    They are drawn from all that the contract allows, evenly: to the watch traffic of them is a population that moved.
    """
    with sentences():
        from ratchet.simulation.sample import draw

        for record in draw(problem_folder(problem).contract, n, seed):
            print(json.dumps(record))


@app.command("traffic")
def traffic_command(
    problem: ProblemName,
    n: Annotated[int, typer.Option("-n", min=1, help="How many rows.")] = 1000,
    drifted: Annotated[bool, typer.Option("--drifted", help="Of the population as it is once it has drifted.")] = False,
    labels: Annotated[bool, typer.Option("--labels/--no-labels", help="Tell what turned out to be true as well, at once.")] = True,
    source: Annotated[
        Path | None,
        typer.Option("--source", help="A CSV or Parquet file of other rows than the first batch; the problem's own source where left out."),
    ] = None,
    seed: Annotated[int, typer.Option(help="That of `ratchet run`, whose rows are not sent.")] = 7,
) -> None:
    """Ask the live service about rows of the problem's own source, as customers would, and tell their labels."""
    with sentences():
        setting = running(problem)
        from flows.traffic import send_own

        with console.status(f"{n:,} requests"):
            answered, told = send_own(setting, n, drifted, labels, seed, str(source.resolve()) if source else None)
        console.print(f"{answered:,} answered, {told:,} new labels. `ratchet monitor {problem}` looks at them.", highlight=False)


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="Parquet or CSV, with the contract's columns.")],
    out: Annotated[Path | None, typer.Option("--out", help="Parquet or CSV; beside the file, named FILE.scored, where left out.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="A released version; the champion where left out.")] = None,
    problem: ProblemOption = None,
) -> None:
    """Score a file, row for row. Cut short, the same command goes on where it was."""
    with sentences():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        from flows.score import released, score_file
        from ratchet.settings import settings
        from stack import processes

        processes.look_at_running(settings().home)
        not_in_containers()
        folder = problem_folder(problem or processes.served(settings().home) or settings().problem)
        release = released(folder, settings(), version)
        target = out or file.with_name(f"{file.stem}.scored{file.suffix}")
        begun = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("rows", total=None)
            made = score_file(release, file, target, lambda rows, total: progress.update(bar, completed=rows, total=total))
        seconds = time.monotonic() - begun
        done = f", {made.resumed:,} of them by an earlier run" if made.resumed else ""
        console.print(
            f"{target}: {made.rows:,} rows by version {release.version}, {made.refused:,} refused{done}; {made.rows / seconds:,.0f} a second.",
            highlight=False,
            soft_wrap=True,
        )


@app.command("load")
def load_command(
    users: Annotated[int | None, typer.Option("--users", min=1, help="How many; problem.yaml's where left out.")] = None,
    seconds: Annotated[int | None, typer.Option("--seconds", min=1, help="For how long; problem.yaml's where left out.")] = None,
    shape: Annotated[str | None, typer.Option("--shape", help="constant, ramp or spike; a soak is a long constant.")] = None,
    processes: Annotated[int | None, typer.Option("--processes", min=1, help="Processes that the users are shared among.")] = None,
    throughput: Annotated[
        float | None, typer.Option("--throughput", help="Requests a second of each user; problem.yaml's where left out.")
    ] = None,
    problem: ProblemOption = None,
) -> None:
    """Put the live service under load, and say whether it holds slo.yaml. The reports go to MLflow, beside the version."""
    with sentences():
        setting = running(problem)
        from flows.stress import measure_champion
        from ratchet.problem import changed

        asked = changed(setting.problem.load, users=users, seconds=seconds, shape=shape, processes=processes, throughput=throughput)
        with console.status(f"{asked.users} users for {asked.seconds} s"):
            version, result, checks = measure_champion(setting, asked)
        console.print(
            f"version {version}: {result.requests:,} requests of {asked.users} users, {asked.shape}; {result.report}",
            soft_wrap=True,
            highlight=False,
        )
        for check in checks:
            console.print(f"{check.verdict:9}  {check.name}: {check.reason}", highlight=False, soft_wrap=True, markup=False)
        if any(check.verdict == "fail" for check in checks):
            raise typer.Exit(1)


@app.command()
def parity(
    offline: Annotated[
        Path | None, typer.Option("--offline", help="A file of the features as the training has them, with the column prediction_id.")
    ] = None,
    problem: ProblemOption = None,
) -> None:
    """Replay the champion's logged requests through the training path: is every score the same, every feature?"""
    with sentences():
        setting = running(problem)
        from flows.parity import parity as compare

        with console.status("replaying") as status:
            checks = compare(setting, offline, lambda done: status.update(f"{done:,} requests replayed"))
        for check in checks:
            console.print(f"{check.verdict:9}  {check.name}: {check.reason}", highlight=False, soft_wrap=True, markup=False)
        if any(check.verdict == "fail" for check in checks):
            raise typer.Exit(1)


@app.command()
def compress(
    problem: ProblemName,
    out: Annotated[Path | None, typer.Option("--out", help="A folder; compressed/PROBLEM in the state folder where left out.")] = None,
) -> None:
    """Make smaller networks of the newest generation's: quantised, distilled, each also as one file for a device."""
    with sentences():
        from flows.compress import as_rows, remarks
        from flows.compress import compress as make
        from flows.setting import Setting
        from ratchet.settings import settings
        from stack import processes

        processes.look_at_running(settings().home)
        not_in_containers()
        setting = Setting(problem_folder(problem), settings())
        target = (out or settings().home / "compressed" / setting.problem.name).resolve()
        with console.status("quantising and distilling"):
            made = make(setting, target)
        table = Table("network", "kB", "µs a row", "accuracy", "flips", "negative", "golden", "written")
        for row in as_rows(made):
            table.add_row(*row)
        console.print(table)
        for remark in remarks(made):
            console.print(remark, highlight=False, soft_wrap=True, markup=False)
        console.print(f"{made[0].n:,} rows that no network learnt from; {target}", highlight=False, soft_wrap=True)
