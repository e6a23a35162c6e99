"""Has the model seen what it is tested on?"""

from __future__ import annotations

import pandas as pd

from ratchet.check import Check, undecided
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Is every test row, and everybody whom it is about, unknown to the model?"


@registered("separation", "release")
def separation(problem: Problem, tested: pd.DataFrame, used: pd.DataFrame) -> Check:
    """Test rows whose id or entity occurs among the rows that a model was trained, tuned or selected on.

    Both frames have the columns `row` and `entity`. One row is too many.
    """
    n = len(tested)
    if n < problem.gate.min_rows:
        return undecided("separation", QUESTION, f"{n} test rows; {problem.gate.min_rows} are needed", n, limit=0.0)
    rows, entities = tested["row"].isin(set(used["row"])), tested["entity"].isin(set(used["entity"]))
    seen = int((rows | entities).sum())
    share = seen / n
    if seen:
        first = tested.loc[rows | entities, "row"].iloc[0]
        reason = f"{seen} of {n} test rows are known to the model, the first is {first!r}; split the data anew"
        return Check("separation", QUESTION, "fail", reason, share, share, share, 0.0, n, "share of test rows")
    reason = f"none of {n} test rows shares an id or an entity with the {len(used)} rows that were learnt from"
    return Check("separation", QUESTION, "pass", reason, 0.0, 0.0, 0.0, 0.0, n, "share of test rows")
