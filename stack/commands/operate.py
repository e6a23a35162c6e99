"""How does the stack start, stop, and say how it is?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from stack.commands.common import AsJson, ProblemName, ProblemOption, console, problem_folder, running, sentences

app = typer.Typer()


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
    with sentences():
        from ratchet.settings import settings
        from stack.demo import demonstrate

        folder = problem_folder(problem)
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
    with sentences():
        from ratchet.settings import settings
        from stack import processes

        folder, home = problem_folder(problem), settings().home
        with console.status("starting") as status:
            found = processes.up(home, str(folder.path), free_ports=free_ports, scheduled=True, say=status.update)
        setting = running(problem)
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
    with sentences():
        from ratchet.settings import settings
        from stack import processes

        home = settings().home
        homes = [home, *sorted((home / "demo").glob("*/"))]
        ended = [f"{name} ({place.name})" for place in homes for name in processes.down(place)]
        console.print(f"Ended: {', '.join(ended)}." if ended else "Nothing was running.")


@app.command()
def status(as_json: AsJson = False, problem: ProblemOption = None) -> None:
    """What is up, who is champion since when, how fresh the data is, the last decisions."""
    with sentences():
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
            compose.adopt()
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
def secrets() -> None:
    """Write .env for docker-compose.yml, with a generated password for each that is missing."""
    with sentences():
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
    with sentences():
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
    with sentences():
        from ratchet.settings import settings
        from ratchet.store import Store

        store = Store(settings().store_url, settings().problem, checked=False)
        before, after = store.migrate()
        console.print(
            f"The store {store.url} is at schema {after}" + (" already." if before == after else f"; it was {before or 'empty'}."),
            soft_wrap=True,
        )
