"""How quick is the service beside its peers, everything on? `make bench-serving` writes docs/results/serving.md."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import pandas as pd
import psutil
import typer
from rich.console import Console

from load_tests import run as load_test
from load_tests import wrk
from load_tests.crowd import Crowd, request
from ratchet.data.arrow import write_stream
from ratchet.data.batch import conform
from ratchet.errors import StackError
from ratchet.problem import Load, find_problem
from ratchet.report.results import Row, count, measured, write
from ratchet.settings import ROOT, Settings, code_version, settings
from ratchet.simulation.sample import draw
from stack import processes
from stack.alone import environment, running
from stack.experiment import RESULTS, machine
from stack.interrupt import interruptible

PROBLEM, ROWS, SEED = "credit", 20_000, 7
CONNECTIONS = (32, 256)
CROWD, RATE = 10_000, 2000
BURSTS = 5
# What Locust can offer from the cores that it shares with the service.
LOCUST_RATE = 1000
TABLE_ROWS, MILLION = 20_000, 1_000_000
OURS = "Ratchet"
VARIANT = {"X-Ratchet-Variant": "load"}

Numbers = dict[str, list[float]]


def main(
    runs: Annotated[int, typer.Option(help="Rounds; every server has its turn in each.")] = 3,
    seconds: Annotated[int, typer.Option(help="How long wrk asks.")] = 5,
    soak: Annotated[int, typer.Option(help="Seconds of the soak.")] = 600,
) -> None:
    """Start each server by itself, one after the other, and let the same client ask it."""
    console = Console()
    home = settings().home / "bench-serving"
    bench = Bench(home, seconds, console)
    bench.prepare()
    for round_ in range(runs):
        console.rule(f"round {round_ + 1} of {runs}")
        bench.round()
    rows = bench.rows()
    console.rule("Locust")
    rows += bench.locust()
    if soak:
        console.rule(f"soak, {soak} s")
        rows += bench.soak(soak)
    command = f"python -m stack.bench_serving --runs {runs} --seconds {seconds} --soak {soak}"
    write(RESULTS, "serving", rows, command=command, commit=code_version(), seeds=[SEED], machine=machine())
    console.print((RESULTS / "serving.md").read_text(encoding="utf-8"), highlight=False, markup=False)


class Bench:
    """The servers, what they are asked, and the numbers so far by name."""

    def __init__(self, home: Path, seconds: int, console: Console) -> None:
        self.home, self.seconds, self.console = home, seconds, console
        self.peers = home / "peers"
        self.folder = find_problem(PROBLEM, settings().problems)
        self.records = [json.dumps(record) for record in draw(self.folder.contract, 500, SEED)]
        self.numbers: Numbers = {}

    def prepare(self) -> None:
        """Train and release once; save the same rows' pipeline for the peers."""
        from flows.standing import stand

        shutil.rmtree(self.home, ignore_errors=True)
        self.peers.mkdir(parents=True)
        at = Settings(RATCHET_HOME=self.home, DATABASE_URL=None)
        self.released = stand(self.folder, at, "trees", ROWS, SEED)
        self.release = self.released["trees"][0]
        rows = conform(self.folder.open_source(None, SEED).traffic(MILLION // 10, drifted=False), self.folder.contract, "the world")
        many = pd.concat([rows] * 10, ignore_index=True)
        many.to_parquet(self.home / "million.parquet", index=False)
        many.to_csv(self.home / "million.csv", index=False)
        command = [sys.executable, str(ROOT / "peers" / "make.py"), str(self.peers), PROBLEM, str(self.release.path)]
        done = subprocess.run(command, env=environment(self.home), capture_output=True, text=True)
        if done.returncode != 0:
            raise StackError(f"peers/make.py failed: {done.stderr[-400:]}")

    def round(self) -> None:
        """Every server once."""
        record = [(self.peers / "record.json").read_text(encoding="utf-8")]
        wrapped = [f'{{"record": {record[0]}}}']
        mlflow = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--workers", "1", "-h", "127.0.0.1", "-m"]
        uvicorn = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--no-access-log", "--log-level", "warning"]
        pipeline, graph = str(self.peers / "pipeline.joblib"), str(self.release.path)
        peers = {
            "mlflow, scikit-learn": ([*mlflow, str(self.peers / "mlflow-sklearn")], "/invocations", [self._body("mlflow-sklearn")], ""),
            "mlflow, ONNX": ([*mlflow, str(self.peers / "mlflow-onnx")], "/invocations", [self._body("mlflow-onnx")], ""),
            "FastAPI, scikit-learn": ([*uvicorn, "peers.fastapi_sklearn:app"], "/predict", record, pipeline),
            "FastAPI, ONNX": ([*uvicorn, "peers.fastapi_onnx:app"], "/predict", record, graph),
            "BentoML, tutorial": ([sys.executable, "-m", "bentoml", "serve", "-q", "peers.bento_tutorial:Tutorial"], "/predict", wrapped, pipeline),
        }  # fmt: skip
        for name, (command, path, bodies, model) in peers.items():
            # One thread each is what they are quickest with, on rows that come one by one.
            more = {"PEER_MODEL": model, "OMP_NUM_THREADS": "1", "RATCHET_PROBLEM": PROBLEM}
            with running(self.home, name, command, path, json.loads(bodies[0]), **more) as (url, _):
                self._ask(name, url, path, bodies)
        with self._ours() as (url, _):
            self._ask(OURS, url, "/predict", self.records, VARIANT)
            self._crowd(OURS, url)
            self._tables(url)
        with self._ours(RATCHET_WORKERS="2") as (url, _):
            self._ask(f"{OURS}, two workers", url, "/predict", self.records, VARIANT)
            self._crowd(f"{OURS}, two workers", url)
        self._files()
        with self._ours(RATCHET_FAST_ROAD="false") as (url, _):
            self._ask(f"{OURS}, documented settings only", url, "/predict", self.records, VARIANT)
        # A store that is away, and the policy to answer all the same: this is what the log costs.
        with self._ours(DATABASE_URL="postgresql+psycopg://nobody@127.0.0.1:1/nothing", RATCHET_LOG_POLICY="unlogged") as (url, _):
            self._ask(f"{OURS}, log off", url, "/predict", self.records, VARIANT)

    def _ask(self, name: str, url: str, path: str, bodies: list[str], headers: dict[str, str] | None = None) -> None:
        wrk.run(url, path, bodies, 8, 2, headers)
        for connections in CONNECTIONS:
            found = wrk.run(url, path, bodies, connections, self.seconds, headers)
            told = {"requests a second": found.rps, "p50": found.p50, "p99": found.p99, "failed": found.failed}
            for what, value in told.items():
                self.numbers.setdefault(f"{name}, {connections} connections: {what}", []).append(value)
            self.console.print(
                f"{name}, {connections}: {found.rps:,.0f} a second, p50 {found.p50:.2f} ms, p99 {found.p99:.2f} ms, {found.failed} failed"
            )

    def _crowd(self, name: str, url: str) -> None:
        """Ten thousand connections: idle for the most part, then all asking at once."""
        asked = [request("/predict", record.encode(), VARIANT) for record in self.records]
        crowd = Crowd("127.0.0.1", int(url.rsplit(":", 1)[1]), CROWD)
        try:
            steady = crowd.steady(asked, RATE, 2 * self.seconds)
            bursts = []
            for _ in range(BURSTS):
                bursts.append(crowd.burst(asked))
                time.sleep(1)
        finally:
            crowd.close()
        found = {
            f"{name}, {CROWD:,} connections open, {RATE:,} requests a second: average": steady.milliseconds.mean(),
            f"{name}, {CROWD:,} connections open, {RATE:,} requests a second: p99": float(np.quantile(steady.milliseconds, 0.99)),
            f"{name}, {CROWD:,} connections open, {RATE:,} requests a second: failed": steady.failed,
            f"{name}, {CROWD:,} requests at once: average": np.mean([burst.milliseconds.mean() for burst in bursts]),
            f"{name}, {CROWD:,} requests at once: slowest": max(burst.slowest for burst in bursts),
            f"{name}, {CROWD:,} requests at once: failed": sum(burst.failed for burst in bursts),
            f"{name}, {CROWD:,} requests at once: most in flight": np.mean([burst.most_in_flight for burst in bursts]),
        }
        closed = wrk.run(url, "/predict", self.records, CROWD, self.seconds, VARIANT)
        again = f"{name}, {CROWD:,} connections that ask again at once"
        found |= {f"{again}: requests a second": closed.rps, f"{again}: average": closed.mean, f"{again}: failed": closed.failed}
        self._note(found)

    def _note(self, found: dict[str, float]) -> None:
        for name, value in found.items():
            self.numbers.setdefault(name, []).append(float(value))
            self.console.print(f"{name}: {value:,.2f}", highlight=False)

    def _tables(self, url: str) -> None:
        """A large table over HTTP, logged as every other request is."""
        records = draw(self.folder.contract, TABLE_ROWS, SEED)
        body = write_stream({name: [record[name] for record in records] for name in records[0]})
        headers = {"Content-Type": "application/vnd.apache.arrow.stream"} | VARIANT
        begun = time.perf_counter()
        httpx.post(f"{url}/predict", content=body, headers=headers, timeout=120).raise_for_status()
        self._note({"a table over HTTP, logged: rows a second": TABLE_ROWS / (time.perf_counter() - begun)})

    def _files(self) -> None:
        """Files of a million rows, from disk to disk."""
        from flows.score import score_file

        for kind in ("parquet", "csv"):
            for family in ("logistic", "trees", "network"):
                target = self.home / f"scored.{kind}"
                begun = time.perf_counter()
                made = score_file(self.released[family][0], self.home / f"million.{kind}", target)
                self._note({f"a {kind} file, {family}: rows a second": made.rows / (time.perf_counter() - begun)})

    def rows(self) -> list[Row]:
        """What was measured, and the ratios of one round each."""
        rows = [measured(name, values, _unit(name)) for name, values in self.numbers.items()]
        for connections in CONNECTIONS:
            ours = self.numbers[f"{OURS}, {connections} connections: requests a second"]
            for peer in ("mlflow, scikit-learn", "mlflow, ONNX", "FastAPI, scikit-learn", "FastAPI, ONNX", "BentoML, tutorial"):
                theirs = self.numbers[f"{peer}, {connections} connections: requests a second"]
                rows.append(
                    measured(f"{OURS} / {peer}, {connections} connections", [a / b for a, b in zip(ours, theirs, strict=True)], "times")
                )
            off = self.numbers[f"{OURS}, log off, {connections} connections: requests a second"]
            rows.append(measured(f"log on / log off, {connections} connections", [a / b for a, b in zip(ours, off, strict=True)], "times"))
        return rows

    def soak(self, seconds: int) -> list[Row]:
        """Ask steadily, and see whether the service's memory grows."""
        asked = [request("/predict", record.encode(), VARIANT) for record in self.records]
        with self._ours() as (url, pid):
            crowd = Crowd("127.0.0.1", int(url.rsplit(":", 1)[1]), 64)
            memory: list[float] = []
            failed = 0
            try:
                for _ in range(max(4, seconds // 10)):
                    failed += crowd.steady(asked, RATE, 10).failed
                    memory.append(self._memory(pid))
            finally:
                crowd.close()
        # The first fifth fills caches and arenas.
        kept = memory[len(memory) // 5 :]
        third = max(1, len(kept) // 3)
        growth = float(np.mean(kept[-third:]) / np.mean(kept[:third]) - 1)
        return [
            count("soak: memory of the last third over the first", growth, len(kept), f"more, {seconds} s at {RATE:,} a second"),
            count("soak: failed", failed, len(memory), "requests"),
            Row("soak: memory at the end", memory[-1], None, None, 1, "MB"),
        ]

    def locust(self) -> list[Row]:
        """Ten thousand of Locust's users, from two processes: what they measure, and what the service does."""
        load = Load(users=CROWD, seconds=60, processes=2, throughput=LOCUST_RATE / CROWD)
        with self._ours() as (url, _):
            found = load_test.run(url, draw(self.folder.contract, 500, SEED), load, self.home / "locust")
        name = f"Locust, {CROWD:,} users, two processes"
        self.console.print(f"{name}: {found.as_dict()}")
        return [
            count(f"{name}: failed", found.failures, found.requests, "requests"),
            Row(f"{name}: requests a second", found.rps, None, None, 1, "a second"),
            Row(f"{name}: average as they measure it", found.average_ms, None, None, 1, "ms"),
            Row(f"{name}: average as the service measures it", found.server_average_ms, None, None, 1, "ms"),
            Row(f"{name}: p99 as the service measures it", found.server_p99_ms, None, None, 1, "ms"),
        ]

    # ---- servers

    def _body(self, name: str) -> str:
        return (self.peers / f"{name}.json").read_text(encoding="utf-8")

    def _ours(self, **more: str) -> contextlib.AbstractContextManager[tuple[str, int]]:
        return running(
            self.home, OURS, processes.service_command(), "/predict", json.loads(self.records[0]), RATCHET_PROBLEM=PROBLEM, **more
        )

    @staticmethod
    def _memory(pid: int) -> float:
        """Of the service's worker processes, in MB: what they alone hold, and their share of what they share."""
        every = psutil.Process(pid).children(recursive=True)
        return sum(process.memory_full_info().pss for process in every) / 2**20


def _unit(name: str) -> str:
    units: list[tuple[str, str]] = [("a second", "a second"), ("failed", "requests"), ("in flight", "requests")]
    return next((unit for ending, unit in units if name.endswith(ending)), "ms")


if __name__ == "__main__":
    interruptible()
    typer.run(main)
