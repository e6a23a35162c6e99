"""Does the deployed stack close the loop, and bear what may happen to it? `make compose-test`.

It runs docker-compose.yml under a project name, with passwords, ports and volumes of its own, so that a stack of yours
is not touched; drives the loop from outside over HTTP; then restarts and kills every service while traffic runs.
"""

from __future__ import annotations

import io
import json
import os
import secrets as random
import time
from typing import Annotated

import httpx
import pandas as pd
import typer
from rich.console import Console

from ratchet.errors import RatchetError, StackError
from ratchet.problem import find_problem
from ratchet.report.results import Row, write
from ratchet.settings import ROOT, code_version, settings
from ratchet.simulation.sample import draw
from stack import deploy, observed, secrets
from stack.demo import demonstrate_deployed, deployed_site
from stack.disturb import PROJECT, compose, disturb, sql
from stack.experiment import RESULTS, machine
from stack.observed import count
from stack.processes import free_port

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    seed: Annotated[int, typer.Option(help="Every random choice of the loop follows from it.")] = 7,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack up, and its volumes there.")] = False,
    build: Annotated[bool, typer.Option("--build/--no-build", help="Build the images first.")] = True,
    loop: Annotated[bool, typer.Option("--loop/--no-loop", help="Run the loop before the disturbances.")] = True,
    profile: Annotated[list[str] | None, typer.Option("--profile", help="Profiles to start as well.")] = None,
) -> None:
    """Run the loop against the compose stack, disturb it, and write docs/results/compose.md."""
    console = Console()
    _isolate()
    try:
        deploy.look(profile or [])
        # What would be missed at the end is looked for at the beginning.
        observed.browser()
        begun = time.monotonic()
        console.print(f"Starting the project {PROJECT}: {deploy.up(profile or [], build=build)}")
        rows = [count("seconds from nothing to every service healthy", time.monotonic() - begun, 1, "s")]
        deploy.adopt()
        if loop:
            rows += _loop(console, seed)
            rows += _observed(console)
        rows += disturb(console)
        rows += _down_and_up(console)
        rows += _other_versions(console)
        write(RESULTS, "compose", rows, command="make compose-test", commit=code_version(), seeds=[seed], machine=machine())
        console.print((RESULTS / "compose.md").read_text(encoding="utf-8"), markup=False)
    except RatchetError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True, highlight=False)
        raise typer.Exit(1) from error
    finally:
        if not keep:
            compose("down", "-v", check=False)


def _isolate() -> None:
    """A project of its own: name, passwords, free ports."""
    kept = ROOT / ".ratchet" / "compose-test.json"
    kept.parent.mkdir(exist_ok=True)
    if kept.exists():
        # Volumes of a run that was kept know its passwords.
        told = json.loads(kept.read_text(encoding="utf-8"))
    else:
        ports = [free_port() for _ in range(2)]
        told = {name: random.token_urlsafe(24) for name in secrets.needed()}
        told |= {
            "RATCHET_PROBLEM": "credit",
            "RATCHET_ADDRESS": "127.0.0.1",
            "RATCHET_HOSTS": "localhost 127.0.0.1",
            "RATCHET_WORKERS": "2",
            "RATCHET_RELEASE_TESTS": "short",
        }
        told |= {"COMPOSE_PROJECT_NAME": PROJECT, "RATCHET_SERVICE_PORT": str(ports[0]), "RATCHET_DOOR_PORT": str(ports[1])}
        told |= {"RATCHET_SERVICE_PAGE": f"http://127.0.0.1:{ports[0]}", "RATCHET_DOOR_URL": f"http://127.0.0.1:{ports[1]}"}
        kept.write_text(json.dumps(told), encoding="utf-8")
        kept.chmod(0o600)
    # The name first: from here on nothing reaches another stack.
    os.environ["COMPOSE_PROJECT_NAME"] = PROJECT
    os.environ.update(told)


# ---- the loop, from outside


def _loop(console: Console, seed: int) -> list[Row]:
    folder = find_problem("credit", settings().problems)
    begun = time.monotonic()
    summary = demonstrate_deployed(folder, None, folder.problem.demo, seed, console, reports=ROOT / "reports" / "compose")
    asked = summary["predictions"]
    return [
        count("seconds of the loop, driven from outside", time.monotonic() - begun, 1, "s"),
        count("loop: predictions answered but not logged", asked["answered"] - asked["logged"], asked["answered"], "rows"),
        count("loop: generations that came to answer", sum(g["decision"] == "promote" for g in summary["generations"]), 1, ""),
    ]


def _observed(console: Console) -> list[Row]:
    """What the person on call sees: asked after the loop, when every series has had a reason to be there."""
    reports = ROOT / "reports" / "compose"
    # The ids are looked for before the service's container is replaced, and its log with it.
    rows = [observed.followed(reports / "journal.json", compose("logs", "--no-log-prefix", "service"))]
    site = deployed_site("credit")
    drilled = site.drill()
    rows.append(observed.count("drill: planted faults that the watch did not see", len(drilled["missed"]), drilled["asked"], "faults"))
    rows.append(_audited())
    # Grafana has no image to try it with here: its dashboards are tested as files, and their queries asked of Prometheus.
    compose("up", "-d", "--wait", "prometheus", "locust", "locust-worker")
    rows += [
        *observed.locust(),
        observed.workers_add_up(),
        *observed.prometheus(),
        _alerts(console),
        observed.guarded(),
        observed.pages(reports),
    ]
    compose("rm", "-fs", "locust", "locust-worker")
    for row in rows:
        console.print(f"{row.name}: {row.value:g} {row.unit}", markup=False)
    return rows


def _audited() -> Row:
    """The way of an audit as docs/deploy.md has it: out of the worker, whose files are read-only but for /tmp, filled in, and back."""
    out, found = "/tmp/audit-1.csv", "/tmp/found-1.csv"
    worker = ("exec", "-T", "worker")
    compose(*worker, "ratchet", "audit", "--out", out)
    drawn = pd.read_csv(io.StringIO(compose(*worker, "cat", out)), dtype=str)
    if drawn.empty:
        raise StackError("No prediction was drawn for an audit.")
    compose(*worker, "sh", "-c", f"cat > {found}", given=drawn.assign(label="0").to_csv(index=False))
    said = compose(*worker, "ratchet", "audit", "--labels", found)
    kept = int(said.split(" new labels", 1)[0].split()[-1])
    return observed.count("audit: labels found out that did not come back", len(drawn) - kept, len(drawn), "labels")


def _alerts(console: Console) -> Row:
    """Every alert is made to fire, and to keep quiet, by promtool."""
    files = sorted(observed.OBSERVE.glob("alerts*_test.yml"))
    inside = [f"/etc/prometheus/{path.name}" for path in files]
    # On its volume: what is written to the container's /tmp counts as its memory.
    told = compose("exec", "-T", "-e", "TMPDIR=/prometheus", "prometheus", "promtool", "test", "rules", *inside, check=False)
    console.print(told.strip()[-1500:], markup=False)
    cases = sum(path.read_text(encoding="utf-8").count("alertname:") for path in files)
    # A promtool that came to no verdict of a file has found no case of it right.
    judged = told.count("SUCCESS") + told.count("FAILED:") == len(files)
    named = told.count("alertname: ")
    # A file that cannot be read has failed, and names no case.
    failed = named if judged and (named or "FAILED:" not in told) else cases
    return count("alerts: cases in which promtool found another verdict", failed, cases, "cases")


# ---- down and up, older and newer volumes


def _down_and_up(console: Console) -> list[Row]:
    """`docker compose down`, then `up`: what was there must still be there."""
    counted = {"log": "predictions", "decisions": "decisions", "labels": "labels", "routes": "routes"}

    def look() -> dict[str, int]:
        api, tracking = settings().prefect_api_url, settings().mlflow_tracking_uri
        found = {name: int(sql(f"SELECT count(*) FROM {table}")[0]) for name, table in counted.items()}
        found["flow runs"] = httpx.post(
            f"{api}/flow_runs/count", json={"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}, timeout=30
        ).json()
        versions = httpx.get(f"{tracking}/api/2.0/mlflow/model-versions/search", timeout=30).json().get("model_versions", [])
        found["versions"] = len(versions)
        # A version's model comes from the object store, through MLflow.
        found["model files"] = sum(_there(f"{tracking}/api/2.0/mlflow/artifacts/list?run_id={version['run_id']}") for version in versions)
        return found

    before = look()
    compose("down")
    begun = time.monotonic()
    compose("up", "-d", "--wait", within=400)
    seconds = time.monotonic() - begun
    after = look()
    lost = sum(max(0, before[name] - after[name]) for name in before)
    answer = httpx.post(
        f"{settings().service_url}/predict",
        json=draw(find_problem("credit", settings().problems).contract, 1, 5)[0],
        headers=settings().authorization,
        timeout=10,
    )
    console.print(f"down and up: {before} before, {after} after; predict answers {answer.status_code}")
    answers = [count("answers after down and up", int(answer.status_code == 200), 1, "")] if before["routes"] else []
    return [
        count("rows, runs, versions and files lost by down and up", lost, sum(before.values()), ""),
        *answers,
        count("seconds to come up again", seconds, 1, "s"),
    ]


def _there(url: str) -> int:
    told = httpx.get(url, timeout=30)
    return len(told.json().get("files", [])) if told.status_code == 200 else 0


def _other_versions(console: Console) -> list[Row]:
    """A volume of an older release is migrated forward; one of a newer release is refused with a sentence."""
    compose("stop", "service", "worker")
    before = int(sql("SELECT count(*) FROM predictions")[0])
    (head,) = sql("SELECT version_num FROM alembic_version")
    sql("UPDATE alembic_version SET version_num = '9999'")
    compose("up", "migrate", check=False)
    newer = compose("logs", "--no-log-prefix", "--tail", "1", "migrate")
    refused = "was written by a newer Ratchet (schema 9999" in newer
    # As the first release left it: counters of four bytes, and its version in a table of its own.
    sql(
        "DROP TABLE alembic_version; DROP INDEX decisions_by_action; ALTER TABLE predictions ALTER COLUMN seq TYPE integer; "
        "ALTER TABLE labels ALTER COLUMN seq TYPE integer; CREATE TABLE schema_version (version integer PRIMARY KEY); "
        "INSERT INTO schema_version VALUES (1); ALTER TABLE schema_version OWNER TO ratchet"
    )
    compose("up", "migrate", check=False)
    older = compose("logs", "--no-log-prefix", "--tail", "1", "migrate")
    (now,) = sql("SELECT version_num FROM alembic_version") or [""]
    (kind,) = sql("SELECT data_type FROM information_schema.columns WHERE table_name = 'predictions' AND column_name = 'seq'")
    migrated = now == head and kind == "bigint" and int(sql("SELECT count(*) FROM predictions")[0]) == before
    compose("up", "-d", "--wait", within=400)
    console.print(f"newer: {newer}older: {older}", markup=False)
    return [
        count("a volume of a newer release is refused with a sentence", int(refused), 1, ""),
        count("a volume of the first release is migrated forward, with every row", int(migrated), 1, ""),
    ]


if __name__ == "__main__":
    app()
