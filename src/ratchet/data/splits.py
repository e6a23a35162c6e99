"""Which side is a row on? The same one in every version, for every row of an entity."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ratchet.lot import lot

SIDES = ("train", "tune", "select", "test")
SHARES = {"train": 0.55, "tune": 0.15, "select": 0.10, "test": 0.20}


def side_of(entity: str) -> str:
    """The side of an entity, from a hash of its id alone.

    train: models are fitted; tune: early stopping and calibration; select: the family is picked; test: the gate.

    >>> side_of("customer-1"), side_of("customer-2")
    ('test', 'select')
    """
    point = lot(entity)
    reached = 0.0
    for side in SIDES:
        reached += SHARES[side]
        if point < reached:
            return side
    return SIDES[-1]


def split(entities: pd.Series) -> np.ndarray:
    """The side of each row, shape (n,), by its entity id. ValueError where an entity id is missing."""
    if entities.isna().any():
        raise ValueError(f"row {int(np.flatnonzero(entities.isna())[0]) + 1} has no entity id")
    return np.array([side_of(str(entity)) for entity in entities], dtype=object)
