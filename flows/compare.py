"""What does the candidate change for the champion's rows: is it no step back, and which errors did it inherit?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.ingest import sides_of
from flows.setting import Setting
from flows.stages import COHORT, LEFT_OUT, judged, labelled, scorer
from ratchet.check import Check, from_dict, undecided, unsettled
from ratchet.contract import PROJECTED
from ratchet.decision import weigh
from ratchet.evaluation import adversarial
from ratchet.evaluation.champion import non_inferior_to_champion
from ratchet.evaluation.explanation import Importance, changed, permutation_importance
from ratchet.evaluation.flips import negative_flips
from ratchet.evaluation.inheritance import by_group, compare
from ratchet.evaluation.loss import interval, per_row
from ratchet.evaluation.slices import slices
from ratchet.release import Release

KEPT = "comparison.json"


@dataclass(frozen=True)
class Comparison:
    """Checks against the champion; fates of errors by row; counts, and what they cost; fates by batch and group.

    `difference` is the paired difference of loss with its interval, `segments` the same in each batch and group,
    `importance` what each feature mattered before and matters now, `fixed` a test row that the champion had wrong.
    """

    checks: list[Check]
    fates: pd.DataFrame
    errors: dict[str, int] | None
    error_costs: dict[str, float] | None
    groups: dict[str, dict[str, dict[str, float]]]
    difference: tuple[float, float, float] | None = None
    segments: dict[str, float] = field(default_factory=dict)
    importance: list[dict[str, Any]] = field(default_factory=list)
    fixed: dict[str, Any] | None = None

    def write(self, root: Path) -> None:
        """Keep everything but the single rows' fates beside the stages' outputs."""
        plain = {name: value for name, value in self.__dict__.items() if name not in ("checks", "fates")}
        told = {"checks": [check.as_dict() for check in self.checks], **plain}
        (root / KEPT).write_text(json.dumps(told), encoding="utf-8")

    @staticmethod
    def read(root: Path) -> Comparison:
        """The comparison that the newest generation's run kept."""
        told = json.loads((root / KEPT).read_text(encoding="utf-8"))
        difference = tuple(told.pop("difference") or ()) or None
        checks = [from_dict(item) for item in told.pop("checks")]
        return Comparison(checks=checks, fates=pd.DataFrame(), difference=difference, **told)


def release_checks(setting: Setting, comparison: Comparison, more: Sequence[Check] = ()) -> list[Check]:
    """Every check that the gate weighs: those of the stages, the comparison's, and `more`; as problem.yaml weighs them."""
    made = [json.loads((setting.root / "metrics" / f"{stage}.json").read_text(encoding="utf-8")) for stage in ("evaluation", "examination")]
    told = [from_dict(item) for facts in made for item in facts["checks"]]
    return weigh([*told, *comparison.checks, *more], setting.problem.gate.blocking, setting.problem.gate.advisory)


def compare_with(setting: Setting, champion: Release | None, picked: str) -> Comparison:
    """Compare the picked family with the champion, paired, on test rows that neither was made from.

    The champion's own split is brought back from its dvc.lock; a test row that it was trained, tuned or selected
    on is left out. A champion that reads columns which the contract no longer has cannot be asked, and that is told.
    """
    problem, contract = setting.problem, setting.contract
    scores = pd.read_parquet(setting.root / "data/scores.parquet")
    rows, sides = labelled(setting.root, contract)
    test = judged(rows, sides, contract)
    assert (test[contract.id] == scores[contract.id]).all()
    candidate, truth = scores[picked].to_numpy(), scores["truth"].to_numpy()
    protected = [column.name for column in contract.protected]
    if champion is None:
        checks = [
            non_inferior_to_champion(problem, candidate, None, truth),
            *(negative_flips(problem, candidate, None, truth, group) for group in (None, *(test[name] for name in protected))),
            slices(problem, contract, test, candidate, None, truth),
            _attacked(setting, test, truth, picked, None),
        ]
        return Comparison(checks, pd.DataFrame(), None, None, {})
    now = {column.name: column for column in contract.columns}
    if gone := sorted(c.name for c in champion.contract.features if c.name not in now or now[c.name].scale != c.scale):
        reason = f"version {champion.version} reads {', '.join(gone)}, which the contract no longer has, or on another scale: it cannot be asked. A person must decide"
        question = non_inferior_to_champion(problem, candidate, None, truth).question
        return Comparison([undecided("non_inferior_to_champion", question, reason, 0)], pd.DataFrame(), None, None, {})
    seen = scores[contract.id].isin(used_by(setting, champion)).to_numpy()
    test, scores = test[~seen].reset_index(drop=True), scores[~seen].reset_index(drop=True)
    before = champion.scorer.probability(test)
    candidate, truth = scores[picked].to_numpy(), scores["truth"].to_numpy()
    newest = (scores[COHORT] == scores[COHORT].max()).to_numpy()
    seed = setting.workspace.parameters["seed"]
    checks = [non_inferior_to_champion(problem, candidate, before, truth)]
    if newest.any() and not newest.all():
        checks.append(non_inferior_to_champion(problem, candidate[newest], before[newest], truth[newest], "newest batch", blocking=False))
    checks += [negative_flips(problem, candidate, before, truth, group) for group in (None, *(test[name] for name in protected))]
    checks.append(slices(problem, contract, test, candidate, before, truth, seed))
    checks.append(_attacked(setting, test, truth, picked, champion))
    if np.unique(truth).size < 2:
        checks = unsettled(checks, f"the {len(truth)} rows that neither has seen hold one class at most")
    if len(truth) == 0:
        return Comparison(checks, pd.DataFrame(), None, None, {})
    decided = {name: (p >= problem.threshold).astype(int) for name, p in (("parent", before), ("child", candidate))}
    found = compare(scores[contract.id], truth.astype(int), decided["parent"], decided["child"])
    loss = {name: per_row(problem, p, truth) for name, p in (("parent", before), ("child", candidate))}
    costs = {
        fate: float(loss["parent" if fate == "fixed" else "child"][(found.fates == fate).to_numpy()].sum())
        for fate in ("inherited", "introduced", "fixed")
    }
    fates = scores[[contract.id, COHORT]].assign(fate=found.fates.to_numpy(), champion=before, candidate=candidate, truth=truth)
    groups = {"batch": by_group(found, scores[COHORT])}
    groups |= {name: by_group(found, scores[name]) for name in protected}
    difference = loss["child"] - loss["parent"]
    return Comparison(
        checks=checks,
        fates=fates,
        errors=found.counts,
        error_costs=costs,
        groups={name: _plain(table) for name, table in groups.items()},
        difference=interval(difference) if len(difference) > 1 else None,
        segments=_segments(problem.gate.min_group, scores, [COHORT, *protected], difference),
        importance=_importance(setting, champion, test, truth, seed),
        fixed=_clearest(test, fates, [column.name for column in contract.requested if column.scale not in PROJECTED]),
    )


def _attacked(setting: Setting, test: pd.DataFrame, truth: np.ndarray, picked: str, champion: Release | None) -> Check:
    """The candidate and the champion under the same attack, on bad cases that neither has seen."""
    problem, contract, params = setting.problem, setting.contract, setting.workspace.parameters
    size = params["examine"][params["examine"]["form"]]
    bad = test[truth == 1]
    bad = bad.sample(min(size["attacked"], len(bad)), random_state=params["seed"])
    if not any(column.attacker_can_change for column in contract.features):
        return adversarial.adversarial(problem, None, None, len(bad))
    asked = {"candidate": scorer(setting.root, picked).probability} | ({"champion": champion.scorer.probability} if champion else {})
    told = {name: adversarial.attack(problem, contract, bad, answer, params["seed"], size["queries"]) for name, answer in asked.items()}
    return adversarial.adversarial(problem, told["candidate"], told.get("champion"), len(bad))


def _importance(setting: Setting, champion: Release, test: pd.DataFrame, truth: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """What each feature matters now, by the stage's own shuffles, and what it mattered to the champion."""
    facts = json.loads((setting.root / "metrics/examination.json").read_text(encoding="utf-8"))
    if np.unique(truth).size < 2:
        return []
    size = setting.workspace.parameters["examine"][facts["form"]]
    asked = test.assign(truth=truth).sample(min(size["rows"], len(test)), random_state=seed).reset_index(drop=True)
    if asked["truth"].nunique() < 2:
        return []
    before = permutation_importance(
        champion.contract, asked, asked["truth"].to_numpy(), champion.scorer.probability, seed, size["shuffles"]
    )
    return changed([Importance(**item) for item in facts["importance"]], before)


def _segments(fewest: int, scores: pd.DataFrame, columns: list[str], difference: np.ndarray) -> dict[str, float]:
    """The mean difference of loss in every batch and group of `fewest` rows or more."""
    return {
        f"{column} {value}": float(difference[places].mean())
        for column in columns
        for value, places in scores.groupby(column).indices.items()
        if len(places) >= fewest
    }


def _clearest(test: pd.DataFrame, fates: pd.DataFrame, columns: list[str]) -> dict[str, Any] | None:
    """The fixed row whose probability moved most, with its record: an example for a person."""
    fixed = fates[fates["fate"] == "fixed"]
    if fixed.empty:
        return None
    place = (fixed["candidate"] - fixed["champion"]).abs().idxmax()
    record = {name: None if pd.isna(value) else value for name, value in test.loc[place, columns].items()}
    told = {name: float(fixed.loc[place, name]) for name in ("champion", "candidate", "truth")}
    return {"row": str(fixed.loc[place].iloc[0]), "record": json.loads(json.dumps(record, default=float)), **told}


def used_by(setting: Setting, champion: Release) -> set[str]:
    """The ids of the rows that a release was trained, tuned or selected on, by its own dvc.lock."""
    sides = sides_of(setting, champion.facts["lock"])
    return set(sides.index[~sides.isin(["test", LEFT_OUT])])


def _plain(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    made: dict[str, Any] = table.astype(float).replace({np.nan: None}).to_dict("index")
    return {str(group): row for group, row in made.items()}
