"""How long do the release tests take, against a champion, on real rows?"""

from __future__ import annotations

import json
import time
from pathlib import Path

from flows import ingest
from flows.compare import compare_with
from flows.lifecycle import make_release
from flows.setting import Setting
from flows.stages import STAGES
from ratchet.generation import Generation
from ratchet.problem import find_problem
from ratchet.release import Release
from ratchet.settings import settings
from snapshots.workspace import publish, run_stage

PROBLEM = "credit_card"
FIRST, ALL = 20000, 30000
FORMS = ("short", "full")


def release_suite(home: Path, source: str | None, seed: int) -> dict[str, dict[str, float]]:
    """Seconds of evaluate, examine and compare, by form, on 30,000 real rows against a champion made of the first 20,000.

    The stages are the loop's, in a workspace of their own under `home`; no server is asked. `source` is the file of the
    rows; OpenML's where it is None.
    """
    folder = find_problem(PROBLEM, settings().problems)
    rows = folder.open_source(source, seed)
    batches = [rows.first_batch(FIRST), rows.traffic(ALL - FIRST, drifted=False)]
    told: dict[str, dict[str, float]] = {}
    champion: Release | None = None
    for number, batch in enumerate(batches, 1):
        path = home / f"batch {number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        batch.to_parquet(path, index=False)
        for form in FORMS if number == len(batches) else FORMS[:1]:
            setting = Setting(folder, settings().model_copy(update={"home": home, "release_tests": form, "database_url": None}))
            if form == FORMS[0]:
                ingest.from_file(setting, path)
            told[form] = {name: _timed(setting, name) for name in setting.workspace.definition["stages"]}
            evaluation = json.loads((setting.root / "metrics/evaluation.json").read_text(encoding="utf-8"))
            begun = time.perf_counter()
            compare_with(setting, champion, evaluation["picked"])
            told[form]["compare"] = time.perf_counter() - begun
        publish(setting.workspace, path.stem)
        generation = Generation(PROBLEM, None, path.stem, "", "", "", "", "")
        champion = make_release.fn(setting, generation, str(number), evaluation)
    return {form: {name: parts[name] for name in ("evaluate", "examine", "compare")} for form, parts in told.items()}


def _timed(setting: Setting, stage: str) -> float:
    """Run a stage and record it; what is unchanged is run again for its time where it is one of the release tests."""
    begun = time.perf_counter()
    if not run_stage(setting.workspace, stage, lambda: STAGES[stage](setting.root)) and stage == "evaluate":
        STAGES[stage](setting.root)
    return time.perf_counter() - begun
