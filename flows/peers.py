"""What do others say of the same rows? Evidently's default drift preset."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ratchet.contract import Contract


def evidently(contract: Contract, reference: pd.DataFrame, window: pd.DataFrame) -> tuple[bool, bool]:
    """What Evidently's default drift preset says: whether any column drifts, and whether half of them do, its alarm.

    Of a window without rows it says nothing.
    """
    if window.empty:
        return False, False
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    names = [column.name for column in contract.features]
    numbers = [column.name for column in contract.features if column.is_numeric and column.scale != "binary"]
    others = [name for name in names if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=others)
    old, new = (Dataset.from_pandas(frame[names].astype(dict.fromkeys(others, str)), definition) for frame in (reference, window))
    # It divides by zero where a column is constant, and warns of it.
    with np.errstate(divide="ignore", invalid="ignore"):
        told = Report([DataDriftPreset()]).run(new, old).dict()
    counted = next(metric["value"] for metric in told["metrics"] if metric["metric_name"].startswith("DriftedColumnsCount"))
    return bool(counted["count"] > 0), bool(counted["share"] >= 0.5)
