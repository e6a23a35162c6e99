"""Which promises are measured against their bars?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from stack.commands.common import console, sentences

app = typer.Typer(no_args_is_help=True, help="Measure a promise of Ratchet's against its bar; writes docs/results/.")
Workers = Annotated[int, typer.Option(min=1, help="Processes.")]


@app.command("gate")
def experiment_gate(
    runs: Annotated[int, typer.Option(help="Candidates behind each bar.")] = 250,
    curve_runs: Annotated[int, typer.Option(help="Candidates behind each point of the curves.")] = 40,
    workers: Workers = 2,
    source: Annotated[
        Path | None, typer.Option("--source", help="A file of credit_card's real rows, in place of the simulated world.")
    ] = None,
) -> None:
    """Plant slices that got worse while the mean improved: how often is it caught, how often held for nothing? (an hour)"""
    with sentences():
        from stack import experiment as run

        measured(run.gate(runs, curve_runs, workers, console, source))


@app.command("tuning")
def experiment_tuning(
    runs: Annotated[int, typer.Option(help="Worlds tuned for.")] = 20,
    trials: Annotated[int, typer.Option(help="Trials of each search.")] = 40,
    workers: Workers = 2,
) -> None:
    """Tune for a drifted world from nothing and from the trials of the search before: how many trials does that save? (an hour)"""
    with sentences():
        from stack import experiment as run

        measured(run.tuning(runs, trials, workers, console))


@app.command("parity")
def experiment_parity(
    requests: Annotated[int, typer.Option(help="Requests of each family.")] = 1_000_000,
    runs: Annotated[int, typer.Option(help="Upstreams with each skew.")] = 100,
) -> None:
    """Ask a million times, replay every request through the training path, and plant ten skews (half an hour)."""
    with sentences():
        from stack import experiment as run

        measured(run.parity(requests, runs, console))


@app.command("compress")
def experiment_compress(runs: Annotated[int, typer.Option(help="Networks.")] = 20) -> None:
    """Quantise and distil networks: what does each variant decide otherwise, how small is it, how quick? (five minutes)"""
    with sentences():
        from stack import experiment as run

        measured(run.compress(runs, console))


@app.command("concept")
def experiment_concept(
    runs: Annotated[int, typer.Option(help="Streams of each kind for the default detector; a tenth for the others.")] = 1000,
    workers: Workers = 2,
    source: Annotated[
        Path | None, typer.Option("--source", help="A file of credit_card's real rows, in place of the simulated world.")
    ] = None,
) -> None:
    """Change the concept in labelled streams: how soon does each detector see it, how often does it see what is not there? (ten minutes)"""
    with sentences():
        from stack import experiment as run

        measured(run.concept(runs, workers, console, source))


@app.command("watch")
def experiment_watch(
    runs: Annotated[int, typer.Option(help="Shifts of each kind.")] = 100,
    years: Annotated[int, typer.Option(help="Clean years of weekly checks, and as many with autocorrelated rows.")] = 100,
    large: Annotated[int, typer.Option(help="Benign shifts of each size at a million rows a batch.")] = 25,
    workers: Workers = 2,
) -> None:
    """Watch clean years and shifts of known harm: how often does it ring for nothing, does it ring in time? (an hour)"""
    with sentences():
        from stack import experiment as run

        measured(run.watch(runs, years, large, workers, console))


@app.command("power")
def experiment_power(runs: Annotated[int, typer.Option(help="Batches of each shift and size.")] = 20, workers: Workers = 2) -> None:
    """Shift a population a little: in batches of how many rows is it seen, and by whom? (a quarter of an hour)"""
    with sentences():
        from stack import experiment as run

        measured(run.power(runs, workers, console))


@app.command("estimate")
def experiment_estimate(
    models: Annotated[int, typer.Option(help="Models; of each four windows a stream.")] = 25,
    workers: Workers = 2,
) -> None:
    """Estimate the error of windows without labels: how far off, does it know when it cannot tell, are others nearer? (a quarter of an hour)"""
    with sentences():
        from stack import experiment as run

        measured(run.estimate(models, workers, console))


@app.command("slices")
def experiment_slices(
    runs: Annotated[int, typer.Option(help="Logs with a planted slice, and as many without.")] = 100,
    workers: Workers = 2,
) -> None:
    """Let one slice of labelled rows lose ten points of accuracy: is it found, and are those bad that are found? (a quarter of an hour)"""
    with sentences():
        from stack import experiment as run

        measured(run.slices(runs, workers, console))


@app.command("lesson")
def experiment_lesson(
    runs: Annotated[int, typer.Option(help="Runs of each change with each number of labels.")] = 20,
    workers: Workers = 2,
) -> None:
    """Retrain on every row, on those since a change, or on from the champion: which decides best, and does the policy choose it? (20 minutes)"""
    with sentences():
        from stack import experiment as run

        measured(run.lesson(runs, workers, console))


def measured(rows: list[Any]) -> None:
    """Print what was measured."""
    table = Table("what", "value", "95% interval", "runs")
    for row in rows:
        interval = f"{row.low:.3g} to {row.high:.3g}" if row.low is not None else ""
        table.add_row(row.name, f"{row.value:.4g} {row.unit}", interval, str(row.n))
    console.print(table)
