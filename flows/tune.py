"""How are better parameters found for the next generation, and where do they go?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import yaml

from flows.setting import Setting, stages_code
from flows.stages import labelled
from models.objectives import objective
from models.tune import Search, Trial, search, trials_before
from ratchet.decision import digest
from ratchet.draft import drafted
from ratchet.errors import BatchError
from ratchet.release import Release
from ratchet.report import figures
from snapshots.workspace import parameters


def tune(setting: Setting, family: str | None, trials: int | None, wanted: list[str], said: Callable[[Trial, int], None]) -> dict[str, Any]:
    """Search a family's parameters on the rows of the newest generation, cross-validated by entity.

    The search starts from the champion's parameters and the trials of the search before. The best are kept for the next
    generation; the trials and the Pareto front go to MLflow. A search that was cut short goes on where it stopped. `said` is
    told each trial, and how many there are to be. BatchError where there are no rows, or no space to search.
    """
    if not (setting.root / "metrics/evaluation.json").is_file():
        raise BatchError(
            f"{setting.problem.name}: there is no generation yet to take rows from: make one with `ratchet run {setting.problem.name}`."
        )
    params = setting.workspace.parameters
    told = params["tune"]
    rows, sides = labelled(setting.root, setting.contract)
    learnt = rows[(sides == "train") | (sides == "tune")].reset_index(drop=True)
    chosen = family or yaml.safe_load((setting.root / "metrics/evaluation.json").read_text(encoding="utf-8"))["picked"]
    if chosen not in told["space"]:
        raise BatchError(f"params.yaml: tune.space has no {chosen!r}; it has {', '.join(told['space'])}.")
    objectives = wanted or told["objectives"]
    champion = _champion(setting)
    made_with = _made_with(champion) if champion else None
    evaluate = objective(
        learnt,
        setting.contract,
        setting.problem,
        chosen,
        params["train"],
        objectives,
        folds=told["folds"],
        seed=params["seed"],
        champion=made_with,
    )
    # The same rows, folds, space and settings are the same search, which goes on; others are another one.
    space = told["space"][chosen]
    untouched = {name: value for name, value in params["train"][chosen].items() if name not in space}
    asked = [space, told["folds"], params["seed"], untouched, setting.problem.threshold]
    learnt_from = [setting.workspace.digest(f"data/{name}.parquet") for name in ("snapshot", "split")]
    name = f"{chosen} {' '.join(objectives)}: {digest([*learnt_from, *asked, champion.version if champion else None, stages_code()])}"
    journal = setting.settings.home / "tuned" / f"{setting.problem.name}.trials"
    count = trials or told["trials"]
    found = search(
        evaluate,
        space,
        objectives=len(objectives),
        trials=count,
        seed=params["seed"],
        name=name,
        journal=journal,
        earlier=trials_before(name, journal),
        first=[made_with[1] if made_with and made_with[0] == chosen else params["train"][chosen]],
        said=lambda trial: said(trial, count),
    )
    kept = setting.settings.tuned(setting.problem.name)
    earlier = yaml.safe_load(kept.read_text(encoding="utf-8"))["train"] if kept.is_file() else {}
    with drafted(kept) as draft:
        draft.write_text(yaml.safe_dump({"train": earlier | {chosen: found.best.params}}, sort_keys=False), encoding="utf-8")
    run_id = _track(setting, chosen, objectives, name, found)
    best = dict(zip(objectives, found.best.values, strict=True))
    return {
        "family": chosen,
        "trials": len(found.trials),
        "best": best,
        "params": found.best.params,
        "run_id": run_id,
        "front": len(found.front),
    }


def _champion(setting: Setting) -> Release | None:
    route = setting.store.route()
    return setting.release(route.champion) if route else None


def _made_with(champion: Release) -> tuple[str, dict[str, Any]]:
    """A release's family and the parameters that it was trained with, by its dvc.lock."""
    family = champion.facts["family"]
    return family, parameters(champion.facts["lock"], "train")["train"][family]


def _track(setting: Setting, family: str, objectives: list[str], name: str, found: Search) -> str:
    tracker = setting.tracker
    # A search that went on is another run: a tracker's parameters do not change.
    run_id = tracker.run(f"tuning: {family}", {"identity": digest([name, len(found.trials)]), "part": "tuning", "family": family})
    tracker.parameters(run_id, {"family": family, "objectives": ", ".join(objectives), "trials": len(found.trials)} | found.best.params)
    tracker.metrics(
        run_id, {f"best_{k}": v for k, v in zip(objectives, found.best.values, strict=True)} | {"front": float(len(found.front))}
    )
    front = {trial.number for trial in found.front}
    table = pd.DataFrame(
        [{"trial": t.number, **dict(zip(objectives, t.values, strict=True)), **t.params, "front": t.number in front} for t in found.trials]
    )
    tracker.texts(run_id, {"trials.csv": table.to_csv(index=False), "front.csv": table[table["front"]].to_csv(index=False)})
    pictures = {"history": figures.history([t.values[0] for t in found.trials], objectives[0])}
    if len(objectives) > 1:
        pictures["front"] = figures.front(table, objectives[0], objectives[1])
    tracker.figures(run_id, pictures)
    tracker.finish(run_id)
    return run_id
