"""What does the stack cost over the bare models, how quick are one prediction, the release tests and the watch? `make bench` writes docs/results/bench.md."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import httpx
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from ratchet.problem import find_problem
from ratchet.release import read
from ratchet.report.results import Row, measured, write
from ratchet.settings import code_version, settings
from stack import processes
from stack.demo import demonstrate, home_of
from stack.experiment import RESULTS, machine
from stack.interrupt import interruptible

PREDICTIONS = 2000
UNITS = {
    "drift check of 100,000 rows, 30 columns": "s",
    "drift check of 100,000 rows, 30 columns: Evidently's preset": "s",
    "drift check of 100,000 rows, 30 columns: Evidently / ours": "times",
    "monitor: rows of the window a second, every check": "rows/s",
    "monitor: time on a log of 200,000 rows over one of 20,000": "times",
    "monitor: memory on a log of 200,000 rows over one of 20,000": "times",
}


def main(runs: int = 3, seed: int = 7, source: Path | None = None) -> None:
    """Run the loop, the bare script, one prediction and the release tests, `runs` times each, one after the other.

    The release tests are those of credit_card's real rows, from the file `source` or from OpenML.
    """
    console = Console()
    home = settings().home / "bench"
    place = home_of(home, "credit")
    folder = find_problem("credit", settings().problems)
    # Rows that cannot be had are told before the loop is run, and not minutes later.
    find_problem("credit_card", settings().problems).open_source(str(source) if source else None, seed)
    loops: list[float] = []
    bare: list[float] = []
    steps: dict[str, list[float]] = {}
    single: dict[str, list[float]] = {}
    tested: dict[str, list[float]] = {}
    watched: dict[str, list[float]] = {}
    for run in range(runs):
        console.rule(f"run {run + 1} of {runs}")
        begun = time.perf_counter()
        demonstrate(home, folder, None, folder.problem.demo, seed, console, reports=home / "reports", keep_up=True, anew=True)
        loops.append(time.perf_counter() - begun)
        try:
            for name, values in predictions(place).items():
                single.setdefault(name, []).append(values)
        finally:
            processes.down(place)
        journal = json.loads((place / "journal.json").read_text(encoding="utf-8"))
        for name, seconds in journal["steps"].items():
            steps.setdefault(name, []).append(seconds)
        from flows.bare import bare_loop

        bare.append(bare_loop(folder, folder.problem.demo, seed))
        for name, value in release_tests(home / "suite", source, seed).items():
            tested.setdefault(name, []).append(value)
        for name, value in watch(home / "watch", seed + run).items():
            watched.setdefault(name, []).append(value)
    rows = [
        measured("loop with the stack", loops, "s"),
        measured("bare training and scoring", bare, "s"),
        measured("loop / bare", [a / b for a, b in zip(loops, bare, strict=True)], "times"),
        *(measured(name, values, "s") for name, values in tested.items()),
        *(measured(name, values, UNITS[name]) for name, values in watched.items()),
        *(measured(name, values, "ms") for name, values in single.items()),
        *(measured(f"step: {name}", values, "s") for name, values in steps.items()),
    ]
    command = f"make bench SOURCE={source.name}" if source else "make bench"
    write(RESULTS, "bench", rows, command=command, commit=code_version(), seeds=[seed], machine=machine())
    show(console, rows)


def release_tests(home: Path, source: Path | None, seed: int) -> dict[str, float]:
    """Seconds of the release tests on all real rows, in both forms, in all and stage by stage."""
    from flows.suite import release_suite

    shutil.rmtree(home, ignore_errors=True)
    found = release_suite(home, str(source) if source else None, seed)
    made = {f"release tests, {form} form, 30,000 real rows": sum(parts.values()) for form, parts in found.items()}
    return made | {f"{form} form: {part}": seconds for form, parts in found.items() for part, seconds in parts.items()}


def watch(home: Path, seed: int) -> dict[str, float]:
    """What the watch takes, beside Evidently on the same rows, and on a log ten times as long."""
    from flows.bench_watch import LENGTHS, drift_checks, monitors

    checks, looks = drift_checks(seed), monitors(home, seed)
    (short, small), (long, large) = (looks[length] for length in LENGTHS)
    window = find_problem("credit", settings().problems).problem.watch.window
    numbers = (checks["ours"], checks["Evidently"], checks["Evidently"] / checks["ours"], window / short, long / short, large / small)
    return dict(zip(UNITS, numbers, strict=True))


def predictions(place: Path) -> dict[str, float]:
    """p50 and p99 of one prediction over HTTP, one after the other, and of the graph alone; milliseconds."""
    url = processes.urls(place)["service"]
    release = read(max((place / "releases" / "credit").iterdir(), key=lambda path: int(path.name)))
    record = release.probe[0]["request"]
    columns = {name: [value] for name, value in record.items()}
    http, graph = [], []
    with httpx.Client(base_url=url, headers={"X-Ratchet-Variant": "load"} | settings().authorization) as client:
        for _ in range(PREDICTIONS):
            begun = time.perf_counter()
            client.post("/predict", json=record).raise_for_status()
            http.append(1000 * (time.perf_counter() - begun))
            begun = time.perf_counter()
            release.scorer.probability(columns)
            graph.append(1000 * (time.perf_counter() - begun))
    return {
        "one prediction over HTTP, logged, p50": float(np.quantile(http, 0.5)),
        "one prediction over HTTP, logged, p99": float(np.quantile(http, 0.99)),
        "encode and score alone, p50": float(np.quantile(graph, 0.5)),
        "encode and score alone, p99": float(np.quantile(graph, 0.99)),
    }


def show(console: Console, rows: list[Row]) -> None:
    """The table on the console."""
    table = Table("what", "value", "95% interval", "runs")
    for row in rows:
        interval = f"{row.low:.3g} to {row.high:.3g}" if row.low is not None else ""
        table.add_row(row.name, f"{row.value:.4g} {row.unit}", interval, str(row.n))
    console.print(table)


if __name__ == "__main__":
    interruptible()
    typer.run(main)
