"""How is an experiment run to its end, even if it is cut short, and its result written down?"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ratchet.errors import BatchError
from ratchet.report.figures import svg
from ratchet.report.results import Row, write
from ratchet.settings import ROOT, code_version, settings

RESULTS = ROOT / "docs" / "results"


def machine() -> str:
    """What this machine is, as the results tell it."""
    return f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GB, Python {platform.python_version()}"


def gate(runs: int, curve_runs: int, workers: int, console: Console, source: Path | None = None, out: Path = RESULTS) -> list[Row]:
    """Plant slice regressions, ask the gates, write gate.json, gate.md and gate.svg; of real rows gate_real.json and .md."""
    from flows import experiment_gate as experiment

    if runs < 2 or curve_runs < 2:
        raise BatchError("An experiment needs two runs of each kind or more.")
    name = "gate_real" if source else "gate"
    todo = experiment.real_cases(str(source.resolve()), runs) if source else experiment.cases(runs, curve_runs)
    judged = _judged(name, experiment, todo, workers, console)
    rows = experiment.measure(judged)
    more = f"--source {source.name}" if source else f"--curve-runs {curve_runs}"
    _write(out, name, rows, f"ratchet experiment gate --runs {runs} {more}", sorted({case.seed for case in todo}))
    if source is None:
        (out / "gate.svg").write_text(svg(experiment.curves(rows)) + "\n", encoding="utf-8")
    return rows


def tuning(runs: int, trials: int, workers: int, console: Console, out: Path = RESULTS) -> list[Row]:
    """Tune for a drifted world from nothing and from the trials of the search before, write tuning.json and tuning.md."""
    from flows import experiment_tuning as experiment

    if runs < 2:
        raise BatchError("An experiment needs two runs or more.")
    todo = experiment.cases(runs, trials)
    judged = _judged("tuning", experiment, todo, workers, console)
    rows = experiment.measure(judged)
    _write(out, "tuning", rows, f"ratchet experiment tuning --runs {runs} --trials {trials}", sorted({case.seed for case in todo}))
    return rows


def parity(requests: int, runs: int, console: Console, out: Path = RESULTS) -> list[Row]:
    """Ask a service of its own so often of each family, replay, plant every skew; write parity.json and parity.md."""
    from flows import experiment_parity as experiment
    from flows.setting import Setting
    from flows.standing import stand
    from ratchet.problem import find_problem
    from ratchet.settings import Settings
    from ratchet.simulation.skews import skews
    from stack.alone import served

    if requests < 1 or runs < 2:
        raise BatchError("An experiment needs a request and two runs or more.")
    home = settings().home / "experiment-parity"
    shutil.rmtree(home, ignore_errors=True)
    at = Settings(RATCHET_HOME=home, DATABASE_URL=None)
    setting = Setting(find_problem("credit", settings().problems), at)
    made = stand(setting.folder, at, "trees", 20_000, 7)
    found, drilled = {}, []
    for seed, (family, (release, native)) in enumerate(made.items(), start=100):
        setting.store.set_route(release.version, "experiment", verified=True)
        with served(home, "credit") as url:
            console.rule(family)
            say = console.print
            found[family] = experiment.million(setting, release, native, url, requests, seed, say)
    with served(home, "credit") as url:
        for skew in skews(setting.contract):
            told = [experiment.caught(setting, url, skew, 1000 + run) for run in range(runs)]
            hits = [place for place, _ in told if place is not None and place <= experiment.SOON]
            by = "contract" if all(how == "contract" for _, how in told) else "comparison"
            console.print(f"{skew.name}: {len(hits)} of {runs} caught, the latest at request {max(hits, default=0)}, by the {by}")
            drilled.append((f"{skew.name}, by the {by}", len(hits), runs))
    rows = experiment.measure(found, drilled)
    _write(out, "parity", rows, f"ratchet experiment parity --requests {requests} --runs {runs}", [7, 100, 101, 102, 1000])
    return rows


def compress(runs: int, console: Console, out: Path = RESULTS) -> list[Row]:
    """Quantise and distil the networks of so many worlds; write compress.json and compress.md."""
    from flows import experiment_compress as experiment

    if runs < 2:
        raise BatchError("An experiment needs two runs or more.")
    with console.status("compressing") as status:
        rows = experiment.measure(runs, lambda done: status.update(f"{done} of {runs} networks compressed"))
    _write(out, "compress", rows, f"ratchet experiment compress --runs {runs}", list(range(runs)))
    return rows


def concept(runs: int, workers: int, console: Console, source: Path | None = None, out: Path = RESULTS) -> list[Row]:
    """Detectors on stable and on changing streams; write concept.json and concept.md, of real rows concept_real.json and .md."""
    from flows import experiment_concept as experiment

    if runs < 2:
        raise BatchError("An experiment needs two runs or more.")
    name = "concept_real" if source else "concept"
    todo = experiment.cases(runs, str(source.resolve()) if source else "")
    judged = _judged(name, experiment, todo, workers, console)
    rows = experiment.measure(judged)
    more = f" --source {source.name}" if source else ""
    _write(out, name, rows, f"ratchet experiment concept --runs {runs}{more}", sorted({case.seed for case in todo}))
    return rows


def watch(runs: int, years: int, large: int, workers: int, console: Console, out: Path = RESULTS) -> list[Row]:
    """Clean years, shifts and changes of known harm; write watch.json and watch.md."""
    from flows import experiment_watch as experiment

    if min(runs, years, large) < 2:
        raise BatchError("An experiment needs two runs of each kind or more.")
    todo = experiment.cases(runs, years, large)
    judged = _judged("watch", experiment, todo, workers, console)
    rows = experiment.measure(judged)
    command = f"ratchet experiment watch --runs {runs} --years {years} --large {large}"
    _write(out, "watch", rows, command, sorted({case.seed for case in todo}))
    return rows


def power(runs: int, workers: int, console: Console, out: Path = RESULTS) -> list[Row]:
    """Small shifts in batches of all sizes; write power.json, power.md and power.svg."""
    from flows import experiment_power as experiment

    if runs < 2:
        raise BatchError("An experiment needs two runs of each kind or more.")
    todo = experiment.cases(runs)
    judged = _judged("power", experiment, todo, workers, console)
    rows = experiment.measure(judged)
    _write(out, "power", rows, f"ratchet experiment power --runs {runs}", sorted({case.seed for case in todo}))
    (out / "power.svg").write_text(svg(experiment.curves(rows)) + "\n", encoding="utf-8")
    return rows


def estimate(models: int, workers: int, console: Console, out: Path = RESULTS) -> list[Row]:
    """Windows without labels of so many models; write estimate.json and estimate.md."""
    from flows import experiment_estimate as experiment

    if models < 2:
        raise BatchError("An experiment needs two models or more.")
    todo = experiment.cases(models)
    judged = _judged("estimate", experiment, todo, workers, console)
    rows = experiment.measure(judged)
    _write(out, "estimate", rows, f"ratchet experiment estimate --models {models}", list(range(models)))
    return rows


def drill(
    runs: int, years: int, workers: int, console: Console, source: Path | None = None, only: Sequence[str] = (), out: Path | None = RESULTS
) -> list[Row]:
    """Plant every fault into streams of known truth, and watch clean years; write drill.json, .md, .html, and each run in drill_runs.jsonl.

    `only` some faults, by their names: then the scoreboard is left as it is, and what was seen of them is returned, else what is in sum.
    BatchError where a fault is not known, or a scoreboard would have too few runs.
    """
    from flows import scoreboard as experiment
    from ratchet.report.scoreboard import render

    if runs < 2 and not only:
        raise BatchError("A scoreboard needs two runs or more: --runs 2. --only plants a single fault.")
    todo = experiment.cases(runs, years, source)
    known = [name for name in dict.fromkeys(case.fault for case in todo) if name not in experiment.YEARS]
    if unknown := [name for name in only if name not in known]:
        raise BatchError(f"There is no fault called {unknown[0]!r}. There are:\n  " + "\n  ".join(known))
    todo = [case for case in todo if not only or case.fault in only]
    judged = _judged("drill", experiment, todo, workers, console)
    worlds = experiment.board(judged, experiment.faults(judged))
    sums, cells = experiment.measure(worlds)
    if only:
        for at in worlds:
            _tell_faults(at, console)
        return []
    if out is None:
        return [*sums, *cells]
    command = f"ratchet drill --runs {runs} --years {years}" + (f" --source {source.name}" if source else "")
    # Before anything is written: results change the checkout.
    page = render(worlds, experiment.WATCH, sums, command=command, commit=code_version(), batch=experiment.BATCH, delay=experiment.DELAY)
    _write(out, "drill", [*sums, *cells], command, sorted({case.seed for case in todo}), shown=len(sums))
    (out / "drill.html").write_text(page, encoding="utf-8")
    # Who did not ring is left out; nobody else's machine has that path.
    runs = [told | {"source": Path(told["source"]).name, "rang": {name: at for name, at in told["rang"].items() if at}} for told in judged]
    (out / "drill_runs.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs), encoding="utf-8")
    return sums


def _tell_faults(world: dict[str, Any], console: Console) -> None:
    """Each fault of a world in a sentence, and below it who saw it how soon."""
    from flows.scoreboard import BATCH, DELAY

    for fault in world["faults"]:
        meant = " or ".join(fault["seen_by"])
        said = f"seen as meant (by {meant}) in {fault['meant']} of {fault['n']} runs, harm {np.mean(fault['harm']):+.3f} a row"
        console.print(f"[bold]{escape(world['title'])}, {escape(fault['name'])}[/bold]: {escape(said)}", highlight=False)
        table = Table("rang", "runs", "after rows", "after label delays")
        for monitor, cell in fault["cells"].items():
            if cell["seen"]:
                table.add_row(monitor, f"{cell['seen']} of {cell['n']}", f"{cell['delay']:,.0f}", f"{cell['delay'] / (DELAY * BATCH):g}")
        console.print(table)


def slices(runs: int, workers: int, console: Console, out: Path = RESULTS) -> list[Row]:
    """Plant slices that fail among labelled rows; write slices.json and slices.md."""
    from flows import experiment_slices as experiment

    if runs < 2:
        raise BatchError("An experiment needs two runs or more.")
    todo = experiment.cases(runs)
    judged = _judged("slices", experiment, todo, workers, console)
    rows = experiment.measure(judged)
    _write(out, "slices", rows, f"ratchet experiment slices --runs {runs}", list(range(runs)))
    return rows


def lesson(runs: int, workers: int, console: Console, out: Path = RESULTS) -> list[Row]:
    """Retrain on other rows after changes of known kind; write lesson.json and lesson.md."""
    from flows import experiment_lesson as experiment

    if runs < 2:
        raise BatchError("An experiment needs two runs or more.")
    judged = _judged("lesson", experiment, experiment.cases(runs), workers, console)
    rows = experiment.measure(judged)
    _write(out, "lesson", rows, f"ratchet experiment lesson --runs {runs}", list(range(runs)))
    return rows


def _judged(name: str, experiment: Any, todo: Sequence[Any], workers: int, console: Console) -> list[dict[str, Any]]:
    """Every case of an experiment, judged; `experiment` is its module, with `Case` and `judge`."""
    from flows.judging import judge_all

    cases = [asdict(case) for case in todo]
    return _all(name, cases, lambda rest: judge_all(experiment.judge, [experiment.Case(**case) for case in rest], workers), console)


def _all(
    name: str, todo: Sequence[dict[str, Any]], ask: Callable[[list[dict[str, Any]]], Iterable[dict[str, Any]]], console: Console
) -> list[dict[str, Any]]:
    """Every case's answer; those of an earlier run of the same commit that was cut short are not asked again."""
    kept = settings().home / "experiments" / f"{name}-{code_version()}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    lines = kept.read_text(encoding="utf-8").splitlines(keepends=True) if kept.exists() and not code_version().endswith("-dirty") else []
    # What was cut off while it was written is written anew.
    whole = [line for line in lines if line.endswith("}\n")]
    kept.write_text("".join(whole), encoding="utf-8")
    told = [json.loads(line) for line in whole]
    asked = [json.dumps(case, sort_keys=True) for case in todo]
    # An answer repeats its case, so that it can be known again.
    done = {json.dumps({key: answer[key] for key in todo[0]}, sort_keys=True): answer for answer in told}
    rest = [case for case, key in zip(todo, asked, strict=True) if key not in done]
    if len(rest) < len(todo):
        console.print(f"{len(todo) - len(rest)} of {len(todo)} were judged before, at this commit: {kept} keeps them", soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, kept.open("a", encoding="utf-8") as file:
        bar = progress.add_task(name, total=len(todo), completed=len(todo) - len(rest))
        for answer in ask(rest) if rest else []:
            file.write(json.dumps(answer) + "\n")
            file.flush()
            done[json.dumps({key: answer[key] for key in todo[0]}, sort_keys=True)] = answer
            progress.advance(bar)
    return [done[key] for key in asked]


def _write(out: Path, name: str, rows: Sequence[Row], command: str, seeds: Sequence[int], shown: int | None = None) -> None:
    write(out, name, rows, command=command, commit=code_version(), seeds=seeds, machine=machine(), shown=shown)
