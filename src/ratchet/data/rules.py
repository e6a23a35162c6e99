"""Which rows keep a rule across columns?"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from ratchet.contract import Contract, Rule
from ratchet.errors import ContractError


def keeps(frame: pd.DataFrame, rule: Rule, contract: Contract) -> pd.Series:
    """Whether each of n rows keeps the rule, shape (n,). A rule about a value that is missing is not broken by it.

    ContractError where the expression cannot be evaluated.
    """
    words = set(re.findall(r"\w+", rule.expression))
    used = [column.name for column in contract.columns if column.name in words]
    try:
        holds = pd.Series(np.asarray(frame[used].infer_objects().eval(rule.expression), dtype=bool), index=frame.index)
    except (NameError, SyntaxError, TypeError, ValueError) as error:
        raise ContractError(f"contract {contract.name}: rule {rule.name!r} cannot be evaluated: {error}.") from error
    return holds | frame[used].isna().any(axis=1)
