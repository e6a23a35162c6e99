"""How is the demonstration started and ended? In a home of its own, on free ports, from nothing or where it stopped."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from rich.console import Console

from ratchet.errors import RatchetError, StackError
from ratchet.problem import Demonstration, Folder
from ratchet.settings import ROOT
from stack import processes
from stack.narrator import ConsoleNarrator

if TYPE_CHECKING:
    from flows.site import There


def home_of(home: Path, problem: str) -> Path:
    """The state folder of a problem's demonstration."""
    return home / "demo" / problem


def default_reports(problem: str) -> Path:
    """Where the report of a problem's demonstration goes."""
    return ROOT / "reports" / ("demo" if problem == "credit" else f"demo-{problem}")


def demonstrate(
    home: Path,
    folder: Folder,
    source: str | None,
    sizes: Demonstration,
    seed: int,
    console: Console,
    *,
    reports: Path | None,
    keep_up: bool,
    anew: bool = False,
) -> dict[str, Any]:
    """Run the loop; the summary. With `keep_up` the pages stay up, else every process is ended.

    A demonstration of the same source, sizes and seed that was cut short goes on, unless it is to begin `anew`; a finished one makes way.
    """
    place = home_of(home, folder.problem.name)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        reports = reports or default_reports(folder.problem.name)
        reports.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place.parent / f".{folder.problem.name}.lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StackError(f"A demonstration of {folder.problem.name} is running already. Wait for it, or end it with Ctrl-C.") from error
    except OSError as error:
        raise StackError(
            f"{error.filename or home} cannot be written: {error.strerror}. Set RATCHET_HOME, or --reports, to another folder."
        ) from error
    try:
        return _run(place, folder, source, sizes, seed, console, reports, keep_up, anew)
    finally:
        lock.release()


def deployed_site(problem: str) -> There:
    """A problem in the stack at the addresses of the environment."""
    from flows.setting import Setting
    from flows.site import There

    return There(Setting.of(problem))


def demonstrate_deployed(
    folder: Folder, source: str | None, sizes: Demonstration, seed: int, console: Console, *, reports: Path
) -> dict[str, Any]:
    """Run the loop against a stack that is reached over HTTP alone, at the addresses in the environment; the summary.

    StackError where a model answers there already: the story begins with the first one.
    """
    from flows.demo import Journal, run

    begun = time.monotonic()
    site = deployed_site(str(folder.path))
    if (champion := site.champion()) is not None:
        raise StackError(
            f"Version {champion} of {folder.problem.name} answers there already; a demonstration begins with nothing. `docker compose down -v` loses all that is there."
        )
    reports.mkdir(parents=True, exist_ok=True)
    (reports / "journal.json").unlink(missing_ok=True)
    with site.unscheduled():
        summary = run(site, source, sizes, seed, ConsoleNarrator(console), Journal(reports / "journal.json"), reports)
    console.print(_closed(summary, time.monotonic() - begun))
    console.print(f"Report    {reports / 'index.html'}", soft_wrap=True)
    return summary


def _run(
    place: Path,
    folder: Folder,
    source: str | None,
    sizes: Demonstration,
    seed: int,
    console: Console,
    reports: Path,
    keep_up: bool,
    anew: bool,
) -> dict[str, Any]:
    begun = time.monotonic()
    narrator = ConsoleNarrator(console)
    # A demonstration has a store of its own, whatever the stack's is.
    os.environ.pop("DATABASE_URL", None)
    os.environ.setdefault("RATCHET_RELEASE_TESTS", "short")
    # An earlier demonstration may have left its pages up, or have been killed over its processes.
    processes.down(place)
    wanted = {"source": source, "sizes": sizes.model_dump(), "seed": seed}
    if not anew and _resumable(place, wanted):
        console.print("An earlier run was cut short: going on where it stopped.")
    else:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (place / "wanted.json").write_text(json.dumps(wanted), encoding="utf-8")
    try:
        with narrator.step("Stack", "Prefect server, MLflow server, BentoML service and flow runner, on 127.0.0.1.") as result:
            up = processes.up(place, str(folder.path), free_ports=True, scheduled=False)
            result(", ".join(f"{name} {url}" for name, url in up.items()))
        processes.adopt(place, str(folder.path))
        from flows.demo import Journal, run
        from flows.setting import Setting
        from flows.site import Here

        summary = run(Here(Setting.of(str(folder.path))), source, sizes, seed, narrator, Journal(place / "journal.json"), reports)
    except RatchetError:
        # The story came to another end: the next start tells it from the beginning. A kill leaves it to be taken up.
        (place / "wanted.json").unlink(missing_ok=True)
        _end(place)
        raise
    except BaseException:
        console.print("Ending what was started." if anew else "Ending what was started; the same command goes on from here.")
        _end(place)
        raise
    _say_where(console, summary, place, reports, time.monotonic() - begun, keep_up)
    if not keep_up:
        _end(place)
    return summary


def _end(place: Path) -> None:
    from flows.site import tell_prefect

    tell_prefect()
    processes.down(place)


def _resumable(place: Path, wanted: dict[str, Any]) -> bool:
    told, journal = place / "wanted.json", place / "journal.json"
    if not told.exists() or json.loads(told.read_text(encoding="utf-8")) != wanted:
        return False
    return not (journal.exists() and json.loads(journal.read_text(encoding="utf-8")).get("finished"))


def _closed(summary: dict[str, Any], seconds: float) -> str:
    """What came of it in a sentence. More errors may be introduced than fixed where those that are fixed cost more."""
    last, errors, costs = summary["generations"][-1], summary["errors"], summary["error_costs"]
    told = f"{errors['fixed']} errors fixed, {errors['introduced']} introduced, {errors['inherited']} inherited"
    if costs:
        told += f"; the {last['metric']} of those fixed is {costs['fixed']:,.1f}, of those introduced {costs['introduced']:,.1f}"
    # Starting and ending servers is no part of the loop, nor is what an earlier attempt of a resumed one did of this one.
    took = f"[bold]The loop closed in {summary['seconds']:.0f} s[/bold] ({seconds:.0f} s with its servers, this time)."
    return f"{took} Version {last['version']} ({last['family']}): {last['decision']}; {told}."


def _say_where(console: Console, summary: dict[str, Any], place: Path, reports: Path, seconds: float, keep_up: bool) -> None:
    console.print()
    console.print(_closed(summary, seconds))
    console.print(f"Report    {reports / 'index.html'}", soft_wrap=True)
    console.print(f"Summary   {reports / 'summary.json'}", soft_wrap=True)
    if keep_up:
        up = processes.urls(place)
        console.print(f"MLflow    {up['mlflow']}")
        console.print(f"Prefect   {up['prefect']}")
        console.print(f"Service   {up['service']}/docs")
        console.print("The pages stay up. Stop them with: [bold]ratchet down[/bold] (or make down)")
    else:
        console.print("The pages are ended with it; [bold]--keep-up[/bold] leaves them up, as a terminal does.")
