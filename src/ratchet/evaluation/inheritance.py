"""Which errors did a generation inherit, introduce and fix?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ratchet.data.values import as_text

FATES = ("inherited", "introduced", "fixed", "right")


@dataclass(frozen=True)
class Inheritance:
    """The fate of each row's error between a parent and its child, and how often each occurs."""

    fates: pd.Series

    @property
    def counts(self) -> dict[str, int]:
        """Rows per fate: inherited (both wrong), introduced (child only), fixed (parent only), right (neither)."""
        return {fate: int((self.fates == fate).sum()) for fate in FATES}


def compare(rows: pd.Series, truth: np.ndarray, parent: np.ndarray, child: np.ndarray) -> Inheritance:
    """Follow errors example by example: `rows` are ids, the others 0 or 1 labels, all of shape (n,).

    >>> found = compare(pd.Series(["a", "b", "c"]), np.array([1, 1, 1]), np.array([0, 0, 1]), np.array([0, 1, 0]))
    >>> found.counts
    {'inherited': 1, 'introduced': 1, 'fixed': 1, 'right': 0}
    """
    was, now = parent != truth, child != truth
    fate = np.select([was & now, ~was & now, was & ~now], FATES[:3], default=FATES[3])
    return Inheritance(pd.Series(fate, index=pd.Index(rows, name="row"), name="fate"))


def by_group(found: Inheritance, groups: pd.Series) -> pd.DataFrame:
    """Fates per group: one row a group, one column a fate, then `negative_flip_rate` (introduced / rows)."""
    table = pd.crosstab(groups.map(as_text, na_action=None).to_numpy(), found.fates.to_numpy())
    table = table.reindex(columns=list(FATES), fill_value=0)
    table["negative_flip_rate"] = table["introduced"] / table[list(FATES)].sum(axis=1)
    return table
