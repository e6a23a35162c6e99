"""What does each stage of dvc.yaml do? One function each, run by `dvc repro` and, in process, by the flows.

Outputs hold no times and no ids of runs, so that the same inputs give the same bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ratchet.check import unsettled
from ratchet.contract import Contract
from ratchet.data.encoding import Encoder
from ratchet.errors import BatchError, RatchetError
from ratchet.problem import Folder
from ratchet.settings import parameters

COHORT = "cohort"
PROVENANCE = "provenance"
# The side of rows that neither teach nor judge.
LEFT_OUT = "left out"


def validate(root: Path) -> None:
    """Divide the batch in the inbox into accepted rows and quarantine, and score its quality: `dvc metrics diff` tells from batch to batch."""
    from expectations.validate import validate as divide
    from ratchet.data.quality import flaws

    contract = Folder(root / "problem").contract
    batch = pd.read_parquet(root / "inbox/batch.parquet")
    found = divide(batch, contract, "batch")
    scores = {name: float(1 - flawed.mean()) for name, flawed in flaws(contract, batch, set(batch.columns)).items()}
    _write(found.accepted, root / "data/accepted.parquet")
    _write(found.quarantined, root / "data/quarantine.parquet")
    _write_json(found.summary | {"quality": scores}, root / "metrics/validation.json")


def snapshot(root: Path) -> None:
    """Add the accepted rows to the previous snapshot, and join every row's latest label with its provenance.

    A row id that is there already is not added again, but its label is taken. `cohort` counts the batches, from 1.
    """
    contract = Folder(root / "problem").contract
    previous = pd.read_parquet(root / "inbox/previous.parquet")
    accepted = pd.read_parquet(root / "data/accepted.parquet")
    labels = pd.read_parquet(root / "inbox/labels.parquet").drop_duplicates("row", keep="last").set_index("row")
    fresh = accepted[~accepted[contract.id].isin(set(previous[contract.id]))].copy()
    fresh[COHORT] = int(previous[COHORT].max()) + 1 if len(previous) else 1
    fresh[PROVENANCE] = np.where(fresh[contract.target].notna(), "outcome", None)
    rows = pd.concat([previous, fresh], ignore_index=True) if len(previous) else fresh.reset_index(drop=True)
    unlabelled = set(previous.loc[previous[contract.target].isna(), contract.id]) - set(labels.index)
    late = accepted[accepted[contract.id].isin(unlabelled) & accepted[contract.target].notna()]
    if len(late):
        # Rows that are known already may bring labels that were not.
        brought = pd.DataFrame({"value": late[contract.target].to_numpy(float), "provenance": "outcome"}, index=late[contract.id])
        labels = pd.concat([labels, brought])
    told = rows[contract.id].map(labels["value"])
    rows[contract.target] = told.where(told.notna(), rows[contract.target]).astype(float)
    source = rows[contract.id].map(labels["provenance"])
    rows[PROVENANCE] = source.where(source.notna(), rows[PROVENANCE]).astype(object)
    _write(rows, root / "data/snapshot.parquet")


def split(root: Path) -> None:
    """Put every row on its side, by its entity; those that inbox/left_out.parquet names neither teach nor judge."""
    from ratchet.data.splits import split as sides

    contract = Folder(root / "problem").contract
    rows = pd.read_parquet(root / "data/snapshot.parquet", columns=list({contract.id, contract.entity}))
    left_out = rows[contract.id].isin(set(pd.read_parquet(root / "inbox/left_out.parquet")["row"]))
    made = pd.DataFrame({"row": rows[contract.id], "side": np.where(left_out, LEFT_OUT, sides(rows[contract.entity]))})
    _write(made, root / "data/split.parquet")


def train(root: Path) -> None:
    """Train, calibrate and export every family on the labelled rows."""
    from models.train import train as make

    folder, params = Folder(root / "problem"), parameters(root)
    rows, sides = labelled(root, folder.contract)
    encoder, candidates = make(rows, sides, folder.contract, folder.problem.threshold, params["train"], params["seed"])
    made: dict[str, Any] = {}
    (root / "trained").mkdir(exist_ok=True)
    for candidate in candidates:
        (root / "trained" / f"{candidate.family}.onnx").write_bytes(candidate.graph)
        facts = {key: getattr(candidate, key) for key in ("slope", "intercept", "gap", "flips", "exportable", "stopped", "kept", "curves")}
        made[candidate.family] = facts | {"first": None if candidate.first is None else str(rows[folder.contract.id].iloc[candidate.first])}
    _write_json(encoder.as_dict(), root / "trained/encoder.json")
    _write_json(made, root / "trained/training.json")


def evaluate(root: Path) -> None:
    """Pick a family on the select rows, and ask on the test rows every question that needs no champion and no training."""
    from ratchet.evaluation.calibration import calibration, calibration_slices
    from ratchet.evaluation.conformal import conformal
    from ratchet.evaluation.fairness import equal_merit, equalised_odds, fairness, group_calibration, intersection
    from ratchet.evaluation.loss import defect
    from ratchet.evaluation.mitigation import mitigations
    from ratchet.evaluation.performance import beats_rule, floors, not_worse_than_simple, scores
    from ratchet.evaluation.separation import separation
    from ratchet.evaluation.slices import view

    folder, params = Folder(root / "problem"), parameters(root)
    problem, contract = folder.problem, folder.contract
    rows, sides = labelled(root, contract)
    training = _read_json(root / "trained/training.json")
    select, test = rows[sides == "select"].reset_index(drop=True), judged(rows, sides, contract)
    truth, select_truth = (part[contract.target].to_numpy(float) for part in (test, select))
    answers = {family: scorer(root, family).probability(test) for family in training}
    answers["rule"] = folder.rule(test)
    if wrong := defect(answers["rule"]):
        raise BatchError(f"{problem.name}: the rule in baseline.py: {wrong}.")
    held_out = {family: scorer(root, family).probability(select) for family in training}
    families = {
        family: {"select": scores(problem, held_out[family], select_truth), "test": scores(problem, answers[family], truth)}
        for family in training
    }
    eligible = [family for family in training if training[family]["exportable"]]
    if not eligible:
        told = "; ".join(f"{family} differs first in row {made['first']}, by up to {made['gap']:.2g}" for family, made in training.items())
        raise BatchError(f"No family's export decides as its native model does, so none can be a candidate: {told}.")
    picked = min(eligible, key=lambda family: families[family]["select"][params["select_by"]])
    candidate = answers[picked]
    named = {"row": rows[contract.id], "entity": rows[contract.entity]}
    known = pd.DataFrame(named)
    checks = [
        separation(problem, known[sides == "test"], known[sides != "test"]),
        *floors(problem, candidate, truth, params["seed"]),
        beats_rule(problem, candidate, answers["rule"], truth),
    ]
    if "logistic" in answers:
        checks.append(not_worse_than_simple(problem, candidate, answers["logistic"], truth))
    checks.append(calibration(problem, candidate, truth, params["seed"]))
    checks.append(calibration_slices(problem, candidate, truth, view(test, contract), params["seed"]))
    checks.append(conformal(problem, held_out[picked], select_truth, candidate, truth))
    protected = [column.name for column in contract.protected]
    groups = [test[name] for name in protected] + ([intersection(test[protected])] if len(protected) > 1 else [])
    for group in groups:
        checks += [ask(problem, candidate, truth, group) for ask in (fairness, equal_merit, equalised_odds, group_calibration)]
    offered = {
        name: mitigations(problem, (held_out[picked], select_truth, select[name]), (candidate, truth, test[name]), params["seed"])
        for name in protected
    }
    if np.unique(truth).size < 2:
        checks = unsettled(checks, f"the {len(truth)} test rows hold one class only")
    facts = {
        "picked": picked,
        "select_by": params["select_by"],
        "families": families,
        "rule": scores(problem, answers["rule"], truth),
        "rows": {"labelled": len(rows)} | {side: int((sides == side).sum()) for side in ("train", "tune", "select")} | {"test": len(test)},
        "mitigations": offered,
        "checks": [check.as_dict() for check in checks],
    }
    kept = test[[contract.id, COHORT, *protected]]
    _write(kept.assign(truth=truth, **answers), root / "data/scores.parquet")
    _write_json(facts, root / "metrics/evaluation.json")


def examine(root: Path) -> None:
    """Ask of the picked family what takes corrupted rows, shuffled columns or further trainings to answer."""
    from dataclasses import asdict

    from models.again import error_runs, learning_runs
    from ratchet.evaluation import explanation
    from ratchet.evaluation.consistency import error_consistency, error_table
    from ratchet.evaluation.learning_curve import learning_curve
    from ratchet.evaluation.robustness import robustness
    from ratchet.evaluation.training import training as watch_training

    folder, params = Folder(root / "problem"), parameters(root)
    problem, contract, seed = folder.problem, folder.contract, params["seed"]
    rows, sides = labelled(root, contract)
    picked = _read_json(root / "metrics/evaluation.json")["picked"]
    made = _read_json(root / "trained/training.json")[picked]
    size = params["examine"][params["examine"]["form"]]
    answer = scorer(root, picked).probability
    test = judged(rows, sides, contract)
    asked = test.sample(min(size["rows"], len(test)), random_state=seed).reset_index(drop=True)
    truth = asked[contract.target].to_numpy(float)

    checks = [watch_training(problem, made["curves"], made["kept"], made["stopped"], int((sides == "tune").sum()))]
    checks += robustness(problem, contract, asked, truth, answer, seed)

    importances, own, auc = [], {}, 0.5
    if np.unique(truth).size == 2:
        importances = explanation.permutation_importance(contract, asked, truth, answer, seed, size["shuffles"])
        own = explanation.alone(contract, asked, truth)
        auc = explanation.ranking(asked, truth, answer)
    checks.append(explanation.leakage(problem, contract, importances, truth, own, auc))
    background = rows[sides == "train"].sample(explanation.BACKGROUND, random_state=seed, replace=True)
    explained = asked.head(size["explained"])
    shares = explanation.shapley(contract, explained, background, answer, seed)

    learnt = rows[(sides == "train") | (sides == "tune")].reset_index(drop=True)
    repeated = error_runs(learnt, contract, picked, params["train"], size["folds"], size["seeds"], seed)
    learnt_truth = learnt[contract.target].to_numpy(float)
    checks.append(error_consistency(problem, learnt[contract.id], repeated, learnt_truth, seed))
    decided = (repeated >= problem.threshold).astype(int)
    points = learning_runs(rows, sides, contract, problem, picked, params["train"], size["curve_seeds"], seed)
    checks.append(learning_curve(problem, points, int((sides == "select").sum()), seed))
    if np.unique(truth).size < 2:
        checks = unsettled(checks, f"the {len(truth)} test rows hold one class only")

    _write(error_table(learnt[contract.id], decided, learnt_truth), root / "data/consistency.parquet")
    _write(shares.assign(**{contract.id: explained[contract.id].to_numpy()}), root / "data/explanations.parquet")
    facts = {
        "form": params["examine"]["form"],
        "importance": [asdict(item) for item in importances],
        "shap": {name: float(shares[name].abs().mean()) for name in shares.columns},
        "checks": [check.as_dict() for check in checks],
    }
    _write_json(facts, root / "metrics/examination.json")


STAGES: dict[str, Callable[[Path], None]] = {
    "validate": validate,
    "snapshot": snapshot,
    "split": split,
    "train": train,
    "evaluate": evaluate,
    "examine": examine,
}


def labelled(root: Path, contract: Contract) -> tuple[pd.DataFrame, np.ndarray]:
    """The snapshot's labelled rows that teach and judge, and their sides, shape (n,)."""
    rows = pd.read_parquet(root / "data/snapshot.parquet")
    sides = pd.read_parquet(root / "data/split.parquet")["side"].to_numpy()
    known = rows[contract.target].notna().to_numpy() & (sides != LEFT_OUT)
    return rows[known].reset_index(drop=True), sides[known]


def judged(rows: pd.DataFrame, sides: np.ndarray, contract: Contract) -> pd.DataFrame:
    """The test rows that checks are made on: the newest of each entity, since intervals take rows to be independent."""
    return rows[sides == "test"].drop_duplicates(contract.entity, keep="last").reset_index(drop=True)


def scorer(root: Path, family: str) -> Any:
    """A trained family, ready to answer."""
    from ratchet.scoring import Scorer

    encoder = Encoder.from_dict(_read_json(root / "trained/encoder.json"))
    return Scorer((root / "trained" / f"{family}.onnx").read_bytes(), encoder)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)


def _write_json(value: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        STAGES[sys.argv[1]](Path.cwd())
    except RatchetError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
