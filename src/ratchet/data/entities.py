"""Which rows are of one and the same entity?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ratchet.contract import Contract


def newest(contract: Contract, rows: pd.DataFrame) -> np.ndarray:
    """Which of n rows in their order is the newest of its entity, shape (n,), bool; a row that names nobody stands for itself.

    Rows of one entity are alike: as many as there are of them would be taken for so much evidence. All rows where their entity is not told.
    """
    if contract.entity not in rows:
        return np.ones(len(rows), dtype=bool)
    return ~(rows[contract.entity].notna() & rows.duplicated(contract.entity, keep="last")).to_numpy(bool)


def newest_of_each(contract: Contract, rows: pd.DataFrame) -> pd.DataFrame:
    """The `newest` row of each entity."""
    return rows[newest(contract, rows)]


def coded(contract: Contract, rows: pd.DataFrame) -> dict[str, pd.Series]:
    """The column that tells entities apart without naming them: a number for each; nothing where their entity is not told."""
    if contract.entity not in rows:
        return {}
    codes = pd.Series(pd.factorize(rows[contract.entity])[0], index=rows.index, dtype="Int64")
    return {contract.entity: codes.mask(codes < 0)}
