"""What does a version's card say, and where is it found again?"""

from __future__ import annotations

import json
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.compare import Comparison
from flows.setting import Setting
from flows.track import plots
from ratchet.check import Check
from ratchet.decision import Decision
from ratchet.errors import BatchError
from ratchet.generation import Generation
from ratchet.report.card import card_page, card_pictures
from ratchet.report.questions import five

SHOWN = 16


def page_of(
    setting: Setting,
    version: str,
    generation: Generation,
    decision: Decision,
    checks: list[Check],
    evaluation: dict[str, Any],
    comparison: Comparison,
) -> str:
    """The card of the generation in the workspace, as one HTML page."""
    problem, root = setting.problem, setting.root
    examination = json.loads((root / "metrics/examination.json").read_text(encoding="utf-8"))
    answers = five(problem, generation, evaluation, checks, comparison.fixed, _life(setting))
    drawn = plots(setting, evaluation, comparison, checks, [])
    shown = {"importance": comparison.importance}
    pictures = card_pictures(
        problem, checks, evaluation, examination, shown, _genealogy(setting, version, generation, comparison), _explained(setting), drawn
    )
    return card_page(problem, version, generation, decision, checks, evaluation, answers, pictures)


def fetch(setting: Setting, version: str, target: Path) -> Path:
    """Bring a version's card from MLflow to `target`. BatchError where there is no such version, StackError where it has no card."""
    known = {item.version: item for item in setting.tracker.versions()}
    if version not in known:
        there = f"there are {', '.join(known)}" if known else "there is none yet"
        raise BatchError(f"{setting.problem.name} has no version {version!r}; {there}.")
    with tempfile.TemporaryDirectory() as folder:
        found = setting.tracker.fetch(f"runs:/{known[version].run_id}/card.html", Path(folder))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found, target)
    return target


def _life(setting: Setting) -> dict[str, Any]:
    """How many days there has been a champion, and how often the watch has asked for another."""
    routes = setting.store.routes()
    retrained = sum(entry.action == "retrain" for entry in setting.store.decisions())
    if not routes:
        return {"days": 0.0, "retrained": retrained}
    first = routes[0].at if routes[0].at.tzinfo else routes[0].at.replace(tzinfo=UTC)
    return {"days": (datetime.now(UTC) - first).total_seconds() / 86400, "retrained": retrained}


def _genealogy(setting: Setting, version: str, generation: Generation, comparison: Comparison) -> list[dict[str, Any]]:
    """What became of errors in every generation with a parent, this one last."""
    fates = ("inherited", "introduced", "fixed")
    told = [
        {"version": item.version, "parent": item.tags["parent"]} | {fate: int(item.tags[f"errors_{fate}"]) for fate in fates}
        for item in setting.tracker.versions()
        if item.version != version and "parent" in item.tags and "errors_fixed" in item.tags
    ]
    if comparison.errors:
        told.append({"version": version, "parent": generation.parent, **comparison.errors})
    return told


def _explained(setting: Setting) -> pd.DataFrame:
    """The SHAP values of three answers, shape (3, features): the highest, the lowest, and the one nearest the threshold."""
    shares = pd.read_parquet(setting.root / "data/explanations.parquet")
    scores = pd.read_parquet(setting.root / "data/scores.parquet").set_index(setting.contract.id)
    picked = json.loads((setting.root / "metrics/evaluation.json").read_text(encoding="utf-8"))["picked"]
    answers = scores[picked].reindex(shares[setting.contract.id]).to_numpy()
    order = [int(answers.argmax()), int(np.abs(answers - setting.problem.threshold).argmin()), int(answers.argmin())]
    chosen = shares.iloc[list(dict.fromkeys(order))]
    names = setting.problem.outcome
    titles = [
        f"{row if len(row) <= SHOWN else row[: SHOWN - 1] + '…'}: {names.positive} {p:.0%}"
        for row, p in zip(chosen[setting.contract.id].map(str), answers[list(dict.fromkeys(order))], strict=True)
    ]
    return chosen.drop(columns=setting.contract.id).set_axis(titles, axis=0)
