"""Does the live service hold what the problem asks of it under load? Locust's numbers, and the service's own, beside the version."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from flows.setting import Setting
from load_tests import run as load_test
from load_tests.run import LoadResult
from ratchet.check import Check
from ratchet.errors import StackError
from ratchet.problem import Load
from ratchet.request import records
from ratchet.simulation.sample import draw

RECORDS = 500


def stress(setting: Setting, version: str, run_id: str, load: Load) -> tuple[LoadResult, list[Check]]:
    """Put the live service under load, and keep numbers, verdicts and reports in the version's run."""
    folder = setting.settings.home / "load" / setting.problem.name / version
    result = load_test.run(setting.settings.service_url, _records(setting), load, folder)
    checks = load_test.verdict(result, setting.folder.slo)
    setting.tracker.metrics(run_id, {f"load_{name}": value for name, value in result.as_dict().items()})
    for report in (result.report, *sorted(folder.glob("load_*.csv"))):
        setting.tracker.file(run_id, report, "load")
    tags = {f"load_{name}": f"{value:g}" for name, value in result.as_dict().items()}
    setting.tracker.annotate(version, tags | {check.name.replace(":", "_"): check.verdict for check in checks})
    return result, checks


def confirmed(setting: Setting, version: str, run_id: str, load: Load) -> tuple[LoadResult, list[Check], int]:
    """`stress`, once more where no request failed but times were not held: a machine that stood still for a moment is no fault of a version.

    The last result and its verdicts, and how many predictions were answered in all.
    """
    result, checks = stress(setting, version, run_id, load)
    if result.failures or not broken(checks):
        return result, checks, result.answered
    again, checks = stress(setting, version, run_id, load)
    return again, checks, result.answered + again.answered


def broken(checks: list[Check]) -> list[str]:
    """What of the SLO was not held, where that sets a version back."""
    return [f"{check.name}: {check.reason}" for check in checks if check.blocking and check.verdict == "fail"]


def champion(setting: Setting, load: Load) -> tuple[str, LoadResult, list[Check], Path]:
    """The same for the version that answers now; that version, and where the report lies. StackError where none does."""
    version = setting.tracker.champion()
    known = {item.version: item for item in setting.tracker.versions()}
    if version is None or version not in known:
        raise StackError(f"No version of {setting.problem.name!r} answers yet. Run `ratchet run {setting.problem.name}`.")
    result, checks = stress(setting, version, known[version].run_id, load)
    return version, result, checks, result.report


def _records(setting: Setting) -> list[dict[str, object]]:
    """Real rows of the newest batch where there are any, else valid ones drawn from the contract."""
    path = setting.root / "data/accepted.parquet"
    if path.is_file():
        return records(pd.read_parquet(path).head(RECORDS), setting.contract)
    return draw(setting.contract, RECORDS, seed=0)
