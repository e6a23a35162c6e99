"""What happened? The facts of a demonstration, gathered from the store, MLflow and its journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from flows.compare import Comparison, release_checks
from flows.result import page_key, tell_result
from flows.setting import Setting
from flows.track import plots
from ratchet.check import from_dict
from ratchet.draft import drafted
from ratchet.evaluation.loss import per_row
from ratchet.prediction import LIVE
from ratchet.report import figures
from ratchet.report.page import render

WATCHES = ("quiet watch", "first alarm", "second alarm", "third alarm")


@flow(name="report", flow_run_name="report of a demonstration")
def report(problem: str, journal: str) -> dict[str, Any]:
    """Tell the story of a demonstration that was driven from elsewhere; the addresses of its summary and its page.

    `journal` is the address of the journal that was handed over to MLflow.
    """
    setting = Setting.of(problem)
    folder = setting.settings.home / "stories" / str(flow_run.id)
    told = json.loads(setting.tracker.fetch(journal, folder).read_text(encoding="utf-8"))
    tell_story(setting, told, folder, kept=False)
    parts = {"summary": "summary.json", "page": "index.html"}
    return tell_result(setting, {name: setting.tracker.keep(folder / file) for name, file in parts.items()})


def tell_story(setting: Setting, journal: dict[str, Any], reports: Path, *, kept: bool = True) -> dict[str, Any]:
    """Write summary.json and index.html under `reports`; the summary. `kept` where a person finds them there later."""
    reports.mkdir(parents=True, exist_ok=True)
    evaluation = json.loads((setting.root / "metrics/evaluation.json").read_text(encoding="utf-8"))
    comparison = Comparison.read(setting.root)
    summary = summarise(setting, journal, comparison)
    _write(reports / "summary.json", json.dumps(summary, indent=1))
    checks = release_checks(setting, comparison)
    alarm = [from_dict(item) for item in journal["third alarm"]["checks"]]
    pictures = plots(setting, evaluation, comparison, checks, alarm)
    pictures = {"timeline": _timeline(setting, journal, summary)} | pictures
    entries = [entry.__dict__ for entry in setting.store.decisions()]
    page = render(
        setting.problem,
        summary,
        watches=[journal[name] for name in WATCHES],
        checks=checks,
        drift=alarm,
        decisions=entries,
        pictures={name: figures.svg(figure) for name, figure in pictures.items()},
        links=links(setting, journal),
        steps=journal["steps"],
    )
    _write(reports / "index.html", page)
    _tell_where(setting.problem.name, ({"report": (reports / "index.html").as_uri()} if kept else {}) | links(setting, journal))
    return summary


@flow(name="report page")
def _tell_where(problem: str, places: dict[str, str]) -> None:
    """Name the addresses on Prefect's page of artifacts; a flow of its own, since on this machine the story is told outside of a flow."""
    told = "\n".join(f"- {name}: [{where}]({where})" for name, where in places.items())
    create_markdown_artifact(key=page_key(problem, "report"), markdown=told, description="Where the whole story stands")


def summarise(setting: Setting, journal: dict[str, Any], comparison: Comparison) -> dict[str, Any]:
    """The facts of the run as plain data."""
    first, retraining = journal["first"], journal["retraining"]
    alarm = next(journal[name] for name in WATCHES if any(check["verdict"] == "fail" for check in journal[name]["checks"]))
    asked = ("stable", "drifted", "more drifted", "after")
    answered = len({identity for name in asked for identity in journal[name]["ids"]})
    counts = setting.store.counts()
    loads = [load for load in (first["load"], _load(setting)) if load]
    return {
        "problem": setting.problem.name,
        "source": journal["run"]["source"],
        "rows": {name: first["rows"][name] for name in ("received", "accepted", "quarantined")},
        "quarantine": first["rows"]["reasons"],
        "generations": generations(setting),
        "load": {name: first["load"][name] for name in ("requests", "failures", "p50_ms", "p99_ms", "rps")} if first["load"] else None,
        "drift": {
            "injected_at_prediction": journal["drifted"]["began_at"],
            "detected_at_prediction": alarm["at_prediction"],
            "checks": [{name: check[name] for name in ("name", "verdict", "value", "limit")} for check in alarm["checks"]],
        },
        "retrain": {name: retraining[name] for name in ("event_id", "flow_run_id", "reasons")},
        "errors": {name: (comparison.errors or {}).get(name) for name in ("inherited", "introduced", "fixed")},
        "error_costs": comparison.error_costs,
        "predictions": {
            "answered": answered,
            "logged": sum(counts.get(variant, 0) for variant in LIVE),
            "load_answered": sum(load["answered"] for load in loads),
            "load_logged": counts.get("load", 0),
            "probes_logged": counts.get("probe", 0),
        },
        "live": _live(setting, journal),
        "decisions": [{"id": e.id, "action": e.action, "subject": e.subject} for e in setting.store.decisions()],
        "seconds": round(journal["seconds"], 1),
    }


def generations(setting: Setting) -> list[dict[str, Any]]:
    """Every registered version, oldest first."""
    return [
        {
            "version": item.version,
            "parent": item.tags.get("parent"),
            "snapshot": item.tags["snapshot"],
            "family": item.tags["family"],
            "metric": item.tags["metric"],
            "value": float(item.tags["value"]),
            "baseline_value": float(item.tags["baseline_value"]),
            "alias": item.aliases[0] if item.aliases else None,
            "decision": item.tags.get("decision"),
        }
        for item in setting.tracker.versions()
    ]


def links(setting: Setting, journal: dict[str, Any]) -> dict[str, str]:
    """Where the pages stand while the stack is up."""
    base, prefect = setting.settings.mlflow_ui, setting.settings.prefect_ui
    made = {f"version {v.version} in MLflow": setting.tracker.version_url(v.version, base) for v in setting.tracker.versions()}
    return {
        "MLflow": f"{base}/#/experiments/{setting.tracker.experiment_id}/runs",
        "Prefect": f"{prefect}/runs",
        "retraining run": f"{prefect}/runs/flow-run/{journal['retraining']['flow_run_id']}",
        "service": setting.settings.service_ui,
        **made,
    }


def _load(setting: Setting) -> dict[str, Any] | None:
    """The load test of the second version, where it was promoted and tested."""
    versions = setting.tracker.versions()
    folder = setting.settings.home / "load" / setting.problem.name / versions[-1].version
    path = folder / "answered.txt"
    return {"answered": int(path.read_text(encoding="utf-8"))} if len(versions) > 1 and path.exists() else None


def _live(setting: Setting, journal: dict[str, Any]) -> list[dict[str, Any]]:
    """The mean live loss of each part of the traffic whose labels are in, by the version that answered."""
    rows = _losses(setting)
    told = []
    for name in ("stable", "drifted", "more drifted", "after"):
        part = rows[rows["id"].isin(set(journal[name]["ids"]))]
        for version, group in part.groupby("version"):
            told.append(
                {
                    "traffic": name,
                    "version": version,
                    "n": len(group),
                    "metric": setting.problem.metric,
                    "value": float(group["loss"].mean()),
                }
            )
    return told


def _losses(setting: Setting) -> pd.DataFrame:
    live = setting.store.window()
    live["place"] = range(len(live))
    known = live[live["truth"].notna()].reset_index(drop=True)
    losses = per_row(setting.problem, known["probability"].to_numpy(), known["truth"].to_numpy(float))
    return known[["id", "place", "version"]].assign(loss=losses)


def _timeline(setting: Setting, journal: dict[str, Any], summary: dict[str, Any]) -> Any:
    marks = {
        "drift begins": journal["drifted"]["began_at"],
        "drift seen": summary["drift"]["detected_at_prediction"],
        "retraining asked for": journal["third alarm"]["at_prediction"],
    }
    return figures.timeline(_losses(setting), setting.problem.metric, marks)


def _write(path: Path, text: str) -> None:
    with drafted(path) as draft:
        draft.write_text(text, encoding="utf-8")
