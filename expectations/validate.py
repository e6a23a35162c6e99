"""Which rows keep the contract, and why not the others?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import great_expectations as gx
import numpy as np
import pandas as pd

from expectations.suite import build
from ratchet.contract import Contract
from ratchet.data.rules import keeps
from ratchet.errors import BatchError


@dataclass(frozen=True)
class Validated:
    """A batch divided: accepted + quarantined = received. `quarantined` has a column `reasons` beside the contract's."""

    accepted: pd.DataFrame
    quarantined: pd.DataFrame
    summary: dict[str, Any]


def validate(frame: pd.DataFrame, contract: Contract, origin: str) -> Validated:
    """Run the contract's suite over a conformed batch.

    BatchError where a batch rule is broken, or more than `max_invalid_share` of the rows break a row rule.
    """
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = gx.data_context.types.base.ProgressBarsConfig(globally=False)
    batch = (
        context.data_sources.add_pandas("pandas")
        .add_dataframe_asset("batch")
        .add_batch_definition_whole_dataframe("whole")
        .get_batch({"dataframe": _with_rules(frame, contract)})
    )
    result = batch.validate(build(contract), result_format={"result_format": "COMPLETE", "include_unexpected_rows": False})
    reasons: dict[int, list[str]] = {}
    columns: dict[int, str] = {}
    expectations: list[dict[str, Any]] = []
    for outcome in result.results:
        config = outcome.expectation_config
        meta = config.meta
        if outcome.exception_info.get("raised_exception"):
            raise BatchError(f"{origin}: {config.type} could not be evaluated: {outcome.exception_info['exception_message']}")
        bad = outcome.result.get("unexpected_index_list") or []
        expectations.append(
            {"expectation": config.type, "column": config.kwargs.get("column"), "success": bool(outcome.success), "rows": len(bad)}
        )
        if not meta.get("row") and not outcome.success:
            raise BatchError(f"{origin}: the batch is refused: {meta['reason']}.")
        for index in bad:
            reasons.setdefault(int(index), []).append(meta["reason"])
            columns.setdefault(int(index), meta["column"])
    wrong = np.zeros(len(frame), dtype=bool)
    wrong[list(reasons)] = True
    if wrong.mean() > contract.max_invalid_share:
        first = int(np.flatnonzero(wrong)[0])
        raise BatchError(
            f"{origin}: {wrong.sum()} of {len(frame)} rows break the contract ({wrong.mean():.0%}; at most "
            f"{contract.max_invalid_share:.0%} may). The first: row {first + 1}, column {columns[first]!r}: "
            f"{reasons[first][0]}. Nothing of the batch was kept."
        )
    quarantined = frame[wrong].assign(reasons=["; ".join(dict.fromkeys(reasons[i])) for i in np.flatnonzero(wrong)])
    by_reason = pd.Series([reason for row in reasons.values() for reason in dict.fromkeys(row)], dtype=object)
    summary = {
        "received": len(frame),
        "accepted": int((~wrong).sum()),
        "quarantined": int(wrong.sum()),
        "reasons": {str(reason): int(n) for reason, n in by_reason.value_counts().sort_index().items()},
        "expectations": expectations,
    }
    return Validated(frame[~wrong].reset_index(drop=True), quarantined.reset_index(drop=True), summary)


def _with_rules(frame: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    """The batch with one true-or-false column per cross-column rule and per whole-number promise."""
    extra = {}
    for column in contract.columns:
        if column.scale == "discrete" and column in contract.requested:
            values = frame[column.name]
            extra[f"{column.name}__whole"] = values.isna() | (values % 1 == 0)
    for rule in contract.rules:
        extra[f"{rule.name}__rule"] = keeps(frame, rule, contract)
    return frame.assign(**extra)
