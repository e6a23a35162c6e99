"""What does the candidate change for the champion's rows: is it no step back, and which errors did it inherit?"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.setting import Setting
from flows.stages import COHORT, labelled
from ratchet.check import Check
from ratchet.evaluation.champion import non_inferior_to_champion
from ratchet.evaluation.inheritance import by_group, compare
from ratchet.evaluation.loss import per_row
from ratchet.release import Release
from snapshots.workspace import restore


@dataclass(frozen=True)
class Comparison:
    """Checks against the champion; fates of errors by row; counts, and what they cost; fates by batch and group."""

    checks: list[Check]
    fates: pd.DataFrame
    errors: dict[str, int] | None
    error_costs: dict[str, float] | None
    groups: dict[str, dict[str, dict[str, float]]]


def compare_with(setting: Setting, champion: Release | None, picked: str) -> Comparison:
    """Compare the picked family with the champion, paired, on test rows that neither was made from.

    The champion's own split is brought back from its dvc.lock; a test row that it was trained, tuned or selected
    on is left out.
    """
    problem, contract = setting.problem, setting.contract
    scores = pd.read_parquet(setting.root / "data/scores.parquet")
    if champion is None:
        checks = [non_inferior_to_champion(problem, scores[picked].to_numpy(), None, scores["truth"].to_numpy())]
        return Comparison(checks, pd.DataFrame(), None, None, {})
    rows, sides = labelled(setting.root, contract)
    test = rows[sides == "test"].reset_index(drop=True)
    assert (test[contract.id] == scores[contract.id]).all()
    seen = scores[contract.id].isin(_used_by(setting, champion)).to_numpy()
    test, scores = test[~seen].reset_index(drop=True), scores[~seen].reset_index(drop=True)
    before = champion.scorer.probability(test)
    candidate, truth = scores[picked].to_numpy(), scores["truth"].to_numpy()
    newest = (scores[COHORT] == scores[COHORT].max()).to_numpy()
    checks = [non_inferior_to_champion(problem, candidate, before, truth)]
    if newest.any() and not newest.all():
        checks.append(non_inferior_to_champion(problem, candidate[newest], before[newest], truth[newest], "newest batch", blocking=False))
    decided = {name: (p >= problem.threshold).astype(int) for name, p in (("parent", before), ("child", candidate))}
    found = compare(scores[contract.id], truth.astype(int), decided["parent"], decided["child"])
    loss = {name: per_row(problem, p, truth) for name, p in (("parent", before), ("child", candidate))}
    costs = {
        fate: float(loss["parent" if fate == "fixed" else "child"][(found.fates == fate).to_numpy()].sum())
        for fate in ("inherited", "introduced", "fixed")
    }
    fates = scores[[contract.id, COHORT]].assign(fate=found.fates.to_numpy(), champion=before, candidate=candidate, truth=truth)
    groups = {"batch": by_group(found, scores[COHORT])}
    groups |= {column.name: by_group(found, scores[column.name]) for column in contract.protected}
    return Comparison(
        checks=checks,
        fates=fates,
        errors=found.counts,
        error_costs=costs,
        groups={name: _plain(table) for name, table in groups.items()},
    )


def _used_by(setting: Setting, champion: Release) -> set[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "split.parquet"
        restore(setting.workspace, champion.facts["lock"], "data/split.parquet", path)
        split = pd.read_parquet(path)
    return set(split.loc[split["side"] != "test", "row"])


def _plain(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    made: dict[str, Any] = table.astype(float).replace({np.nan: None}).to_dict("index")
    return {str(group): row for group, row in made.items()}
