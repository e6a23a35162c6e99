"""Does the live service hold what the problem asks of it under load? Locust's numbers, and the service's own, beside the version."""

from __future__ import annotations

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


def measure(setting: Setting, version: str, load: Load) -> LoadResult:
    """Put the live service under load; the reports lie in the version's folder until it is measured again."""
    return load_test.run(
        setting.settings.service_url, _records(setting), load, setting.settings.home / "load" / setting.problem.name / version
    )


def confirmed(setting: Setting, version: str, load: Load) -> list[LoadResult]:
    """`measure`, once more where no request failed but times were not held: a machine that stood still for a moment is no fault of a version.

    The last result counts.
    """
    first = measure(setting, version, load)
    if first.failures or not broken(load_test.verdict(first, setting.folder.slo)):
        return [first]
    return [first, measure(setting, version, load)]


def keep(setting: Setting, version: str, results: list[LoadResult]) -> None:
    """Keep the numbers of each measurement, and the reports of the last one, in the version's run."""
    run_id = next(item.run_id for item in setting.tracker.versions() if item.version == version)
    for result in results:
        setting.tracker.metrics(run_id, {f"load_{name}": value for name, value in result.as_dict().items()})
    last = results[-1]
    for report in (last.report, *sorted(last.report.parent.glob("load_*.csv"))):
        setting.tracker.file(run_id, report, "load")


def mark(setting: Setting, version: str, result: LoadResult, checks: list[Check]) -> None:
    """Tell numbers and verdicts beside the version: with that it is taken for tested, so this comes after all that follows from them."""
    tags = {f"load_{name}": f"{value:g}" for name, value in result.as_dict().items()}
    setting.tracker.annotate(version, tags | {check.name.replace(":", "_"): check.verdict for check in checks})


def untested(setting: Setting, version: str) -> bool:
    """Whether a version answers that has not been under load, and should: just now, or since a run that was cut short before it came to that."""
    route = setting.store.route()
    if setting.problem.load.seconds == 0 or route is None or route.champion != version:
        return False
    return not any(item.version == version and "load_requests" in item.tags for item in setting.tracker.versions())


def broken(checks: list[Check]) -> list[str]:
    """What of the SLO was not held, where that sets a version back."""
    return [f"{check.name}: {check.reason}" for check in checks if check.blocking and check.verdict == "fail"]


def measure_champion(setting: Setting, load: Load) -> tuple[str, LoadResult, list[Check]]:
    """Put the version that answers now under load, once, and keep what was found beside it. StackError where none answers."""
    version = setting.tracker.champion()
    if version is None or version not in {item.version for item in setting.tracker.versions()}:
        raise StackError(f"No version of {setting.problem.name!r} answers yet. Run `ratchet run {setting.problem.name}`.")
    result = measure(setting, version, load)
    keep(setting, version, [result])
    checks = load_test.verdict(result, setting.folder.slo)
    mark(setting, version, result, checks)
    return version, result, checks


def _records(setting: Setting) -> list[dict[str, object]]:
    """Real rows of the newest batch where there are any, else valid ones drawn from the contract."""
    path = setting.root / "data/accepted.parquet"
    if path.is_file():
        return records(pd.read_parquet(path).head(RECORDS), setting.contract)
    return draw(setting.contract, RECORDS, seed=0)
