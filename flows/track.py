"""What is written to MLflow of a generation? One run, the families nested under it, plots, card, version."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from flows.compare import Comparison
from flows.setting import Setting
from ratchet.check import Check
from ratchet.data.encoding import Encoder
from ratchet.generation import Generation
from ratchet.report import figures
from ratchet.report.card import checks_table


def track(
    setting: Setting,
    generation: Generation,
    evaluation: dict[str, Any],
    checks: list[Check],
    comparison: Comparison,
    drift: list[Check],
) -> tuple[str, str]:
    """Write everything that is known of a generation, and register it; the run's id and the version's number.

    Doing it again, after a crash or not, goes on where it stopped and makes nothing twice.
    """
    tracker, problem, root = setting.tracker, setting.problem, setting.root
    picked = evaluation["picked"]
    parent = f"child of version {generation.parent}" if generation.parent else "the first"
    identity = {"identity": generation.identity}
    run_id = tracker.run(f"{problem.name} generation, {parent} ({picked})", generation.as_tags() | {"picked": picked})
    training = json.loads((root / "trained/training.json").read_text(encoding="utf-8"))
    params = setting.workspace.parameters
    for family, facts in training.items():
        nested = tracker.run(f"{family}: {facts['stopped']}", identity | {"part": family, "family": family}, parent=run_id)
        tracker.parameters(nested, params["train"][family] | {"seed": params["seed"]})
        tracker.curves(nested, facts["curves"])
        tracker.metrics(nested, _flat(evaluation["families"][family]) | {"export_gap": facts["gap"], "export_flips": facts["flips"]})
        if facts["curves"]:
            tracker.figures(nested, {"training": figures.curves(family, facts["curves"])})
        tracker.finish(nested)
    rule = tracker.run("rule: written by hand", identity | {"part": "rule", "family": "rule"}, parent=run_id)
    tracker.metrics(rule, _flat({"test": evaluation["rule"]}))
    tracker.finish(rule)

    tracker.parameters(
        run_id, {"picked": picked, "select_by": evaluation["select_by"], "threshold": problem.threshold} | params["train"][picked]
    )
    errors = {f"errors_{fate}": float(count) for fate, count in (comparison.errors or {}).items()}
    tracker.metrics(run_id, _flat(evaluation["families"][picked]) | {f"rows_{k}": v for k, v in evaluation["rows"].items()} | errors)
    snapshot = root / "data/snapshot.parquet"
    tracker.dataset(
        run_id, pd.read_parquet(snapshot), f"{problem.name} snapshot", generation.snapshot, str(snapshot), setting.contract.target
    )
    tracker.figures(run_id, plots(setting, evaluation, comparison, checks, drift))
    tracker.texts(run_id, {"dvc.lock": setting.workspace.lock, "params.yaml": (root / "params.yaml").read_text(encoding="utf-8")})
    tracker.texts(run_id, {"checks.md": checks_table(checks + drift)})
    if not comparison.fates.empty:
        tracker.texts(run_id, {"errors.csv": comparison.fates.to_csv(index=False)})
    version = tracker.register(
        run_id,
        (root / "trained" / f"{picked}.onnx").read_bytes(),
        Encoder.from_dict(json.loads((root / "trained/encoder.json").read_text(encoding="utf-8"))),
        setting.contract,
        pd.read_parquet(snapshot).head(3)[[column.name for column in setting.contract.features]],
        generation.as_tags()
        | {
            "family": picked,
            "value": f"{evaluation['families'][picked]['test'][problem.metric]:.6f}",
            "baseline_value": f"{evaluation['rule'][problem.metric]:.6f}",
            "metric": problem.metric,
        }
        | {f"errors_{fate}": str(count) for fate, count in (comparison.errors or {}).items()}
        | ({"improvement": f"{comparison.difference[0]:.6f}"} if comparison.difference else {}),
    )
    return run_id, version


def plots(setting: Setting, evaluation: dict[str, Any], comparison: Comparison, checks: list[Check], drift: list[Check]) -> dict[str, Any]:
    """The pictures of a generation by name."""
    problem = setting.problem
    scores = pd.read_parquet(setting.root / "data/scores.parquet")
    picked, truth = evaluation["picked"], scores["truth"].to_numpy()
    models = {name: scores[name].to_numpy() for name in dict.fromkeys([picked, *evaluation["families"], "rule"])}
    metric = {name: row["test"][problem.metric] for name, row in evaluation["families"].items()}
    groups = {c.name.split(":")[1]: c.evidence["groups"] for c in checks if c.name.startswith("fairness") and c.evidence}
    made = {
        "reliability": figures.reliability({picked: models[picked]}, truth),
        "roc": figures.roc(models, truth),
        "confusion": figures.confusion(models[picked], truth, problem.threshold, (problem.outcome.negative, problem.outcome.positive)),
        "families": figures.families(metric | {"rule": evaluation["rule"][problem.metric]}, problem.metric, picked),
        "slices": figures.slices(groups),
    }
    curves = json.loads((setting.root / "trained/training.json").read_text(encoding="utf-8"))[picked]["curves"]
    if curves:
        made["training"] = figures.curves(picked, curves)
    if comparison.groups:
        made["inheritance"] = figures.inheritance(comparison.groups)
    if drift:
        made["drift"] = figures.drift(drift)
    return made


def _flat(nested: dict[str, dict[str, float]]) -> dict[str, float]:
    return {f"{side}_{name}": value for side, row in nested.items() for name, value in row.items()}
