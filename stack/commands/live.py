"""What does a person ask of a problem's life: run it, watch it, look back?"""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from ratchet.check import from_dict
from stack.commands.common import (
    AsJson,
    ProblemName,
    ProblemOption,
    asked_for,
    console,
    not_in_containers,
    problem_folder,
    running,
    sentences,
    site_of,
)

app = typer.Typer()
# A gate has some forty reasons to let a version live; those come first that say what it is worth.
SHOWN = 3


@app.command()
def run(
    problem: ProblemName,
    source: Annotated[
        Path | None, typer.Option("--source", help="A CSV or Parquet batch; the problem's own source where left out.")
    ] = None,
    seed: Annotated[int, typer.Option(help="For a simulated source.")] = 7,
) -> None:
    """Take a batch, make a generation of it, and let the gate decide."""
    with sentences():
        from ratchet.data.batch import conform, read_table

        folder = problem_folder(problem)
        if source is None:
            opened = folder.open_source(None, seed)
            batch, origin = opened.first_batch(folder.problem.demo.first), opened.description
        else:
            batch, origin = read_table(source), str(source)
        batch = conform(batch, folder.contract, origin)
        site = site_of(problem)
        name = re.sub(r"[^\w. -]+", "_", Path(origin).name)
        with console.status("validate, version, train, decide, release"):
            made = site.generation(batch, name, "a person")
        console.print(f"[bold]{made['action']}[/bold] version {made['version']} (decision {made['decision']})")
        for reason in made.get("reasons", []):
            console.print(f"  {reason}", highlight=False, markup=False)


@app.command()
def monitor(problem: ProblemName) -> None:
    """Check the newest window of the log, and ask for retraining where the policy says so."""
    with sentences():
        from ratchet.errors import StoreError

        made = site_of(problem).monitor()
        if made["action"] is None:
            raise StoreError(f"{problem}: {'; '.join(made['reasons'])}, so there is nothing to watch. `ratchet run {problem}` makes one.")
        table = Table("check", "verdict", "rows", "why")
        for check in made["checks"]:
            table.add_row(from_dict(check).heading, check["verdict"], str(check["n"]), escape(check["reason"]))
        console.print(table)
        console.print(f"[bold]{made['action']}[/bold] {escape('; '.join(made['reasons']))}")


@app.command()
def audit(
    problem: ProblemOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the drawn predictions to this CSV file, with an empty column label.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="A CSV file with prediction_id and label (0 or 1): what was found out.")
    ] = None,
) -> None:
    """The predictions that were drawn by chance to find out the truth about, and what was found."""
    with sentences():
        setting = running(problem)
        from flows.audit import take, todo
        from ratchet.errors import BatchError

        if labels is not None:
            console.print(f"{take(setting, labels)} new labels of audited predictions in the store")
        rows, facts = todo(setting)
        console.print(
            f"Version {facts['version']}: {facts['drawn']} of the newest {facts['rows']:,} predictions are drawn, {facts['audited']} are audited; "
            f"the year's budget has {facts['left']:,} labels left"
            + (f"; {facts['before']} of before were bought, and are awaited" if facts.get("before") else "")
        )
        if out is not None and rows.empty:
            console.print("No prediction waits for an audit, so no file was written; more are drawn as the service answers.")
        elif out is not None:
            if out.exists():
                raise BatchError(f"{out} is there already, perhaps with labels filled in. Name another file, or move it away.")
            if not out.parent.is_dir():
                raise BatchError(f"{out.parent} is no folder; the file cannot be written there.")
            try:
                rows.assign(label="").to_csv(out, index=False)
            except OSError as error:
                raise BatchError(f"{out} cannot be written: {error.strerror}. Name another place with --out.") from error
            console.print(f"{len(rows)} predictions to audit in {escape(str(out))}; fill in label and hand it over with --labels")
        elif len(rows):
            table = Table("prediction", "at")
            for row in rows.head(10).itertuples():
                table.add_row(str(row.prediction_id), f"{row.at:%Y-%m-%d %H:%M}")
            console.print(table)
            if len(rows) > 10:
                console.print(f"and {len(rows) - 10} more; --out FILE.csv writes them all, with their features")


@app.command()
def drill(
    context: typer.Context,
    problem: Annotated[
        str | None,
        typer.Argument(help="A running problem: its newest window is drilled. Left out: the whole catalogue, in simulated streams."),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Streams of each fault of the catalogue.")] = 3,
    years: Annotated[int, typer.Option(min=2, help="Clean years of weekly checks.")] = 10,
    source: Annotated[Path | None, typer.Option("--source", help="A file of credit_card's real rows, to be drilled as well.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="One fault by its name; may be given again for another. The scoreboard is left as it is."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Plant known faults, and look which monitor sees them: into a copy of a running problem's newest window, or the whole catalogue.

    The catalogue takes half an hour, real rows as long again; its scoreboard is docs/results/drill.html.
    """
    with sentences():
        from ratchet.errors import BatchError

        if problem is None:
            from stack import experiment
            from stack.commands.measure import measured

            if rows := experiment.drill(runs, years, workers, console, source, only or ()):
                measured(rows)
            return
        if given := [name for name in context.params if name != "problem" and _given(context, name)]:
            raise BatchError(
                f"--{given[0]} is of the whole catalogue: leave it out, or leave out {problem}, whose newest window is drilled."
            )
        made = site_of(problem).drill()
        table = Table("planted", "column", "seen", "by")
        for item in made["planted"]:
            table.add_row(
                item["fault"], item["column"], {True: "yes", False: "[red]no[/red]", None: "rings already"}[item["seen"]], item["by"]
            )
        console.print(table)
        console.print(f"{escape(made['said'])} (decision {made['decision']})")
        if made["missed"] or not made["asked"]:
            raise typer.Exit(1)


def _given(context: typer.Context, name: str) -> bool:
    """Whether an option was given, and is not its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@app.command()
def history(
    at: Annotated[
        datetime | None,
        typer.Option(
            "--at",
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"],
            help="A time in UTC.",
        ),
    ] = None,
    problem: ProblemOption = None,
) -> None:
    """Which version answered when, and who let it."""
    with sentences():
        from ratchet.settings import settings
        from stack import processes
        from stack.status import open_store

        processes.look_at_running(settings().home)
        not_in_containers()
        store = open_store(problem)
        by_id = {entry.id: entry for entry in store.decisions()}
        routes = store.routes(until=at)
        if not routes:
            console.print("No version had been released by then." if at else "No version has been released yet.")
            return
        answering = [route for route in routes if route.verified] or routes
        # A route is set, and then verified: the first of the two is told where the second never came.
        told_once = [one for one, then in zip(routes, [*routes[1:], None], strict=True) if not then or then.decision != one.decision]
        for route in answering[-1:] if at else told_once:
            entry = by_id.get(route.decision)
            told = f"{route.at:%Y-%m-%d %H:%M:%S} UTC  [bold]version {route.champion}[/bold]" + (
                "" if route.verified else ", not verified yet"
            )
            let = f"{entry.action} by {escape(entry.by)}" if entry else "not in the ledger"
            console.print(f"{told}  {let} (decision {route.decision})", highlight=False)
            reasons = entry.reasons if entry else ()
            more = [f"and {len(reasons) - SHOWN} more; `ratchet card {route.champion}` has every check"] if len(reasons) > SHOWN else []
            for reason in (*reasons[:SHOWN], *more):
                console.print(Padding(escape(reason), (0, 0, 0, 2)), highlight=False)


@app.command()
def generations(as_json: AsJson = False, problem: ProblemOption = None) -> None:
    """Every model version: parent, snapshot, family, metric, decision."""
    with sentences():
        setting = site_of(asked_for(problem)).setting
        from flows.story import generations as known

        told = known(setting)
        if as_json:
            print(json.dumps(told))
            return
        titles = ("version", "parent", "family", "metric", "value", "rule", "decision", "alias", "snapshot")
        table = Table(*titles, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for item in told:
            table.add_row(
                item["version"],
                item["parent"] or "none",
                item["family"],
                item["metric"],
                f"{item['value']:.4f}",
                f"{item['baseline_value']:.4f}",
                item["decision"] or "",
                item["alias"] or "",
                item["snapshot"][:8],
            )
        console.print(table)


@app.command()
def card(
    version: Annotated[str, typer.Argument(help="A registered version.")],
    problem: ProblemOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where it goes; reports/card-PROBLEM-VERSION.html where left out.")] = None,
) -> None:
    """Bring a version's model card, one self-contained HTML page for a person who must decide."""
    with sentences():
        from ratchet.settings import ROOT

        setting = site_of(asked_for(problem)).setting
        from flows.card import fetch

        target = out or ROOT / "reports" / f"card-{setting.problem.name}-{version}.html"
        console.print(str(fetch(setting, version, target.resolve())), soft_wrap=True, highlight=False)


@app.command()
def trace(prediction_id: str, as_json: AsJson = False, problem: ProblemOption = None) -> None:
    """Follow one prediction: its request, its row in the log, its labels, the windows that held it, what was decided."""
    with sentences():
        from stack.trace import find, lines

        told = find(prediction_id, problem)
        if as_json:
            print(json.dumps(told, default=str))
        else:
            for line in lines(told):
                console.print(line, highlight=False, soft_wrap=True, markup=False)


@app.command()
def tune(
    problem: ProblemName,
    family: Annotated[
        str | None, typer.Option("--family", help="logistic, trees or network; the newest candidate's where left out.")
    ] = None,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="How many in all; params.yaml's where left out.")] = None,
    objective: Annotated[
        list[str] | None, typer.Option("--objective", help="log_loss, cost, negative_flips, calibration, latency; may be repeated.")
    ] = None,
) -> None:
    """Search a family's parameters for the next generation, starting from the champion's and the search before."""
    with sentences():
        setting = running(problem)
        from rich.progress import Progress

        from flows.tune import tune as look_for

        with Progress(console=console) as progress:
            bar = progress.add_task("trials", total=None)
            made = look_for(
                setting, family, trials, objective or [], lambda trial, count: progress.update(bar, total=count, completed=trial.number + 1)
            )
        best = ", ".join(f"{name} {value:.5g}" for name, value in made["best"].items())
        console.print(f"{made['family']}, {made['trials']} trials: {best}", highlight=False)
        for name, value in made["params"].items():
            console.print(f"  {name}: {value:.5g}" if isinstance(value, float) else f"  {name}: {value}", highlight=False)
        console.print(
            f"The next generation of {setting.problem.name} is made with them. {setting.tracker.run_url(made['run_id'], setting.settings.mlflow_ui)}",
            soft_wrap=True,
        )


@app.command()
def golden(
    problem: ProblemName,
    add: Annotated[Path | None, typer.Option("--add", help="A CSV or Parquet file with the contract's columns, labels included.")] = None,
    name: Annotated[str, typer.Option("--name", help="What the new cohort is called.")] = "",
    why: Annotated[str, typer.Option("--why", help="How its rows were chosen, and who says that their labels are right.")] = "",
) -> None:
    """List the golden set's cohorts, or add one: rows whose label is certain, frozen from then on."""
    with sentences():
        from ratchet.data.golden import cohorts, freeze
        from ratchet.data.golden import golden as rows_of
        from ratchet.errors import BatchError

        folder = problem_folder(problem)
        if add is not None:
            if not name or not why:
                raise BatchError("A cohort needs a name and a reason: give --name and --why.")
            made = freeze(folder, name, add, why)
            console.print(
                f"{made.rows:,} rows are frozen as {made.name!r}. Commit {folder.path / 'golden'}.", highlight=False, soft_wrap=True
            )
        known = cohorts(folder)
        # A cohort that was changed since is told of before any is listed.
        rows_of(folder)
        if not known:
            console.print(f"{folder.problem.name} has no golden set yet; --add makes its first cohort.", highlight=False)
            return
        table = Table("cohort", "rows", "why")
        for cohort in known:
            table.add_row(cohort.name, f"{cohort.rows:,}", escape(cohort.why))
        console.print(table)
