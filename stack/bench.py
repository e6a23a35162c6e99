"""What does the stack cost over the bare models, and how quick is one prediction? `make bench` writes docs/results/bench.md."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table

from ratchet.problem import find_problem
from ratchet.release import read
from ratchet.report.results import Row, measured, write
from ratchet.settings import ROOT, settings
from stack import processes
from stack.demo import demonstrate, home_of

PREDICTIONS = 2000


def main(runs: int = 3, seed: int = 7) -> None:
    """Run the loop, the bare script and one prediction, `runs` times each, one after the other in this order."""
    console = Console()
    home = settings().home / "bench"
    folder = find_problem("credit", settings().problems)
    loops: list[float] = []
    bare: list[float] = []
    steps: dict[str, list[float]] = {}
    single: dict[str, list[float]] = {}
    for run in range(runs):
        console.rule(f"run {run + 1} of {runs}")
        begun = time.perf_counter()
        demonstrate(home, folder, None, folder.problem.demo, seed, console, reports=home / "reports", keep_up=True)
        loops.append(time.perf_counter() - begun)
        place = home_of(home, "credit")
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
    rows = [
        measured("loop with the stack", loops, "s"),
        measured("bare training and scoring", bare, "s"),
        measured("loop / bare", [a / b for a, b in zip(loops, bare, strict=True)], "times"),
        *(measured(name, values, "ms") for name, values in single.items()),
        *(measured(f"step: {name}", values, "s") for name, values in steps.items()),
    ]
    from flows.lifecycle import code_version

    machine = f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GB, Python {platform.python_version()}"
    write(ROOT / "docs" / "results", "bench", rows, command="make bench", commit=code_version(), seeds=[seed], machine=machine)
    show(console, rows)


def predictions(place: Path) -> dict[str, float]:
    """p50 and p99 of one prediction over HTTP, one after the other, and of the graph alone; milliseconds."""
    url = processes.urls(place)["service"]
    release = read(max((place / "releases" / "credit").iterdir(), key=lambda path: int(path.name)))
    record = release.probe[0]["request"]
    columns = {name: [value] for name, value in record.items()}
    http, graph = [], []
    with httpx.Client(base_url=url, headers={"X-Ratchet-Variant": "load"}) as client:
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
    typer.run(main)
