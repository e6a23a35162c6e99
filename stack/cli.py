"""What can a person tell Ratchet to do? The command line; vendors are imported only where they are used."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich", add_completion=False)
experiment = typer.Typer(no_args_is_help=True, help="Measure a promise of Ratchet's against its bar; writes docs/results/.")
app.add_typer(experiment, name="experiment")
console = Console()

ProblemName = Annotated[str, typer.Argument(help="A problem's name under problems/, or the path of its folder.")]
ProblemOption = Annotated[str | None, typer.Option("--problem", help="A problem's name or folder; the running stack's where left out.")]
Reason = Annotated[str, typer.Option("--reason", prompt="Why", help="Goes to the ledger.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def ratchet() -> None:
    """A model's whole life as a closed loop: validate, version, train, test, release, serve, watch, retrain."""


@contextmanager
def _sentences() -> Iterator[None]:
    """Foreseeable mistakes end in a sentence: exit code 2 for wrong input, 1 for a stack that cannot do its work."""
    from ratchet.errors import BatchError, ContractError, RatchetError

    try:
        yield
    except (BatchError, ContractError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True, highlight=False)
        raise typer.Exit(2) from error
    except RatchetError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True, highlight=False)
        raise typer.Exit(1) from error


def _folder(name: str) -> Any:
    from ratchet.problem import find_problem
    from ratchet.settings import settings

    found = find_problem(name, settings().problems)
    # Read both files now: a wrong one is told before anything starts.
    _ = found.problem, found.contract
    return found


def _not_in_containers() -> None:
    """StackError where the stack that is up is the one in containers: its store is reached from inside alone."""
    from ratchet.errors import StackError
    from ratchet.settings import settings
    from stack import deploy as compose
    from stack import processes

    if not processes.urls(settings().home) and not processes.elsewhere() and compose.reached():
        told = shlex.join(sys.argv[1:])
        raise StackError(f"The stack runs in containers, and its store is reached from inside: docker compose exec worker ratchet {told}")


def _running(problem: str | None = None) -> Any:
    """The setting of a problem in the stack of this machine: the one of `ratchet up`, else that of a demonstration."""
    from ratchet.settings import settings
    from stack import processes

    home = processes.look_at_running(settings().home)
    name = problem or processes.served(home) or settings().problem
    _not_in_containers()
    processes.adopt(home, str(_folder(name).path))
    from flows.setting import Setting

    return Setting.of(name)


def _site(problem: str) -> Any:
    """Where flows of a problem run: on this machine, or in the containers of `ratchet deploy`."""
    from ratchet.settings import settings
    from stack import deploy as compose
    from stack import processes

    local = processes.urls(processes.look_at_running(settings().home)) or processes.elsewhere()
    if not local and compose.reached():
        compose.adopt()
        from stack.demo import deployed_site

        return deployed_site(str(_folder(problem).path))
    setting = _running(problem)
    from flows.site import Here

    return Here(setting)


@app.command()
def demo(
    problem: Annotated[str, typer.Option("--problem", help="A problem's name or folder.")] = "credit",
    source: Annotated[Path | None, typer.Option("--source", help="A CSV or Parquet file of real rows to replay.")] = None,
    seed: Annotated[int, typer.Option(help="Every random choice follows from it.")] = 7,
    deployed: Annotated[
        bool, typer.Option("--deployed", help="In the containers of `ratchet deploy`, where nothing has been released yet.")
    ] = False,
    small: Annotated[bool, typer.Option("--small", help="Half of the traffic.")] = False,
    reports: Annotated[Path | None, typer.Option("--reports", help="Where the report goes; reports/demo where left out.")] = None,
    keep_up: Annotated[
        bool | None, typer.Option("--keep-up/--no-keep-up", help="Leave the pages up; as a rule where there is a terminal.")
    ] = None,
) -> None:
    """Run the whole loop once, from a first batch to a drift-triggered retraining that goes live."""
    with _sentences():
        from ratchet.settings import settings
        from stack.demo import demonstrate

        folder = _folder(problem)
        sizes = folder.problem.demo
        if small:
            # The first batch keeps its size: below it the gate cannot tell a good model from a bad one.
            halved = {name: rows // 2 for name, rows in sizes.model_dump().items() if name != "first"}
            sizes = sizes.model_copy(update=halved)
        stay = sys.stdout.isatty() if keep_up is None else keep_up
        path = str(source.resolve()) if source else None
        # A source that cannot be read is told before anything starts.
        folder.open_source(path, seed)
        where = reports.resolve() if reports else None
        if deployed:
            from ratchet.settings import ROOT
            from stack import deploy as compose
            from stack.demo import demonstrate_deployed

            compose.adopt()
            demonstrate_deployed(folder, path, sizes, seed, console, reports=where or ROOT / "reports" / "compose")
            return
        demonstrate(settings().home, folder, path, sizes, seed, console, reports=where, keep_up=stay)


@app.command()
def up(
    problem: ProblemName = "credit",
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Take free ports where the usual ones are in use.")] = False,
) -> None:
    """Start Prefect server, MLflow server, the service and the flow runner with the problem's monitoring schedule."""
    with _sentences():
        from ratchet.settings import settings
        from stack import processes

        folder, home = _folder(problem), settings().home
        with console.status("starting") as status:
            found = processes.up(home, str(folder.path), free_ports=free_ports, scheduled=True, say=status.update)
        setting = _running(problem)
        from flows.promotion import reconcile

        champion = reconcile(setting)
        for name, url in found.items():
            console.print(f"{name:<9} {url}{'/docs' if name == 'service' else ''}")
        if champion is None:
            console.print(f"No model yet: make the first generation with `ratchet run {problem}`.")
        else:
            console.print(f"Version {champion} answers. End the stack with `ratchet down`.")


@app.command()
def down() -> None:
    """End the processes that `ratchet up` and `ratchet demo` started, and no others."""
    with _sentences():
        from ratchet.settings import settings
        from stack import processes

        home = settings().home
        homes = [home, *sorted((home / "demo").glob("*/"))]
        ended = [f"{name} ({place.name})" for place in homes for name in processes.down(place)]
        console.print(f"Ended: {', '.join(ended)}." if ended else "Nothing was running.")


@app.command()
def secrets() -> None:
    """Write .env for docker-compose.yml, with a generated password for each that is missing."""
    with _sentences():
        from stack import secrets as passwords

        made = passwords.write()
        console.print(
            f"{passwords.ENV}: {', '.join(made)} generated."
            if made
            else f"{passwords.ENV} has every password already; nothing was changed."
        )


@app.command()
def deploy(
    profile: Annotated[
        list[str] | None, typer.Option("--profile", help="observe (Prometheus, Grafana) or load (Locust); may be repeated.")
    ] = None,
    build: Annotated[bool, typer.Option("--build/--no-build", help="Build the images first.")] = True,
    check: Annotated[bool, typer.Option("--check", help="Only look whether it could start.")] = False,
) -> None:
    """Start docker-compose.yml, after a look at whether everything it needs is there; whole, or not at all."""
    with _sentences():
        from stack import deploy as compose

        compose.look(profile or [])
        if check:
            console.print("Everything that the stack needs is there.")
            return
        with console.status("building and starting") as status:
            found = compose.up(profile or [], build=build, say=status.update)
        for name, url in found.items():
            console.print(f"{name:<9} {url}")
        console.print("End the stack with `docker compose down`: it keeps everything; `down -v` loses it.")


@app.command()
def migrate() -> None:
    """Bring the store's tables to this release: where DATABASE_URL names a server's, or a local one's."""
    with _sentences():
        from ratchet.settings import settings
        from ratchet.store import Store

        store = Store(settings().store_url, settings().problem, checked=False)
        before, after = store.migrate()
        console.print(
            f"The store {store.url} is at schema {after}" + (" already." if before == after else f"; it was {before or 'empty'}."),
            soft_wrap=True,
        )


@app.command()
def trace(prediction_id: str, as_json: AsJson = False, problem: ProblemOption = None) -> None:
    """Follow one prediction: its request, its row in the log, its labels, the windows that held it, what was decided."""
    with _sentences():
        from stack.trace import find, lines

        told = find(prediction_id, problem)
        if as_json:
            print(json.dumps(told, default=str))
        else:
            for line in lines(told):
                console.print(line, highlight=False, soft_wrap=True, markup=False)


@app.command()
def run(
    problem: ProblemName,
    source: Annotated[
        Path | None, typer.Option("--source", help="A CSV or Parquet batch; the problem's own source where left out.")
    ] = None,
    seed: Annotated[int, typer.Option(help="For a simulated source.")] = 7,
) -> None:
    """Take a batch, make a generation of it, and let the gate decide."""
    with _sentences():
        from ratchet.data.batch import conform, read_table

        folder = _folder(problem)
        if source is None:
            opened = folder.open_source(None, seed)
            batch, origin = opened.first_batch(folder.problem.demo.first), opened.description
        else:
            batch, origin = read_table(source), str(source)
        batch = conform(batch, folder.contract, origin)
        site = _site(problem)
        name = re.sub(r"[^\w. -]+", "_", Path(origin).name)
        with console.status("validate, version, train, decide, release"):
            made = site.generation(batch, name, "a person")
        console.print(f"[bold]{made['action']}[/bold] version {made['version']} (decision {made['decision']})")
        for reason in made.get("reasons", []):
            console.print(f"  {reason}", highlight=False, markup=False)


@app.command()
def monitor(problem: ProblemName) -> None:
    """Check the newest window of the log, and ask for retraining where the policy says so."""
    with _sentences():
        made = _site(problem).monitor()
        table = Table("check", "verdict", "rows", "why")
        for check in made["checks"]:
            table.add_row(check["name"], check["verdict"], str(check["n"]), escape(check["reason"]))
        console.print(table)
        console.print(f"[bold]{made['action'] or 'nothing to watch'}[/bold] {escape('; '.join(made['reasons']))}")


@app.command()
def drill(problem: ProblemName) -> None:
    """Plant known faults into a copy of the newest window, and look whether the watch sees them."""
    with _sentences():
        made = _site(problem).drill()
        table = Table("planted", "column", "seen", "by")
        for item in made["planted"]:
            table.add_row(item["fault"], item["column"], "yes" if item["seen"] else "[red]no[/red]", item["by"])
        console.print(table)
        console.print(f"{escape(made['said'])} (decision {made['decision']})")
        if made["missed"]:
            raise typer.Exit(1)


@app.command()
def status(as_json: AsJson = False, problem: ProblemOption = None) -> None:
    """What is up, who is champion since when, how fresh the data is, the last decisions."""
    with _sentences():
        from ratchet.settings import settings
        from stack import deploy as compose
        from stack import processes
        from stack.status import collect, collect_from, lines

        processes.look_at_running(settings().home)
        if processes.urls(settings().home):
            told = collect(problem)
        elif processes.elsewhere():
            at = settings()
            pages = {"service": at.service_ui, "mlflow": at.mlflow_ui, "prefect": at.prefect_ui}
            told = collect_from(at.service_url, at.prefect_api_url, pages, [], "ratchet ")
        elif compose.reached():
            found = compose.addresses()
            pages = {name: found[name] for name in ("service", "mlflow", "prefect")}
            within = "docker compose exec worker ratchet "
            told = collect_from(found["service"], f"{found['prefect']}/api", pages, compose.down_services(), within)
        else:
            told = collect(problem)
        if as_json:
            print(json.dumps(told, default=str))
        else:
            for line in lines(told):
                console.print(line, highlight=False, soft_wrap=True, markup=False)


@app.command()
def sample(
    problem: ProblemName,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same records.")] = 0,
) -> None:
    """Print valid records as JSON lines, to send to the service."""
    with _sentences():
        from ratchet.simulation.sample import draw

        for record in draw(_folder(problem).contract, n, seed):
            print(json.dumps(record))


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="Parquet or CSV, with the contract's columns.")],
    out: Annotated[Path | None, typer.Option("--out", help="Parquet or CSV; beside the file, named FILE.scored, where left out.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="A released version; the champion where left out.")] = None,
    problem: ProblemOption = None,
) -> None:
    """Score a file, row for row. Cut short, the same command goes on where it was."""
    with _sentences():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        from flows.score import released, score_file
        from ratchet.settings import settings
        from stack import processes

        processes.look_at_running(settings().home)
        folder = _folder(problem or processes.served(settings().home) or settings().problem)
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


@app.command()
def compress(
    problem: ProblemName,
    out: Annotated[Path | None, typer.Option("--out", help="A folder; compressed/PROBLEM in the state folder where left out.")] = None,
) -> None:
    """Make smaller networks of the newest generation's: quantised, distilled, each also as one file for a device."""
    with _sentences():
        from flows.compress import as_rows
        from flows.compress import compress as make
        from flows.setting import Setting
        from ratchet.settings import settings
        from stack import processes

        processes.look_at_running(settings().home)
        setting = Setting(_folder(problem), settings())
        target = (out or settings().home / "compressed" / setting.problem.name).resolve()
        with console.status("quantising and distilling"):
            made = make(setting, target)
        table = Table("network", "kB", "µs a row", "accuracy", "flips", "negative flips", "worst slice", "golden flips", "written")
        for row in as_rows(made):
            table.add_row(*row)
        console.print(table)
        console.print(f"{made[0].n:,} rows that no network learnt from; {target}", highlight=False, soft_wrap=True)


@app.command()
def golden(
    problem: ProblemName,
    add: Annotated[Path | None, typer.Option("--add", help="A CSV or Parquet file with the contract's columns, labels included.")] = None,
    name: Annotated[str, typer.Option("--name", help="What the new cohort is called.")] = "",
    why: Annotated[str, typer.Option("--why", help="How its rows were chosen, and who says that their labels are right.")] = "",
) -> None:
    """List the golden set's cohorts, or add one: rows that must be decided rightly, frozen from then on."""
    with _sentences():
        from ratchet.data.golden import cohorts, freeze
        from ratchet.data.golden import golden as rows_of
        from ratchet.errors import BatchError

        folder = _folder(problem)
        if add is not None:
            if not name or not why:
                raise BatchError("A cohort needs a name and a reason: give --name and --why.")
            made = freeze(folder, name, add, why)
            console.print(f"{made.rows:,} rows are frozen as {made.name!r}. Commit {folder.path / 'golden'}.", highlight=False, soft_wrap=True)
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


@app.command()
def parity(
    offline: Annotated[
        Path | None, typer.Option("--offline", help="A file of the features as the training has them, with the column prediction_id.")
    ] = None,
    problem: ProblemOption = None,
) -> None:
    """Replay the champion's logged requests through the training path: is every score the same, every feature?"""
    with _sentences():
        setting = _running(problem)
        from flows.parity import parity as compare

        with console.status("replaying") as status:
            checks = compare(setting, offline, lambda done: status.update(f"{done:,} requests replayed"))
        for check in checks:
            console.print(f"{check.verdict:9}  {check.name}: {check.reason}", highlight=False, soft_wrap=True, markup=False)
        if any(check.verdict == "fail" for check in checks):
            raise typer.Exit(1)


@app.command("load")
def load_command(
    users: Annotated[int | None, typer.Option("--users", min=1, help="How many; problem.yaml's where left out.")] = None,
    seconds: Annotated[int | None, typer.Option("--seconds", min=1, help="For how long; problem.yaml's where left out.")] = None,
    shape: Annotated[str | None, typer.Option("--shape", help="constant, ramp or spike; a soak is a long constant.")] = None,
    processes: Annotated[int | None, typer.Option("--processes", min=1, help="Processes that the users are shared among.")] = None,
    problem: ProblemOption = None,
) -> None:
    """Put the live service under load, and say whether it holds slo.yaml. The reports go to MLflow, beside the version."""
    with _sentences():
        setting = _running(problem)
        from flows.stress import champion
        from ratchet.problem import changed

        asked = changed(setting.problem.load, users=users, seconds=seconds, shape=shape, processes=processes)
        with console.status(f"{asked.users} users for {asked.seconds} s"):
            version, result, checks, report = champion(setting, asked)
        console.print(
            f"version {version}: {result.requests:,} requests of {asked.users} users, {asked.shape}; {report}",
            soft_wrap=True,
            highlight=False,
        )
        for check in checks:
            console.print(f"{check.verdict:9}  {check.name}: {check.reason}", highlight=False, soft_wrap=True, markup=False)
        if any(check.verdict == "fail" for check in checks):
            raise typer.Exit(1)


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
    with _sentences():
        from ratchet.settings import settings
        from stack import processes
        from stack.status import open_store

        processes.look_at_running(settings().home)
        _not_in_containers()
        store = open_store(problem)
        by_id = {entry.id: entry for entry in store.decisions()}
        routes = store.routes(until=at)
        if not routes:
            console.print("No version had been released by then.")
            return
        table = Table("since (UTC)", "version", "verified", "let by", "decision", "reasons")
        answering = [route for route in routes if route.verified] or routes
        for route in answering[-1:] if at else routes:
            entry = by_id.get(route.decision)
            who, what, why = (
                (entry.by, f"{entry.action} {entry.id}", escape("; ".join(entry.reasons)[:400]))
                if entry
                else ("unknown", route.decision, "not in the ledger")
            )
            table.add_row(f"{route.at:%Y-%m-%d %H:%M:%S}", route.champion, "yes" if route.verified else "not yet", who, what, why)
        console.print(table)


@app.command()
def generations(as_json: AsJson = False, problem: ProblemOption = None) -> None:
    """Every model version: parent, snapshot, family, metric, decision."""
    with _sentences():
        from ratchet.settings import settings
        from stack import processes

        processes.look_at_running(settings().home)
        setting = _site(problem or processes.served(settings().home) or settings().problem).setting
        from flows.story import generations as known

        told = known(setting)
        if as_json:
            print(json.dumps(told))
            return
        table = Table("version", "parent", "family", "metric", "value", "rule", "decision", "alias", "snapshot")
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
                item["snapshot"],
            )
        console.print(table)


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
    with _sentences():
        setting = _running(problem)
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
def card(
    version: Annotated[str, typer.Argument(help="A registered version.")],
    problem: ProblemOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where it goes; reports/card-PROBLEM-VERSION.html where left out.")] = None,
) -> None:
    """Bring a version's model card, one self-contained HTML page for a person who must decide."""
    with _sentences():
        from ratchet.settings import ROOT, settings
        from stack import processes

        processes.look_at_running(settings().home)
        setting = _site(problem or processes.served(settings().home) or settings().problem).setting
        from flows.card import fetch

        target = out or ROOT / "reports" / f"card-{setting.problem.name}-{version}.html"
        console.print(str(fetch(setting, version, target.resolve())), soft_wrap=True, highlight=False)


Workers = Annotated[int, typer.Option(min=1, help="Processes.")]


@experiment.command("gate")
def experiment_gate(
    runs: Annotated[int, typer.Option(help="Candidates behind each bar.")] = 250,
    curve_runs: Annotated[int, typer.Option(help="Candidates behind each point of the curves.")] = 40,
    workers: Workers = 2,
    source: Annotated[
        Path | None, typer.Option("--source", help="A file of credit_card's real rows, in place of the simulated world.")
    ] = None,
) -> None:
    """Plant slices that got worse while the mean improved: how often is it caught, how often held for nothing? (an hour)"""
    with _sentences():
        from stack import experiment as run

        _measured(run.gate(runs, curve_runs, workers, console, source))


@experiment.command("tuning")
def experiment_tuning(
    runs: Annotated[int, typer.Option(help="Worlds tuned for.")] = 20,
    trials: Annotated[int, typer.Option(help="Trials of each search.")] = 40,
    workers: Workers = 2,
) -> None:
    """Tune for a drifted world from nothing and from the trials of the search before: how many trials does that save? (an hour)"""
    with _sentences():
        from stack import experiment as run

        _measured(run.tuning(runs, trials, workers, console))


@experiment.command("parity")
def experiment_parity(
    requests: Annotated[int, typer.Option(help="Requests of each family.")] = 1_000_000,
    runs: Annotated[int, typer.Option(help="Upstreams with each skew.")] = 100,
) -> None:
    """Ask a million times, replay every request through the training path, and plant ten skews (half an hour)."""
    with _sentences():
        from stack import experiment as run

        _measured(run.parity(requests, runs, console))


@experiment.command("compress")
def experiment_compress(runs: Annotated[int, typer.Option(help="Networks.")] = 20) -> None:
    """Quantise and distil networks: what does each variant decide otherwise, how small is it, how quick? (five minutes)"""
    with _sentences():
        from stack import experiment as run

        _measured(run.compress(runs, console))


def _measured(rows: list[Any]) -> None:
    table = Table("what", "value", "95% interval", "runs")
    for row in rows:
        interval = f"{row.low:.3g} to {row.high:.3g}" if row.low is not None else ""
        table.add_row(row.name, f"{row.value:.4g} {row.unit}", interval, str(row.n))
    console.print(table)


@app.command()
def promote(version: Annotated[str, typer.Argument(help="A registered version.")], reason: Reason, problem: ProblemOption = None) -> None:
    """Let a version answer on a person's word, whatever the gate said."""
    with _sentences():
        setting = _running(problem)
        from flows.person import promote as override

        console.print(override(setting, version, reason))


@app.command()
def challenge(
    reason: Reason,
    version: Annotated[str | None, typer.Argument(help="A registered version; nobody where left out.")] = None,
    share: Annotated[float, typer.Option("--share", min=0.0, max=1.0, help="Its share of the live requests.")] = 0.1,
    problem: ProblemOption = None,
) -> None:
    """Let a version answer a share of the live requests beside the champion: the same entities every time."""
    with _sentences():
        setting = _running(problem)
        from flows.person import challenge as stand

        console.print(stand(setting, version, share, reason))


@app.command()
def shadow(
    reason: Reason,
    version: Annotated[str | None, typer.Argument(help="A registered version; nobody where left out.")] = None,
    problem: ProblemOption = None,
) -> None:
    """Let a version score every live request for the log alone."""
    with _sentences():
        setting = _running(problem)
        from flows.person import shadow as follow

        console.print(follow(setting, version, reason))


@app.command()
def rollback(reason: Reason, problem: ProblemOption = None) -> None:
    """Let the version answer that answered before."""
    with _sentences():
        setting = _running(problem)
        from flows.person import rollback as back

        console.print(back(setting, reason))


@app.command()
def pause(reason: Reason, problem: ProblemOption = None) -> None:
    """Keep the monitor from starting any retraining."""
    with _sentences():
        setting = _running(problem)
        from flows.person import pause as stop

        console.print(stop(setting, reason))


@app.command()
def resume(reason: Reason, problem: ProblemOption = None) -> None:
    """Let the monitor start retraining again."""
    with _sentences():
        setting = _running(problem)
        from flows.person import resume as go

        console.print(go(setting, reason))


def main() -> None:
    """The entry point."""
    app()


if __name__ == "__main__":
    main()
