"""Errors are followed example by example."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from ratchet.evaluation.inheritance import by_group, compare

bits = st.integers(0, 1)


@given(st.lists(st.tuples(bits, bits, bits), min_size=1))
def test_every_row_has_one_fate_and_the_books_balance(rows):
    truth, parent, child = (np.array(column) for column in zip(*rows, strict=True))
    counts = compare(pd.Series(range(len(rows))), truth, parent, child).counts
    assert sum(counts.values()) == len(rows)
    assert counts["inherited"] + counts["fixed"] == (parent != truth).sum()
    assert counts["inherited"] + counts["introduced"] == (child != truth).sum()


def test_negative_flips_by_group():
    found = compare(pd.Series(list("abcd")), np.zeros(4), np.array([0, 0, 1, 1]), np.array([1, 0, 1, 0]))
    table = by_group(found, pd.Series(["x", "x", "y", None]))
    assert table.loc["x", "negative_flip_rate"] == 0.5
    assert table.loc["y", "inherited"] == 1
    assert table.loc["missing", "fixed"] == 1
